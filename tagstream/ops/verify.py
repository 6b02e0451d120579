"""`tagstream verify`: compares the tag topic with the store, product by product, and the store's index by tag
with its products.

Memory is bounded: the newest record of each product goes into a SQLite file on disk, and the store is scanned
beside it. A running stream makes differences that vanish, so each difference is looked at again.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tagstream.adapters.kafka.topics import read_all
from tagstream.adapters.redis.store import RedisStore
from tagstream.core.ports import Publisher, Record, Standing
from tagstream.ops.rebuild import batches, restoring
from tagstream.settings import Settings
from tagstream.stream.outgoing import tag_record
from tagstream.wiring import build_publisher, build_store

#: A difference counts when it is seen in so many looks in a row, each a read of the whole topic.
_LOOKS = 2
#: Most repairs of a running stream.
_REPAIRS = 5
_EXAMPLES = 5


@dataclass(slots=True)
class Report:
    """`differences`: kind → number of products, or of index entries. `examples`: kind → some of their ids."""

    products: int = 0
    repaired: int = 0
    differences: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def sentences(self) -> Iterator[str]:
        yield f"{self.products:,} products compared, {self.repaired:,} repaired"
        for kind, count in sorted(self.differences.items()):
            yield f"{count:,} {kind}: {', '.join(self.examples[kind])}"
        if not self.differences:
            yield "topic and store agree"

    def add(self, kind: str, product_id: str) -> None:
        self.differences[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(product_id)


def run_verify(settings: Settings, *, repair: bool, tell: Callable[[str], None]) -> Report:
    """Raises Unavailable if broker or store do not answer."""
    with closing(build_store(settings)) as store, closing(build_publisher(settings)) as publisher:
        report = Report()
        suspects: dict[str, str] | None = None
        for look in range(_LOOKS + (_REPAIRS if repair else 0)):
            with _newest_records(settings, suspects, tell) as topic:
                suspects = dict(_compare(store, topic, suspects, report, tell))
                if not suspects:
                    break
                if repair and 0 < look <= _REPAIRS:  # the last look checks the last repair
                    report.repaired += _repair(settings, store, publisher, suspects)
        for product_id, kind in (suspects or {}).items():
            report.add(kind, product_id)
        tell("checking the index by tag")
        for product_id, kind in store.check_index(repair=repair):
            if repair:
                report.repaired += 1
            else:
                report.add(kind, product_id)
    return report


_TAGGED = "SELECT product_id FROM last WHERE length(digest) > 0"


class _Topic:
    """The last record of each product, on disk."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE last (product_id TEXT PRIMARY KEY, revision INTEGER, digest BLOB)")

    def put(self, records: Iterable[Record]) -> None:
        rows = ((_key(r), _revision(r), _digest(r.value)) for r in records)
        self._db.executemany("INSERT OR REPLACE INTO last VALUES (?, ?, ?)", rows)

    def get(self, product_id: str) -> tuple[int, bytes] | None:
        """Revision and digest of the value."""
        found = self._db.execute("SELECT revision, digest FROM last WHERE product_id = ?", (product_id,))
        row: tuple[int, bytes] | None = found.fetchone()
        return row

    def tagged(self) -> Iterator[str]:
        """The products whose last record has a value."""
        return (product_id for (product_id,) in self._db.execute(_TAGGED))

    def close(self) -> None:
        self._db.close()


@contextmanager
def _newest_records(
    settings: Settings, only: dict[str, str] | None, tell: Callable[[str], None]
) -> Iterator[_Topic]:
    with (
        tempfile.TemporaryDirectory(prefix="tagstream-verify-") as folder,
        closing(_Topic(Path(folder) / "topic.sqlite")) as topic,
    ):
        count = 0
        for batch in batches(_records(settings)):
            topic.put(record for record in batch if only is None or _key(record) in only)
            count += len(batch)
            tell(f"reading the topic: {count:,} records")
        yield topic


def _compare(
    store: RedisStore,
    topic: _Topic,
    only: dict[str, str] | None,
    report: Report,
    tell: Callable[[str], None],
) -> Iterator[tuple[str, str]]:
    """The products that differ, and how."""
    compared = 0
    for product_ids in batches(store.product_ids() if only is None else iter(only)):
        for product_id, standing in zip(product_ids, store.get(product_ids), strict=True):
            if standing is not None and (kind := _difference(standing, topic.get(product_id))):
                yield product_id, kind
        compared += len(product_ids)
        tell(f"comparing: {compared:,} products")
    for product_ids in batches(topic.tagged()):
        for product_id, standing in zip(product_ids, store.get(product_ids), strict=True):
            if standing is None:
                yield product_id, "missing in the store"
    if only is None:
        report.products = compared


def _difference(standing: Standing, last: tuple[int, bytes] | None) -> str:
    assert standing.product is not None
    if last is None:
        # A deleted product's empty value is compacted away in time.
        return "" if standing.deleted else "missing on the topic"
    revision, digest = last
    if revision != standing.product.revision:
        return "older on the topic" if revision < standing.product.revision else "older in the store"
    value = None if standing.deleted else standing.product.model_dump_json().encode()
    return "" if digest == _digest(value) else "with other tags on the topic"


def _repair(settings: Settings, store: RedisStore, publisher: Publisher, suspects: dict[str, str]) -> int:
    """Restore from the topic what the store has lost; then publish what the store holds where they differ."""
    lost = {p for p, kind in suspects.items() if kind in ("missing in the store", "older in the store")}
    if lost:
        for batch in batches(record for record in _records(settings) if _key(record) in lost):
            store.put([restoring(record) for record in batch])
    for product_ids in batches(p for p in suspects if p not in lost):
        standing = [s for s in store.get(product_ids) if s is not None]
        publisher.publish([tag_record(settings.topics.tags, s) for s in standing])
    return len(suspects)


def _records(settings: Settings) -> Iterator[Record]:
    return read_all(settings.kafka, settings.topics.tags)


def _key(record: Record) -> str:
    return (record.key or b"").decode()


def _revision(record: Record) -> int:
    return int(dict(record.headers)["revision"] or b"0")


def _digest(value: bytes | None) -> bytes:
    return hashlib.sha256(value).digest() if value else b""
