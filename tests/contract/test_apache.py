"""The Apache Kafka that we start: the same folder is the same Kafka, whatever ended it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tagstream.adapters.kafka.publisher import KafkaPublisher
from tagstream.adapters.kafka.topics import TopicAdmin, TopicPlan, read_all
from tagstream.adapters.local.apache import ApacheBroker
from tagstream.core.errors import BadSettings, Unavailable
from tagstream.core.ports import KafkaAddress, OutRecord
from tests.support.frozen import frozen


@pytest.fixture(scope="module")
def kafka(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheBroker]:
    """One that these tests may kill."""
    with ApacheBroker(tmp_path_factory.mktemp("apache"), home=kafka_home) as broker:
        yield broker


def publish(broker: ApacheBroker, topic: str, *values: bytes) -> None:
    publisher = KafkaPublisher(KafkaAddress(broker.address))
    try:
        publisher.publish([OutRecord(topic, b"k", value) for value in values])
    finally:
        publisher.close()


def new_topic(broker: ApacheBroker, **config: str) -> str:
    """Made at once: whoever waited for the broker need not wait again."""
    name = uuid4().hex
    named = {key.replace("_", "."): value for key, value in config.items()}
    assert TopicAdmin(KafkaAddress(broker.address)).create([TopicPlan(name, 1, named)]) == [name]
    return name


def values(broker: ApacheBroker, topic: str) -> list[bytes | None]:
    return [record.value for record in read_all(KafkaAddress(broker.address), topic)]


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_what_was_acknowledged_is_there_after_a_restart_on_the_same_port(
    kafka: ApacheBroker, end: str
) -> None:
    topic, before, pid = new_topic(kafka), kafka.address, kafka.pid
    publish(kafka, topic, b"1", b"2")
    getattr(kafka, end)()
    assert not kafka.is_running()
    kafka.restart()
    assert (kafka.address, kafka.pid != pid) == (before, True)
    publish(kafka, topic, b"3")
    assert values(kafka, topic) == [b"1", b"2", b"3"]


def test_the_same_folder_is_the_same_kafka_on_other_ports(kafka_home: Path, tmp_path: Path) -> None:
    with ApacheBroker(tmp_path, home=kafka_home) as first:
        topic = new_topic(first)
        publish(first, topic, b"kept")
    with ApacheBroker(tmp_path, home=kafka_home) as second:
        assert second.port != first.port
        assert values(second, topic) == [b"kept"]


def test_a_frozen_broker_answers_nothing_and_a_thawed_one_goes_on(kafka: ApacheBroker) -> None:
    topic = new_topic(kafka)
    with frozen(kafka.pid), pytest.raises(Unavailable):
        TopicAdmin(KafkaAddress(kafka.address), timeout_s=1.0).partitions()
    publish(kafka, topic, b"after")
    assert values(kafka, topic) == [b"after"]


def test_the_largest_event_passes(kafka: ApacheBroker) -> None:
    topic = new_topic(kafka, max_message_bytes=str(24 * 2**20))
    publish(kafka, topic, bytes(23 * 2**20))
    assert [len(value or b"") for value in values(kafka, topic)] == [23 * 2**20]


def home_with(folder: Path, script: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    for name in ("kafka-storage.sh", "kafka-server-start.sh"):
        path = folder / "bin" / name
        path.write_text(script)
        path.chmod(0o755)
    return folder


def test_a_folder_without_kafka_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"bin/kafka-storage\.sh is missing"):
        ApacheBroker(tmp_path / "data", home=tmp_path)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "#!/bin/sh\necho 'kafka-run-class.sh: line 9: exec: java: not found' >&2; exit 127\n",
            "java: not found",
        ),
        (
            "#!/bin/sh\necho 'Error: LinkageError occurred while loading main class' >&2\n"
            "echo 'java.lang.UnsupportedClassVersionError: kafka/tools/StorageTool' >&2; exit 1\n",
            "Java 17 or newer.*Error",
        ),
        ("#!/bin/no/such/shell\n", "does not run"),
        ("#!/bin/sh\nexit 3\n", "it says nothing"),
    ],
    ids=["no java", "old java", "no shell", "silent"],
)
def test_a_kafka_that_cannot_run_is_refused_with_its_reason(tmp_path: Path, script: str, reason: str) -> None:
    started_s = time.monotonic()
    with pytest.raises(BadSettings, match=reason):
        ApacheBroker(tmp_path / "data", home=home_with(tmp_path / "home", script))
    assert time.monotonic() - started_s < 5.0
    assert not (tmp_path / "data").exists()
