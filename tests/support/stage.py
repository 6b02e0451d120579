"""A worker on a stage of in-memory twins, where micro-batches run when the test says so."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from tagstream.core.events import ProductTags
from tagstream.core.ports import OutRecord, Ports, Record, Topics
from tagstream.core.taxonomy import Taxonomy
from tagstream.stream.batching import MicroBatchLimits
from tagstream.stream.decode import Decoder
from tagstream.stream.limits import WorkerLimits
from tagstream.stream.worker import Worker
from tests.support.memory import (
    ManualClock,
    MemoryBroker,
    MemoryImages,
    MemoryMetrics,
    MemoryPublisher,
    MemorySource,
    MemoryTagger,
    MemoryTransactions,
)
from tests.support.memory_store import MemoryStore

TOPICS = Topics("product-events", "product-tags", "product-events.dead", "product-events.dead.handled")
TAXONOMY = Taxonomy.model_validate(
    {
        "taxonomy_version": "t1",
        "groups": [
            {"name": "colour", "values": [{"value": v} for v in ("Red", "Blue", "Green")]},
            {"name": "kind", "values": [{"value": v} for v in ("Shirt", "Shoe")]},
        ],
    }
)
LIMITS = WorkerLimits(micro_batch=MicroBatchLimits(max_events=4, flush_timeout_s=0.05), max_in_flight=2)


class Stepwise(Executor):
    """Runs a submitted micro-batch when `step` is called, or at once with `inline`."""

    def __init__(self, *, inline: bool) -> None:
        self.inline = inline
        self.waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        if self.inline:
            self.step()
        return future

    def step(self, index: int = 0) -> None:
        future, run = self.waiting[index]
        del self.waiting[index]
        try:
            future.set_result(run())
        except BaseException as error:
            future.set_exception(error)


def event(product_id: str, version: int = 1, title: str = "A red shirt", **fields: Any) -> bytes:
    return json.dumps(
        {
            "schema_version": "1.0",
            "event_id": f"{product_id}-{version}",
            "type": "upsert",
            "product_id": product_id,
            "event_version": version,
            "occurred_at": "2026-01-01T00:00:00Z",
            "title": title,
            **fields,
        }
    ).encode()


def deletion(product_id: str, version: int) -> bytes:
    return event(product_id, version, title="", type="delete")


@dataclass
class Stage:
    """One broker and store; as many workers as `worker` is called."""

    inline: bool = True
    limits: WorkerLimits = LIMITS
    partitions: int = 1
    exactly_once: bool = False
    clock: ManualClock = field(default_factory=ManualClock)
    metrics: MemoryMetrics = field(default_factory=MemoryMetrics)
    images: MemoryImages = field(default_factory=MemoryImages)
    tagger: MemoryTagger = field(default_factory=lambda: MemoryTagger(TAXONOMY))
    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(self.partitions, self.clock)
        self.store.initialise()
        self.executor = Stepwise(inline=self.inline)
        self.source = MemorySource(self.broker, "g", TOPICS.events)
        self.publisher = MemoryPublisher(self.broker)
        self.worker = self.new_worker(self.source)

    def new_worker(self, source: MemorySource) -> Worker:
        transactions = MemoryTransactions(self.broker, source) if self.exactly_once else None
        ports = Ports(
            source,
            self.images,
            self.tagger,
            self.store,
            self.publisher,
            self.store,
            self.metrics,
            self.clock,
            TOPICS,
            transactions,
        )
        worker = Worker(ports, Decoder(), self.limits, self.executor)
        source.subscribe(worker.handover)
        return worker

    def send(self, product_id: str | bytes, value: bytes | None, **more: Any) -> None:
        key = product_id.encode() if isinstance(product_id, str) else product_id
        self.broker.append(OutRecord(TOPICS.events, key, value, **more))

    def turn(self, times: int = 12) -> None:
        for _ in range(times):
            self.worker.turn()
            self.clock.advance(0.3)

    @property
    def tags(self) -> list[Record]:
        return self.broker.records(TOPICS.tags)

    @property
    def dead(self) -> list[Record]:
        return self.broker.records(TOPICS.dead_letters)

    @property
    def committed(self) -> int:
        return sum(self.broker.committed.values())

    @property
    def books(self) -> dict[str, int]:
        return self.worker.status().books

    def standing(self, product_id: str) -> ProductTags | None:
        standing = self.store.get([product_id])[0]
        return standing.product if standing and not standing.deleted else None

    def balanced(self) -> bool:
        books = dict(self.books)
        return books.pop("consumed", 0) == sum(books.values())


def headers(record: Record) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in record.headers}
