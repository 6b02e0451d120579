"""Measure model versions on labelled products, side by side.

    python jobs/evaluate.py --data DIR --model champion [--model FOLDER …] [--json FILE] [--report DIR]

DIR has a products file (products.csv: columns id, title, image and one a group) or items.jsonl (Chinese
copy). Groups are matched to columns by name. Every slice that the data has is measured: both, text, image,
and with the words that name labels hidden (masked-both, masked-text); each language on its own where there
are several. Without --spec the class list comes from the first model's own training counts. The highest
score of a group is its answer: no abstention. The JSON has the first model's first slice at its top, and
everything in `models` and `differences`. A .jsonl file of titles with `entities` measures extractors: exact
span F1; each --model is an extractor's folder then.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import ValidationError
from rich.console import Console

from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.errors import TagstreamError
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.columns import Columns, columns_of
from tagstream.dataset.rows import Row, read_products, read_zh
from tagstream.dataset.split import CLASS_MIN_ROWS, EvaluationSpec, normalised_title
from tagstream.dataset.table import open_text
from tagstream.dataset.titles import read_titles
from tagstream.dataset.training_set import title_hash
from tagstream.evaluation.comparison import SLICES, Candidate, EmptySlice, Measured, difference, measure_slice
from tagstream.evaluation.spans import compare_extractors
from tagstream.evaluation.tables import TABLE_WIDTH, show, show_spans
from tagstream.model.version.format import read_manifest, read_title_hashes
from tagstream.model.version.load import load, load_extractor
from tagstream.text.masking import label_words

COPIES = "items.jsonl"
Named = StrEnum("Named", {name: name for name in SLICES})  # type: ignore[misc]


class Modality(StrEnum):
    BOTH = "both"
    TEXT = "text"
    IMAGE = "image"


def main(
    data: Annotated[Path, typer.Option(help="folder with a products file or items.jsonl, or such a file")],
    model: Annotated[
        list[str] | None, typer.Option(help="`champion`, a version in the registry, or a folder; repeat it")
    ] = None,
    registry: Annotated[
        str, typer.Option(envvar="TAGSTREAM_REGISTRY_URI", help="whose champion and versions are meant")
    ] = str(BUNDLED),
    slices: Annotated[list[Named] | None, typer.Option(help="only this slice; repeat it")] = None,
    modalities: Annotated[Modality | None, typer.Option(help="only this slice, as --slices")] = None,
    mask_label_words: Annotated[bool, typer.Option(help="… with the words that name labels hidden")] = False,
    spec: Annotated[Path | None, typer.Option(help="evaluation spec: its test ids and class lists")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
    report: Annotated[Path | None, typer.Option(help="write HTML and PNG into this folder")] = None,
    id: Annotated[str | None, typer.Option(help="column of the ids; found by its name by default")] = None,
    title: Annotated[str | None, typer.Option(help="column of the titles; `none`: there is none")] = None,
    description: Annotated[str | None, typer.Option(help="column of the descriptions, or `none`")] = None,
    brand: Annotated[str | None, typer.Option(help="column of the brands, or `none`")] = None,
    image: Annotated[str | None, typer.Option(help="column of the pictures' paths, or `none`")] = None,
    separators: Annotated[str, typer.Option(help="between several values in a cell")] = "|;",
) -> None:
    """Measure model versions on labelled products, side by side."""
    columns = columns_of(id, title, description, brand, image, separators=separators)
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    try:
        if _first_line(data).keys() >= {"text", "entities"}:
            if slices or modalities or mask_label_words or spec or report:
                raise ValueError("titles with spans have no slices, no spec and no report")
            spans = evaluate_extractors(data, model or [])
            show_spans(spans, console)
            if json_out is not None:
                _write_json(json_out, spans)
            return
        wanted = [str(name) for name in slices or ()]
        if modalities or mask_label_words:
            wanted.append(_slice_named(modalities or Modality.BOTH, mask_label_words))
        result, measured, classes = evaluate(
            data, model or ["champion"], Registry(registry), wanted, spec, columns
        )
        show(result, console)
        if json_out is not None:
            _write_json(json_out, result)
        if report is not None:
            write_reports(report, result, measured, classes)
    except (TagstreamError, ValueError, OSError) as error:
        typer.echo(f"evaluate: {error}", err=True)
        raise typer.Exit(2) from error


def evaluate(
    data: Path,
    models: list[str],
    registry: Registry,
    wanted: list[str],
    spec_file: Path | None,
    columns: Columns | None = None,
) -> tuple[dict[str, Any], list[Measured], Mapping[str, Sequence[str]]]:
    """The figures as JSON, every model on the first slice, and the class lists.

    `wanted`: the slices, empty for every one that the data has.

    Raises:
        ValueError: the data or the spec are not what they should be, or a slice that is wanted is empty.
        TagstreamError: a model cannot be had or is damaged.
    """
    folders = [_folder(name, registry) for name in models]
    candidates = [_candidate(folder) for folder in folders]
    names = [one.name for one in candidates]
    if len(set(names)) < len(names):
        raise ValueError(f"a model version is named twice: {', '.join(names)}")
    rows = _rows(data, candidates[0].tagger.taxonomy, columns)
    words = label_words([one.tagger.taxonomy for one in candidates], [row.labels for row in rows])
    spec = _spec(spec_file) if spec_file else None
    if spec is None:
        classes = {
            group: tuple(value for value, count in of.items() if count >= CLASS_MIN_ROWS)
            for group, of in candidates[0].counts.items()
        }
    else:
        ids, classes = set(spec.test_ids), dict(spec.classes)
        rows = [row for row in rows if row.product_id in ids]
        if not rows:
            raise ValueError(f"{data}: none of the {len(ids)} test ids of {spec_file} is in it")
    measured: dict[str, list[Measured]] = {}
    left_out = {}
    for name in wanted or SLICES:
        try:
            measured[name] = measure_slice(name, candidates, rows, classes, words)
        except EmptySlice as error:
            if wanted:
                raise
            left_out[name] = str(error)
    if not measured:
        raise EmptySlice(next(iter(left_out.values())))
    of_models = [
        {
            "model_version": one.name,
            "rows_with_a_title_trained_on": trained_on(folder, rows),
            "slices": {name: of[place].figures for name, of in measured.items()},
        }
        for place, (one, folder) in enumerate(zip(candidates, folders, strict=True))
    ]
    first = next(iter(measured))
    result = {
        "model_version": candidates[0].name,
        "modalities": SLICES[first].modalities,
        "masked": SLICES[first].masked,
        "mask_hash": words.content_hash(),
        "spec_hash": spec.content_hash() if spec else None,
        "abstention": "none: the highest score of a single-choice group is its answer",
        "rows_with_a_title_trained_on": of_models[0]["rows_with_a_title_trained_on"],
        **measured[first][0].figures,
        "slices_left_out": left_out,
        "models": of_models,
        "differences": [
            {"model": of[place].candidate.name, "minus": of[0].candidate.name, "slice": name}
            | difference(of[place], of[0])
            for name, of in measured.items()
            for place in range(1, len(candidates))
        ],
    }
    return result, measured[first], classes


def evaluate_extractors(data: Path, models: Sequence[str]) -> dict[str, Any]:
    """Raises ValueError without a model, TagstreamError for a folder that is no extractor."""
    if not models:
        raise ValueError(f"{data} has titles with spans: name an extractor's folder with --model")
    extractors = {Path(folder).name: load_extractor(Path(folder)) for folder in models}
    if len(extractors) < len(models):
        raise ValueError(f"two extractors have one name: {', '.join(models)}")
    return compare_extractors(extractors, read_titles(data))


def _slice_named(modalities: Modality, masked: bool) -> str:
    for name, of in SLICES.items():
        if of == (modalities.value, masked):
            return name
    raise ValueError(
        f"--mask-label-words hides words: it goes with both or text, not with {modalities.value}"
    )


def _folder(model: str, registry: Registry) -> Path:
    """Raises ValueError for a name that is neither a folder nor in the registry."""
    if model == "champion":
        return registry.fetch(registry.champion()[0])
    if Path(model).is_dir():
        return Path(model)
    known = registry.versions()
    if model not in known:
        raise ValueError(
            f"no model {model}: neither a folder nor in the registry, which has {', '.join(known)}"
        )
    return registry.fetch(model)


def _candidate(folder: Path) -> Candidate:
    """Raises IncompatibleModel for a folder that is no model version or a damaged one."""
    model_version = read_manifest(folder).model_version
    tagger = load(folder)
    counts = json.loads((folder / "metrics.json").read_bytes()).get("training_counts", {})
    return Candidate(model_version, tagger, counts)


def _rows(source: Path, taxonomy: Taxonomy, columns: Columns | None) -> list[Row]:
    """Labels outside the taxonomy stay, as tags that no answer can match."""
    copies = source / COPIES if source.is_dir() else source
    if _holds_copies(copies):
        try:
            rows = read_zh(copies)
        except KeyError as error:
            raise ValueError(f"{copies}: a line has no {error}") from error
        except (AttributeError, TypeError) as error:
            raise ValueError(f"{copies}: a line is no labelled copy: {error}") from error
    else:
        rows = read_products(source, columns=columns, taxonomy=taxonomy, unknown="keep")
    if not rows:
        raise ValueError(f"{source}: no rows")
    return rows


def _holds_copies(path: Path) -> bool:
    """Are these lines {"id", "text", "tags"}, not products?"""
    return path.is_file() and (path.name == COPIES or _first_line(path).keys() >= {"text", "tags"})


def _first_line(path: Path) -> dict[str, Any]:
    """The first object of a .jsonl file; empty for anything else. Raises ValueError if it is not JSON."""
    if path.suffix != ".jsonl" or not path.is_file():
        return {}
    with open_text(path) as file:
        try:
            first = json.loads(next((line for line in file if line.strip()), "{}"))
        except ValueError as error:
            raise ValueError(f"{path}: the first line is not JSON: {error}") from error
    return first if isinstance(first, dict) else {}


def _spec(path: Path) -> EvaluationSpec:
    try:
        return EvaluationSpec.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is no evaluation spec: {error}") from error


def trained_on(folder: Path, rows: list[Row]) -> int | None:
    """Rows whose normalised title is among those that the model was trained or fitted on: figures over them
    flatter.

    None for a model that does not say what it was trained on.
    """
    if not (folder / "training_groups.npy").is_file():
        return None
    hashes = np.union1d(read_title_hashes(folder, "training"), read_title_hashes(folder, "validation"))
    titles = [normalised_title(row.text.title) for row in rows]
    return int(np.isin([title_hash(title) for title in titles if title], hashes).sum())


def _write_json(path: Path, figures: dict[str, Any]) -> None:
    path.write_text(json.dumps(_plain(figures), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _plain(figures: Any) -> Any:
    """JSON knows no NaN: a figure that is not defined is null."""
    if isinstance(figures, dict):
        return {name: _plain(of) for name, of in figures.items()}
    if isinstance(figures, list | tuple):
        return [_plain(of) for of in figures]
    return None if isinstance(figures, float) and math.isnan(figures) else figures


def write_reports(
    folder: Path, result: dict[str, Any], measured: list[Measured], classes: Mapping[str, Sequence[str]]
) -> None:
    """index.html with the tables, and a folder a model with the report on the first slice."""
    try:
        from tagstream.evaluation.report import write_report
    except ModuleNotFoundError as error:
        raise ValueError(f"--report needs the `train` extra: {error}") from error

    folder.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, file=io.StringIO(), width=TABLE_WIDTH)
    show(result, console)
    for one in measured:
        write_report(
            folder / one.candidate.name,
            [],
            one.scores,
            one.rows,
            one.candidate.tagger.taxonomy,
            one.candidate.counts,
            classes=classes,
            title=one.candidate.name,
            facts={name: result[name] for name in ("modalities", "masked", "mask_hash", "spec_hash")},
        )
        name = one.candidate.name
        console.print(f"[link={name}/report.html]the report on {name}[/link]")
    (folder / "index.html").write_text(console.export_html(), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
