"""What became of a known history, seen from outside: plain clients of Kafka and Redis, no part of the stream.

Lost: a product whose tags are missing or of an older version, in the store or on the topic.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import redis

from tagstream.adapters.kafka.topics import read_all
from tagstream.core.errors import InvalidEvent
from tagstream.core.events import ProductEvent, ProductTags
from tagstream.core.ports import Record
from tagstream.core.records import KeyValue
from tagstream.settings import Settings
from tagstream.stream.decode import Decoder


@dataclass(slots=True)
class Expectation:
    """`newest`: the newest event of every product, deletes included. `refused`: what must be dead letters."""

    newest: dict[str, ProductEvent] = field(default_factory=dict)
    refused: list[KeyValue] = field(default_factory=list)
    total: int = 0

    @property
    def present(self) -> dict[str, int]:
        """Product → event_version of those that must have tags."""
        return {p: e.event_version or 0 for p, e in self.newest.items() if e.type == "upsert"}


def expect(
    records: Iterable[KeyValue], is_poison: Callable[[ProductEvent], bool] = lambda event: False
) -> Expectation:
    """`is_poison`: events that decode and must be dead letters all the same."""
    expectation = Expectation()
    decoder = Decoder()
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    for offset, sent in enumerate(records):
        expectation.total += 1
        try:
            event = decoder.decode(Record("", 0, offset, sent.key, sent.value), now_ms).product
        except InvalidEvent:
            expectation.refused.append(sent)
            continue
        if is_poison(event):
            expectation.refused.append(sent)
            continue
        known = expectation.newest.get(event.product_id)
        if known is None or (event.event_version or 0) >= (known.event_version or 0):
            expectation.newest[event.product_id] = event
    return expectation


class Audit:
    """Compares topic, store, index and dead letters with an expectation, and with each other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.standing: dict[str, ProductTags] = {}
        self.lost = 0
        self.trickled = 0
        self._latencies_ms: list[float] = []

    def run(self, expectation: Expectation, books: dict[str, int]) -> list[str]:
        """What is wrong, a sentence each."""
        problems: list[str] = []
        on_topic = self._read_topic(problems)
        in_store, revisions, index = self._read_store()
        self.standing = on_topic
        self._compare(expectation, on_topic, in_store, revisions, problems)
        facts = _facts(in_store)
        if index != facts:
            problems.append(f"the index differs from the products in {len(index ^ facts)} entries")
        self._check_dead_letters(expectation, problems)
        consumed = books.get("consumed", 0)
        if consumed != sum(n for name, n in books.items() if name != "consumed"):
            problems.append(f"the books do not balance: {books}")
        if consumed != expectation.total:
            problems.append(f"{expectation.total} records were published, {consumed} consumed")
        return problems

    def latency_ms(self, quantile: float) -> float:
        """Of publish → store, over the last version of products that had more than one."""
        ordered = sorted(self._latencies_ms) or [0.0]
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]

    def _read_topic(self, problems: list[str]) -> dict[str, ProductTags]:
        standing: dict[str, ProductTags] = {}
        revisions: dict[str, int] = {}
        for record in read_all(self._settings.kafka_bootstrap_servers, self._settings.topics.tags):
            product_id = (record.key or b"").decode()
            revision = int(dict(record.headers)["revision"] or b"0")
            if revision < revisions.get(product_id, 0):
                problems.append(f"{product_id}: revision {revision} came after {revisions[product_id]}")
            revisions[product_id] = revision
            if record.value:
                standing[product_id] = ProductTags.model_validate_json(record.value)
            else:
                standing.pop(product_id, None)
        return standing

    def _read_store(self) -> tuple[dict[str, ProductTags], dict[str, int], set[tuple[str, str]]]:
        view = read_store(self._settings)
        return view.products, view.updated_at_ms, view.index

    def _compare(
        self,
        expectation: Expectation,
        on_topic: dict[str, ProductTags],
        in_store: dict[str, ProductTags],
        updated: dict[str, int],
        problems: list[str],
    ) -> None:
        expected = expectation.present
        for product_id, version in expected.items():
            stored, published = in_store.get(product_id), on_topic.get(product_id)
            if not (_is_current(stored, version) and _is_current(published, version)):
                self.lost += 1
            elif stored != published:
                problems.append(f"{product_id}: store and topic differ")
        if self.lost:
            problems.append(f"{self.lost} products are missing or old in store or topic")
        for name, found in (("store", in_store), ("topic", on_topic)):
            if extra := found.keys() - expected.keys():
                problems.append(
                    f"{len(extra)} products in the {name} should not be there: {sorted(extra)[:3]}"
                )
        self._take_latencies(updated)

    def _take_latencies(self, updated: dict[str, int]) -> None:
        published_ms: dict[str, int] = {}
        versions: dict[str, int] = {}
        for record in read_all(self._settings.kafka_bootstrap_servers, self._settings.topics.events):
            product_id = (record.key or b"").decode(errors="replace")
            published_ms[product_id] = record.timestamp_ms
            versions[product_id] = versions.get(product_id, 0) + 1
        self._latencies_ms = [
            updated[product_id] - published_ms[product_id]
            for product_id, count in versions.items()
            if count > 1 and product_id in updated
        ]
        self.trickled = len(self._latencies_ms)

    def _check_dead_letters(self, expectation: Expectation, problems: list[str]) -> None:
        letters = read_all(self._settings.kafka_bootstrap_servers, self._settings.topics.dead_letters)
        found = sorted((letter.key or b"", letter.value or b"") for letter in letters)
        wanted = sorted((sent.key or b"", sent.value or b"") for sent in expectation.refused)
        if found != wanted:
            problems.append(f"{len(wanted)} records should be dead letters as they came, {len(found)} are")


