"""A data folder as product events: products.csv, products.jsonl or products.parquet, and pictures beside it.

    id (or product_id)  title                   required; a title may be empty if there is a picture
    description  brand  lang  event_version     optional
    image                                       optional: a path inside the folder, an https:// address, or
                                                (Parquet) the encoded bytes

Every other column is a label, which the model is to find out: it stays out of the event unless named in
`attribute_columns`. No row is lost silently; `ProductFolder.tally` counts them by what became of them:

    product            a whole event
    picture missing    an event without picture: its file is not there, or lies outside the folder
    malformed          a record that no worker accepts, so that it ends in the dead letters where it can be
                       seen: the raw line where it cannot be read (broken quoting, wrong number of fields, not
                       UTF-8, not JSON), else an event without what the row lacks. Without id it has no key.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tagstream.catalogue.records import KeyValue
from tagstream.catalogue.tables import Row, table_of
from tagstream.core.errors import BadSettings
from tagstream.core.events import SCHEMA_VERSION

_TEXT_COLUMNS = ("title", "description", "brand", "lang")


class ProductFolder:
    """The records of one folder. Iterate as often as you like; rows are read as they are asked for.

    Args:
        path: the folder.
        attribute_columns: columns that go into the event as attributes.
        inline: put each picture's bytes into its event; else its `file://` address, which a worker opens
            only under a root that its settings allow.
        limit: at most so many rows, spread evenly over the file.
        occurred_at: moment of every event; now if None.

    Raises:
        BadSettings: no products file, or one that lacks a required or a named column.
    """

    def __init__(
        self,
        path: Path,
        *,
        attribute_columns: Collection[str] = (),
        inline: bool = True,
        limit: int | None = None,
        occurred_at: datetime | None = None,
    ) -> None:
        self._root = path.resolve()
        self._table = table_of(self._root)
        self._attribute_columns = tuple(attribute_columns)
        self._inline = inline
        self._limit = limit
        self._occurred_at = (occurred_at or datetime.now(UTC)).isoformat()
        self.tally: Counter[str] = Counter()
        self._check_columns()

    def __iter__(self) -> Iterator[KeyValue]:
        """One record a row. `tally` starts again from nothing."""
        self.tally.clear()
        for row in self._rows():
            yield self._unreadable(row) if isinstance(row, bytes) else self._record(row)

    def _check_columns(self) -> None:
        columns = self._table.columns()
        for needed in ("title", *self._attribute_columns):
            if needed not in columns:
                raise BadSettings(f"{self._table.path}: no column {needed!r}")
        if not {"id", "product_id"} & set(columns):
            raise BadSettings(f"{self._table.path}: no column 'id' or 'product_id'")

    def _rows(self) -> Iterator[Row]:
        if self._limit is None:
            yield from self._table.rows()
            return
        total = sum(1 for _ in self._table.rows())
        for number, row in enumerate(self._table.rows()):
            # True for exactly `limit` of the numbers 0 … total-1, evenly spaced.
            if number * self._limit // total != (number - 1) * self._limit // total or self._limit >= total:
                yield row

    def _unreadable(self, line: bytes) -> KeyValue:
        self.tally["malformed"] += 1
        return KeyValue(None, line)

    def _record(self, row: Mapping[str, Any]) -> KeyValue:
        product_id = _text(row.get("id")) or _text(row.get("product_id"))
        image = self._image(row.get("image"))
        event: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "type": "upsert",
            "event_version": _whole(row.get("event_version"), 1),
            "occurred_at": self._occurred_at,
            **{name: text for name in _TEXT_COLUMNS if (text := _text(row.get(name)))},
        }
        attributes = {name: text for name in self._attribute_columns if (text := _text(row.get(name)))}
        if attributes:
            event["attributes"] = attributes
        if image:
            event["image"] = image
        if product_id:
            event |= {"product_id": product_id, "event_id": f"{product_id[:200]}-{event['event_version']}"}
        whole = product_id and isinstance(event["event_version"], int) and (image or "title" in event)
        outcome = "malformed" if not whole else "picture missing" if image is None else "product"
        self.tally[outcome] += 1
        value = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        return KeyValue(product_id.encode() or None, value.encode())

    def _image(self, image: object) -> dict[str, str] | None:
        """What goes into the event: {} where the row names no picture, None where it cannot be found."""
        if isinstance(image, bytes):
            return {"data": base64.b64encode(image).decode()}
        name = _text(image)
        if not name:
            return {}
        if name.startswith(("https://", "http://")):
            return {"url": name}
        file = (self._root / name).resolve()
        if not file.is_relative_to(self._root) or not file.is_file():
            return None
        if not self._inline:
            return {"url": file.as_uri()}
        return {"data": base64.b64encode(file.read_bytes()).decode()}


def events_of(path: Path) -> Iterator[KeyValue]:
    """The records of a `.jsonl` file of product events: each line as it is, keyed by its product_id.

    Blank lines are skipped. A line that names no product is published without a key, as it came.
    """
    with path.open("rb") as lines:
        for line in lines:
            value = line.strip()
            if value:
                yield KeyValue(_key_of(value), value)


def _key_of(value: bytes) -> bytes | None:
    try:
        event = json.loads(value)
        product_id = event["product_id"] if isinstance(event, dict) else None
        return product_id.encode() if isinstance(product_id, str) and product_id else None
    except (ValueError, KeyError, RecursionError):
        return None  # the record goes out all the same, and its dead letter will say what is wrong


def _text(cell: object) -> str:
    """A cell as text; numbers as they are written, missing as empty."""
    if cell is None or cell != cell:  # NaN is what Parquet makes of a missing number
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip()


def _whole(cell: object, default: int) -> int | str:
    """A cell as a whole number; what is none stays text, which the event's contract refuses."""
    text = _text(cell)
    return default if not text else int(text) if text.isascii() and text.isdigit() else text
