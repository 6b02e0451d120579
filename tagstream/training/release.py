"""From trained parts to a model version that is measured, described and saved."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tagstream.core.taxonomy import Group, Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.targets import FloatArray
from tagstream.dataset.training_set import TrainingSet, title_hashes
from tagstream.dataset.variants import short_titles
from tagstream.evaluation.figures import Modalities, report, score_rows
from tagstream.model.fusion import Fusion
from tagstream.model.tagger import FusedTagger, ImageConfig, Members, Stored, TaggerConfig, TextConfig, save
from tagstream.model.version.format import Manifest
from tagstream.training.members import KeptPictures, Recipe

LIBRARIES = ("torch", "torchvision", "numpy", "safetensors")
_MODALITIES: dict[Modalities, set[str]] = {"both": {"text", "image"}, "text": {"text"}, "image": {"image"}}
#: What a card says of data that nobody described.
UNDESCRIBED = "Licences and limits are those of that data: nobody has described them here."


@dataclass(frozen=True)
class Trained:
    """A model's parts before they become a version.

    `held_out`: the fusion's scores and the targets of validation rows, each (rows, taxonomy.size).
    `is_retaught`: the text member has learned the validation rows too.
    """

    recipe: Recipe
    taxonomy: Taxonomy
    image_groups: tuple[str, ...]
    members: Members
    fusion: Fusion
    held_out: tuple[FloatArray, FloatArray]
    is_retaught: bool = False


def release(
    root: Path,
    data: TrainingSet,
    trained: Trained,
    created: datetime,
    code_revision: str | None = None,
    kept: KeptPictures | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Write `root/<model_version>` and return it with its metrics.

    `kept`: where the image member comes from, if not from this run.

    Raises:
        OSError: the folder is there already, or the recipe's `provenance` cannot be read.
    """
    model_version = f"fused-{created:%Y%m%d-%H%M}-{data.dataset_id()[:6]}"
    stored = stored_of(trained)
    metrics = _measure(stored, model_version, data, trained.recipe)
    facts = _facts(data, trained, kept) | {"model_version": model_version, "spec": metrics["spec_hash"]}
    titles = title_hashes(data.titles_trained_on)
    if kept is not None:
        titles = np.union1d(titles, kept.training_titles)
    folder = root / model_version
    save(
        folder,
        stored,
        Manifest(
            model_version=model_version,
            dataset_id=data.dataset_id(),
            parent=kept.model_version if kept else None,
            code_revision=code_revision,
            created=created.isoformat(),
        ),
        metrics=metrics,
        card=card(facts, metrics),
        evaluation_spec=data.spec.model_dump(mode="json"),
        training_titles=titles,
        validation_titles=title_hashes(data.products.validation),
    )
    return folder, metrics


def _facts(data: TrainingSet, trained: Trained, kept: KeptPictures | None) -> dict[str, Any]:
    """What the card says of the data and of the parts."""
    provenance = UNDESCRIBED
    if trained.recipe.provenance is not None:
        provenance = trained.recipe.provenance.read_text(encoding="utf-8")
    return {
        "values": trained.taxonomy.size,
        "groups": len(trained.taxonomy.groups),
        "listed": ", ".join(_with_langs(group) for group in trained.taxonomy.groups),
        "dataset_id": data.dataset_id(),
        "products": len(data.titles.train),
        "extra": len(data.extra),
        "zh": len(data.copies.train),
        "pictures": len(data.with_pictures) if trained.members.image_members else 0,
        "parts": " and ".join(_parts(trained.recipe)),
        "kept": f" The image member is the one of `{kept.model_version}`." if kept else "",
        "provenance": provenance.strip(),
        "left_out": data.left_out,
        "seed": trained.recipe.seed,
        "train": len(data.titles.train),
        "validation": len(data.titles.validation),
        "after_fusion": ", and for the text member once these were fitted" if trained.is_retaught else "",
        "test": len(data.titles.test),
    }


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
    text = members.text.cpu() if members.text else None
    image_members = members.image_members.cpu() if members.image_members else None
    members = replace(members, taxonomy=trained.taxonomy, text=text, image_members=image_members)
    return Stored(config, members, trained.fusion)


