"""What only a real broker can show, and what only its adapter promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from uuid import uuid4

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]

from tagstream.adapters.kafka import topics
from tagstream.adapters.kafka.publisher import KafkaPublisher
from tagstream.adapters.kafka.source import KafkaSource
from tagstream.adapters.local.apache import ApacheBroker
from tagstream.adapters.local.embedded import EmbeddedBroker, EmbeddedStore
from tagstream.core.errors import BadSettings, Unavailable
from tagstream.core.ports import KafkaAddress, OutRecord, TopicPartition
from tagstream.ops.topics import topic_plans
from tagstream.settings import Settings


@pytest.fixture
def topic(broker: str) -> str:
    name = f"topic-{uuid4().hex}"
    topics.TopicAdmin(KafkaAddress(broker)).create([topics.TopicPlan(name, 2)])
    return name


def out(topic: str, *values: str) -> list[OutRecord]:
    return [OutRecord(topic, value.encode(), value.encode()) for value in values]


def poll_for_ever(source: KafkaSource) -> None:
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        source.poll(1, 0.1)


def test_publishing_to_a_stopped_broker_raises_unavailable_and_works_when_it_is_back(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as first:
        topics.TopicAdmin(KafkaAddress(first.address)).create([topics.TopicPlan("t", 1)])
        publisher = KafkaPublisher(KafkaAddress(first.address), delivery_timeout_s=2.0)
        publisher.publish(out("t", *map(str, range(100))))
        port = first.port
    started_s = time.monotonic()
    with pytest.raises(Unavailable, match="not delivered"):
        publisher.publish(out("t", "lost"))
    assert time.monotonic() - started_s < 4.0, "the deadline is 2 s"
    with EmbeddedBroker(tmp_path, port=port) as second:  # it has forgotten topic, producer and sequence
        topics.TopicAdmin(KafkaAddress(second.address)).create([topics.TopicPlan("t", 1)])
        deadline_s = time.monotonic() + 20
        while True:
            try:
                publisher.publish(out("t", "again"))
                break
            except Unavailable:
                assert time.monotonic() < deadline_s
        publisher.close()
        assert [record.value for record in topics.read_all(KafkaAddress(second.address), "t")].count(
            b"again"
        ) >= 1


def test_a_source_without_a_broker_says_so_once_and_goes_on(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as gone:
        address = gone.address
    source = KafkaSource(KafkaAddress(address), "g", "t", session_timeout_ms=2000)
    source.subscribe(_Listener())
    with pytest.raises(Unavailable, match="no broker answers"):
        poll_for_ever(source)
    with pytest.raises(Unavailable, match="offsets"):
        source.commit({TopicPartition("t", 0): 1}, wait=True)
    source.close()


def test_a_missing_topic_is_named(broker: str) -> None:
    source = KafkaSource(KafkaAddress(broker), f"g-{uuid4().hex}", "no-such-topic", session_timeout_ms=2000)
    source.subscribe(_Listener())
    with pytest.raises(Unavailable, match="no-such-topic is not there"):
        poll_for_ever(source)
    source.close()


@pytest.fixture
def forgetful_broker() -> Iterator[str]:
    """librdkafka's own mock: unlike the embedded broker it answers `offset out of range`, and it keeps
    no more than 5 MiB of a partition. It proves nothing about delivery."""
    mock = ck.Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    yield ",".join(f"{node.host}:{node.port}" for node in mock.list_topics(timeout=5).brokers.values())
    del mock  # it is the cluster, and had to live until here


@pytest.mark.parametrize(("committed", "lost"), [(1, [2]), (1000, [])])
def test_offsets_that_are_gone_are_counted_and_the_rest_is_read(
    forgetful_broker: str, committed: int, lost: list[int]
) -> None:
    """1: retention was faster than the group. 1000: the topic was made anew under the group."""
    publisher = KafkaPublisher(KafkaAddress(forgetful_broker))
    for _ in range(8):
        publisher.publish([OutRecord("t", b"k", os.urandom(10**6))])
    (partition,) = {record.partition for record in topics.read_all(KafkaAddress(forgetful_broker), "t")}
    committer = ck.Consumer({"bootstrap.servers": forgetful_broker, "group.id": "g", "log_level": 0})
    committer.commit(offsets=[ck.TopicPartition("t", partition, committed)], asynchronous=False)
    committer.close()
    told: list[int] = []
    source = KafkaSource(
        KafkaAddress(forgetful_broker), "g", "t", session_timeout_ms=6000, on_offsets_lost=told.append
    )
    source.subscribe(_Listener())
    offsets: list[int] = []
    deadline_s = time.monotonic() + 20
    while len(offsets) < 5 and time.monotonic() < deadline_s:
        offsets += [record.offset for record in source.poll(100, 0.2)]
    source.close()
    publisher.close()
    assert offsets == [3, 4, 5, 6, 7]
    assert told == lost


@pytest.mark.parametrize(
    "config",
    [
        {"no.such.setting": "1"},
        {"auto.offset.reset": "sometimes"},
        {"partition.assignment.strategy": "range"},
    ],
)
def test_settings_that_the_client_cannot_use_are_refused(config: dict[str, str]) -> None:
    with pytest.raises(BadSettings):
        KafkaSource(KafkaAddress("127.0.0.1:1", config), "g", "t")


def test_a_record_too_large_for_the_client_is_named(broker: str, topic: str) -> None:
    publisher = KafkaPublisher(KafkaAddress(broker, {"message.max.bytes": 2000}))
    with pytest.raises(Unavailable, match="MSG_SIZE_TOO_LARGE"):
        publisher.publish([OutRecord(topic, b"k", b"x" * 5000)])
    publisher.publish(out(topic, "small"))
    publisher.close()


def test_a_record_too_large_for_its_topic_is_told_with_what_to_do_and_goes_when_that_is_done(
    apache_kafka: ApacheBroker,
) -> None:
    name, server = uuid4().hex, apache_kafka.address
    topics.TopicAdmin(KafkaAddress(server)).create([topics.TopicPlan(name, 1, {"max.message.bytes": "2000"})])
    publisher = KafkaPublisher(KafkaAddress(server))
    with pytest.raises(Unavailable, match=r"MSG_SIZE_TOO_LARGE.*tagstream topics check"):
        publisher.publish([OutRecord(name, b"k", os.urandom(5000))])
    kit = topics.ck_admin
    higher = kit.ConfigEntry("max.message.bytes", "9000", incremental_operation=kit.AlterConfigOpType.SET)
    mended = kit.ConfigResource("topic", name, incremental_configs=[higher])
    admin = kit.AdminClient({"bootstrap.servers": server})
    admin.incremental_alter_configs([mended])[mended].result(20)
    publisher.publish([OutRecord(name, b"k", os.urandom(5000))])
    publisher.close()


def test_a_full_queue_waits_instead_of_failing(broker: str, topic: str) -> None:
    publisher = KafkaPublisher(KafkaAddress(broker, {"queue.buffering.max.messages": 100}))
    publisher.publish(out(topic, *map(str, range(1000))))
    publisher.close()
    assert len(list(topics.read_all(KafkaAddress(broker), topic))) == 1000


def test_topics_are_created_as_planned_and_differences_are_sentences(broker: str) -> None:
    prefix = f"{uuid4().hex}-"
    settings = Settings(kafka_bootstrap_servers=broker, redis_url="redis://unused", prefix=prefix)
    admin = topics.TopicAdmin(settings.kafka)
    plans = topic_plans(settings, partitions=3)
    names = [plan.name for plan in plans]
    events = f"{prefix}product-events"
    assert names == [events, f"{prefix}product-tags", f"{events}.dead", f"{events}.dead.handled"]
    assert all("is missing" in difference for difference in admin.differences(plans))
    assert admin.create(plans) == names
    assert admin.create(plans) == []
    assert admin.differences(plans) == []
    assert {name: admin.partitions()[name] for name in names} == dict.fromkeys(names, 3)
    other = [topics.TopicPlan(names[1], 4, {"cleanup.policy": "delete"})]
    partitions, policy = admin.differences(other)
    assert "has 3 partitions, planned are 4" in partitions
    assert "has cleanup.policy compact, planned is delete" in policy
    assert admin.is_empty(names[1])
    assert "min.insync.replicas" in topic_plans(settings, replication=3)[0].config
    assert {*asdict(settings.topics).values()} == {*names}, "the code names no topic that is not described"


def test_read_all_ends_at_the_end_and_tail_starts_there(broker: str, topic: str) -> None:
    publisher = KafkaPublisher(KafkaAddress(broker))
    publisher.publish(out(topic, *map(str, range(500))))
    assert {record.value for record in topics.read_all(KafkaAddress(broker), topic)} == {
        b"%d" % i for i in range(500)
    }
    seen: list[bytes | None] = []

    def follow() -> None:
        for record in islice(topics.tail(KafkaAddress(broker), topic), 3):
            seen.append(record.value)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    deadline_s = time.monotonic() + 20
    number = 0
    while len(seen) < 3 and time.monotonic() < deadline_s:
        publisher.publish(out(topic, f"new-{number}"))
        number += 1
    follower.join(20)
    publisher.close()
    assert len(seen) == 3
    assert all(str(value).startswith("b'new-") for value in seen), "an old record came"
    with pytest.raises(Unavailable, match="is not there"):
        list(topics.read_all(KafkaAddress(broker), "no-such-topic"))


def test_an_embedded_server_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedStore(tmp_path / "one") as store:
        assert store.is_running()
        with pytest.raises(Unavailable, match=f"port {store.port} is in use"):
            EmbeddedStore(tmp_path / "two", port=store.port)
    assert not store.is_running()
    store.stop()  # harmless
    monkeypatch.setattr(EmbeddedStore, "command", lambda self: ["/bin/false"])
    with pytest.raises(Unavailable, match=r"ended with 1, see .*three/store\.log"):
        EmbeddedStore(tmp_path / "three")
    monkeypatch.setattr(EmbeddedStore, "command", lambda self: ["/bin/sleep", "60"])
    with pytest.raises(Unavailable, match=r"does not answer, see .*four/store\.log"):
        EmbeddedStore(tmp_path / "four", start_timeout_s=0.5)


def test_embedded_servers_end_with_whoever_started_them(tmp_path: Path) -> None:
    start = f"""
