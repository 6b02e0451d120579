"""How far a consumer group is, seen from outside."""

from __future__ import annotations

import time
from dataclasses import dataclass

import confluent_kafka as ck

from tagstream.adapters.kafka.client import committed_offsets, connect, unavailable
from tagstream.core.errors import Unavailable
from tagstream.core.ports import KafkaAddress, TopicPartition

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """`committed` is None before the group's first commit: then every record is lag."""

    partition: int
    committed: int | None
    end: int
    lag: int


class GroupWatch:
    """Watches one group on one topic. Not a member of the group; for one thread."""

    def __init__(self, kafka: KafkaAddress, group: str, topic: str, *, timeout_s: float = 10.0) -> None:
        self._topic = topic
        self._timeout_s = timeout_s
        self._known: list[int] = []
        self._config = {
            "log_level": 0,
            **kafka.config,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 4096,
        }
        self._consumer = connect(ck.Consumer, self._config)

    def committed(self) -> dict[int, int]:
        """Partition → next offset to read, where the group has committed one.

        Raises Unavailable. The next call uses a new client: one that has lost the group's coordinator may
        look for it without end.
        """
        wanted = [TopicPartition(self._topic, number) for number in self._numbers()]
        try:
            found = committed_offsets(self._consumer, wanted, self._timeout_s)
        except Unavailable:
            last, self._consumer = self._consumer, connect(ck.Consumer, self._config)
            last.close()
            raise
        return {partition.partition: offset for partition, offset in found.items() if offset >= 0}

    def progress(self) -> list[PartitionProgress]:
        """Committed offset, end and lag of every partition. Raises Unavailable.

        The end comes from the answers to fetches: the offset listings of some brokers are too low.
        """
        committed = self.committed()
        numbers = self._numbers()
        self._consumer.assign(
            [ck.TopicPartition(self._topic, n, committed.get(n, ck.OFFSET_BEGINNING)) for n in numbers]
        )
        self._fetch_from(set(numbers))
        progress = []
        for number in numbers:
            low, end = self._consumer.get_watermark_offsets(
                ck.TopicPartition(self._topic, number), cached=True
            )
            start = max(committed.get(number, low), low, 0)
            progress.append(PartitionProgress(number, committed.get(number), end, max(0, end - start)))
        self._consumer.unassign()
        return progress

    def _numbers(self) -> list[int]:
        """The topic's partitions. Raises Unavailable if there are none."""
        if not self._known:
            with unavailable("the broker does not answer"):
                topics = self._consumer.list_topics(self._topic, timeout=self._timeout_s).topics
            self._known = sorted(topics[self._topic].partitions)
        if not self._known:
            raise Unavailable(f"the topic {self._topic} is not there, run `tagstream topics create`")
        return self._known

    def close(self) -> None:
        self._consumer.close()

    def _fetch_from(self, silent: set[int]) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while silent:
            message = self._consumer.poll(_POLL_S)
            if message is not None:
                silent.discard(message.partition())
            elif time.monotonic() > deadline_s:
                raise Unavailable(f"no answer for partitions {sorted(silent)} of {self._topic}")
