"""`Transactions`: the twin in memory and the adapter on Apache Kafka. The embedded broker cannot keep the
contract, and is told apart."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import confluent_kafka as ck
import pytest

from tagstream.adapters.kafka import topics
from tagstream.adapters.kafka.source import KafkaSource
from tagstream.adapters.kafka.visibility import hides_aborted_records
from tagstream.adapters.local.embedded import EmbeddedBroker
from tagstream.core.errors import TransactionAborted, Unavailable
from tagstream.core.ports import KafkaAddress, OutRecord
from tests.support.ledger import (
    KafkaLedger,
    Ledger,
    Listener,
    MemoryLedger,
    Otherwise,
    insist,
    until,
    written,
)


@pytest.fixture(params=["memory", "kafka"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    found: Ledger = MemoryLedger() if request.param == "memory" else request.getfixturevalue("kafka")
    return found


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

    def deadly(timeout_s: float) -> None:
        if committed:
            real.commit_transaction(timeout_s)
        raise ck.KafkaException(ck.KafkaError(ck.KafkaError._FATAL, "it dies", fatal=True))

    mine._producer = Otherwise(real, deadly)
    mine.commit(kafka.out("b"), {kafka.partition: 2})
    mine.commit(kafka.out("c"), {kafka.partition: 3})
    kafka.shows("a", "b", "c", next_offset=3)


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
        assert not hides_aborted_records(KafkaAddress(embedded.address), "probe")
        assert not hides_aborted_records(KafkaAddress(embedded.address), "probe"), (
            "the topic is there already"
        )
        gone = embedded.address
    with pytest.raises(Unavailable, match="could not be asked"):
        hides_aborted_records(KafkaAddress(gone), "probe", timeout_s=1.0)
    apache = request.getfixturevalue("apache_kafka").address
    assert hides_aborted_records(KafkaAddress(apache), "probe")
    assert hides_aborted_records(KafkaAddress(apache), "probe")


def test_partitions_that_change_while_a_transaction_is_open_still_begin_where_the_group_stands(
    request: pytest.FixtureRequest,
) -> None:
    address, name = request.getfixturevalue("apache_kafka").address, uuid4().hex
    topics.TopicAdmin(KafkaAddress(address)).create([topics.TopicPlan(name, 4)])
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

    sources, listeners = (
        [KafkaSource(KafkaAddress(address), name, name) for _ in range(2)],
        [Listener(), Listener()],
    )
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