@dataclass(slots=True)
class StoreView:
    """What the store holds. `event_versions` and `updated_at_ms` know deleted products too."""

    products: dict[str, ProductTags] = field(default_factory=dict)
    event_versions: dict[str, int] = field(default_factory=dict)
    updated_at_ms: dict[str, int] = field(default_factory=dict)
    #: ("group=value", product_id)
    index: set[tuple[str, str]] = field(default_factory=set)


def read_store(settings: Settings) -> StoreView:
    client: Any = redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
    prefix = f"{settings.prefix}tagstream:"
    view = StoreView()
    for key in client.scan_iter(f"{prefix}{{*}}:product:*", count=1000):
        product_id = key.split(":product:", 1)[1]
        fields: dict[str, str] = client.hgetall(key)
        view.updated_at_ms[product_id] = int(fields["updated_at_ms"])
        view.event_versions[product_id] = int(fields["event_version"])
        if fields["deleted"] != "1":
            tags = json.loads(fields["tags"])
            view.products[product_id] = ProductTags.model_validate(
                {**fields, "product_id": product_id, "tags": tags}
            )
    view.index = {
        (key.split(":tag:", 1)[1], product_id)
        for key in client.scan_iter(f"{prefix}{{*}}:tag:*", count=1000)
        for product_id in client.zrange(key, 0, -1)
    }
    client.close()
    return view


@dataclass(slots=True)
class TopicView:
    """What the tag topic says to a reader at read_committed.

    reordered: records with a revision below one that came before; repeated: with one seen before.
    """

    #: the last word on each product; None: no tags any more
    last: dict[str, ProductTags | None] = field(default_factory=dict)
    reordered: int = 0
    repeated: int = 0


def read_tags(settings: Settings) -> TopicView:
    view = TopicView()
    seen: dict[str, set[int]] = {}
    for record in _read(settings, settings.topics.tags):
        product_id = (record.key or b"").decode()
        revision = int(dict(record.headers)["revision"] or b"0")
        before = seen.setdefault(product_id, set())
        view.repeated += revision in before
        view.reordered += revision < max(before, default=0)
        before.add(revision)
        view.last[product_id] = ProductTags.model_validate_json(record.value) if record.value else None
    return view


@dataclass(slots=True)
class Findings:
    """What a fault did to a known history, in numbers of products, records or entries.

    lost: the store does not know the product's newest state at all; stale: it holds an older one;
    not_healed: the topic's last word on a product differs from the store.
    """

    lost: int = 0
    stale: int = 0
    not_healed: int = 0
    reordered: int = 0
    repeated: int = 0
    index_differences: int = 0
    letters_missing: int = 0
    letters_extra: int = 0
    letters_repeated: int = 0
    examples: list[str] = field(default_factory=list)


def examine(settings: Settings, expectation: Expectation) -> Findings:
    """Compares store, topic, index and dead letters with the expectation and with each other."""
    store, topic, found = read_store(settings), read_tags(settings), Findings()
    found.reordered, found.repeated = topic.reordered, topic.repeated
    for product_id, newest in expectation.newest.items():
        fault = _fault_of(newest, store.products.get(product_id), store.event_versions.get(product_id))
        found.lost += fault == "lost"
        found.stale += fault == "stale"
        if fault:
            found.examples.append(f"{product_id}: {fault} in the store")
        if product_id not in topic.last or topic.last[product_id] != store.products.get(product_id):
            found.not_healed += 1
            found.examples.append(f"{product_id}: the topic's last word differs from the store")
    extra = (store.event_versions.keys() | topic.last.keys()) - expectation.newest.keys()
    found.lost += len(extra)
    found.examples += [f"{product_id}: was never published" for product_id in sorted(extra)]
    found.index_differences = len(store.index ^ _facts(store.products))
    _count_letters(settings, expectation, found)
    return found


def _fault_of(newest: ProductEvent, product: ProductTags | None, event_version: int | None) -> str:
    if event_version is None:
        return "lost"
    if event_version != newest.event_version:
        return "stale"
    return "lost" if (product is None) == (newest.type == "upsert") else ""


def _count_letters(settings: Settings, expectation: Expectation, found: Findings) -> None:
    wanted = Counter((sent.key or b"", sent.value or b"") for sent in expectation.refused)
    letters = Counter(
        (letter.key or b"", letter.value or b"") for letter in _read(settings, settings.topics.dead_letters)
    )
    found.letters_missing = (wanted - letters).total()
    found.letters_extra = sum(count for letter, count in letters.items() if letter not in wanted)
    found.letters_repeated = (letters - wanted).total() - found.letters_extra


def _facts(products: Mapping[str, ProductTags]) -> set[tuple[str, str]]:
    return {
        (f"{tag.group}={tag.value}", product_id)
        for product_id, product in products.items()
        for tag in product.tags
    }


def _read(settings: Settings, topic: str) -> Iterable[Record]:
    config = {**settings.kafka_client_config, "isolation.level": "read_committed"}
    return read_all(settings.kafka_bootstrap_servers, topic, client_config=config)


def _is_current(product: ProductTags | None, event_version: int) -> bool:
    return product is not None and product.event_version >= event_version
