"""The HTML report: one file with everything in it, and its pictures as PNG files beside it.

    report.html  learning_curves.png  precision_recall.png  reliability.png  confusion.png  frequency.png

It needs matplotlib and jinja2, which come with the `train` extra.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.targets import FloatArray
from tagstream.evaluation import plots
from tagstream.evaluation.figures import (
    Classes,
    Counts,
    by_frequency,
    figures_of,
    judged_groups,
    values_of,
)
from tagstream.evaluation.measures import Judged


def write_report(
    folder: Path,
    curves: Sequence[Mapping[str, object]],
    scores: FloatArray,
    rows: Sequence[Row],
    taxonomy: Taxonomy,
    counts: Counts,
    *,
    classes: Classes | None = None,
    title: str = "Training report",
    facts: Mapping[str, object] | None = None,
) -> Path:
    """Write the report on `rows` into `folder` and return its HTML file.

    `curves`: {"step" or "epoch", "loss", "macro_f1", …, "part"?} in order, empty for a model that was not
    trained here; `scores`: (rows, taxonomy.size); `facts`: what is shown under the title.

    Raises:
        ValueError: no row has a label of a group of the taxonomy.
    """
    judged = judged_groups(scores, rows, taxonomy, classes or {})
    if not judged:
        raise ValueError("nothing to report: no row has a label of a group of the taxonomy")
    values, measured = values_of(judged, counts), figures_of(judged, len(rows))
    parts = by_frequency(values)
    f1 = {name: of.macro_f1 for name, of in measured.groups.items() if of.macro_f1 >= 0}  # not NaN
    single = [one for one in judged if one.single and one.group.name in f1]
    worst = min(single, key=lambda one: f1[one.group.name], default=None)
    folder.mkdir(parents=True, exist_ok=True)
    names = plots.group_names(taxonomy)
    titles = [names[one.group.name] for one in judged]
    with plots.drawing():
        figures = {
            "precision_recall": plots.precision_recall_curves(judged, titles),
            "reliability": plots.reliability(judged, titles),
            "frequency": plots.frequency(values, parts),
        }
        if curves:
            figures["learning_curves"] = plots.learning_curves(curves)
        if worst is not None:
            figures["confusion"] = plots.confusion(worst, names[worst.group.name])
        pictures = {name: _embedded(folder / f"{name}.png", figure) for name, figure in figures.items()}
    template = (files("tagstream.evaluation") / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    rendered = environment.from_string(template).render(
        title=title,
        facts=dict(facts or {}),
        rows=len(rows),
        groups=measured.groups,
        pooled={one.group.name: _pooled(one) for one in judged},
        means=measured,
        values=values,
        parts=parts,
        worst=worst.group.name if worst else None,
        pictures=pictures,
    )
    (folder / "report.html").write_text(rendered, encoding="utf-8")
    return folder / "report.html"


def _pooled(one: Judged) -> tuple[float | None, float | None]:
    """Precision and recall of all tags of a group together."""
    hits, given, true = int(one.hits.sum()), int(one.answers.sum()), int(one.labels.sum() + one.foreign.sum())
    return hits / given if given else None, hits / true if true else None


def _embedded(path: Path, figure: Figure) -> str:
    """The PNG, written to `path` and as a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    path.write_bytes(buffer.getvalue())
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
