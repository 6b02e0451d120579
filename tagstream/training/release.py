"""From trained parts to a model version that is measured, described and saved."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tagstream.core.taxonomy import Taxonomy
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
        card=card(model_version, data, trained, kept, metrics),
        evaluation_spec=data.spec.model_dump(mode="json"),
        training_titles=titles,
        validation_titles=title_hashes(data.products.validation),
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


def _measure(stored: Stored, model_version: str, data: TrainingSet, recipe: Recipe) -> dict[str, Any]:
    """Test figures through the serving path, and the training counts that class lists come from."""
    tagger = FusedTagger(model_version, stored, torch.device("cpu"))
    modalities = [name for name, there in _MODALITIES.items() if there <= set(stored.members.names)]
    rows, taxonomy = data.titles.test, stored.members.taxonomy
    test = {
        name: report(score_rows(tagger, rows, name)[0], rows, taxonomy, data.spec.classes).to_json()
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
            name: report(score_rows(tagger, rows, "text")[0], rows, taxonomy, {}).to_json()
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


def card(
    model_version: str,
    data: TrainingSet,
    trained: Trained,
    kept: KeptPictures | None,
    metrics: Mapping[str, Any],
) -> str:
    """The card as Markdown. `metrics`: as in metrics.json."""
    recipe, taxonomy, titles = trained.recipe, trained.taxonomy, data.titles
    members = {"a text": recipe.text, "an image": recipe.image}
    parts = [f"{name} member ({of.tower.architecture})" for name, of in members.items() if of is not None]
    if recipe.joint is not None:
        parts.append(f"a joint member ({recipe.joint.kind})")
    groups = [f"{of.name} ({', '.join(of.langs)})" if of.langs else of.name for of in taxonomy.groups]
    kept_from = f" The image member is the one of `{kept.model_version}`." if kept else ""
    provenance = recipe.provenance.read_text(encoding="utf-8") if recipe.provenance else UNDESCRIBED
    after_fusion = ", and for the text member once these were fitted" if trained.is_retaught else ""
    return f"""# {model_version}

A tagger for product events: {" and ".join(parts)}, joined group by group by calibrated weights.
It scores {taxonomy.size} values in {len(groups)} groups: {", ".join(groups)}.

## Data

Dataset `{data.dataset_id()}`: {len(titles.train)} products, {len(data.extra)} further labelled rows,
{len(data.copies.train)} long copies (text only);
{len(data.with_pictures) if recipe.image else 0} rows have a picture.{kept_from}
{data.left_out} of the further rows were left out, because they share an id or a normalised title with a
validation or test row. Values with fewer than 10 training rows are not in the taxonomy.

{provenance.strip()}

## Split

By near-duplicate group (normalised title or equal picture file), by hash with seed {recipe.seed}:
{len(titles.train)} products for training,
{len(titles.validation)} for fusion, calibration and thresholds{after_fusion}.
{len(titles.test)} are for the figures below: nothing was ever trained or fitted on them.
The evaluation spec is in `evaluation_spec.json` (hash `{metrics["spec_hash"]}`).

## Quality on the test part

{_table(metrics["test"])}

The class list of a group has the values with at least 10 training products. Single-choice groups are judged
by their highest score, without abstention. One training run with seed {recipe.seed}: differences below a
point are noise.

{_zh_table(metrics.get("test_zh", {}))}

## Limits

- Text and picture of one event are believed to belong together; a contradiction is not reported.
"""


def _table(modalities: Mapping[str, Any]) -> str:
    first = next(iter(modalities.values()))["groups"]
    lines = [["group", *(f"{name}: accuracy / macro-F1 / ECE" for name in modalities)]]
    singles = [group for group, of in first.items() if "accuracy" in of]
    lines += [[group, *(_cell(of["groups"][group], "") for of in modalities.values())] for group in singles]
    if singles:
        lines.append(["**mean**", *(_cell(of, "mean_") for of in modalities.values())])
    return _markdown(lines)


def _cell(figures: Mapping[str, float], prefix: str) -> str:
    return " / ".join(f"{figures[prefix + name]:.3f}" for name in ("accuracy", "macro_f1", "ece"))


def _zh_table(parts: Mapping[str, Any]) -> str:
    if not parts:
        return ""
    lines = [["group", *parts]]
    for group in next(iter(parts.values()))["groups"]:
        found = [of["groups"].get(group, {}) for of in parts.values()]
        kinds = ["micro_f1" if "micro_f1" in of else "accuracy" for of in found]
        cells = [f"{kind} {of.get(kind, math.nan):.3f}" for kind, of in zip(kinds, found, strict=True)]
        lines.append([group, *cells])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line is its head."""
    head, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([head, "|---" * len(lines[0]) + "|", *rest])
