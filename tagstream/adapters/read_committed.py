"""What a reader at read_committed is shown of the records at given offsets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import confluent_kafka as ck

from tagstream.adapters.kafka import connect
from tagstream.core.ports import TopicPartition

_KAFKA = ck.KafkaError


def partitions_shown(
    offsets: Mapping[TopicPartition, int], client_config: Mapping[str, Any], deadline_s: float
) -> set[TopicPartition]:
    """The partitions of which the record at the offset is shown, because its transaction was committed.

    Args:
        client_config: of librdkafka, with a `group.id`; nothing is committed.
        deadline_s: on the monotonic clock.

    Raises:
        TimeoutError: not all can be told, as a transaction that began before is open still, whoever's it is.
        KafkaException: the broker refuses.
        BadSettings: librdkafka refuses the settings.
    """
    ours = {"isolation.level": "read_committed", "enable.partition.eof": True, "enable.auto.commit": False}
    consumer = connect(ck.Consumer, {"log_level": 0, **client_config, **ours})
    untold, shown = dict(offsets), set[TopicPartition]()
    try:
        consumer.assign([ck.TopicPartition(*partition, offset) for partition, offset in untold.items()])
        while untold:
            left_s = deadline_s - time.monotonic()
            message = consumer.poll(left_s) if left_s > 0 else None
            if message is None:
                raise TimeoutError(f"{len(untold)} partitions do not show yet how a transaction ended")
            if message.error() is not None and message.error().code() != _KAFKA._PARTITION_EOF:
                raise ck.KafkaException(message.error())
            partition = TopicPartition(message.topic(), message.partition())
            wanted = untold.get(partition)
            if wanted is None:
                continue
            if message.error() is None and message.offset() == wanted:
                shown.add(partition)
            elif message.offset() <= wanted:  # the end of what is decided, which moves on
                continue
            del untold[partition]
        return shown
    finally:
        consumer.close()