def write_training_report(
    into: Path, model_version: str, data: TrainingSet, trained: Trained, curves: Sequence[Mapping[str, Any]]
) -> Path:
    """The report on the test part, as HTML and PNG; returns the HTML file. `curves` as in `write_report`."""
    from tagstream.evaluation.report import write_report  # matplotlib, of the `train` extra

    tagger = FusedTagger(model_version, stored_of(trained), torch.device("cpu"))
    rows = data.products.test
    return write_report(
        into,
        curves,
        score_rows(tagger, rows)[0],
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


def _parts(recipe: Recipe) -> list[str]:
    """The members, in words."""
    text, image, joint = recipe.text, recipe.image, recipe.joint
    return [
        *([f"a text member ({text.tower.architecture})"] if text else []),
        *([f"an image member ({image.tower.architecture})"] if image else []),
        *([f"a joint member ({joint.kind})"] if joint else []),
    ]


def _with_langs(group: Group) -> str:
    return f"{group.name} ({', '.join(group.langs)})" if group.langs else group.name


def _measure(stored: Stored, model_version: str, data: TrainingSet, recipe: Recipe) -> dict[str, Any]:
    """Test figures through the serving path, and the training counts that class lists come from."""
    tagger = FusedTagger(model_version, stored, torch.device("cpu"))
    modalities = [name for name, there in _MODALITIES.items() if there <= set(stored.members.names)]
    test = {
        name: report(
            score_rows(tagger, data.titles.test, name)[0],
            data.titles.test,
            stored.members.taxonomy,
            data.spec.classes,
        ).to_json()
        for name in modalities
    }
    metrics: dict[str, Any] = {
        "spec_hash": data.spec.content_hash(),
        "seed": recipe.seed,
        "left_out_titles": data.left_out,
        "test": test,
        "training_counts": training_counts(data.titles_trained_on),
    }
    if copies := data.copies.test:
        short = short_titles(copies, data.short_titles, data.taxonomy, 1, recipe.seed + 2)
        short = [row for row in short if row.text.title]
        metrics["test_zh"] = {
            name: report(score_rows(tagger, rows, "text")[0], rows, stored.members.taxonomy, {}).to_json()
            for name, rows in (("copy", copies), ("short titles", short))
        }
    return metrics


def training_counts(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Group → value → rows, the most frequent first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for group, values in row.labels.items():
            counts[group].update(values)
    return {group: dict(counter.most_common()) for group, counter in counts.items()}


_CARD = """# {model_version}

A tagger for product events: {parts}, joined group by group by calibrated weights.
It scores {values} values in {groups} groups: {listed}.

## Data

Dataset `{dataset_id}`: {products} products, {extra} further labelled rows, {zh} long copies (text only);
{pictures} rows have a picture.{kept} {left_out} of the further rows were left out, because they share an
id or a normalised title with a validation or test row. Values with fewer than 10 training rows are not in
the taxonomy.

{provenance}

## Split

By near-duplicate group (normalised title or equal picture file), by hash with seed {seed}: {train} products
for training, {validation} for fusion, calibration and thresholds{after_fusion}. {test} are for the figures
below: nothing was ever trained or fitted on them. The evaluation spec is in `evaluation_spec.json`
(hash `{spec}`).

## Quality on the test part

{table}

The class list of a group has the values with at least 10 training products. Single-choice groups are judged
by their highest score, without abstention. One training run with seed {seed}: differences below a point are
noise.

{zh_table}

## Limits

- Text and picture of one event are believed to belong together; a contradiction is not reported.
"""


def card(facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The card as Markdown. `metrics` as in metrics.json; `facts` fill the named places of the text."""
    modalities = metrics["test"]
    lines = ["| group | " + " | ".join(f"{name}: accuracy / macro-F1 / ECE" for name in modalities) + " |"]
    lines.append("|---" * (len(modalities) + 1) + "|")
    singles = [group for group, of in next(iter(modalities.values()))["groups"].items() if "accuracy" in of]
    for group in singles:
        cells = [_cell(of["groups"][group], "") for of in modalities.values()]
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    if singles:
        lines.append("| **mean** | " + " | ".join(_cell(of, "mean_") for of in modalities.values()) + " |")
    return _CARD.format(**facts, table="\n".join(lines), zh_table=_zh_table(metrics.get("test_zh", {})))


def _cell(figures: Mapping[str, float], prefix: str) -> str:
    return " / ".join(f"{figures[prefix + name]:.3f}" for name in ("accuracy", "macro_f1", "ece"))


def _zh_table(parts: Mapping[str, Any]) -> str:
    if not parts:
        return ""
    lines = ["| group | " + " | ".join(parts) + " |", "|---" * (len(parts) + 1) + "|"]
    for group in next(iter(parts.values()))["groups"]:
        cells = []
        for of in parts.values():
            figures = of["groups"].get(group, {})
            kind = "micro_f1" if "micro_f1" in figures else "accuracy"
            cells.append(f"{kind} {figures.get(kind, float('nan')):.3f}")
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
