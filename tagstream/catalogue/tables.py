"""Rows of a products file in three formats, with what cannot be read kept as bytes instead of dropped."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tagstream.core.errors import BadSettings

#: One row by column, or the bytes of what is none.
Row = dict[str, Any] | bytes

# A quote that is never closed would swallow the rest of the file: after so many lines it counts as a
# malformed line of its own, and reading goes on behind it.
_ROW_MAX_LINES = 50


class Table(Protocol):
    @property
    def path(self) -> Path: ...

    def columns(self) -> list[str]: ...

    def rows(self) -> Iterator[Row]: ...


def table_of(folder: Path) -> Table:
    """The folder's products file. Raises BadSettings if there is none."""
    kinds: dict[str, Callable[[Path], Table]] = {
        "products.csv": CsvTable,
        "products.jsonl": JsonLines,
        "products.parquet": ParquetTable,
    }
    for name, kind in kinds.items():
        if (folder / name).is_file():
            return kind(folder / name)
    raise BadSettings(f"{folder}: no products.csv, products.jsonl or products.parquet")


@dataclass(frozen=True, slots=True)
class CsvTable:
    """Comma separated, UTF-8, header first, quoted the usual way (line breaks inside quotes allowed)."""

    path: Path

    def columns(self) -> list[str]:
        with self.path.open("rb") as file:
            header = _fields([file.readline().removeprefix(b"\xef\xbb\xbf")])
        if not isinstance(header, list):
            raise BadSettings(f"{self.path}: the first line is not a CSV header in UTF-8")
        return header

    def rows(self) -> Iterator[Row]:
        columns = self.columns()
        with self.path.open("rb") as file:
            lines = file.readlines()
        at = 1
        while at < len(lines):
            taken, fields = self._row_at(lines, at)
            if fields is None or len(fields) != len(columns):
                taken, fields = 1, None  # what follows a broken line may be sound: read it on its own
            line = lines[at].rstrip(b"\r\n")
            if fields is not None:
                yield dict(zip(columns, fields, strict=True))
            elif line:
                yield line
            at += taken

    def _row_at(self, lines: list[bytes], at: int) -> tuple[int, list[str] | None]:
        """(lines taken, fields) of the row that starts at this line; None if it is malformed."""
        for taken in range(1, _ROW_MAX_LINES + 1):
            fields = _fields(lines[at : at + taken])
            if isinstance(fields, list):
                return taken, fields
            if fields == "malformed" or at + taken >= len(lines):
                break
        return 1, None


def _fields(lines: list[bytes]) -> list[str] | str:
    """The fields of one row, or "open" if a quote is not closed yet, or "malformed"."""
    try:
        rows = list(csv.reader([line.decode() for line in lines], strict=True))
    except UnicodeDecodeError:
        return "malformed"
    except csv.Error as error:
        return "open" if "unexpected end of data" in str(error) else "malformed"
    return rows[0] if len(rows) == 1 else "malformed"


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One JSON object a line."""

    path: Path

    def columns(self) -> list[str]:
        """Of the first row that can be read; other rows may have more or fewer."""
        return next((list(row) for row in self.rows() if isinstance(row, dict)), [])

    def rows(self) -> Iterator[Row]:
        with self.path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield _object(line.strip())


def _object(line: bytes) -> Row:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # lone surrogates
    except (ValueError, RecursionError):
        return line
    return row if isinstance(row, dict) else line


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """Parquet; `image` may be a path or the encoded bytes."""

    path: Path

    def columns(self) -> list[str]:
        import pyarrow.parquet as parquet  # heavy: only who reads Parquet pays

        return list(parquet.read_schema(self.path).names)

    def rows(self) -> Iterator[Row]:
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
