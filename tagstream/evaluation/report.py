"""A training report: one HTML file with everything in it, and its pictures as PNG files beside it.

    report.html  learning_curves.png  precision_recall.png  reliability.png  confusion.png  frequency.png

It needs matplotlib and jinja2, which come with the `train` extra.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.targets import FloatArray
from tagstream.evaluation import plots
from tagstream.evaluation.figures import (
    Counts,
    by_frequency,
    group_figures,
    judged_groups,
    means_of,
    value_figures,
)
from tagstream.evaluation.measures import Judged


def write_report(
    folder: Path,
    curves: Sequence[Mapping[str, Any]],
    scores: FloatArray,
    rows: Sequence[Row],
    taxonomy: Taxonomy,
    counts: Counts,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    title: str = "Training report",
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report on `rows` into `folder` and return its HTML file.

    `curves`: {"step" or "epoch", "loss", "macro_f1", …, "part"?} in order, empty for a model that was not
    trained here; `scores`: (rows, taxonomy.size); `counts`: training rows by group and value; `classes`: as
    for `evaluate.report`; `facts`: what stands under the title.

    Raises:
        ValueError: no row has a label of a group of the taxonomy.
    """
    judged = judged_groups(scores, rows, taxonomy, classes or {})
    if not judged:
        raise ValueError("nothing to report: no row has a label of a group of the taxonomy")
    values = {one.group.name: value_figures(one, counts.get(one.group.name, {})) for one in judged}
    parts = by_frequency(judged, counts)
    groups = {one.group.name: group_figures(one) | _pooled(one) for one in judged}
    worst = _worst(judged, groups)
    folder.mkdir(parents=True, exist_ok=True)
    names = plots.Names(taxonomy)
    with plots.drawing():
        figures = {
            "precision_recall": plots.precision_recall_curves(judged, names),
            "reliability": plots.reliability(judged, names),
            "frequency": plots.frequency(
                [value for of in values.values() for value in of.values() if value["f1"] is not None], parts
            ),
        }
        if curves:
            figures["learning_curves"] = plots.learning_curves(curves)
        if worst is not None:
            figures["confusion"] = plots.confusion(worst, names)
        pictures = {name: _embedded(folder / f"{name}.png", figure) for name, figure in figures.items()}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        files("tagstream.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    )
    page = template.render(
        title=title,
        facts=dict(facts or {}),
        rows=len(rows),
        groups=groups,
        means=means_of(groups),
        values=values,
        parts=parts,
        worst=worst.group.name if worst else None,
        pictures=pictures,
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _pooled(one: Judged) -> dict[str, float | None]:
    """Precision and recall of all tags of a group together."""
    hits, said = int((one.said & one.real).sum()), int(one.said.sum())
    real = int(one.real.sum() + one.foreign.sum())
    return {"precision": hits / said if said else None, "recall": hits / real if real else None}


def _worst(judged: Sequence[Judged], groups: Mapping[str, Mapping[str, float]]) -> Judged | None:
    """The single-choice group of the lowest macro-F1; a class list without a test row has none."""
    single = [one for one in judged if one.single and groups[one.group.name]["macro_f1"] >= 0]
    return min(single, key=lambda one: groups[one.group.name]["macro_f1"], default=None)


def _embedded(path: Path, figure: Figure) -> str:
    """The PNG, written to `path` and as a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    path.write_bytes(buffer.getvalue())
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
