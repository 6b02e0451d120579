"""A comparison as tables, on the console or in an HTML page. Models are named by letters."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase as letters

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from tagstream.evaluation.comparison import Comparison, Difference, Gap, Measured
from tagstream.evaluation.figures import Figures
from tagstream.evaluation.measures import Interval
from tagstream.evaluation.spans import SpanComparison

#: Where the output is no terminal.
TABLE_WIDTH = 140
#: One line of a table: column → what is shown.
Cells = Mapping[str, str]


def show(found: Comparison | SpanComparison) -> None:
    """Print the tables."""
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    if isinstance(found, Comparison):
        _print(found, console)
    else:
        _print_spans(found, console)


def page(comparison: Comparison, links: Mapping[str, str]) -> str:
    """The same tables as HTML, and under them `links`: text → address."""
    console = Console(record=True, file=io.StringIO(), width=TABLE_WIDTH)
    _print(comparison, console)
    for text, address in links.items():
        console.print(f"[link={address}]{text}[/link]")
    return console.export_html()


def _print(comparison: Comparison, console: Console) -> None:
    """The means of every slice and model, the differences, and the groups of every slice."""
    names = [one.candidate.name for one in comparison.first]
    for letter, name, known in zip(letters, names, comparison.trained_on, strict=False):
        console.print(f"{letter} = {name}")
        if known:
            console.print(f"    trained on {known} of these titles: figures flatter")
    means = [row for measured in comparison.slices.values() for row in _means(measured)]
    console.print(_table("means over single-choice groups, ± half of the 95 % interval", means))
    if comparison.differences:
        letter_of = dict(zip(names, letters, strict=False))
        rows = [_difference(of, letter_of) for of in comparison.differences]
        console.print(_table("differences over the same draws, \\[95 % interval]", rows, numbers=False))
    for name, measured in comparison.slices.items():
        console.print(_table(f"slice {name}", [*_groups(measured)]))
    for name, why in comparison.left_out.items():
        console.print(f"{name} left out: {why}")


def _print_spans(found: SpanComparison, console: Console) -> None:
    table = Table(title=f"exact span F1 on {found.titles} titles", box=SIMPLE)
    for name in ("model", "group", "spans", "precision", "recall", "F1", "95 % interval"):
        table.add_column(name)
    for model, groups in found.models.items():
        for group, of in groups.items():
            ratios = (_shown(ratio) for ratio in (of.precision, of.recall, of.f1))
            table.add_row(model, group, f"{of.spans:.0f}", *ratios, f"{of.low:.3f} – {of.high:.3f}")
    console.print(table)
    for gap in found.differences:
        within = f"({gap.low:+.3f} – {gap.high:+.3f})"
        console.print(f"{gap.model} minus {gap.minus}: {gap.difference:+.3f} {within}")


def _means(measured: Sequence[Measured]) -> Iterator[Cells]:
    """A line a model on one slice, and under it a line a language."""
    for letter, one in zip(letters, measured, strict=False):
        of, parts = one.figures, one.figures.by_frequency
        yield {
            **_of_all(one.slice, letter, of, of.intervals),
            "coverage at .9 precision": _shown(of.mean_coverage_at_90),
            "scarce F1 (values)": f"{_shown(parts['scarce'].macro_f1)} ({parts['scarce'].values})",
            "other F1 (values)": f"{_shown(parts['rest'].macro_f1)} ({parts['rest'].values})",
            "set F1": _shown(of.tags["set_f1"]),
            "edit distance": _shown(of.tags.get("edit_distance")),
            "broken pictures": str(of.pictures.get("unusable", 0)),
        }
        for lang, in_lang in (of.languages or {}).items():
            yield _of_all(f"  {lang}", letter, in_lang, {})


def _of_all(name: str, letter: str, of: Figures, intervals: Mapping[str, Interval]) -> Cells:
    return {
        "slice": name,
        "": letter,
        "rows": str(of.rows),
        "accuracy": _shown(of.mean_accuracy, intervals.get("mean_accuracy")),
        "macro-F1": _shown(of.mean_macro_f1, intervals.get("mean_macro_f1")),
        "ECE": _shown(of.mean_ece),
        "above chance": _shown(of.mean_ece_excess),
    }


def _difference(of: Difference, letter_of: Mapping[str, str]) -> Cells:
    def mean(gap: Gap | None) -> str:
        return f"{gap.difference:+.3f} \\[{gap.low:+.3f} {gap.high:+.3f}]" if gap else "–"

    gaps = [
        (f"{group} {measure} {gap.difference:+.3f}", gap)
        for group, of_group in (of.groups or {}).items()
        for measure, gap in of_group.items()
        if measure in ("accuracy", "macro_f1", "micro_f1")
    ]
    return {
        "slice": of.slice,
        "": f"{letter_of[of.model]} − {letter_of[of.minus]}",
        "accuracy": mean(of.mean_accuracy),
        "macro-F1": mean(of.mean_macro_f1),
        "groups shown better": ", ".join(shown for shown, gap in gaps if gap.low > 0) or "none",
        "groups shown worse": ", ".join(shown for shown, gap in gaps if gap.high < 0) or "none",
    }


def _groups(measured: Sequence[Measured]) -> Iterator[Cells]:
    """A line a group and model on one slice."""
    for group in dict.fromkeys(group for one in measured for group in one.figures.groups):
        for letter, one in zip(letters, measured, strict=False):
            if of := one.figures.groups.get(group):
                yield {
                    "group": group,
                    "": letter,
                    "rows": str(of.rows),
                    "accuracy": _shown(of.accuracy),
                    "macro-F1": _shown(of.macro_f1),
                    "micro-F1": _shown(of.micro_f1),
                    "… of listed labels": _shown(of.micro_f1_listed),
                    "ECE": _shown(of.ece),
                    "above chance": _shown(of.ece_excess),
                    "coverage at .9 precision": _shown(of.coverage_at_90),
                }


def _table(title: str, rows: Sequence[Cells], *, numbers: bool = True) -> Table:
    """Without columns that have no figure. `numbers`: from the third column on."""
    table = Table(title=title, box=SIMPLE)
    known = [name for name in rows[0] if any(row.get(name, "") not in ("–", "") for row in rows)]
    for name in known:
        table.add_column(name, justify="right" if numbers and name not in [*rows[0]][:2] else "left")
    for row in rows:
        table.add_row(*(row.get(name, "") for name in known))
    return table


def _shown(figure: float | None, bounds: Interval | None = None) -> str:
    if figure is None or math.isnan(figure):
        return "–"
    return f"{figure:.3f}" + (f" ±{(bounds[1] - bounds[0]) / 2:.3f}" if bounds else "")
