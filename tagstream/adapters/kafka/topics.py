"""The topics from outside: create, list and compare them, and read them without being in a group."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import confluent_kafka.admin
import yaml

from tagstream.adapters.kafka.client import has_leaders, record_of
from tagstream.core.errors import BadSettings, Unavailable
from tagstream.core.ports import Record

_READ_CONFIG: dict[str, Any] = {
    "group.id": "tagstream-reader",  # librdkafka wants one; nothing is ever committed to it
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
#: Its stubs do not export what it exports.
ck_admin: Any = confluent_kafka.admin
_BATCH_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it should be. `config`: topic settings in Kafka's names."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


def read_plans(
    path: Path, *, prefix: str = "", partitions: int | None = None, replication: int = 1
) -> list[TopicPlan]:
    """The plans of a topics.yaml.

    Args:
        prefix: goes before each name.
        partitions: instead of each topic's own number, as a small broker needs no more.
        replication: the replication factor meant; from 3 on, min.insync.replicas is 2.
    """
    durable = {"min.insync.replicas": "2"} if replication >= 3 else {}
    return [
        TopicPlan(
            prefix + topic["name"],
            partitions or topic["partitions"],
            {name: str(value) for name, value in topic["config"].items()} | durable,
        )
        for topic in yaml.safe_load(path.read_text("utf-8"))["topics"]
    ]


class TopicAdmin:
    """Creates and compares topics. Every call raises `Unavailable` if no broker answers."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_config: Mapping[str, Any] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._timeout_s = timeout_s
        self._client_config = {"bootstrap.servers": bootstrap_servers, **(client_config or {})}
        self._heard: list[str] = []  # why librdkafka does not get through: the call itself only times out
        config = {
            **self._client_config,
            "log_level": 0,
            "error_cb": lambda error: self._heard.append(error.str()),
        }
        try:
            self._admin = ck_admin.AdminClient(config)
        except (ck.KafkaException, ValueError, TypeError) as error:
            raise BadSettings(f"the Kafka client refuses its settings: {_reason(error)}") from error

    def partitions(self) -> dict[str, int]:
        """Topic name → number of partitions."""
        topics = self._topics()
        return {name: len(topic.partitions) for name, topic in sorted(topics.items())}

    def create(self, plans: Sequence[TopicPlan], *, replication: int = 1) -> list[str]:
        """Create what is missing, leave the rest as it is, and wait until all can be read. Returns the names
        created."""
        existing = self.partitions()
        missing = [
            ck_admin.NewTopic(plan.name, plan.partitions, replication, config=dict(plan.config))
            for plan in plans
            if plan.name not in existing
        ]
        created = []
        with _unavailable():
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
        """A broker acknowledges a new topic before every one of them has heard of it."""
        deadline_s = time.monotonic() + self._timeout_s
        while missing := names - {name for name, topic in self._topics().items() if has_leaders(topic)}:
            if time.monotonic() > deadline_s:
                raise Unavailable(f"the broker does not show its new topics: {', '.join(sorted(missing))}")
            time.sleep(_POLL_S)

    def describe(self, plans: Sequence[TopicPlan], *, replication: int = 1) -> list[str]:
        """The differences between plan and broker, a sentence each; empty if there are none."""
        topics = self._topics()
        standing = [plan for plan in plans if plan.name in topics]
        differences = [
            f"Topic {plan.name} is missing: run `tagstream topics create`."
            for plan in plans
            if plan.name not in topics
        ]
        for plan in standing:
            differences += _partition_differences(plan, topics[plan.name].partitions, replication)
        for plan, config in zip(standing, self._configs(standing), strict=True):
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
            self._admin.poll(0)  # hears them
            why = next(iter(self._heard), error.args[0].str())
            raise Unavailable(f"the broker does not answer or refuses: {why}") from error

    def is_empty(self, topic: str) -> bool:
        """Whether nothing can be read from it now."""
        servers = str(self._client_config["bootstrap.servers"])
        records = read_all(servers, topic, client_config=self._client_config, timeout_s=self._timeout_s)
        with contextlib.closing(records):
            return next(records, None) is None

    def _configs(self, plans: Sequence[TopicPlan]) -> list[dict[str, str]]:
        resources = [ck_admin.ConfigResource("topic", plan.name) for plan in plans]
        if not resources:
            return []
        with _unavailable():
            futures = self._admin.describe_configs(resources, request_timeout=self._timeout_s)
            answers = {resource.name: future.result() for resource, future in futures.items()}
        return [{name: entry.value for name, entry in answers[plan.name].items()} for plan in plans]


def read_all(
    bootstrap_servers: str,
    topic: str,
    *,
    client_config: Mapping[str, Any] | None = None,
    timeout_s: float = 30.0,
) -> Generator[Record, None, None]:
    """Every record from the beginning to the end of each partition, as it is reached; then stops.

    Args:
        timeout_s: the longest silence of the broker.

    Raises:
        Unavailable: the topic is missing, or the broker is silent for `timeout_s`.
    """
    with _reader(bootstrap_servers, client_config, timeout_s) as consumer:
        unfinished = _assign(consumer, topic, ck.OFFSET_BEGINNING, timeout_s)
        heard_s = time.monotonic()
        while unfinished:
            messages = consumer.consume(_BATCH_RECORDS, _POLL_S)
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > timeout_s:
                raise Unavailable(f"the broker has not answered for {timeout_s:g} s while reading {topic}")
            for message in messages:
                if _is_end(message):
                    unfinished.discard(message.partition())
                else:
                    yield record_of(message)


def tail(
    bootstrap_servers: str,
    topic: str,
    *,
    from_beginning: bool = False,
    client_config: Mapping[str, Any] | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
    timeout_s: float = 10.0,
) -> Iterator[Record]:
    """Records as they come, from now on or from the beginning, until `is_stopping`."""
    first_offset = ck.OFFSET_BEGINNING if from_beginning else ck.OFFSET_END
    with _reader(bootstrap_servers, client_config, timeout_s) as consumer:
        partitions = _assign(consumer, topic, first_offset, timeout_s)
        # Some brokers name an end that lies before it: what comes before the end is reached is old.
        old = set() if from_beginning else partitions
        while not is_stopping():
            message = consumer.poll(_POLL_S)
            if message is None:
                continue
            if _is_end(message):
                old.discard(message.partition())
            elif message.partition() not in old:
                yield record_of(message)


@contextlib.contextmanager
def _reader(
    bootstrap_servers: str, client_config: Mapping[str, Any] | None, timeout_s: float
) -> Iterator[ck.Consumer]:
    config = {**_READ_CONFIG, "log_level": 0, **(client_config or {}), "bootstrap.servers": bootstrap_servers}
    with _unavailable():
        consumer = ck.Consumer(config)
        try:
            yield consumer
        finally:
            consumer.close()


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


def _reason(error: Exception) -> object:
    return error.args[0].str() if isinstance(error, ck.KafkaException) else error


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except ck.KafkaException as error:
        raise Unavailable(f"the broker does not answer or refuses: {error.args[0].str()}") from error
