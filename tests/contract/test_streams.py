"""`Source` and `Publisher`: the twins in memory and the adapters on a real broker."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tagstream.core.errors import Unavailable
from tagstream.core.ports import OutRecord, TopicPartition
from tests.support.memory import After, MemoryBroker, MemoryPublisher, MemorySource

PARTITIONS = 2


def publish(bus: Any, *values: str, key: str | None = None) -> None:
    bus.publisher.publish([OutRecord(bus.topic, (key or value).encode(), value.encode()) for value in values])


def values(records: list[Any]) -> list[str]:
    return [record.value.decode() for record in records]


def test_records_of_one_key_arrive_in_order(bus: Any) -> None:
    for start in range(0, 300, 100):
        bus.publisher.publish(
            [
                OutRecord(bus.topic, f"k{number % 7}".encode(), str(number).encode())
                for number in range(start, start + 100)
            ]
        )
    source, _ = bus.source()
    records = bus.take(source, 300)
    for key in {record.key for record in records}:
        of_key = [record for record in records if record.key == key]
        assert len({record.partition for record in of_key}) == 1
        assert [int(record.value) for record in of_key] == sorted(int(record.value) for record in of_key)
    assert sorted(int(record.value) for record in records) == list(range(300))


def test_headers_empty_values_and_timestamps_survive(bus: Any) -> None:
    headers = (("event_id", b"\x00\xff"), ("event_id", b"twice"), ("traceparent", None))
    bus.publisher.publish([OutRecord(bus.topic, b"k", None, headers, 1_700_000_000_123)])
    source, _ = bus.source()
    (record,) = bus.take(source, 1)
    assert (record.topic, record.offset, record.key, record.value) == (bus.topic, 0, b"k", None)
    assert record.headers == headers
    assert record.timestamp_ms == 1_700_000_000_123


def test_a_record_of_13_mb_arrives_whole(bus: Any) -> None:
    picture = os.urandom(13 * 10**6)
    bus.publisher.publish([OutRecord(bus.topic, b"k", picture)])
    source, _ = bus.source()
    assert bus.take(source, 1)[0].value == picture


def test_poll_gives_no_more_than_was_asked_for(bus: Any) -> None:
    publish(bus, *map(str, range(50)))
    source, _ = bus.source()
    taken: list[Any] = []
    bus.until(lambda: len(taken) == 50, lambda: taken.append(source.poll(1, 0.1)) or _flatten(taken))
    assert sorted(map(int, values(taken))) == list(range(50))


def _flatten(taken: list[Any]) -> None:
    batch = taken.pop()
    assert len(batch) <= 1
    taken.extend(batch)


@pytest.mark.parametrize("wait", [True, False])
def test_another_consumer_goes_on_where_the_last_one_committed(bus: Any, wait: bool) -> None:
    publish(bus, *map(str, range(10)), key="k")
    first, recorder = bus.source()
    records = bus.take(first, 10)
    partition = records[0].source
    first.commit({partition: 6}, wait=wait)
    first.close()
    assert recorder.was_told("revoked")
    second, _ = bus.source()
    assert values(bus.take(second, 4)) == ["6", "7", "8", "9"]


def test_what_was_not_committed_comes_again(bus: Any) -> None:
    publish(bus, "a", "b")
    first, _ = bus.source()
    bus.take(first, 2)
    first.close()
    second, _ = bus.source()
    assert sorted(values(bus.take(second, 2))) == ["a", "b"]


def test_closing_calls_revoked_and_a_commit_inside_it_counts(bus: Any) -> None:
    publish(bus, "a", "b", key="k")
    first, recorder = bus.source()
    records = bus.take(first, 2)
    recorder.when_revoked = lambda: first.commit({records[0].source: 1}, wait=True)
    first.close()
    assert recorder.told[-1][0] == "revoked"
    assert recorder.assigned == set()
    second, _ = bus.source()
    assert values(bus.take(second, 1)) == ["b"]


def test_a_second_consumer_takes_partitions_over_after_a_clean_revoke(bus: Any) -> None:
    publish(bus, *map(str, range(20)))
    first, one = bus.source()
    records = bus.take(first, 20)
    ends = {
        partition: 1 + max(r.offset for r in records if r.source == partition) for partition in one.assigned
    }
    one.when_revoked = lambda: first.commit(ends, wait=True)
    second, two = bus.source()
    again: list[Any] = []
    bus.until(
        lambda: len(one.assigned) == len(two.assigned) == 1,
        lambda: again.extend(second.poll(100, 0.05)),
        first,
    )
    assert one.assigned | two.assigned == {TopicPartition(bus.topic, p) for p in range(PARTITIONS)}
    assert one.was_told("revoked")
    assert not one.was_told("lost")
    assert again == [], "what was committed in the revoke came again"


def test_a_consumer_given_up_by_its_group_is_told_that_its_partitions_are_lost(bus: Any) -> None:
    publish(bus, *map(str, range(20)))
    first, one = bus.source(impatient=True)
    records = bus.take(first, 20)
    bus.silence(first)
    second, two = bus.source()
    bus.until(lambda: len(two.assigned) == PARTITIONS, lambda: second.poll(100, 0.1))
    bus.until(lambda: one.was_told("lost"), lambda: first.poll(100, 0.05))
    assert not one.was_told("revoked")
    first.commit({records[0].source: 1}, wait=True)  # harmless: it owns nothing
    assert two.assigned, "a zombie's commit disturbed nobody"


def test_nothing_arrives_while_paused_not_even_from_new_partitions(bus: Any) -> None:
    publish(bus, "a")
    source, recorder = bus.source()
    source.pause()
    arrived: list[Any] = []
    bus.until(lambda: len(recorder.assigned) == PARTITIONS, lambda: arrived.extend(source.poll(10, 0.1)))
    arrived += source.poll(10, 0.5)
    assert arrived == []
    source.resume()
    assert values(bus.take(source, 1)) == ["a"]
    source.pause()
    publish(bus, "b")
    assert source.poll(10, 0.5) == []
    assert sum(source.lag().values()) == 1
    source.resume()
    assert values(bus.take(source, 1)) == ["b"]


def test_lag_is_what_was_not_polled(bus: Any) -> None:
    publish(bus, *map(str, range(30)))
    source, recorder = bus.source()
    assert source.lag() == {}
    first: list[Any] = []
    bus.until(lambda: bool(first), lambda: first.extend(source.poll(5, 0.1)))
    bus.until(lambda: sum(source.lag().values()) == 30 - len(first), lambda: None)
    assert set(source.lag()) == recorder.assigned
    bus.take(source, 30 - len(first))
    assert set(source.lag().values()) == {0}


def test_each_of_many_threads_gets_its_own_acknowledgement(bus: Any) -> None:
    start = threading.Barrier(8)

    def publish_some(thread: int) -> None:
        start.wait()
        for number in range(20):
            bus.publisher.publish(
                [
                    OutRecord(bus.topic, f"{thread}".encode(), f"{thread}-{number}-{i}".encode())
                    for i in range(3)
                ]
            )

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(publish_some, range(8)))
    source, _ = bus.source()
    records = bus.take(source, 480)
    assert len({record.value for record in records}) == 480
    for thread in range(8):
        mine = [record.value for record in records if record.key == f"{thread}".encode()]
        assert mine == [f"{thread}-{number}-{i}".encode() for number in range(20) for i in range(3)]


def test_publishing_nothing_is_nothing(bus: Any) -> None:
    bus.publisher.publish([])
    publish(bus, "only")
    source, _ = bus.source()
    assert values(bus.take(source, 1)) == ["only"]


def test_the_twin_tells_how_many_offsets_retention_took() -> None:
    broker = MemoryBroker(partitions=1)
    MemoryPublisher(broker).publish([OutRecord("t", b"k", str(number).encode()) for number in range(10)])
    partition = TopicPartition("t", 0)
    broker.committed["g", partition] = 2
    broker.trim(partition, 7)
    told: list[int] = []
    source = MemorySource(broker, "g", "t", on_offsets_lost=told.append)
    source.subscribe(_Nobody())
    assert values(source.poll(10, 0.0)) == ["7", "8", "9"]
    assert told == [5]


def test_the_twin_fails_before_or_after_the_work_as_it_is_told() -> None:
    broker = MemoryBroker(partitions=1)
    publisher = MemoryPublisher(broker)
    publisher.faults.extend([Unavailable("before"), None, After(Unavailable("after"))])
    outcomes = []
    for number in range(4):
        try:
            publisher.publish([OutRecord("t", b"k", str(number).encode())])
            outcomes.append("worked")
        except Unavailable as error:
            outcomes.append(str(error))
    assert outcomes == ["before", "worked", "after", "worked"]
    assert values(broker.records("t")) == ["1", "2", "3"]


class _Nobody:
    def on_assigned(self, partitions: object) -> None: ...

    def on_committed(self, next_offsets: object) -> None: ...

    def on_revoked(self, partitions: object) -> None: ...

    def on_lost(self, partitions: object) -> None: ...
