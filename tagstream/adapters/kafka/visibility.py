"""What a reader sees of a transaction's records.

`partitions_shown` looks at given offsets. `hides_aborted_records` tests whether a broker keeps the promise of
read_committed at all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal
from uuid import uuid4

import confluent_kafka as ck

from tagstream.adapters.kafka.client import connect, left_s
from tagstream.adapters.kafka.publisher import produce, transactional_config
from tagstream.adapters.kafka.topics import TopicAdmin, TopicPlan
from tagstream.core.errors import Unavailable
from tagstream.core.ports import KafkaAddress, OutRecord, TopicPartition

_KAFKA = ck.KafkaError
_INITIALISE_PAUSE_S = 0.2


def partitions_shown(
    offsets: Mapping[TopicPartition, int],
    client_config: Mapping[str, Any],
    deadline_s: float,
    *,
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
) -> set[TopicPartition]:
    """The partitions in which a reader sees the record at the given offset.

    A record of an aborted transaction is seen at read_uncommitted only. One that compaction or retention has
    removed is not seen.

    Args:
        client_config: of librdkafka, with a `group.id`; nothing is committed.
        deadline_s: on the monotonic clock.

    Raises:
        TimeoutError: an earlier transaction, of this producer or another, is still open.
        KafkaException: the broker refuses, or does not know a partition (yet).
        BadSettings: librdkafka refuses the settings.
    """
    ours = {
        "isolation.level": isolation,
        "enable.partition.eof": True,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "queued.min.messages": 1,
    }
    consumer = connect(ck.Consumer, {"log_level": 0, **client_config, **ours})
    undecided, shown = dict(offsets), set[TopicPartition]()
    try:
        consumer.assign([ck.TopicPartition(*partition, offset) for partition, offset in undecided.items()])
        while undecided:
            remaining_s = deadline_s - time.monotonic()
            message = consumer.poll(remaining_s) if remaining_s > 0 else None
            if message is None:
                waiting = ", ".join(f"{topic}-{number}" for topic, number in sorted(undecided))
                raise TimeoutError(f"{waiting} do not show yet how a transaction ended")
            partition = TopicPartition(message.topic(), message.partition())
            if partition in undecided and _is_decided(message, undecided[partition]):
                if message.error() is None and message.offset() == undecided[partition]:
                    shown.add(partition)
                del undecided[partition]
        return shown
    finally:
        consumer.close()


def _is_decided(message: Any, wanted: int) -> bool:
    """False: the message is the end of what is decided so far, which moves on. Raises KafkaException."""
    error = message.error()
    if error is None:
        return bool(message.offset() >= wanted)
    if error.code() == _KAFKA._PARTITION_EOF:
        return bool(message.offset() > wanted)
    if error.code() != _KAFKA._AUTO_OFFSET_RESET:  # there is no such offset (any more)
        raise ck.KafkaException(error)
    return True


def hides_aborted_records(kafka: KafkaAddress, topic: str, *, timeout_s: float = 15.0) -> bool:
    """Whether the broker hides the records of aborted transactions from readers at read_committed.

    Writes two records to `topic`, which is for this test alone and is created if it is missing. Raises
    Unavailable: the broker is silent for `timeout_s`, or refuses; BadSettings: librdkafka does.
    """
    deadline_s = time.monotonic() + timeout_s
    partition, reading = TopicPartition(topic, 0), {"group.id": topic, **kafka.config}
    try:
        TopicAdmin(kafka, timeout_s=timeout_s / 3).create([TopicPlan(topic, 1)], replication=-1)
        aborted, committed = _write_both(kafka, topic, deadline_s)
        if not partitions_shown({partition: committed}, reading, deadline_s):
            raise TimeoutError("a committed record is not shown")
        return not partitions_shown({partition: aborted}, reading, deadline_s)
    except (Unavailable, ck.KafkaException, TimeoutError) as error:
        raise Unavailable(f"the broker could not be asked about its transactions: {error}") from error


def _write_both(kafka: KafkaAddress, topic: str, deadline_s: float) -> tuple[int, int]:
    """The offset of a record that is aborted, and of one that is committed."""
    producer = connect(ck.Producer, transactional_config(kafka, f"{topic}-{uuid4().hex}"))
    offsets: list[int] = []

    def report(error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None:
            raise ck.KafkaException(error)
        offsets.append(message.offset() or 0)

    _initialise(producer, deadline_s)
    for value, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
        producer.begin_transaction()
        produce(producer, OutRecord(topic, None, value), report, deadline_s)
        if producer.flush(left_s(deadline_s)):
            raise TimeoutError("a record is not acknowledged")
        end(left_s(deadline_s))
    return offsets[0], offsets[1]


def _initialise(producer: ck.Producer, deadline_s: float) -> None:
    """Retries: on a broker that has just started, coordinators still move."""
    while True:
        try:
            producer.init_transactions(left_s(deadline_s))
            return
        except ck.KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() + _INITIALISE_PAUSE_S >= deadline_s:
                raise
        time.sleep(_INITIALISE_PAUSE_S)
