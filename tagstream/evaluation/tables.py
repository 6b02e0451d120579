"""A comparison as tables, on the console or in an HTML page. Models are named by letters."""

from __future__ import annotations

import io
import math
import string
import sys
from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from tagstream.evaluation.comparison import Comparison, Difference, Gap
from tagstream.evaluation.measures import Interval
from tagstream.evaluation.slices import Measured, SliceFigures
from tagstream.evaluation.spans import SpanComparison

#: Where the output is no terminal.
TABLE_WIDTH = 140
#: Column → figure of a group.
_OF_GROUPS = {
    "accuracy": "accuracy",
    "macro-F1": "macro_f1",
    "micro-F1": "micro_f1",
    "… of listed labels": "micro_f1_listed",
    "ECE": "ece",
    "above chance": "ece_excess",
    "coverage at .9 precision": "coverage_at_90",
}


def show(found: Comparison | SpanComparison) -> None:
    """Print the tables."""
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    if isinstance(found, SpanComparison):
        _print_spans(found, console)
    else:
        _print(found, console)


def page(comparison: Comparison, links: Mapping[str, str]) -> str:
    """The same tables as HTML, and under them `links`: text → address."""
    console = Console(record=True, file=io.StringIO(), width=TABLE_WIDTH)
    _print(comparison, console)
    for text, address in links.items():
        console.print(f"[link={address}]{text}[/link]")
    return console.export_html()


def _print(comparison: Comparison, console: Console) -> None:
    """The means of every slice and model, the differences, and the groups of every slice."""
    for letter, one, known in zip(
        string.ascii_uppercase, comparison.candidates, comparison.trained_on, strict=False
    ):
        console.print(f"{letter} = {one.name}")
        if known:
            console.print(f"    trained on {known} of these titles: figures flatter")
    console.print(_means_table(comparison))
    if comparison.differences:
        console.print(_differences_table(comparison))
    for name, measured in comparison.slices.items():
        console.print(_groups_table(name, measured))
    for name, why in comparison.left_out.items():
        console.print(f"{name} left out: {why}")


def _print_spans(found: SpanComparison, console: Console) -> None:
    """Exact span F1 of every extractor and group, and the differences."""
    columns = ["model", "group", "spans", "precision", "recall", "F1", "95 % interval"]
    table = Table(*columns, box=SIMPLE, title=f"exact span F1 on {found.titles} titles")
    for model, groups in found.models.items():
        for group, of in groups.items():
            figures = map(_shown, (of.precision, of.recall, of.f1))
            table.add_row(model, group, f"{of.spans:.0f}", *figures, f"{of.low:.3f} – {of.high:.3f}")
    console.print(table)
    for one in found.differences:
        console.print(
            f"{one.model} minus {one.minus}: {one.difference:+.3f} ({one.low:+.3f} – {one.high:+.3f})"
        )


def _means_table(comparison: Comparison) -> Table:
    columns = ["slice", "", "rows", "accuracy", "macro-F1", "ECE", "above chance", "coverage at .9 precision"]
    columns += ["scarce F1 (values)", "other F1 (values)", "set F1", "edit distance", "broken pictures"]
    lines = []
    for name, measured in comparison.slices.items():
        for letter, one in _lettered(measured):
            lines.append([name, letter, *_means(one.figures)])
            for lang, of in (one.figures.languages or {}).items():
                means = (of.mean_accuracy, of.mean_macro_f1, of.mean_ece, of.mean_ece_excess)
                lines.append([f"  {lang}", letter, str(of.rows), *map(_shown, means), *[""] * 6])
    return _table("means over single-choice groups, ± half of the 95 % interval", columns, lines)


def _means(of: SliceFigures) -> list[str]:
    parts = [of.by_frequency[part] for part in ("scarce", "rest")]
    return [
        str(of.rows),
        _shown(of.mean_accuracy, of.intervals.get("mean_accuracy")),
        _shown(of.mean_macro_f1, of.intervals.get("mean_macro_f1")),
        *map(_shown, (of.mean_ece, of.mean_ece_excess, of.mean_coverage_at_90)),
        *(f"{_shown(part.macro_f1)} ({part.values})" for part in parts),
        *(_shown(of.tags.get(name)) for name in ("set_f1", "edit_distance")),
        str(of.pictures.get("unusable", 0)),
    ]


def _differences_table(comparison: Comparison) -> Table:
    letters = dict(zip((one.name for one in comparison.candidates), string.ascii_uppercase, strict=False))
    table = Table(title="differences over the same draws, \\[95 % interval]", box=SIMPLE)
    for column in ("slice", "", "accuracy", "macro-F1", "groups shown better", "groups shown worse"):
        table.add_column(column)
    for of in comparison.differences:
        table.add_row(
            of.slice,
            f"{letters[of.model]} − {letters[of.minus]}",
            *(
                f"{m.difference:+.3f} \\[{m.low:+.3f} {m.high:+.3f}]" if m else "–"
                for m in (of.mean_accuracy, of.mean_macro_f1)
            ),
            _groups_where(of, lambda gap: gap.low > 0),
            _groups_where(of, lambda gap: gap.high < 0),
        )
    return table


def _groups_where(of: Difference, clear: Callable[[Gap], bool]) -> str:
    found = [
        f"{group} {measure} {gaps[measure].difference:+.3f}"
        for group, gaps in (of.groups or {}).items()
        for measure in ("accuracy", "macro_f1", "micro_f1")
        if measure in gaps and clear(gaps[measure])
    ]
    return ", ".join(found) or "none"


def _groups_table(name: str, measured: Sequence[Measured]) -> Table:
    lines = []
    for group in dict.fromkeys(group for one in measured for group in one.figures.groups):
        for letter, one in _lettered(measured):
            if of := one.figures.groups.get(group):
                shown = [_shown(getattr(of, measure)) for measure in _OF_GROUPS.values()]
                lines.append([group, letter, str(of.rows), *shown])
    return _table(f"slice {name}", ("group", "", "rows", *_OF_GROUPS), lines)


def _table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Without the columns that have no figure."""
    some = [at for at in range(len(columns)) if any(line[at] not in ("–", "") for line in lines)]
    table = Table(title=title, box=SIMPLE)
    for at in some:
        table.add_column(columns[at], justify="right" if at > 1 else "left")
    for line in lines:
        table.add_row(*(line[at] for at in some))
    return table


def _lettered(measured: Sequence[Measured]) -> list[tuple[str, Measured]]:
    return list(zip(string.ascii_uppercase, measured, strict=False))


def _shown(figure: float | None, bounds: Interval | None = None) -> str:
    if figure is None or math.isnan(figure):
        return "–"
    return f"{figure:.3f}" + (f" ±{(bounds.high - bounds.low) / 2:.3f}" if bounds else "")
