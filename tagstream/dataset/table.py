"""Lines of a products file with their numbers: .csv, .tsv, .jsonl (each also .gz) and .parquet.

CSV: UTF-8 with or without a byte order mark, header first, quoted the usual way, any line ends; separated by
commas, semicolons or tabs, whichever its header has most of.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

#: What a column says of a product: text, or several texts where the format has lists.
Cell = str | tuple[str, ...]
ENDINGS = ("csv", "csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet")
FILE_NAMES = tuple(f"products.{end}" for end in ENDINGS)
#: Descriptions may be longer than the csv module's own limit of 128 KiB.
_FIELD_MAX_CHARS = 2**24


@dataclass(frozen=True, slots=True)
class Line:
    """`number`: the line of the file where it ends; in Parquet the row, from 1. Missing cells are empty."""

    number: int
    cells: Mapping[str, Cell]

    def text(self, column: str | None) -> str:
        """A cell without white space around it; several texts in one, separated by commas."""
        cell = self.cells.get(column, "") if column else ""
        return cell.strip() if isinstance(cell, str) else ", ".join(cell)


def products_file(source: Path) -> Path:
    """`source` itself, or the products file in the folder `source`. Raises ValueError if there is none."""
    if source.is_file():
        return source
    for name in FILE_NAMES:
        if (source / name).is_file():
            return source / name
    raise ValueError(f"{source}: no such file, and no folder with one of {', '.join(FILE_NAMES)}")


def titles_files(folder: Path) -> list[Path]:
    """The folder's files with "titles" in their names: further labelled rows, without pictures."""
    endings = tuple(f".{end}" for end in ENDINGS)
    found = (path for path in folder.glob("[!.]*") if "titles" in path.name)
    return sorted(path for path in found if path.name.endswith(endings) and path.is_file())


def read_lines(path: Path) -> tuple[list[str], Iterator[Line]]:
    """(columns, lines). The lines are read as they are asked for, except those of Parquet.

    Raises:
        ValueError: names the line that cannot be read, then or while iterating.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.endswith(".jsonl"):
        return _json_lines(path)
    return _csv(path)


def open_text(path: Path) -> IO[str]:
    """UTF-8, unzipped where the name ends in .gz, without a byte order mark."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _csv(path: Path) -> tuple[list[str], Iterator[Line]]:
    with open_text(path) as file:
        try:
            first = file.readline()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: line 1 is not UTF-8: {error.reason}") from error
    delimiter = max(",;\t", key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    if not any(header):
        raise ValueError(f"{path}: the first line names no columns")
    if twice := {name for name in header if header.count(name) > 1}:
        raise ValueError(f"{path}: the column {sorted(twice)[0]!r} stands twice")
    return header, _csv_lines(path, header, delimiter)


def _csv_lines(path: Path, header: list[str], delimiter: str) -> Iterator[Line]:
    csv.field_size_limit(_FIELD_MAX_CHARS)
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            next(reader)
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise ValueError(
                        f"{path}: line {reader.line_num} has {len(fields)} fields, the header {len(header)}"
                    )
                yield Line(reader.line_num, dict(zip(header, fields, strict=True)))
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num}: {error}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: after line {reader.line_num}: not UTF-8: {error.reason}") from error


def _json_lines(path: Path) -> tuple[list[str], Iterator[Line]]:
    """The columns are those of all lines, so the whole file is read."""
    columns: dict[str, None] = {}
    lines = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number} is not JSON: {error}") from error
            if not isinstance(found, dict):
                raise ValueError(f"{path}: line {number} is not a JSON object")
            columns |= dict.fromkeys(found)
            lines.append(_line(path, number, found))
    return list(columns), iter(lines)


def _parquet(path: Path) -> tuple[list[str], Iterator[Line]]:
    import pyarrow.parquet as parquet  # heavy: only who reads Parquet pays

    table = parquet.read_table(path)
    rows = enumerate(table.to_pylist(), 1)
    return list(table.column_names), (_line(path, number, row) for number, row in rows)


def _line(path: Path, number: int, found: Mapping[str, object]) -> Line:
    cells: dict[str, Cell] = {}
    for column, content in found.items():
        if isinstance(content, list):
            cells[column] = tuple(text for part in content if (text := _text(part)))
        elif isinstance(content, dict | bytes):
            raise ValueError(f"{path}: line {number}: {column} is neither text nor a list of texts")
        else:
            cells[column] = _text(content)
    return Line(number, cells)


def _text(content: object) -> str:
    """Numbers as they are written; missing (None, NaN) is empty."""
    if content is None or content != content:
        return ""
    if isinstance(content, float) and content.is_integer():
        content = int(content)
    return str(content).strip()
