"""Topics from outside: create, list, compare and shorten them, and read them without joining a group."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka as ck

from tagstream.adapters.kafka.client import ck_admin, connect, record_of, unavailable
from tagstream.core.errors import Unavailable
from tagstream.core.ports import KafkaAddress, Record

_READ_CONFIG: dict[str, Any] = {
    "group.id": "tagstream-reader",  # librdkafka wants one; nothing is committed to it
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
    "fetch.message.max.bytes": 26 * 2**20,
    "fetch.max.bytes": 26 * 2**20,
    "receive.message.max.bytes": 52 * 2**20,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 20,
    "fetch.wait.max.ms": 100,
}
_POLL_S = 0.2
_BATCH_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it should be. `config`: topic settings in Kafka's names."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


class TopicAdmin:
    """Creates and compares topics. Every call raises `Unavailable` if no broker answers."""

    def __init__(self, kafka: KafkaAddress, *, timeout_s: float = 10.0) -> None:
        """Raises BadSettings: librdkafka refuses the settings."""
        self._kafka = kafka
        self._timeout_s = timeout_s
        self._errors: list[str] = []  # why librdkafka gets no answer: the call itself only times out
        on_error = {"log_level": 0, "error_cb": lambda error: self._errors.append(error.str())}
        self._admin = connect(ck_admin.AdminClient, kafka.config | on_error)

    def partitions(self) -> dict[str, int]:
        """Topic name → number of partitions."""
        topics = self._topics()
        return {name: len(topic.partitions) for name, topic in sorted(topics.items())}

    def create(self, plans: Sequence[TopicPlan], *, replication: int = 1) -> list[str]:
        """Create what is missing, leave the rest as it is, and wait until all can be read.

        Returns the names of those created. `replication`: -1 for the broker's default.
        """
        existing = self.partitions()
        missing = [
            ck_admin.NewTopic(plan.name, plan.partitions, replication, config=dict(plan.config))
            for plan in plans
            if plan.name not in existing
        ]
        created = []
        with unavailable():
            futures = self._admin.create_topics(missing, request_timeout=self._timeout_s) if missing else {}
            for name, future in futures.items():
                try:
                    future.result()
                    created.append(name)
                except ck.KafkaException as error:
                    if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
        self._wait_for({plan.name for plan in plans})
        return created

    def _wait_for(self, names: set[str]) -> None:
        """Until each has partitions with leaders: a topic is acknowledged before every broker knows it."""
        deadline_s = time.monotonic() + self._timeout_s
        while missing := names - {name for name, topic in self._topics().items() if _has_leaders(topic)}:
            if time.monotonic() > deadline_s:
                raise Unavailable(f"the broker does not show its new topics: {', '.join(sorted(missing))}")
            time.sleep(_POLL_S)

    def differences(self, plans: Sequence[TopicPlan], *, replication: int = 1) -> list[str]:
        """The differences between plan and broker, a sentence each; empty if there are none."""
        topics = self._topics()
        existing = [plan for plan in plans if plan.name in topics]
        differences = [
            f"Topic {plan.name} is missing: run `tagstream topics create`."
            for plan in plans
            if plan.name not in topics
        ]
        for plan in existing:
            differences += _partition_differences(plan, topics[plan.name].partitions, replication)
        for plan, config in zip(existing, self._configs(existing), strict=True):
            differences += [
                f"Topic {plan.name} has {name} {config.get(name, 'unset')}, planned is {value}: "
                "alter it with your Kafka tools."
                for name, value in plan.config.items()
                if config.get(name) != value
            ]
        return differences

    def _topics(self) -> Any:
        try:
            return self._admin.list_topics(timeout=self._timeout_s).topics
        except ck.KafkaException as error:
            self._admin.poll(0)  # calls `error_cb`
            why = next(iter(self._errors), error.args[0].str())
            raise Unavailable(f"the broker does not answer or refuses: {why}") from error

    def is_empty(self, topic: str) -> bool:
        """Whether nothing can be read from it now."""
        with contextlib.closing(read_all(self._kafka, topic, timeout_s=self._timeout_s)) as records:
            return next(records, None) is None

    def delete_before(self, topic: str, first_kept: Mapping[int, int]) -> None:
        """Delete for good what lies before an offset, by partition. Raises Unavailable: some is not."""
        offsets = [ck.TopicPartition(topic, *part) for part in sorted(first_kept.items())]
        refused = []
        for partition, future in self._admin.delete_records(offsets, request_timeout=self._timeout_s).items():
            try:
                future.result()
            except ck.KafkaException as error:
                refused.append(f"partition {partition.partition}: {error.args[0].str()}")
        if refused:
            raise Unavailable(
                f"the broker has not deleted the records of {topic} ({'; '.join(refused)}); one that cannot "
                "delete records (the embedded broker cannot) needs `purge` with a filter instead"
            )

    def _configs(self, plans: Sequence[TopicPlan]) -> list[dict[str, str]]:
        resources = [ck_admin.ConfigResource("topic", plan.name) for plan in plans]
        if not resources:
            return []
        with unavailable():
            futures = self._admin.describe_configs(resources, request_timeout=self._timeout_s)
            answers = {resource.name: future.result() for resource, future in futures.items()}
        return [{name: entry.value for name, entry in answers[plan.name].items()} for plan in plans]


def read_all(kafka: KafkaAddress, topic: str, *, timeout_s: float = 30.0) -> Generator[Record, None, None]:
    """Every record from the beginning of each partition to its present end, at read_committed.

    Raises Unavailable: the topic is missing, or the broker is silent for `timeout_s`.
    """
    with _reader(kafka) as consumer:
        unfinished = _assign(consumer, topic, ck.OFFSET_BEGINNING, timeout_s)
        answered_s = time.monotonic()
        while unfinished:
            messages = consumer.consume(_BATCH_RECORDS, _POLL_S)
            if messages:
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s > timeout_s:
                raise Unavailable(f"the broker has not answered for {timeout_s:g} s while reading {topic}")
            for message in messages:
                if _is_end(message):
                    unfinished.discard(message.partition())
                else:
                    yield record_of(message)


def tail(
    kafka: KafkaAddress, topic: str, *, from_beginning: bool = False, timeout_s: float = 10.0
) -> Iterator[Record]:
    """Records as they come, from now on or from the beginning, without end.

    Raises Unavailable: the topic is missing, or the broker does not answer within `timeout_s`.
    """
    first_offset = ck.OFFSET_BEGINNING if from_beginning else ck.OFFSET_END
    with _reader(kafka) as consumer:
        partitions = _assign(consumer, topic, first_offset, timeout_s)
        # Some brokers name too early an end: whatever comes before the real end is reached is old.
        old = set() if from_beginning else partitions
        while True:
            message = consumer.poll(_POLL_S)
            if message is None:
                continue
            if _is_end(message):
                old.discard(message.partition())
            elif message.partition() not in old:
                yield record_of(message)


@contextlib.contextmanager
def _reader(kafka: KafkaAddress) -> Iterator[ck.Consumer]:
    consumer = connect(ck.Consumer, {**_READ_CONFIG, "log_level": 0, **kafka.config})
    with unavailable(), contextlib.closing(consumer):
        yield consumer


def _assign(consumer: ck.Consumer, topic: str, first_offset: int, timeout_s: float) -> set[int | None]:
    partitions = consumer.list_topics(topic, timeout=timeout_s).topics[topic].partitions
    if not partitions:
        raise Unavailable(f"the topic {topic} is not there, run `tagstream topics create`")
    consumer.assign([ck.TopicPartition(topic, number, first_offset) for number in partitions])
    return set(partitions)


def _is_end(message: ck.Message) -> bool:
    error = message.error()
    if error is None:
        return False
    if error.code() != ck.KafkaError._PARTITION_EOF:
        raise ck.KafkaException(error)
    return True


def _has_leaders(topic: Any) -> bool:
    return bool(topic.partitions) and all(part.leader >= 0 for part in topic.partitions.values())


def _partition_differences(plan: TopicPlan, partitions: Mapping[int, Any], replication: int) -> list[str]:
    differences = []
    if len(partitions) != plan.partitions:
        differences.append(
            f"Topic {plan.name} has {len(partitions)} partitions, planned are {plan.partitions}: "
            "keep them if the topic is in use, the number decides where a product lies."
        )
    copies = min((len(partition.replicas) for partition in partitions.values()), default=0)
    if copies < replication:
        differences.append(
            f"Topic {plan.name} has {copies} replicas, planned are {replication}: reassign its partitions."
        )
    return differences
