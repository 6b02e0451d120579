"""What `jobs/evaluate.py` found out, as tables to be read."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

#: Where the output is no terminal.
TABLE_WIDTH = 140


def show(result: dict[str, Any], console: Console) -> None:
    """Tables: the means of every slice and model, the differences, and the groups of every slice."""
    for letter, of in _lettered(result):
        console.print(f"{letter} = {of['model_version']}")
        if of["rows_with_a_title_trained_on"]:
            console.print(
                f"    trained on {of['rows_with_a_title_trained_on']} of these titles: figures flatter"
            )
    console.print(_means_table(result))
    if result["differences"]:
        console.print(_differences_table(result))
    for name in result["models"][0]["slices"]:
        console.print(_groups_table(result, name))
    for name, why in result["slices_left_out"].items():
        console.print(f"{name} left out: {why}")


def show_spans(result: dict[str, Any], console: Console) -> None:
    """Exact span F1 of every extractor and group, and the differences."""
    columns = ["model", "group", "spans", "precision", "recall", "F1", "95 % interval"]
    table = Table(*columns, box=SIMPLE, title=f"exact span F1 on {result['titles']} titles")
    for model, groups in result["models"].items():
        for group, of in groups.items():
            figures = [f"{of[name]:.3f}" for name in ("precision", "recall", "f1")]
            table.add_row(model, group, f"{of['spans']:.0f}", *figures, f"{of['low']:.3f} – {of['high']:.3f}")
    console.print(table)
    for of in result["differences"]:
        within = f"({of['low']:+.3f} – {of['high']:+.3f})"
        console.print(f"{of['model']} minus {of['minus']}: {of['difference']:+.3f} {within}")


def _means_table(result: dict[str, Any]) -> Table:
    columns = ["slice", "", "rows", "accuracy", "macro-F1", "ECE", "above chance", "coverage at .9 precision"]
    columns += ["scarce F1 (values)", "other F1 (values)", "set F1", "edit distance", "broken pictures"]
    lines = []
    for name in result["models"][0]["slices"]:
        for letter, of in _lettered(result):
            figures = of["slices"][name]
            parts, intervals = figures["by_frequency"], figures["intervals"]
            lines.append(
                [
                    name,
                    letter,
                    str(figures["rows"]),
                    _shown(figures["mean_accuracy"], intervals.get("mean_accuracy")),
                    _shown(figures["mean_macro_f1"], intervals.get("mean_macro_f1")),
                    _shown(figures["mean_ece"]),
                    _shown(figures["mean_ece_excess"]),
                    _shown(figures["mean_coverage_at_90"]),
                    *(
                        f"{_shown(parts[of]['macro_f1'])} ({parts[of]['values']})"
                        for of in ("scarce", "rest")
                    ),
                    _shown(figures["tags"]["set_f1"]),
                    _shown(figures["tags"].get("edit_distance")),
                    str(figures["pictures"].get("unusable", 0)),
                ]
            )
            for lang, in_lang in figures.get("languages", {}).items():
                means = [
                    _shown(in_lang[f"mean_{of}"]) for of in ("accuracy", "macro_f1", "ece", "ece_excess")
                ]
                lines.append([f"  {lang}", letter, str(in_lang["rows"]), *means, *[""] * 6])
    return _table("means over single-choice groups, ± half of the 95 % interval", columns, lines)


def _differences_table(result: dict[str, Any]) -> Table:
    letters = {of["model_version"]: letter for letter, of in _lettered(result)}
    table = Table(title="differences over the same draws, \\[95 % interval]", box=SIMPLE)
    for column in ("slice", "", "accuracy", "macro-F1", "groups shown better", "groups shown worse"):
        table.add_column(column)
    for of in result["differences"]:
        shown: dict[bool, list[str]] = {True: [], False: []}
        for group, measures in of.get("groups", {}).items():
            for measure in ("accuracy", "macro_f1", "micro_f1"):
                figures = measures.get(measure)
                if figures and (figures["low"] > 0 or figures["high"] < 0):
                    shown[figures["low"] > 0].append(f"{group} {measure} {figures['difference']:+.3f}")
        means = [of.get(f"mean_{measure}") for measure in ("accuracy", "macro_f1")]
        table.add_row(
            of["slice"],
            f"{letters[of['model']]} − {letters[of['minus']]}",
            *(
                f"{mean['difference']:+.3f} \\[{mean['low']:+.3f} {mean['high']:+.3f}]" if mean else "–"
                for mean in means
            ),
            ", ".join(shown[True]) or "none",
            ", ".join(shown[False]) or "none",
        )
    return table


def _groups_table(result: dict[str, Any], name: str) -> Table:
    measures = {
        "accuracy": "accuracy",
        "macro_f1": "macro-F1",
        "micro_f1": "micro-F1",
        "micro_f1_listed": "… of listed labels",
        "ece": "ECE",
        "ece_excess": "above chance",
        "coverage_at_90": "coverage at .9 precision",
    }
    lines = []
    for group in dict.fromkeys(group for of in result["models"] for group in of["slices"][name]["groups"]):
        for letter, of in _lettered(result):
            figures = of["slices"][name]["groups"].get(group)
            if figures:
                shown = [_shown(figures.get(measure)) for measure in measures]
                lines.append([group, letter, str(figures["rows"]), *shown])
    return _table(f"slice {name}", ("group", "", "rows", *measures.values()), lines)


def _table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Without the columns that say nothing anywhere."""
    said = [at for at in range(len(columns)) if any(line[at] not in ("–", "") for line in lines)]
    table = Table(title=title, box=SIMPLE)
    for at in said:
        table.add_column(columns[at], justify="right" if at > 1 else "left")
    for line in lines:
        table.add_row(*(line[at] for at in said))
    return table


def _lettered(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(zip(string.ascii_uppercase, result["models"], strict=False))


def _shown(figure: float | None, bounds: tuple[float, float] | None = None) -> str:
    if figure is None or math.isnan(figure):
        return "–"
    return f"{figure:.3f}" + (f" ±{(bounds[1] - bounds[0]) / 2:.3f}" if bounds else "")
