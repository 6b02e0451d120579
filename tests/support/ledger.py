"""Where `Transactions` write and what is seen of it: in memory, and on Apache Kafka."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import confluent_kafka as ck

from tagstream.adapters.kafka import topics
from tagstream.adapters.kafka.publisher import KafkaPublisher
from tagstream.adapters.kafka.source import KafkaSource
from tagstream.adapters.kafka.transactions import KafkaTransactions
from tagstream.adapters.local.apache import ApacheBroker
from tagstream.core.errors import Unavailable
from tagstream.core.ports import KafkaAddress, OutRecord, Publisher, Source, TopicPartition, Transactions
from tests.support.frozen import frozen
from tests.support.memory import (
    After,
    MemoryBroker,
    MemoryPublisher,
    MemorySource,
    MemoryTransactions,
)

_PATIENCE_S = 60.0


class Listener:
    def __init__(self) -> None:
        self.assigned: set[TopicPartition] = set()
        self.when_revoked: Callable[[], None] = lambda: None

    def on_assigned(self, partitions: Any) -> None:
        self.assigned |= set(partitions)

    def on_committed(self, next_offsets: object) -> None: ...

    def on_revoked(self, partitions: Any) -> None:
        self.when_revoked()
        self.assigned -= set(partitions)

    def on_lost(self, partitions: Any) -> None:
        self.assigned -= set(partitions)


def until(is_so: Callable[[], bool], turn: Callable[[], object] = lambda: None) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        turn()


class Ledger(ABC):
    """A topic `events` of one partition with a record in it, a topic `tags`, and a group."""

    events: str
    tags: str
    publisher: Publisher
    max_silence_ms: int

    @abstractmethod
    def member(self) -> tuple[Source, Transactions, Listener]:
        """A consumer of the group that has not polled yet, and its transactions."""

    @abstractmethod
    def visible(self) -> list[str]:
        """What a reader at read_committed sees of `tags`."""

    @abstractmethod
    def committed(self) -> int:
        """The group's next offset of `events`; 0 or less if there is none."""

    @abstractmethod
    def lose_an_answer(self, of: Transactions) -> None:
        """The next transaction is committed, but `of` does not hear that it was."""

    @abstractmethod
    def give_up(self, source: Source) -> None:
        """From now on the group does not hear this member, which must not poll."""

    @property
    def partition(self) -> TopicPartition:
        return TopicPartition(self.events, 0)

    def owner(self) -> tuple[Source, Transactions, Listener]:
        """A member that holds the partition."""
        source, its_transactions, listener = self.member()
        until(lambda: self.partition in listener.assigned, lambda: source.poll(10, 0.1))
        return source, its_transactions, listener

    def out(self, *values: str) -> list[OutRecord]:
        return [OutRecord(self.tags, b"k", value.encode()) for value in values]

    def shows(self, *values: str, next_offset: int) -> None:
        """Raises AssertionError with what it shows instead."""
        wanted, deadline_s = (list(values), next_offset), time.monotonic() + _PATIENCE_S
        while (shown := (self.visible(), self.committed())) != wanted:
            assert time.monotonic() < deadline_s, f"{shown} in place of {wanted}"


class MemoryLedger(Ledger):
    def __init__(self) -> None:
        self.events, self.tags = "events", "tags"
        self.broker = MemoryBroker(partitions=1)
        self.publisher = MemoryPublisher(self.broker)

    def member(self) -> tuple[Source, Transactions, Listener]:
        source, listener = MemorySource(self.broker, "group", self.events), Listener()
        source.subscribe(listener)
        return source, MemoryTransactions(self.broker, source), listener

    def visible(self) -> list[str]:
        return [(record.value or b"").decode() for record in self.broker.records(self.tags)]

    def committed(self) -> int:
        return self.broker.committed.get(("group", self.partition), 0)

    def lose_an_answer(self, of: Transactions) -> None:
        assert isinstance(of, MemoryTransactions)
        of.faults.append(After(Unavailable("the answer was lost")))

    def give_up(self, source: Source) -> None:
        assert isinstance(source, MemorySource)
        self.broker.evict(source)


