"""How every command prints: one console, one table, one `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

console = Console()

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


def say(sentence: str, *, markup: bool = False) -> None:
    """A line for a person, not broken at the console's width."""
    console.print(sentence, soft_wrap=True, highlight=False, markup=markup)


def say_whether(ok: bool, sentence: str) -> None:
    """The same behind a green or a red mark."""
    say(f"{'[green]✓[/green]' if ok else '[red]✗[/red]'} {escape(sentence)}", markup=True)


def complain(sentence: str) -> None:
    """One line to stderr."""
    print(f"tagstream: {' '.join(sentence.split())}", file=sys.stderr)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own, at once: the next command of a pipe may wait for it."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_rows(rows: Iterable[Mapping[str, Any]], as_json: bool = False) -> None:
    """A table, its columns named by the keys of the first row; or a JSON object for each row, as it comes."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    listed = list(rows)
    if not listed:
        console.print("none")
        return
    table = Table()
    for name in listed[0]:
        table.add_column(name, overflow="fold")
    for row in listed:
        table.add_row(*(Text(printable(_cell(value))) for value in row.values()))
    console.print(table)


def printable(text: str) -> str:
    """Without characters that move a terminal's cursor or hide what is on the screen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else str(value)
