"""`Transactions`: the twin in memory and the adapter on Apache Kafka. The embedded broker cannot keep the
contract, and is told apart."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka as ck
import pytest

from tagstream.adapters import topics
from tagstream.adapters.apache import ApacheBroker
from tagstream.adapters.embedded import EmbeddedBroker
from tagstream.adapters.kafka_publisher import KafkaPublisher
from tagstream.adapters.kafka_source import KafkaSource
from tagstream.adapters.memory import (
    After,
    MemoryBroker,
    MemoryPublisher,
    MemorySource,
    MemoryTransactions,
)
from tagstream.adapters.transaction_probe import hides_aborted_records
from tagstream.adapters.transactions import KafkaTransactions
from tagstream.core.errors import TransactionAborted, Unavailable
from tagstream.core.ports import OutRecord, Publisher, Source, TopicPartition, Transactions

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


class KafkaLedger(Ledger):
    def __init__(self, broker: ApacheBroker, *, event_partitions: int = 1, tag_partitions: int = 1) -> None:
        self.broker, self.address = broker, broker.address
        name = uuid4().hex
        self.events, self.tags, self.group = f"events-{name}", f"tags-{name}", f"group-{name}"
        topics.TopicAdmin(self.address).create(
            [topics.TopicPlan(self.events, event_partitions), topics.TopicPlan(self.tags, tag_partitions)],
        )
        self.publisher = KafkaPublisher(self.address)
        self.max_silence_ms = 300_000
        self.client_config: dict[str, Any] = {}
        self._opened: list[Source | Transactions] = []

    def member(self) -> tuple[KafkaSource, KafkaTransactions, Listener]:
        listener = Listener()
        source = KafkaSource(
            self.address,
            self.group,
            self.events,
            session_timeout_ms=6000,
            client_config={"max.poll.interval.ms": self.max_silence_ms, **self.client_config},
        )
        its_transactions = KafkaTransactions(
            self.address, self.group, source, client_config=self.client_config
        )
        self._opened += [its_transactions, source]
        source.subscribe(listener)
        return source, its_transactions, listener

    def visible(self) -> list[str]:
        return [(record.value or b"").decode() for record in topics.read_all(self.address, self.tags)]

    def committed(self, number: int = 0) -> int:
        asker = ck.Consumer({"bootstrap.servers": self.address, "group.id": self.group, "log_level": 0})
        (answer,) = asker.committed([ck.TopicPartition(self.events, number)], timeout=10)
        asker.close()
        return answer.offset

    def lose_an_answer(self, of: Transactions) -> None:
        assert isinstance(of, KafkaTransactions)
        real, broker = of._producer, self.broker

        class Impatient:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def commit_transaction(self, timeout: float) -> None:
                of._producer = real
                real.flush(timeout)
                broker.freeze()  # the request goes out, and its answer comes too late
                try:
                    real.commit_transaction(1)
                finally:
                    broker.thaw()

        of._producer = Impatient()

    def give_up(self, source: Source) -> None:
        """It does not poll, which is enough."""

    def close(self) -> None:
        for part in self._opened:
            part.close()
        self.publisher.close()


@pytest.fixture
def kafka(request: pytest.FixtureRequest) -> Iterator[KafkaLedger]:
    ledger = KafkaLedger(request.getfixturevalue("apache_kafka"))
    yield ledger
    ledger.close()


@pytest.fixture(params=["memory", "kafka"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    found: Ledger = MemoryLedger() if request.param == "memory" else request.getfixturevalue("kafka")
    return found


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


def test_records_and_progress_appear_together_and_in_order(ledger: Ledger) -> None:
    _, mine, _ = ledger.owner()
    mine.commit(ledger.out("a", "b"), {ledger.partition: 2})
    mine.commit(ledger.out("c"), {ledger.partition: 3})
    mine.commit([], {ledger.partition: 5})
    ledger.shows("a", "b", "c", next_offset=5)


def test_a_consumer_that_holds_nothing_yet_commits_nothing(ledger: Ledger) -> None:
    source, mine, listener = ledger.member()
    with pytest.raises(TransactionAborted, match="no longer held"):
        mine.commit(ledger.out("too early"), {ledger.partition: 1})
    until(lambda: ledger.partition in listener.assigned, lambda: source.poll(10, 0.1))
    mine.commit(ledger.out("held"), {ledger.partition: 2})
    ledger.shows("held", next_offset=2)


def test_a_zombie_of_an_older_generation_is_refused(ledger: Ledger) -> None:
    ledger.max_silence_ms = 6000
    first, its, _ = ledger.owner()
    ledger.give_up(first)
    _, mine, _ = ledger.owner()
    with pytest.raises(TransactionAborted):
        its.commit(ledger.out("late"), {ledger.partition: 1})
    mine.commit(ledger.out("in time"), {ledger.partition: 2})
    ledger.shows("in time", next_offset=2)


def test_the_last_transaction_is_taken_while_the_consumer_leaves(ledger: Ledger) -> None:
    source, mine, listener = ledger.owner()
    listener.when_revoked = lambda: mine.commit(ledger.out("last"), {ledger.partition: 1})
    source.close()
    ledger.shows("last", next_offset=1)


def test_a_commit_repeated_because_its_answer_was_lost_shows_no_record_twice(ledger: Ledger) -> None:
    _, mine, _ = ledger.owner()
    ledger.lose_an_answer(mine)
    assert insist(mine, ledger.out("a", "b"), {ledger.partition: 2}) == ["Unavailable"]
    mine.commit(ledger.out("c"), {ledger.partition: 3})
    ledger.shows("a", "b", "c", next_offset=3)


def test_the_next_owner_goes_on_from_the_transaction(ledger: Ledger) -> None:
    ledger.publisher.publish([OutRecord(ledger.events, b"k", str(n).encode()) for n in range(3)])
    first, mine, _ = ledger.owner()
    mine.commit(ledger.out("a"), {ledger.partition: 2})
    first.close()
    second, _, listener = ledger.member()
    values: list[bytes | None] = []
    until(lambda: bool(values), lambda: values.extend(record.value for record in second.poll(10, 0.1)))
    assert values == [b"2"]
    assert listener.assigned == {ledger.partition}


# ---------------------------------------------------------------------- on a real broker only


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


def test_offsets_of_an_older_generation_are_refused_and_the_records_with_them_hidden(
    kafka: KafkaLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, its, _ = kafka.owner()
    assert isinstance(first, KafkaSource)
    old = first.group_metadata([kafka.partition])
    first.close()
    _, mine, _ = kafka.owner()
    monkeypatch.setattr(first, "group_metadata", lambda _: old)  # as if it had not heard
    with pytest.raises(TransactionAborted):
        its.commit(kafka.out("refused"), {kafka.partition: 1})
    mine.commit(kafka.out("taken"), {kafka.partition: 2})
    kafka.shows("taken", next_offset=2)
    assert written(kafka) == ["refused", "taken"], "nothing was hidden: it was not even written"


def steal(transactional_id: str, address: str) -> None:
    """What fences a producer for good: another with its id."""
    thief = ck.Producer({"bootstrap.servers": address, "transactional.id": transactional_id, "log_level": 0})
    thief.init_transactions(20)


def test_a_producer_that_cannot_go_on_is_replaced(kafka: KafkaLedger) -> None:
    _, mine, _ = kafka.owner()
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    steal(mine._config["transactional.id"], kafka.address)
    with pytest.raises(TransactionAborted):
        mine.commit(kafka.out("b"), {kafka.partition: 2})
    mine.commit(kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)


def test_one_that_cannot_go_on_while_a_transaction_is_undecided_shows_no_record_twice(
    kafka: KafkaLedger,
) -> None:
    _, mine, _ = kafka.owner()
    kafka.lose_an_answer(mine)
    with pytest.raises(Unavailable, match="not decided"):
        mine.commit(kafka.out("a"), {kafka.partition: 1})
    steal(mine._config["transactional.id"], kafka.address)
    insist(mine, kafka.out("a"), {kafka.partition: 1})
    insist(mine, kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)


@pytest.mark.parametrize("committed", [True, False])
def test_one_that_dies_while_it_commits_leaves_no_doubt(kafka: KafkaLedger, committed: bool) -> None:
    _, mine, _ = kafka.owner()
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    real = mine._producer

    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def commit_transaction(self, timeout: float) -> None:
            if committed:
                real.commit_transaction(timeout)
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._FATAL, "it dies", fatal=True))

    mine._producer = Dying()
    mine.commit(kafka.out("b"), {kafka.partition: 2})
    mine.commit(kafka.out("c"), {kafka.partition: 3})
    kafka.shows("a", "b", "c", next_offset=3)


def leave_unmarked(of: Transactions) -> None:
    """The next commit is told that it is done and stays open, as after the crash of a broker that passes
    over partitions without a leader when it marks how a transaction ended."""
    assert isinstance(of, KafkaTransactions)
    real = of._producer

    class Careless:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def commit_transaction(self, timeout: float) -> None:
            of._producer = real

    of._producer = Careless()


def test_what_was_committed_and_never_marked_is_shown_once_before_what_comes_next(
    kafka: KafkaLedger,
) -> None:
    _, mine, _ = kafka.owner()
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    leave_unmarked(mine)
    mine.commit(kafka.out("b", "c"), {kafka.partition: 3})
    with pytest.raises(TransactionAborted):  # the broker rolls back all that is open
        mine.commit(kafka.out("d"), {kafka.partition: 4})
    mine.commit(kafka.out("d"), {kafka.partition: 4})
    kafka.shows("a", "b", "c", "d", next_offset=4)
    assert written(kafka) == ["a", "b", "c", "", "b", "c", "d"], "swept, sent again, and only then the next"


def test_what_was_committed_and_marked_is_not_sent_again(kafka: KafkaLedger) -> None:
    _, mine, _ = kafka.owner()
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    mine._is_suspect = True
    mine.commit(kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)
    assert written(kafka) == ["a", "", "b"]


def test_what_was_sent_again_and_not_marked_either_is_sent_once_more(kafka: KafkaLedger) -> None:
    _, mine, _ = kafka.owner()
    leave_unmarked(mine)
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    with pytest.raises(TransactionAborted):
        mine.commit(kafka.out("b"), {kafka.partition: 2})
    leave_unmarked(mine)
    with pytest.raises(TransactionAborted):
        mine.commit(kafka.out("b"), {kafka.partition: 2})
    mine.commit(kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)


def test_its_progress_is_committed_again_too(request: pytest.FixtureRequest) -> None:
    broker = request.getfixturevalue("apache_kafka")
    with contextlib.closing(KafkaLedger(broker, event_partitions=2)) as kafka:
        other = TopicPartition(kafka.events, 1)
        source, mine, listener = kafka.owner()
        until(lambda: other in listener.assigned, lambda: source.poll(10, 0.1))
        leave_unmarked(mine)
        mine.commit(kafka.out("a"), {kafka.partition: 1, other: 1})
        with pytest.raises(TransactionAborted):
            mine.commit(kafka.out("b"), {kafka.partition: 2})
        mine.commit(kafka.out("b"), {kafka.partition: 2})
        kafka.shows("a", "b", next_offset=2)
        assert kafka.committed(1) == 1


def test_what_was_committed_last_is_remembered_for_each_partition(request: pytest.FixtureRequest) -> None:
    broker = request.getfixturevalue("apache_kafka")
    with contextlib.closing(KafkaLedger(broker, tag_partitions=2)) as kafka:
        _, mine, _ = kafka.owner()
        everywhere = [OutRecord(kafka.tags, str(key).encode(), b"first") for key in range(16)]
        mine.commit(everywhere, {kafka.partition: 1})
        mine.commit(kafka.out("second"), {kafka.partition: 2})
        remembered = [{part: len(some) for part, some in of.records.items()} for of in mine._committed]
        (second,) = remembered[1]
        (first,) = remembered[0]
        assert {first.partition, second.partition} == {0, 1}
        mine._is_suspect = True
        mine.commit([], {kafka.partition: 3})
        assert len(kafka.visible()) == 17, "all of it was shown"


def test_it_settles_what_a_crash_left_open_though_there_is_nothing_to_commit(kafka: KafkaLedger) -> None:
    _, mine, _ = kafka.owner()
    leave_unmarked(mine)
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    with pytest.raises(TransactionAborted):
        mine.commit(kafka.out("b"), {kafka.partition: 2})
    mine.settle()
    kafka.shows("a", next_offset=1)
    mine.settle()
    assert written(kafka) == ["a", "", "a"], "once is enough"


def test_the_new_protocol_by_setting_does_not_keep_it_from_sweeping(kafka: KafkaLedger) -> None:
    kafka.client_config = {"group.protocol": "consumer"}
    _, mine, _ = kafka.owner()
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    mine._is_suspect = True
    mine.commit(kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)


def test_what_was_done_again_after_a_partition_came_back_is_not_sent_again(kafka: KafkaLedger) -> None:
    kafka.max_silence_ms = 6000
    source, mine, listener = kafka.owner()
    leave_unmarked(mine)
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    with pytest.raises(TransactionAborted, match="rolled back"):
        mine.commit(kafka.out("b"), {kafka.partition: 2})
    kafka.give_up(source)
    other, _, _ = kafka.owner()
    other.close()
    until(lambda: not listener.assigned, lambda: poll_through_trouble(source))
    until(lambda: kafka.partition in listener.assigned, lambda: poll_through_trouble(source))
    mine.commit(kafka.out("a", "b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)


def test_what_the_next_owner_has_done_again_is_not_sent_again(kafka: KafkaLedger) -> None:
    kafka.max_silence_ms = 6000
    first, its, listener = kafka.owner()
    leave_unmarked(its)
    its.commit(kafka.out("a"), {kafka.partition: 1})
    with pytest.raises(TransactionAborted, match="rolled back"):
        its.commit(kafka.out("b"), {kafka.partition: 2})
    kafka.give_up(first)
    _, mine, _ = kafka.owner()
    mine.commit(kafka.out("a", "b"), {kafka.partition: 2})
    with pytest.raises(TransactionAborted, match="rolled back"):  # the zombie's mending is refused
        its.commit(kafka.out("b"), {kafka.partition: 2})
    until(lambda: not listener.assigned, lambda: poll_through_trouble(first))
    with pytest.raises(TransactionAborted, match="no longer held"):
        its.commit(kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)


def test_while_it_cannot_be_told_what_is_open_nothing_new_is_sent(kafka: KafkaLedger) -> None:
    _, mine, _ = kafka.owner()
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    stranger = ck.Producer({"bootstrap.servers": kafka.address, "transactional.id": uuid4().hex})
    stranger.init_transactions(20)
    stranger.begin_transaction()
    stranger.produce(kafka.tags, b"a stranger's")
    stranger.flush(20)
    mine._is_suspect = True
    with pytest.raises(TransactionAborted, match=f"{kafka.tags}-0 do not show yet"):
        mine.commit(kafka.out("b"), {kafka.partition: 2})
    stranger.abort_transaction(20)
    insist(mine, kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)


@pytest.mark.parametrize("in_mid_commit", [True, False])
def test_a_broker_killed_loses_no_record_and_shows_none_twice(
    kafka: KafkaLedger, request: pytest.FixtureRequest, in_mid_commit: bool
) -> None:
    broker = request.getfixturevalue("apache_kafka")
    source, mine, _ = kafka.owner()
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    if in_mid_commit:
        kafka.lose_an_answer(mine)
        with pytest.raises(Unavailable, match="not decided"):
            mine.commit(kafka.out("b"), {kafka.partition: 2})
    broker.kill()
    try:
        started_s, answered = time.monotonic(), False
        with contextlib.suppress(Unavailable):
            mine.commit(kafka.out("b"), {kafka.partition: 2})
            answered = True
        assert in_mid_commit or not answered, "the broker is dead"  # else its answer may have come before
        assert time.monotonic() - started_s < 12.0, "a call takes about 10 s at most"
    finally:
        broker.restart()
    if not answered:
        insist(mine, kafka.out("b"), {kafka.partition: 2}, source)
    insist(mine, kafka.out("c"), {kafka.partition: 3}, source)
    kafka.shows("a", "b", "c", next_offset=3)


def test_apache_kafka_hides_aborted_records_and_the_embedded_broker_shows_them(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with EmbeddedBroker(tmp_path) as embedded:
        assert not hides_aborted_records(embedded.address, "probe")
        assert not hides_aborted_records(embedded.address, "probe"), "the topic is there already"
        gone = embedded.address
    with pytest.raises(Unavailable, match="could not be asked"):
        hides_aborted_records(gone, "probe", timeout_s=1.0)
    apache = request.getfixturevalue("apache_kafka").address
    assert hides_aborted_records(apache, "probe")
    assert hides_aborted_records(apache, "probe")


def test_partitions_that_change_while_a_transaction_is_open_still_begin_where_the_group_stands(
    request: pytest.FixtureRequest,
) -> None:
    address, name = request.getfixturevalue("apache_kafka").address, uuid4().hex
    topics.TopicAdmin(address).create([topics.TopicPlan(name, 4)])
    client: dict[str, Any] = {"bootstrap.servers": address, "group.id": name, "log_level": 0}
    writer = ck.Producer({"bootstrap.servers": address, "log_level": 0})
    for partition in range(4):
        for number in range(10):
            writer.produce(name, str(number).encode(), partition=partition)
    writer.flush(20)
    outsider = ck.Consumer(client)
    outsider.commit(offsets=[ck.TopicPartition(name, p, 5) for p in range(4)], asynchronous=False)
    open_one = ck.Producer({"bootstrap.servers": address, "transactional.id": name, "log_level": 0})
    open_one.init_transactions(20)
    open_one.begin_transaction()
    open_one.send_offsets_to_transaction(
        [ck.TopicPartition(name, p, 7) for p in range(4)], outsider.consumer_group_metadata(), 20
    )
    outsider.close()

    sources, listeners = [KafkaSource(address, name, name) for _ in range(2)], [Listener(), Listener()]
    read: dict[int, list[int]] = {partition: [] for partition in range(4)}

    def poll_all() -> None:
        for source in sources:
            for record in source.poll(100, 0.05):
                read[record.partition].append(record.offset)

    sources[0].subscribe(listeners[0])
    until(lambda: len(listeners[0].assigned) == 4, poll_all)
    sources[1].subscribe(listeners[1])
    until(lambda: [len(of.assigned) for of in listeners] == [2, 2], poll_all)
    assert not any(read.values()), "the transaction is open"
    open_one.abort_transaction(20)
    until(lambda: all(9 in offsets for offsets in read.values()), poll_all)
    for source in sources:
        source.close()
    assert read == {partition: [5, 6, 7, 8, 9] for partition in range(4)}
