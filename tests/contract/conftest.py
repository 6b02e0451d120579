"""Each port's twin in memory and its real adapter, under one roof."""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Literal
from uuid import uuid4

import pytest

from tagstream.adapters.kafka.publisher import KafkaPublisher
from tagstream.adapters.kafka.source import KafkaSource
from tagstream.adapters.kafka.topics import TopicAdmin, TopicPlan
from tagstream.adapters.redis.store import RedisStore
from tagstream.core.ports import KafkaAddress, Publisher, Record, Source, TagStore, TopicPartition
from tests.support.ledger import KafkaLedger
from tests.support.memory import MemoryBroker, MemoryPublisher, MemorySource
from tests.support.memory_store import MemoryStore

PARTITIONS = 2
#: The embedded broker lets a joining consumer wait for half of it. Apache Kafka takes no less than 6000.
SESSION_TIMEOUT_MS = int(os.environ.get("TAGSTREAM_TEST_SESSION_TIMEOUT_MS", "2000"))
_PATIENCE_S = 30.0


class Recorder:
    """A listener that remembers, and commits when a partition is taken away if asked to."""

    def __init__(self) -> None:
        self.assigned: set[TopicPartition] = set()
        self.told: list[tuple[Literal["assigned", "revoked", "lost"], tuple[TopicPartition, ...]]] = []
        self.when_revoked: Callable[[], None] = lambda: None

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        if partitions:
            self.assigned |= set(partitions)
            self.told.append(("assigned", tuple(partitions)))

    def on_committed(self, next_offsets: object) -> None: ...

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.when_revoked()
        self.assigned -= set(partitions)
        self.told.append(("revoked", tuple(partitions)))

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned -= set(partitions)
        self.told.append(("lost", tuple(partitions)))

    def was_told(self, what: str) -> bool:
        return any(kind == what for kind, _ in self.told)


class Bus(ABC):
    """A topic with a publisher and consumers in one group."""

    topic: str
    publisher: Publisher

    @abstractmethod
    def source(self, *, impatient: bool = False) -> tuple[Source, Recorder]:
        """A subscribed consumer. `impatient`: the group gives it up when it does not poll."""

    @abstractmethod
    def silence(self, source: Source) -> None:
        """From now on the group does not hear this impatient consumer, which must not poll."""

    def take(self, source: Source, count: int, *others: Source) -> list[Record]:
        """Poll until `count` records are there; `others` are polled, too, so that they serve the group."""
        taken: list[Record] = []
        self.until(lambda: len(taken) >= count, lambda: taken.extend(source.poll(100, 0.1)), *others)
        return taken

    def until(
        self, is_so: Callable[[], bool], turn: Callable[[], object] = lambda: None, *others: Source
    ) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not is_so():
            assert time.monotonic() < deadline_s, "it did not come to pass"
            turn()
            for other in others:
                other.poll(100, 0.05)


class MemoryBus(Bus):
    def __init__(self) -> None:
        self.topic = "events"
        self.broker = MemoryBroker(PARTITIONS)
        self.publisher = MemoryPublisher(self.broker)

    def source(self, *, impatient: bool = False) -> tuple[Source, Recorder]:
        source, recorder = MemorySource(self.broker, "group", self.topic), Recorder()
        source.subscribe(recorder)
        return source, recorder

    def silence(self, source: Source) -> None:
        assert isinstance(source, MemorySource)
        self.broker.evict(source)


class KafkaBus(Bus):
    def __init__(self, broker: str) -> None:
        self.topic = f"events-{uuid4().hex}"
        self.broker = broker
        self._opened: list[Source] = []
        plan = TopicPlan(self.topic, PARTITIONS, {"max.message.bytes": str(25 * 2**20)})
        TopicAdmin(KafkaAddress(broker)).create([plan])
        self.publisher = KafkaPublisher(KafkaAddress(broker), delivery_timeout_s=20.0)

    def source(self, *, impatient: bool = False) -> tuple[Source, Recorder]:
        config = {"max.poll.interval.ms": SESSION_TIMEOUT_MS + 500} if impatient else {}
        source = KafkaSource(
            KafkaAddress(self.broker, config),
            f"group-{self.topic}",
            self.topic,
            session_timeout_ms=SESSION_TIMEOUT_MS,
        )
        self._opened.append(source)
        recorder = Recorder()
        source.subscribe(recorder)
        return source, recorder

    def silence(self, source: Source) -> None:
        """It does not poll, so that librdkafka leaves the group, which it shows by having no member id."""
        assert isinstance(source, KafkaSource)
        self.until(lambda: not source._consumer.memberid(), lambda: time.sleep(0.05))

    def close(self) -> None:
        for source in self._opened:
            source.close()
        self.publisher.close()


@pytest.fixture(params=["memory", "kafka"])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    if request.param == "memory":
        yield MemoryBus()
        return
    kafka = KafkaBus(request.getfixturevalue("broker"))
    yield kafka
    kafka.close()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[TagStore]:
    """An empty store, not initialised."""
    if request.param == "memory":
        yield MemoryStore()
        return
    redis_store = RedisStore(
        request.getfixturevalue("valkey_url"), prefix=f"{uuid4().hex}-", delete_marker_ttl_s=86_400
    )
    yield redis_store
    redis_store.close()


@pytest.fixture
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaLedger]:
    with contextlib.closing(KafkaLedger(request.getfixturevalue("apache_kafka"))) as ledger:
        yield ledger