class Otherwise:
    """A producer that commits in another way."""

    def __init__(self, real: Any, commit: Callable[[float], None]) -> None:
        self._real = real
        self.commit_transaction = commit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class KafkaLedger(Ledger):
    def __init__(self, broker: ApacheBroker, *, event_partitions: int = 1, tag_partitions: int = 1) -> None:
        self.broker, self.address = broker, broker.address
        name = uuid4().hex
        self.events, self.tags, self.group = f"events-{name}", f"tags-{name}", f"group-{name}"
        topics.TopicAdmin(KafkaAddress(self.address)).create(
            [topics.TopicPlan(self.events, event_partitions), topics.TopicPlan(self.tags, tag_partitions)],
        )
        self.publisher = KafkaPublisher(KafkaAddress(self.address))
        self.max_silence_ms = 300_000
        self.client_config: dict[str, Any] = {}
        self._opened: list[Source | Transactions] = []

    def member(self) -> tuple[KafkaSource, KafkaTransactions, Listener]:
        listener = Listener()
        patience = {"max.poll.interval.ms": self.max_silence_ms}
        source = KafkaSource(
            KafkaAddress(self.address, patience | self.client_config),
            self.group,
            self.events,
            session_timeout_ms=6000,
        )
        its_transactions = KafkaTransactions(
            KafkaAddress(self.address, self.client_config), self.group, source
        )
        self._opened += [its_transactions, source]
        source.subscribe(listener)
        return source, its_transactions, listener

    def visible(self) -> list[str]:
        return [
            (record.value or b"").decode()
            for record in topics.read_all(KafkaAddress(self.address), self.tags)
        ]

    def committed(self, number: int = 0) -> int:
        asker = ck.Consumer({"bootstrap.servers": self.address, "group.id": self.group, "log_level": 0})
        (answer,) = asker.committed([ck.TopicPartition(self.events, number)], timeout=10)
        asker.close()
        return answer.offset

    def lose_an_answer(self, of: Transactions) -> None:
        assert isinstance(of, KafkaTransactions)
        real, broker = of._producer, self.broker

        def impatiently(timeout_s: float) -> None:
            of._producer = real
            real.flush(timeout_s)
            with frozen(broker.pid):  # the request goes out, and its answer comes too late
                real.commit_transaction(1)

        of._producer = Otherwise(real, impatiently)

    def give_up(self, source: Source) -> None:
        """It does not poll, which is enough."""

    def close(self) -> None:
        for part in self._opened:
            part.close()
        self.publisher.close()


def insist(
    on: Transactions,
    records: list[OutRecord],
    offsets: dict[TopicPartition, int],
    member: Source | None = None,
) -> list[str]:
    """Commit until it is done, as a caller does, who polls in between. Returns what went wrong on the way."""
    troubles: list[str] = []
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            on.commit(records, offsets)
        except Unavailable as error:
            troubles.append(type(error).__name__)
            assert time.monotonic() < deadline_s, troubles
        else:
            return troubles
        if member is not None:
            poll_through_trouble(member)


def poll_through_trouble(member: Source) -> None:
    with contextlib.suppress(Unavailable):  # the broker was just killed
        member.poll(10, 0.1)


def written(ledger: KafkaLedger) -> list[str]:
    """What a reader who does not care sees: aborted records, too."""
    reader = ck.Consumer(
        {
            "bootstrap.servers": ledger.address,
            "group.id": "reader",
            "isolation.level": "read_uncommitted",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    reader.assign([ck.TopicPartition(ledger.tags, 0, ck.OFFSET_BEGINNING)])
    values: list[str] = []
    while (message := reader.poll(10)) is not None and message.error() is None:
        values.append((message.value() or b"").decode())
    reader.close()
    assert message is not None, "the broker is silent"
    return values
