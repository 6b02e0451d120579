"""What a lone Kafka broker leaves open when it crashes in the middle of a commit: closed, and shown once."""

from __future__ import annotations

import contextlib
from typing import Any
from uuid import uuid4

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]

from tagstream.adapters.kafka.transactions import KafkaTransactions
from tagstream.core.errors import TransactionAborted
from tagstream.core.ports import OutRecord, Source, TopicPartition, Transactions
from tests.support.ledger import (
    KafkaLedger,
    Listener,
    Otherwise,
    insist,
    poll_through_trouble,
    until,
    written,
)


def leave_unmarked(of: Transactions) -> None:
    """The next commit is told that it is done and stays open, as after the crash of a broker that passes
    over partitions without a leader when it marks how a transaction ended."""
    assert isinstance(of, KafkaTransactions)
    real = of._producer

    def carelessly(_: float) -> None:
        of._producer = real

    of._producer = Otherwise(real, carelessly)


def owner_of_hidden(kafka: KafkaLedger, *values: str) -> tuple[Source, KafkaTransactions, Listener]:
    """A member whose commit of these was told to be done, and rolled back with the next one."""
    source, mine, listener = kafka.owner()
    assert isinstance(mine, KafkaTransactions)
    leave_unmarked(mine)
    mine.commit(kafka.out(*values), {kafka.partition: len(values)})
    with pytest.raises(TransactionAborted, match="rolled back"):
        mine.commit(kafka.out("next"), {kafka.partition: len(values) + 1})
    return source, mine, listener


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
    mine._doubt = "open"
    mine.commit(kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)
    assert written(kafka) == ["a", "", "b"]


def test_what_was_sent_again_and_not_marked_either_is_sent_once_more(kafka: KafkaLedger) -> None:
    _, mine, _ = owner_of_hidden(kafka, "a")
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


def test_progress_without_records_is_committed_again_too(kafka: KafkaLedger) -> None:
    _, mine, _ = kafka.owner()
    assert isinstance(mine, KafkaTransactions)
    leave_unmarked(mine)
    mine.commit([], {kafka.partition: 1})  # all of it was superseded
    with pytest.raises(TransactionAborted, match="rolled back"):
        mine.commit(kafka.out("b"), {kafka.partition: 2})
    mine.settle()
    kafka.shows(next_offset=1)


def test_what_was_committed_last_is_remembered_for_each_partition(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        mine._doubt = "open"
        looked_at: list[object] = []
        really = mine._hidden

        def one_at_a_time(of: Any, deadline_s: float) -> list[OutRecord]:
            looked_at.append(of)
            if len(looked_at) == 2:
                raise TransactionAborted("time is up")
            return really(of, deadline_s)

        with monkeypatch.context() as slowly:
            slowly.setattr(mine, "_hidden", one_at_a_time)
            with pytest.raises(TransactionAborted, match="time is up"):
                mine.settle()
            assert len(mine._committed) == 1, "seen once is enough"
        mine.commit([], {kafka.partition: 3})
        assert len(kafka.visible()) == 17, "all of it was shown"


def test_it_settles_what_a_crash_left_open_though_there_is_nothing_to_commit(kafka: KafkaLedger) -> None:
    _, mine, _ = owner_of_hidden(kafka, "a")
    mine.settle()
    kafka.shows("a", next_offset=1)
    mine.settle()
    assert written(kafka) == ["a", "", "a"], "once is enough"


def test_a_consumer_that_the_group_has_given_up_sweeps_once(
    kafka: KafkaLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, mine, _ = owner_of_hidden(kafka, "a")

    def refuse(_: object) -> bytes:
        raise TransactionAborted("no longer held")

    with monkeypatch.context() as given_up:
        given_up.setattr(source, "group_metadata", refuse)
        for _ in range(3):
            with pytest.raises(TransactionAborted, match="no longer held"):
                mine.settle()
    mine.settle()
    kafka.shows("a", next_offset=1)
    assert written(kafka) == ["a", "", "a"]


def test_what_could_not_be_seen_is_swept_anew(kafka: KafkaLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    _, mine, _ = owner_of_hidden(kafka, "a")

    def blind(*_: object) -> list[OutRecord]:
        raise TransactionAborted("it may be open still")

    with monkeypatch.context() as blindly:
        blindly.setattr(mine, "_hidden", blind)
        with pytest.raises(TransactionAborted, match="may be open"):
            mine.settle()
    mine.settle()
    kafka.shows("a", next_offset=1)
    assert written(kafka) == ["a", "", "", "a"]


def test_an_output_topic_that_the_broker_does_not_know_counts_as_open(kafka: KafkaLedger) -> None:
    _, mine, _ = kafka.owner()
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.delete_topics([kafka.tags])[kafka.tags].result(20)
    until(lambda: kafka.tags not in admin.list_topics(timeout=10).topics)
    mine._doubt = "open"
    with pytest.raises(TransactionAborted, match=f"does not know now what is open in .*{kafka.tags}"):
        mine.settle()


def test_the_new_protocol_by_setting_does_not_keep_it_from_sweeping(kafka: KafkaLedger) -> None:
    kafka.client_config = {"group.protocol": "consumer"}
    _, mine, _ = kafka.owner()
    mine.commit(kafka.out("a"), {kafka.partition: 1})
    mine._doubt = "open"
    mine.commit(kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)


def test_what_was_done_again_after_a_partition_came_back_is_not_sent_again(kafka: KafkaLedger) -> None:
    kafka.max_silence_ms = 6000
    source, mine, listener = owner_of_hidden(kafka, "a")
    kafka.give_up(source)
    other, _, _ = kafka.owner()
    other.close()
    until(lambda: not listener.assigned, lambda: poll_through_trouble(source))
    until(lambda: kafka.partition in listener.assigned, lambda: poll_through_trouble(source))
    mine.commit(kafka.out("a", "b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)


def test_what_the_next_owner_has_done_again_is_not_sent_again(kafka: KafkaLedger) -> None:
    kafka.max_silence_ms = 6000
    first, its, listener = owner_of_hidden(kafka, "a")
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
    mine._doubt = "open"
    with pytest.raises(TransactionAborted, match=f"{kafka.tags}-0 do not show yet"):
        mine.commit(kafka.out("b"), {kafka.partition: 2})
    stranger.abort_transaction(20)
    insist(mine, kafka.out("b"), {kafka.partition: 2})
    kafka.shows("a", "b", next_offset=2)
