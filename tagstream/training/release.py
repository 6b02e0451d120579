"""From trained parts to a model version that is measured, described and saved."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tagstream.dataset.rows import Row
from tagstream.dataset.shorten import short_titles
from tagstream.dataset.training_set import TrainingSet, title_hashes
from tagstream.evaluation.figures import Modalities, report, score_rows
from tagstream.model.tagger import ImageConfig, Stored, TaggerConfig, TextConfig, assemble, save
from tagstream.training import card
from tagstream.training.kept import KeptPictures
from tagstream.training.recipe import Recipe, Trained

LIBRARIES = ("torch", "torchvision", "numpy", "safetensors")


def release(
    root: Path,
    data: TrainingSet,
    trained: Trained,
    created: datetime,
    code_revision: str | None = None,
    provenance: str = card.UNDESCRIBED,
    kept: KeptPictures | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Write `root/<model_version>` and return it with its metrics.

    `provenance`: what the card says of the data's licences and limits, as Markdown. `kept`: where the picture
    member comes from, if not from this run.
    """
    model_version = f"fused-{created:%Y%m%d-%H%M}-{data.dataset_id()[:6]}"
    stored = stored_of(trained)
    metrics = _measure(stored, model_version, data, trained.recipe)
    facts = {
        "model_version": model_version,
        "values": trained.taxonomy.size,
        "groups": len(trained.taxonomy.groups),
        "english": _listed(trained, "en"),
        "chinese": _listed(trained, "zh"),
        "dataset_id": data.dataset_id(),
        "products": len(data.products.train),
        "extra": len(data.extra),
        "zh": len(data.zh.train),
        "pictures": len(data.with_pictures) if trained.members.image_members else 0,
        "parts": " and ".join(_parts(trained)),
        "kept": f" The image member is the one of `{kept.model_version}`." if kept else "",
        "provenance": provenance.strip(),
        "left_out": data.left_out,
        "seed": trained.recipe.seed,
        "train": len(data.products.train),
        "validation": len(data.products.validation),
        "after_fusion": ", and for the text member once these were fitted" if trained.is_retaught else "",
        "test": len(data.products.test),
        "spec": metrics["spec_hash"],
    }
    titles = title_hashes(data.titles_trained_on)
    if kept is not None:
        titles = np.union1d(titles, kept.training_titles)
    folder = root / model_version
    save(
        folder,
        stored,
        model_version=model_version,
        dataset_id=data.dataset_id(),
        created=created.isoformat(),
        metrics=metrics,
        card=card.render(facts, metrics),
        evaluation_spec=data.spec.model_dump(mode="json"),
        training_titles=titles,
        validation_titles=title_hashes([*data.products.validation, *data.zh.validation]),
        parent=kept.model_version if kept else None,
        code_revision=code_revision,
    )
    return folder, metrics


def stored_of(trained: Trained) -> Stored:
    """The parts of a model version, on the CPU."""
    recipe, members = trained.recipe, trained.members
    config = TaggerConfig(
        text=TextConfig(tower=recipe.text.tower) if recipe.text else None,
        image=ImageConfig(
            tower=recipe.image.tower,
            width=recipe.image.frame.width,
            height=recipe.image.frame.height,
            groups=trained.image_groups,
        )
        if recipe.image
        else None,
        joint=recipe.joint,
        library_versions={name: installed(name) for name in LIBRARIES},
    )
    return Stored(
        config=config,
        taxonomy=trained.taxonomy,
        text=members.text.cpu() if members.text else None,
        image_members=members.image_members.cpu() if members.image_members else None,
        fusion=trained.fusion,
    )


def write_training_report(
    into: Path, model_version: str, data: TrainingSet, trained: Trained, curves: Sequence[Mapping[str, Any]]
) -> Path:
    """The report on the test part, as HTML and PNG; returns the HTML file. `curves` as in `write_report`."""
    from tagstream.evaluation.report import write_report  # matplotlib, of the `train` extra

    tagger = assemble(stored_of(trained), model_version, torch.device("cpu"))
    rows = [*data.products.test, *data.zh.test]
    return write_report(
        into,
        curves,
        score_rows(tagger, rows),
        rows,
        trained.taxonomy,
        training_counts(data.titles_trained_on),
        classes=data.spec.classes,
        title=f"Training report: {model_version}",
        facts={
            "training rows": len(data.titles_trained_on),
            "test rows": len(rows),
            "seed": trained.recipe.seed,
        },
    )


_MODALITIES: dict[Modalities, set[str]] = {"both": {"text", "image"}, "text": {"text"}, "image": {"image"}}


def trained_members(stored: Stored) -> tuple[str, ...]:
    return tuple(
        name
        for name, member in (("text", stored.text), ("image", stored.image_members))
        if member is not None
    )


def _parts(trained: Trained) -> list[str]:
    """The members, in words."""
    recipe, said = trained.recipe, []
    if recipe.text is not None:
        said.append(f"a text member ({recipe.text.tower.architecture})")
    if recipe.image is not None:
        said.append(f"a image member ({recipe.image.tower.architecture})")
    if recipe.joint is not None:
        said.append(f"a joint member ({recipe.joint.kind})")
    return said


def _listed(trained: Trained, lang: str) -> str:
    return ", ".join(g.name for g in trained.taxonomy.groups if g.applies_to(lang)) or "no group"


def _measure(stored: Stored, model_version: str, data: TrainingSet, recipe: Recipe) -> dict[str, Any]:
    """Test figures through the serving path, and the training counts that class lists come from."""
    tagger = assemble(stored, model_version, torch.device("cpu"))
    modalities = [name for name, there in _MODALITIES.items() if there <= set(trained_members(stored))]
    test = {
        name: report(
            score_rows(tagger, data.products.test, name),
            data.products.test,
            stored.taxonomy,
            data.spec.classes,
        )
        for name in modalities
    }
    metrics: dict[str, Any] = {
        "spec_hash": data.spec.content_hash(),
        "seed": recipe.seed,
        "left_out_titles": data.left_out,
        "test": test,
        "training_counts": training_counts(data.titles_trained_on),
    }
    if data.zh.test:
        short = [row for row in short_titles(data.zh.test, 1, recipe.seed + 2) if row.text.title]
        metrics["test_zh"] = {
            name: report(score_rows(tagger, rows, "text"), rows, stored.taxonomy, {})
            for name, rows in (("copy", data.zh.test), ("short titles", short))
        }
    return metrics


def training_counts(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Group → value → rows, the most frequent first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for group, values in row.labels.items():
            counts[group].update(values)
    return {group: dict(counter.most_common()) for group, counter in counts.items()}
