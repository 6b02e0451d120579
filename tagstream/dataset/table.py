"""The one reader of product files: .csv, .tsv, .jsonl (each also .gz) and .parquet.

CSV is UTF-8 with or without a byte order mark, header first, quoted the usual way, with any line ends. Its
fields are separated by commas, semicolons or tabs, whichever the header has most of. In JSONL and Parquet a
cell may also be a list of texts, and an object's members are columns of their own: `tags.colour`.

A line that cannot be read is a `Broken` row with its bytes. Publishing sends those bytes, so that the line
ends as a dead letter; training refuses the file and names the line.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

#: What a cell says of a product: text, or several texts where the format has lists.
Cell = str | tuple[str, ...]
ENDINGS = ("csv", "csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet")
FILE_NAMES = (*(f"products.{end}" for end in ENDINGS), "items.jsonl")
#: What reading a damaged file raises: cut off, not unpackable, not what its name says.
_DAMAGE = (EOFError, zlib.error, OSError, ValueError)
#: Descriptions may be longer than the csv module's own limit of 128 KiB.
_FIELD_MAX_CHARS = 2**24
#: A quote that is never closed would swallow the rest of the file. After so many lines its first line counts
#: as broken, and reading goes on with the second.
_ROW_MAX_LINES = 1000


@dataclass(frozen=True, slots=True)
class Line:
    """One row. `number`: the line of the file where it ends; in Parquet the row, from 1."""

    number: int
    cells: Mapping[str, object]

    def cell(self, column: str) -> Cell:
        """Text without white space around it, or the texts of a list. A missing cell is "".

        Raises:
            ValueError: it is neither.
        """
        content = self.cells.get(column)
        if content is None and "." in column:
            outer, _, inner = column.partition(".")
            members = self.cells.get(outer)
            content = members.get(inner) if isinstance(members, dict) else None
        parts = content if isinstance(content, list) else [content]
        if any(isinstance(part, dict | list | bytes) for part in parts):
            raise ValueError(f"line {self.number}: {column} is neither text nor a list of texts")
        texts = tuple(text for part in parts if (text := _text(part)))
        return texts if isinstance(content, list) else "".join(texts)

    def text(self, column: str) -> str:
        """A cell as one text; several are separated by commas. Raises ValueError as `cell` does."""
        cell = self.cell(column)
        return cell if isinstance(cell, str) else ", ".join(cell)


class Member(str):
    """The name of a column that is a member of an object, as `tags.colour`."""

    __slots__ = ()


class Broken(NamedTuple):
    """A line that is no row: its bytes without the line end, and why, as in "line 3 is not JSON"."""

    number: int
    raw: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Table:
    """A products file. `columns`: of the header; in JSONL those of all lines."""

    path: Path
    columns: tuple[str, ...]
    delimiter: str = ","

    def rows(self) -> Iterator[Line | Broken]:
        """Every row, read as it is asked for. Raises ValueError where the file is damaged."""
        try:
            if self.path.suffix == ".parquet":
                yield from _parquet_rows(self.path)
            elif _is_json(self.path):
                yield from _json_rows(self.path)
            else:
                yield from _csv_rows(self)
        except _DAMAGE as error:
            raise ValueError(f"{self.path}: {error}") from error

    def lines(self) -> Iterator[Line]:
        """The same. Raises ValueError at a line that cannot be read, and names it."""
        for row in self.rows():
            if isinstance(row, Broken):
                raise ValueError(f"{self.path}: line {row.number} {row.why}")
            yield row


def read_table(path: Path) -> Table:
    """A products file with its columns. Raises ValueError if its header is none, or it cannot be unpacked."""
    try:
        return _table(path)
    except (EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path}: {error}") from error


def _table(path: Path) -> Table:
    if path.suffix == ".parquet":
        return Table(path, _parquet_columns(path))
    if _is_json(path):
        lines = (row for row in _json_rows(path) if isinstance(row, Line))
        return Table(path, tuple(dict.fromkeys(name for line in lines for name in _names(line.cells))))
    with _open_text(path) as file:
        first = file.readline()
    if not _is_unicode(first):
        raise ValueError(f"{path}: line 1 is not UTF-8")
    delimiter = max(",;\t", key=first.count)
    header = tuple(name.strip() for name in next(csv.reader([first], delimiter=delimiter), []))
    if not any(header):
        raise ValueError(f"{path}: the first line names no columns")
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise ValueError(f"{path}: the column {twice[0]!r} is there twice")
    return Table(path, header, delimiter)


def products_file(source: Path) -> Path:
    """`source` itself, or the products file in the folder `source`. Raises ValueError if there is none."""
    if source.is_file():
        return source
    for name in FILE_NAMES:
        if (source / name).is_file():
            return source / name
    raise ValueError(f"{source}: no such file, and no folder with one of {', '.join(FILE_NAMES)}")


def _open_text(path: Path) -> IO[str]:
    """UTF-8, unzipped where the name ends in .gz, without a byte order mark, line ends as they are.

    A byte that is no UTF-8 becomes a lone surrogate, so that it can be written back.
    """
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv_rows(table: Table) -> Iterator[Line | Broken]:
    csv.field_size_limit(_FIELD_MAX_CHARS)
    width = len(table.columns)
    with _open_text(table.path) as file:
        file.readline()
        ahead: deque[str] = deque()
        number = 1
        while taken := _taken(file, ahead, table.delimiter):
            lines, fields, why = taken
            number += len(lines)
            if not why and len(fields) == width:
                yield Line(number, dict(zip(table.columns, fields, strict=True)))
            elif raw := _raw(lines[0]).rstrip(b"\r\n"):
                number -= len(lines) - 1  # what follows a broken line may be sound: read it on its own
                ahead.extendleft(reversed(lines[1:]))
                yield Broken(number, raw, why or f"has {len(fields)} fields, the header {width}")


def _taken(file: IO[str], ahead: deque[str], delimiter: str) -> tuple[list[str], list[str], str] | None:
    """The lines of the next row, its fields, and why it is broken, "" if it is sound. None at the end."""
    lines: list[str] = []

    def feed() -> Iterator[str]:
        while len(lines) < _ROW_MAX_LINES and (line := ahead.popleft() if ahead else file.readline()):
            lines.append(line)
            yield line

    try:
        fields = next(csv.reader(feed(), delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        return lines, [], f"is not CSV: {error}"
    return (lines, fields, "" if all(map(_is_unicode, lines)) else "is not UTF-8") if lines else None


def _json_rows(path: Path) -> Iterator[Line | Broken]:
    with _open_text(path) as file:
        for number, line in enumerate(file, 1):
            if text := line.strip():
                found, why = _object(text)
                yield Broken(number, _raw(text), why) if why else Line(number, found)


def _object(text: str) -> tuple[dict[str, object], str]:
    """The object in a line of JSON, and why there is none, "" if there is one."""
    if not _is_unicode(text):
        return {}, "is not UTF-8"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, f"is not JSON: {error}"
    if not isinstance(found, dict):
        return {}, "is not a JSON object"
    if "\\u" in text and not _is_unicode(json.dumps(found, ensure_ascii=False)):
        return {}, "has a lone surrogate"
    return found, ""


def _parquet_columns(path: Path) -> tuple[str, ...]:
    import pyarrow as pa  # heavy: only who reads Parquet pays
    import pyarrow.parquet as parquet
    import pyarrow.types as types

    names = []
    try:
        schema = parquet.read_schema(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: {error}") from error
    for field in schema:
        members = list(field.type) if types.is_struct(field.type) else []
        names += [field.name, *(Member(f"{field.name}.{member.name}") for member in members)]
    return tuple(names)


def _parquet_rows(path: Path) -> Iterator[Line]:
    import pyarrow.parquet as parquet

    number = 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256):
            for number, row in enumerate(batch.to_pylist(), number + 1):  # noqa: B020, numbers go on
                yield Line(number, row)


def _is_json(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".jsonl")


def _names(cells: Mapping[str, object]) -> Iterator[str]:
    for name, content in cells.items():
        yield name
        if isinstance(content, dict):
            yield from (Member(f"{name}.{member}") for member in content)


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(content: object) -> str:
    """Numbers as they are written; missing (None, NaN) is empty."""
    if content is None or content != content:
        return ""
    if isinstance(content, float) and content.is_integer():
        content = int(content)
    return str(content).strip()
