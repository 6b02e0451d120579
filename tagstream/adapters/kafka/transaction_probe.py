"""The question whether a broker can be trusted with exactly-once delivery."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tagstream.adapters.kafka.client import connect
from tagstream.adapters.kafka.publisher import produce, transactional_config
from tagstream.adapters.kafka.read_committed import partitions_shown
from tagstream.core.errors import Unavailable
from tagstream.core.ports import OutRecord, TopicPartition

_INITIALISE_PAUSE_S = 0.2


def hides_aborted_records(
    bootstrap_servers: str,
    topic: str,
    client_config: Mapping[str, Any] | None = None,
    *,
    timeout_s: float = 15.0,
) -> bool:
    """Whether a reader at read_committed is spared the records of a transaction that was rolled back. Found
    out by writing two records to `topic`, a topic for this alone; it is created if it is missing.

    Raises:
        Unavailable: the broker is silent for `timeout_s`, or refuses.
        BadSettings: librdkafka refuses the settings.
    """
    deadline_s = time.monotonic() + timeout_s
    settings = {**(client_config or {}), "bootstrap.servers": bootstrap_servers}
    with _unavailable():
        _create(topic, settings, deadline_s)
        partition, reading = TopicPartition(topic, 0), {"group.id": topic, **settings}
        aborted, committed = _write_both(topic, settings, deadline_s)
        if not partitions_shown({partition: committed}, reading, deadline_s):
            raise TimeoutError("a committed record is not shown")
        return not partitions_shown({partition: aborted}, reading, deadline_s)


def _create(topic: str, settings: Mapping[str, Any], deadline_s: float) -> None:
    admin = AdminClient({"log_level": 0, **settings})
    if topic in admin.list_topics(timeout=_left_s(deadline_s)).topics:
        return
    created = admin.create_topics(
        [NewTopic(topic, 1)],
        operation_timeout=_left_s(deadline_s),
        request_timeout=_left_s(deadline_s),
    )
    try:
        created[topic].result(_left_s(deadline_s))
    except ck.KafkaException as error:
        if error.args[0].code() != ck.KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def _write_both(topic: str, settings: Mapping[str, Any], deadline_s: float) -> tuple[int, int]:
    """The offset of a record that is rolled back, and of one that is committed."""
    config = transactional_config(settings["bootstrap.servers"], f"{topic}-{uuid4().hex}", settings)
    producer = connect(ck.Producer, config)
    offsets: list[int] = []

    def report(error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None:
            raise ck.KafkaException(error)
        offsets.append(message.offset() or 0)

    _initialise(producer, deadline_s)
    for value, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
        producer.begin_transaction()
        produce(producer, OutRecord(topic, None, value), report, deadline_s)
        if producer.flush(_left_s(deadline_s)):
            raise TimeoutError("a record is not acknowledged")
        end(_left_s(deadline_s))
    return offsets[0], offsets[1]


def _initialise(producer: ck.Producer, deadline_s: float) -> None:
    """Coordinators of a broker that has just started still move: what may be tried again is, until then."""
    while True:
        try:
            producer.init_transactions(_left_s(deadline_s))
            return
        except ck.KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() + _INITIALISE_PAUSE_S >= deadline_s:
                raise
        time.sleep(_INITIALISE_PAUSE_S)


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (ck.KafkaException, TimeoutError) as error:
        raise Unavailable(f"the broker could not be asked about its transactions: {error}") from error


def _left_s(deadline_s: float) -> float:
    return max(0.1, deadline_s - time.monotonic())
