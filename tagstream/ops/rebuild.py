"""Refills an emptied store from the tag topic, through the script that the stream writes with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from typing import TypeVar

from tagstream.adapters.kafka.topics import read_all
from tagstream.core.events import ProductTags
from tagstream.core.ports import Record, Write
from tagstream.settings import Settings
from tagstream.wiring import build_store

_BATCH_RECORDS = 500
T = TypeVar("T")


def run_rebuild(settings: Settings, tell: Callable[[str], None]) -> int:
    """Returns the number of records read. If it is interrupted, run it again: it starts over.

    The store refuses consumers until the last record is in; then they go on by themselves. Raises
    Unavailable, BadSettings: the store was not emptied.
    """
    with closing(build_store(settings)) as store:
        store.begin_rebuild()
        count, started_s = 0, time.monotonic()
        for batch in batches(read_all(settings.kafka, settings.topics.tags)):
            store.put([restoring(record) for record in batch])
            count += len(batch)
            tell(f"{count:,} records, {count / (time.monotonic() - started_s):,.0f} a second")
        store.end_rebuild()
    return count


def restoring(record: Record) -> Write:
    """The write that restores what a record of the tag topic holds, its revision included."""
    headers = {name: value for name, value in record.headers if value is not None}
    source_offset, revision = int(headers.get("source_offset", b"0")), int(headers["revision"])
    if record.value:
        product = ProductTags.model_validate_json(record.value)
        return Write(product, source_offset, revision=revision)
    gone = ProductTags(
        product_id=(record.key or b"").decode(),
        revision=revision,
        event_version=int(headers["event_version"]),
        model_version="",
        model_generation=int(headers["model_generation"]),
        taxonomy_version="",
        tagged_at=datetime.fromtimestamp(record.timestamp_ms / 1000, UTC),
        image="none",
        tags=(),
    )
    return Write(gone, source_offset, deleted=True, revision=revision)


def batches(things: Iterable[T]) -> Iterator[list[T]]:
    """Lists of at most 500."""
    source = iter(things)
    while batch := list(islice(source, _BATCH_RECORDS)):
        yield batch
