"""From trained parts to a model version that is measured, described and saved."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import torch

from tagstream.model import card
from tagstream.model.evaluate import Modalities, report, score_rows
from tagstream.model.rows import Row
from tagstream.model.shorten import short_titles
from tagstream.model.train import Recipe, Trained, TrainingSet, title_hashes
from tagstream.model.version import ImageConfig, ModelConfig, Parts, TextConfig, assemble, save

LIBRARIES = ("torch", "torchvision", "numpy", "safetensors")


def release(
    root: Path,
    data: TrainingSet,
    recipe: Recipe,
    trained: Trained,
    created: datetime,
    code_revision: str | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Write `root/<model_version>` and return it with its metrics."""
    model_version = f"fused-{created:%Y%m%d-%H%M}-{data.dataset_id()[:6]}"
    parts = Parts(
        config=ModelConfig(
            text=TextConfig(ngrams=recipe.ngrams, width=recipe.text.width),
            image=ImageConfig(
                width=recipe.frame.width, height=recipe.frame.height, groups=trained.image_groups
            ),
            library_versions={name: installed(name) for name in LIBRARIES},
        ),
        taxonomy=trained.taxonomy,
        text=trained.text.cpu(),
        image=trained.image.cpu(),
        fusion=trained.fusion,
    )
    metrics = _measure(parts, model_version, data, recipe)
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
        "left_out": data.left_out,
        "seed": recipe.seed,
        "train": len(data.products.train),
        "validation": len(data.products.validation),
        "test": len(data.products.test),
        "spec": metrics["spec_hash"],
    }
    folder = root / model_version
    save(
        folder,
        parts,
        model_version=model_version,
        dataset_id=data.dataset_id(),
        created=created.isoformat(),
        metrics=metrics,
        card=card.render(facts, metrics),
        evaluation_spec=data.spec.model_dump(mode="json"),
        training_titles=title_hashes(data.titles_trained_on),
        code_revision=code_revision,
    )
    return folder, metrics


def _listed(trained: Trained, lang: str) -> str:
    return ", ".join(g.name for g in trained.taxonomy.groups if g.applies_to(lang)) or "no group"


def _measure(parts: Parts, model_version: str, data: TrainingSet, recipe: Recipe) -> dict[str, Any]:
    """Test figures through the serving path, and the training counts that class lists come from."""
    tagger = assemble(parts, model_version, torch.device("cpu"))
    modalities: tuple[Modalities, ...] = ("both", "text", "image")
    test = {
        name: report(
            score_rows(tagger, data.products.test, name),
            data.products.test,
            parts.taxonomy,
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
            name: report(score_rows(tagger, rows, "text"), rows, parts.taxonomy, {})
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
