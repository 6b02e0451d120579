"""`jobs/evaluate.py`: model versions, from a registry or from folders, on labelled rows from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from tagstream.adapters.registry import Registry
from tagstream.dataset.rows import read_products
from tagstream.dataset.split import EvaluationSpec
from tagstream.dataset.table import read_table
from tagstream.dataset.titles import read_titles
from tagstream.evaluation import tables
from tagstream.evaluation.comparison import Candidate, Comparison, compare
from tagstream.evaluation.spans import SpanComparison, compare_extractors
from tagstream.model.version.format import read_manifest, read_title_hashes
from tagstream.model.version.load import load, load_extractor


def run_evaluation(
    data: Path,
    models: Sequence[str],
    registry: Registry,
    slices: Sequence[str] = (),
    spec: Path | None = None,
    json_out: Path | None = None,
    report: Path | None = None,
) -> None:
    """Measure the models and print the tables; write JSON and HTML where they are asked for.

    `models`: "champion", versions in the registry, or folders; extractors' folders where `data` has titles
    with spans. `slices`: none means every one that the rows have.

    Raises:
        ValueError: data, spec or models are not what they should be, or there is nothing to measure.
        TagstreamError: a model cannot be fetched or is damaged.
    """
    found: Comparison | SpanComparison
    if data.suffix == ".jsonl" and data.is_file() and "entities" in read_table(data).columns:
        if slices or spec or report:
            raise ValueError("titles with spans have no slices, no spec and no report")
        found = _compare_extractors(data, models)
    else:
        candidates = [candidate(_folder(name, registry)) for name in models or ("champion",)]
        rows = read_products(data, taxonomy=candidates[0].tagger.taxonomy, unknown="keep")
        if not rows:
            raise ValueError(f"{data}: no rows")
        found = compare(candidates, rows, slices, _read_spec(spec) if spec else None)
    tables.show(found)
    if json_out is not None:
        # An undefined figure is NaN, which strict JSON lacks: null there.
        strict = json.loads(json.dumps(found.to_json()), parse_constant=lambda nan: None)
        text = json.dumps(strict, ensure_ascii=False, indent=1)
        json_out.write_text(text + "\n", encoding="utf-8")
    if report is not None and isinstance(found, Comparison):
        _write_report(report, found)


def candidate(folder: Path) -> Candidate:
    """The model version in a folder. Raises IncompatibleModel where it is none, or a damaged one."""
    titles = None
    if (folder / "training_groups.npy").is_file():
        titles = np.union1d(read_title_hashes(folder, "training"), read_title_hashes(folder, "validation"))
    name, tagger = read_manifest(folder).model_version, load(folder)
    counts = json.loads((folder / "metrics.json").read_bytes()).get("training_counts", {})
    return Candidate(name, tagger, counts, titles)


def _write_report(folder: Path, comparison: Comparison) -> None:
    """index.html with the tables, and a folder a model with the report on the first slice."""
    try:
        from tagstream.evaluation.report import write_report  # matplotlib and jinja2
    except ModuleNotFoundError as error:
        raise ValueError(f"--report needs the `train` extra: {error}") from error
    links = {}
    for one in comparison.first:
        name, tagger, counts = one.candidate.name, one.candidate.tagger, one.candidate.counts
        write_report(
            folder / name,
            [],
            one.scores,
            one.rows,
            tagger.taxonomy,
            counts,
            classes=comparison.classes,
            title=name,
            facts=comparison.facts,
        )
        links[f"the report on {name}"] = f"{name}/report.html"
    (folder / "index.html").write_text(tables.page(comparison, links), encoding="utf-8")


def _compare_extractors(data: Path, models: Sequence[str]) -> SpanComparison:
    if not models:
        raise ValueError(f"{data} has titles with spans: name an extractor's folder with --model")
    extractors = {Path(folder).name: load_extractor(Path(folder)) for folder in models}
    if len(extractors) < len(models):
        raise ValueError(f"two extractors have one name: {', '.join(models)}")
    return compare_extractors(extractors, read_titles(data))


def _folder(model: str, registry: Registry) -> Path:
    """Raises ValueError for a name that is neither a folder nor in the registry."""
    if model == "champion":
        return registry.fetch(registry.champion()[0])
    if Path(model).is_dir():
        return Path(model)
    known = registry.versions()
    if model not in known:
        raise ValueError(f"no model {model}: neither a folder nor in the registry: {', '.join(known)}")
    return registry.fetch(model)


def _read_spec(path: Path) -> EvaluationSpec:
    try:
        return EvaluationSpec.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is no evaluation spec: {error}") from error
