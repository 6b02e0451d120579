"""What a reader is shown of the records at given offsets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal

import confluent_kafka as ck

from tagstream.adapters.kafka.client import connect
from tagstream.core.ports import TopicPartition

_KAFKA = ck.KafkaError


def partitions_shown(
    offsets: Mapping[TopicPartition, int],
    client_config: Mapping[str, Any],
    deadline_s: float,
    *,
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
) -> set[TopicPartition]:
    """The partitions of which a reader is shown the record at the offset: not one whose transaction was
    rolled back, unless at read_uncommitted, and not one that compaction or retention has taken.

    Args:
        client_config: of librdkafka, with a `group.id`; nothing is committed.
        deadline_s: on the monotonic clock.

    Raises:
        TimeoutError: not all can be told: a transaction that began before is open still, whoever's it is.
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
    untold, shown = dict(offsets), set[TopicPartition]()
    try:
        consumer.assign([ck.TopicPartition(*partition, offset) for partition, offset in untold.items()])
        while untold:
            left_s = deadline_s - time.monotonic()
            message = consumer.poll(left_s) if left_s > 0 else None
            if message is None:
                waiting = ", ".join(f"{topic}-{number}" for topic, number in sorted(untold))
                raise TimeoutError(f"{waiting} do not show yet how a transaction ended")
            partition = TopicPartition(message.topic(), message.partition())
            if partition in untold and _is_told(message, untold[partition]):
                if message.error() is None and message.offset() == untold[partition]:
                    shown.add(partition)
                del untold[partition]
        return shown
    finally:
        consumer.close()


def _is_told(message: Any, wanted: int) -> bool:
    """False: it is the end of what is decided, which moves on. Raises KafkaException."""
    error = message.error()
    if error is None:
        return bool(message.offset() >= wanted)
    if error.code() == _KAFKA._PARTITION_EOF:
        return bool(message.offset() > wanted)
    if error.code() != _KAFKA._AUTO_OFFSET_RESET:  # there is no such offset (any more)
        raise ck.KafkaException(error)
    return True
