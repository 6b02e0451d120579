"""What became of a known history, seen from outside, with plain clients of Kafka and Redis."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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
            event = None
        if event is None or is_poison(event):
            expectation.refused.append(sent)
            continue
        known = expectation.newest.get(event.product_id)
        if known is None or (event.event_version or 0) >= (known.event_version or 0):
            expectation.newest[event.product_id] = event
    return expectation


@dataclass(slots=True)
class StoreView:
    """What the store holds. `event_versions` and `updated_at_ms` cover deleted products too."""

    products: dict[str, ProductTags] = field(default_factory=dict)
    event_versions: dict[str, int] = field(default_factory=dict)
    updated_at_ms: dict[str, int] = field(default_factory=dict)
    #: ("group=value", product_id)
    index: set[tuple[str, str]] = field(default_factory=set)


def read_store(settings: Settings) -> StoreView:
    """Read key by key, without the store's adapter."""
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
    """What a reader of the tag topic sees at read_committed.

    reordered: records with a revision below one that came before; repeated: with one that came before.
    """

    #: the last record of each product; None: no tags any more
    last: dict[str, ProductTags | None] = field(default_factory=dict)
    reordered: int = 0
    repeated: int = 0


def read_tags(settings: Settings) -> TopicView:
    """The whole tag topic. Raises Unavailable."""
    view = TopicView()
    seen: dict[str, set[int]] = {}
    for record in read_all(settings.kafka, settings.topics.tags):
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
    """How the outcome differs from a known history, in numbers of products, records or entries.

    lost: the store does not have the product's newest state at all; stale: it has an older one;
    not_healed: the topic's last record of a product differs from the store.
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

    def problems(self) -> Iterator[str]:
        """A sentence for each number that is not 0, but for repeated tag records: those are allowed."""
        sentences = {
            "lost": "products are missing in the store, or should not be there",
            "stale": "products are older in the store than their newest event",
            "not_healed": "products differ between store and topic",
            "reordered": "records of the tag topic came after a newer one of their product",
            "index_differences": "entries of the index differ from the products",
            "letters_missing": "records should be dead letters as they came, and are not",
            "letters_extra": "dead letters were not expected",
            "letters_repeated": "dead letters came more than once",
        }
        for name, sentence in sentences.items():
            if count := getattr(self, name):
                yield f"{count} {sentence}"
        yield from self.examples[:3]


def examine(settings: Settings, expectation: Expectation) -> Findings:
    """Compares store, topic, index and dead letters with the expectation and with each other."""
    return compare(settings, expectation, read_store(settings), read_tags(settings))


def compare(settings: Settings, expectation: Expectation, store: StoreView, topic: TopicView) -> Findings:
    """The same for a store and a topic that were read before; the dead letters are read here."""
    found = Findings(reordered=topic.reordered, repeated=topic.repeated)
    for product_id, newest in expectation.newest.items():
        fault = _fault_of(newest, store.products.get(product_id), store.event_versions.get(product_id))
        found.lost += fault == "lost"
        found.stale += fault == "stale"
        if fault:
            found.examples.append(f"{product_id}: {fault} in the store")
        if product_id not in topic.last or topic.last[product_id] != store.products.get(product_id):
            found.not_healed += 1
            found.examples.append(f"{product_id}: the topic's last record differs from the store")
    extra = (store.event_versions.keys() | topic.last.keys()) - expectation.newest.keys()
    found.lost += len(extra)
    found.examples += [f"{product_id}: was never published" for product_id in sorted(extra)]
    found.index_differences = len(store.index ^ _index_of(store.products))
    _count_letters(settings, expectation, found)
    return found


def unbalanced(expectation: Expectation, books: Mapping[str, int]) -> Iterator[str]:
    """What is wrong with a worker's books: consumed = the sum of the outcomes = what was published."""
    consumed = books.get("consumed", 0)
    if consumed != sum(n for name, n in books.items() if name != "consumed"):
        yield f"the books do not balance: {dict(books)}"
    if consumed != expectation.total:
        yield f"{expectation.total} records were published, {consumed} consumed"


def _fault_of(newest: ProductEvent, product: ProductTags | None, event_version: int | None) -> str:
    if event_version is None:
        return "lost"
    if event_version != newest.event_version:
        return "stale"
    return "lost" if (product is None) == (newest.type == "upsert") else ""


def _count_letters(settings: Settings, expectation: Expectation, found: Findings) -> None:
    wanted = Counter((sent.key or b"", sent.value or b"") for sent in expectation.refused)
    letters = Counter(
        (letter.key or b"", letter.value or b"")
        for letter in read_all(settings.kafka, settings.topics.dead_letters)
    )
    found.letters_missing = (wanted - letters).total()
    found.letters_extra = sum(count for letter, count in letters.items() if letter not in wanted)
    found.letters_repeated = (letters - wanted).total() - found.letters_extra


def _index_of(products: Mapping[str, ProductTags]) -> set[tuple[str, str]]:
    return {
        (f"{tag.group}={tag.value}", product_id)
        for product_id, product in products.items()
        for tag in product.tags
    }