import os, signal
from tagstream.adapters.local.embedded import EmbeddedBroker, EmbeddedStore
broker, store = EmbeddedBroker({str(tmp_path)!r}), EmbeddedStore({str(tmp_path)!r})
print(broker.pid, store.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    answer = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, timeout=60)
    assert answer.returncode == -signal.SIGKILL, answer.stderr
    deadline_s = time.monotonic() + 10
    while any(_is_alive(int(pid)) for pid in answer.stdout.split()):
        assert time.monotonic() < deadline_s, "a server outlived its parent"


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class _Listener:
    def __init__(self) -> None:
        self.assigned: list[TopicPartition] = []

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned += partitions

    def on_committed(self, next_offsets: object) -> None: ...

    def on_revoked(self, partitions: object) -> None: ...

    def on_lost(self, partitions: object) -> None: ...


def test_what_retention_took_from_many_partitions_costs_one_assignment_and_is_counted_once(
    request: pytest.FixtureRequest,
) -> None:
    address, name = request.getfixturevalue("apache_kafka").address, uuid4().hex
    topics.TopicAdmin(KafkaAddress(address)).create([topics.TopicPlan(name, 6)])
    writer = ck.Producer({"bootstrap.servers": address, "log_level": 0})
    for partition in range(6):
        for number in range(6):
            writer.produce(name, str(number).encode(), partition=partition)
    writer.flush(20)
    stands_at = {0: 1, 1: 1, 2: 1, 3: 1, 4: 5, 5: 1}
    group = ck.Consumer({"bootstrap.servers": address, "group.id": name, "log_level": 0})
    offsets = [ck.TopicPartition(name, partition, offset) for partition, offset in stands_at.items()]
    group.commit(offsets=offsets, asynchronous=False)
    group.close()
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    taken = [ck.TopicPartition(name, partition, 4) for partition in range(5)]
    for deleted in admin.delete_records(taken).values():
        deleted.result(20)

    told: list[int] = []
    listener = _Listener()
    source = KafkaSource(KafkaAddress(address), name, name, on_offsets_lost=told.append)
    source.subscribe(listener)
    read: dict[int, list[int]] = {partition: [] for partition in range(6)}
    deadline_s = time.monotonic() + 30
    while not all(5 in offsets for offsets in read.values()) and time.monotonic() < deadline_s:
        for record in source.poll(100, 0.2):
            read[record.partition].append(record.offset)
    assignments = len(listener.assigned)
    source.close()
    assert read == {**{partition: [4, 5] for partition in range(4)}, 4: [5], 5: [1, 2, 3, 4, 5]}
    assert told == [3, 3, 3, 3]
    assert assignments == 6, "every partition was assigned once"
