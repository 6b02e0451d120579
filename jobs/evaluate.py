"""Measure a model version on labelled products.

    python jobs/evaluate.py --model champion --data DIR --modalities image --json report.json

DIR has products.csv (columns id, title, image and one a group) or items.jsonl (Chinese copy). Groups are
matched to columns by name. Without --spec the class list comes from the model's own training counts. The
highest score of a group is its answer: no abstention.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.evaluate import report, score_rows
from tagstream.model.masking import LabelWords
from tagstream.model.rows import Row, read_products, read_zh
from tagstream.model.split import CLASS_MIN_ROWS, EvaluationSpec, normalised_title
from tagstream.model.train import title_hash
from tagstream.model.version import load, read_manifest


class Modality(StrEnum):
    BOTH = "both"
    TEXT = "text"
    IMAGE = "image"


def main(
    data: Annotated[Path, typer.Option(help="folder with products.csv or items.jsonl, or such a file")],
    model: Annotated[str, typer.Option(help="a model version's folder, or `champion`")] = "champion",
    registry: Annotated[
        str, typer.Option(envvar="TAGSTREAM_REGISTRY_URI", help="whose champion is meant")
    ] = str(BUNDLED),
    modalities: Annotated[Modality, typer.Option(help="hide the picture or the text")] = Modality.BOTH,
    mask_label_words: Annotated[bool, typer.Option(help="hide the words that name labels")] = False,
    spec: Annotated[Path | None, typer.Option(help="evaluation spec: its test ids and class lists")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="write the report here")] = None,
) -> None:
    """Measure a model version on labelled products."""
    folder = _folder(model, Registry(registry))
    tagger = load(folder)
    rows = _rows(data)
    classes = _own_classes(folder)
    of_spec = None
    if spec is not None:
        of_spec = EvaluationSpec.model_validate_json(spec.read_bytes())
        wanted = set(of_spec.test_ids)
        rows, classes = [row for row in rows if row.product_id in wanted], dict(of_spec.classes)
    words = _label_words(tagger.taxonomy, rows) if mask_label_words else None
    scores = score_rows(tagger, rows, modalities.value, words)
    result: dict[str, Any] = {
        "model_version": read_manifest(folder).model_version,
        "modalities": modalities.value,
        "masked": mask_label_words,
        "mask_hash": words.content_hash() if words else None,
        "spec_hash": of_spec.content_hash() if of_spec else None,
        "abstention": "none: the highest score of a single-choice group is its answer",
        "rows_with_a_title_trained_on": _trained_on(folder, rows),
        **report(scores, rows, tagger.taxonomy, classes),
    }
    _show(result)
    if json_out is not None:
        json_out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _folder(model: str, registry: Registry) -> Path:
    return registry.fetch(registry.champion()[0]) if model == "champion" else Path(model)


def _rows(source: Path) -> list[Row]:
    if source.is_dir() and not (source / "products.csv").is_file():
        source = source / "items.jsonl"
    return read_zh(source) if source.suffix == ".jsonl" else read_products(source)


def _own_classes(folder: Path) -> dict[str, tuple[str, ...]]:
    counts = json.loads((folder / "metrics.json").read_bytes())["training_counts"]
    return {
        group: tuple(value for value, rows in of.items() if rows >= CLASS_MIN_ROWS)
        for group, of in counts.items()
    }


def _label_words(taxonomy: Taxonomy, rows: list[Row]) -> LabelWords:
    labelled = {group for row in rows for group in row.labels}
    groups = [group for group in taxonomy.groups if group.name in labelled]
    named = {value.value for group in groups for value in group.values}
    named |= {value for row in rows for group in groups for value in row.labels.get(group.name, ())}
    return LabelWords(named)


def _trained_on(folder: Path, rows: list[Row]) -> int:
    """Rows whose normalised title is among those that the model was trained on: figures over them flatter."""
    hashes = np.load(folder / "training_groups.npy", allow_pickle=False)
    titles = [normalised_title(row.text.title) for row in rows]
    return int(np.isin([title_hash(title) for title in titles if title], hashes).sum())


def _show(result: dict[str, Any]) -> None:
    print(f"{result['model_version']} on {result['rows']} rows, {result['modalities']}")
    for name, figures in result["groups"].items():
        shown = "  ".join(f"{key} {value:.4f}" for key, value in figures.items() if key != "rows")
        print(f"  {name:<16} {figures['rows']:>6} rows  {shown}")
    if result["mean_accuracy"] is None:
        print("  no single-choice group of the taxonomy is labelled here")
    else:
        print(f"  mean accuracy {result['mean_accuracy']:.4f}  mean macro-F1 {result['mean_macro_f1']:.4f}")


if __name__ == "__main__":
    typer.run(main)
