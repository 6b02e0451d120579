"""The pictures of a report, as matplotlib figures without a display.

A name that no installed font can draw is written in English, or failing that as its place: a value as #3, a
group likewise. The HTML beside the pictures has the names themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tagstream.core.taxonomy import Taxonomy
from tagstream.evaluation.figures import PartFigures, ValueFigures
from tagstream.evaluation.measures import Judged, bin_of, precision_recall

#: Fonts that know Han, where one is installed.
HAN_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "SimHei")
STYLE: dict[Any, Any] = {"text.parse_math": False, "axes.grid": True, "grid.alpha": 0.3, "figure.dpi": 100}
CONFUSED_MAX = 25
#: In a larger table there is no room for numbers.
WRITTEN_MAX = 12
#: More values than these would hide the curve of the whole group.
CURVES_MAX = 8


@cache
def font() -> tuple[str, frozenset[int]]:
    """The font to draw with, and the characters it has."""
    installed = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    name = next((name for name in HAN_FONTS if name in installed), "DejaVu Sans")
    return name, frozenset(font_manager.get_font(font_manager.findfont(name)).get_charmap())


def group_names(taxonomy: Taxonomy) -> dict[str, str]:
    """Group → what it is called in pictures."""
    return {
        group.name: _drawable((group.name, group.names.get("en", "")), f"group #{place}")
        for place, group in enumerate(taxonomy.groups)
    }


def value_name(one: Judged, place: int) -> str:
    """What a value is called in pictures: its name, its English one, or its place."""
    known = one.group.by_value.get(one.names[place])
    return _drawable((one.names[place], known.names.get("en", "") if known else ""), f"#{place}")


def _drawable(names: Sequence[str], otherwise: str) -> str:
    known = font()[1]
    return next((name for name in names if name and all(ord(one) in known for one in name)), otherwise)


def learning_curves(curves: Sequence[Mapping[str, Any]]) -> Figure:
    """One panel a figure over `step` or `epoch`; a line for each `part` that is trained apart."""
    at = "step" if any("step" in point for point in curves) else "epoch"
    numbers = [name for point in curves for name, of in point.items() if isinstance(of, int | float)]
    measures = [name for name in dict.fromkeys(numbers) if name not in ("step", "epoch")]
    figure, axes = _panels(measures, columns=3, xlabel=at)
    for axis, measure in zip(axes, measures, strict=True):
        for part in dict.fromkeys(str(point.get("part", "")) for point in curves):
            points = [
                (point.get(at, place), point[measure])
                for place, point in enumerate(curves)
                if str(point.get("part", "")) == part and point.get(measure) is not None
            ]
            if points:
                label = _drawable((part,), "part") if part else None
                axis.plot(*zip(*points, strict=True), marker=".", label=label)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    return figure


def precision_recall_curves(judged: Sequence[Judged], titles: Sequence[str]) -> Figure:
    """A panel a group: all its values pooled, and its most frequent values thin behind."""
    figure, axes = _panels(titles, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    for axis, one in zip(axes, judged, strict=True):
        truth = one.labels[:, : one.scores.shape[1]]
        frequent = np.argsort(-truth.sum(axis=0), kind="stable")[:CURVES_MAX]
        for at in (place for place in frequent if truth[:, place].any()):
            precision, recall = precision_recall(one.scores[:, at], truth[:, at])
            axis.plot(recall, precision, lw=0.8, alpha=0.7, label=value_name(one, at))
        precision, recall = precision_recall(one.scores.ravel(), truth.ravel())
        axis.plot(recall, precision, color="black", lw=1.8, label="all values")
        axis.legend(fontsize=6, loc="lower left")
    return figure


def reliability(judged: Sequence[Judged], titles: Sequence[str]) -> Figure:
    """A panel a group: the share of right answers over their confidence, dots as large as their bin."""
    figure, axes = _panels(titles, xlabel="confidence", ylabel="right", xlim=(0, 1.02), ylim=(0, 1.02))
    for axis, one in zip(axes, judged, strict=True):
        confidence, right = one.confidence.ravel(), one.right.ravel()
        bins = bin_of(confidence)
        some, rows = np.unique(bins, return_counts=True)
        sure, true = (np.bincount(bins, of)[some] / rows for of in (confidence, right))
        axis.plot([0, 1], [0, 1], color="grey", lw=0.8, ls="--")
        axis.plot(sure, true, lw=0.8)
        axis.scatter(sure, true, s=8 + 120 * np.sqrt(rows / rows.sum()), alpha=0.7)
    return figure


def confusion(one: Judged, title: str) -> Figure:
    """Rows by label and by answer of a single-choice group, its most frequent labels, each line to 1."""
    frequent = np.argsort(-one.labels.sum(axis=0), kind="stable")[:CONFUSED_MAX]
    frequent = frequent[one.labels[:, frequent].any(axis=0)]
    counts = one.labels[:, frequent].T.astype(float) @ one.answers[:, frequent]
    share = counts / one.labels[:, frequent].sum(axis=0)[:, None]
    side = 2.5 + 0.28 * len(frequent)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.add_subplot()
    drawn = axis.imshow(share, vmin=0, vmax=1, cmap="Blues")
    labels = [value_name(one, at) for at in frequent]
    axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
    axis.set(title=title, xlabel="answer", ylabel="label")
    axis.grid(visible=False)
    if len(labels) <= WRITTEN_MAX:
        for (line, column), one_share in np.ndenumerate(share):
            colour = "white" if one_share > 0.5 else "black"
            axis.text(column, line, f"{one_share:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(drawn, ax=axis, shrink=0.7)
    return figure


def frequency(values: Mapping[str, Mapping[str, ValueFigures]], parts: Mapping[str, PartFigures]) -> Figure:
    """F1 of each value over its training rows, and the mean of scarce, mid and head values."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    dots, bars = figure.subplots(1, 2, width_ratios=(2, 1))
    known = [value for of in values.values() for value in of.values() if value.f1 is not None]
    dots.scatter([max(1, of.training_rows) for of in known], [of.f1 for of in known], s=9, alpha=0.6)
    dots.set(xscale="log", xlabel="training rows of the value", ylabel="F1", ylim=(-0.03, 1.03))
    dots.xaxis.set_major_formatter("{x:g}")
    shown = {name: of for name, of in parts.items() if name != "rest" and of.macro_f1 is not None}
    if shown:
        drawn = bars.bar([*shown], [of.macro_f1 for of in shown.values()])
        bars.bar_label(drawn, [f"{of.macro_f1:.3f}\n{of.values} values" for of in shown.values()], fontsize=8)
    bars.set(ylabel="mean F1", ylim=(0, 1.2))
    return figure


def drawing() -> Any:
    """A context for making and saving the figures above."""
    return rc_context({**STYLE, "font.family": font()[0]})


def _panels(titles: Sequence[str], columns: int = 4, **settings: Any) -> tuple[Figure, list[Axes]]:
    """One panel a title. `settings`: of every panel, as in `Axes.set`."""
    lines, columns = -(-len(titles) // columns), min(len(titles), columns)
    figure = Figure(figsize=(3.1 * columns, 2.9 * lines), layout="constrained")
    places = enumerate(titles, start=1)
    return figure, [figure.add_subplot(lines, columns, at, title=of, **settings) for at, of in places]
