"""Product files, and files of events, as records for the event topic.

A row needs an id, and a title or an image: a path in the file's folder, a web address, or (Parquet) the
encoded bytes. Description, brand, language and `event_version` go into the event too. Every other column is a
label, which the model is to find out: it stays out of the event.

No row is lost silently. `ProductEvents.tally` counts what became of them:

    product            a whole event
    picture missing    an event without picture: its file is missing, or lies outside the folder
    malformed          a record that no worker accepts, so that it ends as a dead letter where it can be seen:
                       the raw line where it cannot be read, else an event without what the row lacks
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tagstream.core.errors import BadSettings
from tagstream.core.events import SCHEMA_VERSION
from tagstream.core.records import KeyValue
from tagstream.dataset.columns import NO_COLUMN, Columns
from tagstream.dataset.description import read_dataset
from tagstream.dataset.table import ENDINGS, Broken, Line, Table, read_table

#: Fields of an event that no products file has. They tell a .jsonl file of events from one of products.
_OF_EVENTS = frozenset({"schema_version", "event_id", "occurred_at"})


def records_of(path: Path, limit: int | None = None) -> Iterable[KeyValue]:
    """What to publish of a products file, a data set, or a file of events.

    A file with another ending than those of tables has events. So has a .jsonl file, unless its first object
    has no field of an event.

    Args:
        limit: at most so many rows of a data set; a file of events goes out whole.

    Raises:
        BadSettings: there is nothing at `path`, or it is no data set that can be published.
    """
    if not path.exists():
        raise BadSettings(f"{path} does not exist")
    return events_of(path) if _has_events(path) else ProductEvents(path, limit=limit)


def events_of(path: Path) -> Iterator[KeyValue]:
    """The records of a file of product events: each line as it is, keyed by its product_id.

    Blank lines are left out. A line that names no product is published without a key, as it came.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for line in lines:
            if value := line.strip():
                yield KeyValue(_key_of(value), value)


class ProductEvents:
    """The records of a data set's products. Iterate as often as you like; rows are read when asked for.

    Args:
        source: a products file, a folder with one, or a dataset.toml.
        limit: at most so many rows, spread evenly over the files.
        occurred_at: moment of every event; now if None.

    Raises:
        BadSettings: there is no products file, or one lacks a column.
    """

    def __init__(
        self,
        source: Path,
        *,
        limit: int | None = None,
        occurred_at: datetime | None = None,
    ) -> None:
        self._limit = limit
        self._occurred_at = (occurred_at or datetime.now(UTC)).isoformat()
        self.tally: Counter[str] = Counter()
        try:
            self._files = [self._file(file.path, file.columns) for file in read_dataset(source).products]
        except ValueError as error:
            raise BadSettings(str(error)) from error

    def __iter__(self) -> Iterator[KeyValue]:
        """One record a row. `tally` starts again from nothing."""
        self.tally.clear()
        try:
            for table, columns, row in self._chosen():
                outcome, record = self._made(table.path.parent.resolve(), columns, row)
                self.tally[outcome] += 1
                yield record
        except ValueError as error:
            raise BadSettings(f"{error}; the {self.tally.total():,} rows before were read") from error

    def _made(self, root: Path, columns: Columns, row: Line | Broken) -> tuple[str, KeyValue]:
        if isinstance(row, Broken):
            return "malformed", KeyValue(None, row.raw)
        try:
            return self._record(root, columns, row)
        except ValueError:  # a cell that is no text: the dead letter shows the row
            return "malformed", KeyValue(None, json.dumps(dict(row.cells), default=str).encode())

    def _file(self, path: Path, columns: Columns) -> tuple[Table, Columns]:
        table = read_table(path)
        there = f"; there are: {', '.join(table.columns)}"
        try:
            found = columns.found_in(table.columns)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if found.id == NO_COLUMN:
            raise ValueError(f"{path}: no column of ids{there}")
        if found.title == found.image == NO_COLUMN:
            raise ValueError(f"{path}: no column of titles or pictures{there}")
        return table, found

    def _chosen(self) -> Iterator[tuple[Table, Columns, Line | Broken]]:
        total = sum(1 for table, _ in self._files for _ in table.rows()) if self._limit is not None else 0
        rows = ((table, columns, row) for table, columns in self._files for row in table.rows())
        for number, row in enumerate(rows):
            # True for exactly `limit` of the numbers 0 … total-1, evenly spaced.
            if (
                self._limit is None
                or self._limit >= total
                or number * self._limit // total != (number - 1) * self._limit // total
            ):
                yield row

    def _record(self, root: Path, columns: Columns, row: Line) -> tuple[str, KeyValue]:
        product_id, texts = row.text(columns.id or NO_COLUMN), columns.texts(row)
        image = self._image(root, row, columns.image or NO_COLUMN)
        named = {
            "title": texts.title,
            "description": texts.description,
            "brand": texts.brand,
            "lang": texts.lang,
            "image": image,
        }
        event: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "type": "upsert",
            "event_version": _whole(row.text("event_version"), 1),
            "occurred_at": self._occurred_at,
            **{name: content for name, content in named.items() if content},
        }
        if product_id:
            event |= {"product_id": product_id, "event_id": f"{product_id[:200]}-{event['event_version']}"}
        whole = product_id and isinstance(event["event_version"], int) and (image or texts.title)
        outcome = "malformed" if not whole else "picture missing" if image is None else "product"
        value = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        return outcome, KeyValue(product_id.encode() or None, value.encode())

    def _image(self, root: Path, row: Line, column: str) -> dict[str, str] | None:
        """What goes into the event: {} where the row names no picture, None where it cannot be found."""
        content = row.cells.get(column)
        if isinstance(content, bytes):
            return {"data": base64.b64encode(content).decode()}
        name = row.text(column)
        if not name:
            return {}
        if name.startswith(("https://", "http://")):
            return {"url": name}
        file = (root / name).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return None
        return {"data": base64.b64encode(file.read_bytes()).decode()}


def _has_events(path: Path) -> bool:
    if path.is_dir() or path.suffix == ".toml":
        return False
    if not path.name.removesuffix(".gz").endswith(".jsonl"):
        return not path.name.endswith(tuple(f".{ending}" for ending in ENDINGS))
    first = next((row for row in Table(path, ()).rows() if isinstance(row, Line)), None)
    return first is None or not _OF_EVENTS.isdisjoint(first.cells)


def _key_of(value: bytes) -> bytes | None:
    try:
        event = json.loads(value)
        product_id = event["product_id"] if isinstance(event, dict) else None
        return product_id.encode() if isinstance(product_id, str) and product_id else None
    except (ValueError, KeyError, RecursionError):
        return None  # the record goes out all the same, and its dead letter will say what is wrong


def _whole(text: str, default: int) -> int | str:
    """A whole number; what is none stays text, which the event's contract refuses."""
    return default if not text else int(text) if text.isascii() and text.isdigit() else text
