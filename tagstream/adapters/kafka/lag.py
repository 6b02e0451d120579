"""How far a consumer group is, seen from outside of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import confluent_kafka as ck

from tagstream.adapters.kafka.client import committed_offsets
from tagstream.core.errors import Unavailable
from tagstream.core.ports import TopicPartition

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """`committed` is None before the group's first commit; then all that is there is lag."""

    partition: int
    committed: int | None
    end: int
    lag: int


class GroupWatch:
    """Watches one group on one topic. Not a member of the group; for one thread."""

    def __init__(
        self,
        bootstrap_servers: str,
        group: str,
        topic: str,
        *,
        client_config: Mapping[str, Any] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._topic = topic
        self._timeout_s = timeout_s
        self._known: list[int] = []
        self._config = {
            "log_level": 0,
            **(client_config or {}),
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 4096,
        }
        self._consumer = ck.Consumer(self._config)

    def committed(self) -> dict[int, int]:
        """Partition → next offset to read, where the group has committed one. Raises Unavailable; the next
        call asks with a new client, lest one that has lost the group's coordinator looks for it for ever."""
        wanted = [TopicPartition(self._topic, number) for number in self._numbers()]
        try:
            found = committed_offsets(self._consumer, wanted, self._timeout_s)
        except Unavailable:
            self._renew()
            raise
        return {partition.partition: offset for partition, offset in found.items() if offset >= 0}

    def _renew(self) -> None:
        last, self._consumer = self._consumer, ck.Consumer(self._config)
        last.close()

    def progress(self) -> list[PartitionProgress]:
        """Committed offset, end and lag of every partition.

        The end is taken from the answers to fetches: the offset listings of some brokers lie before it.
        """
        committed = self.committed()
        numbers = self._numbers()
        self._consumer.assign(
            [ck.TopicPartition(self._topic, n, committed.get(n, ck.OFFSET_BEGINNING)) for n in numbers]
        )
        self._hear_from_all(set(numbers))
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
            try:
                topics = self._consumer.list_topics(self._topic, timeout=self._timeout_s).topics
            except ck.KafkaException as error:
                raise Unavailable(f"the broker does not answer: {error.args[0].str()}") from error
            self._known = sorted(topics[self._topic].partitions)
        if not self._known:
            raise Unavailable(f"the topic {self._topic} is not there, run `tagstream topics create`")
        return self._known

    def close(self) -> None:
        self._consumer.close()

    def _hear_from_all(self, silent: set[int]) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while silent:
            message = self._consumer.poll(_POLL_S)
            if message is not None:
                silent.discard(message.partition())
            elif time.monotonic() > deadline_s:
                raise Unavailable(f"no answer for partitions {sorted(silent)} of {self._topic}")
