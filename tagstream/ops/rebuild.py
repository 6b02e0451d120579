"""An emptied store, refilled from the tag topic through the same script that the stream writes with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
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
    """Returns the number of records read. Killed on the way, it is run again from the start.

    Consumers are refused until the last record is in; then they go on by themselves.

    Raises:
        BadSettings: the store was not emptied.
        Unavailable: broker or store do not answer.
    """
    store = build_store(settings)
    try:
        store.begin_rebuild()
        count, started_s = 0, time.monotonic()
        records = read_all(
            settings.kafka_bootstrap_servers,
            settings.topics.tags,
            client_config=settings.kafka_client_config,
        )
        for batch in batches(records):
            store.put([restoring(record) for record in batch])
            count += len(batch)
            tell(f"{count:,} records, {count / (time.monotonic() - started_s):,.0f} a second")
        store.end_rebuild()
        return count
    finally:
        store.close()


def restoring(record: Record) -> Write:
    """The write that brings back what a record of the tag topic says, its revision included."""
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
