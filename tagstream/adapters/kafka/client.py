"""What every client of Kafka has in common: how it is made, and how librdkafka's log becomes ours.

The modules of the clients are imported, never their names: a Serve deployment is pickled by value, and
librdkafka's classes do not survive that. Every client connects when it is made, in the process that uses it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import confluent_kafka as ck

from tagstream.core.errors import BadSettings, Unavailable
from tagstream.core.ports import Record, TopicPartition

log = logging.getLogger(__name__)

_T = TypeVar("_T")

MIB = 2**20
#: A record of 25 MiB (a dead letter: an event of 24 MiB and its headers) and its batch's framing.
RECORD_MAX_BYTES = 25 * MIB


class _NotTooOften(logging.Filter):
    """librdkafka repeats itself at every attempt to connect: each kind of line passes once in a while."""

    def __init__(self, every_s: float) -> None:
        super().__init__()
        self._every_s = every_s
        self._passed_s: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now_s = (record.getMessage().split(" ", 1)[0], record.levelno), time.monotonic()
        if now_s - self._passed_s.get(kind, -self._every_s) < self._every_s:
            return False
        self._passed_s[kind] = now_s
        return True


librdkafka_log = log.getChild("librdkafka")
librdkafka_log.addFilter(_NotTooOften(every_s=30.0))


def connect(kind: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Any:
    """A client of this kind. Raises BadSettings: librdkafka refuses the settings."""
    try:
        return kind(config)
    except (ck.KafkaException, ValueError, TypeError) as error:
        reason = error.args[0].str() if isinstance(error, ck.KafkaException) else error
        raise BadSettings(f"the Kafka client refuses its settings: {reason}") from error


def served(call: Callable[[float], _T], timeout_s: float) -> _T:
    """A producer's method that serves delivery reports on the way. librdkafka's fatal error is set as an
    exception before the reports of the same turn are called; whatever they call makes a SystemError of it.

    Raises KafkaException, like the call itself. The reports of such a turn are lost.
    """
    try:
        return call(timeout_s)
    except SystemError as error:
        cause = error.__cause__
        while isinstance(cause, SystemError):
            cause = cause.__cause__
        if isinstance(cause, ck.KafkaException):
            raise cause from None
        raise


def committed_offsets(
    consumer: Any, partitions: Iterable[TopicPartition], timeout_s: float
) -> dict[TopicPartition, int]:
    """The next offsets of the consumer's group, negative where there is none. Offsets of a transaction that
    is not decided are waited for. Raises Unavailable."""
    try:
        answer = consumer.committed([ck.TopicPartition(*part) for part in partitions], timeout=timeout_s)
    except ck.KafkaException as error:
        raise Unavailable(f"the broker does not tell the offsets: {error.args[0].str()}") from error
    if refused := next((part.error for part in answer if part.error is not None), None):
        raise Unavailable(f"the broker does not tell the offsets: {refused.str()}")
    return {TopicPartition(part.topic, part.partition): part.offset for part in answer}


def record_of(message: Any) -> Record:
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
        message.timestamp()[1],
    )


def has_leaders(topic: Any) -> bool:
    """Whether every partition of a topic's metadata can be written and read."""
    return bool(topic.partitions) and all(part.leader >= 0 for part in topic.partitions.values())


def log_error(error: ck.KafkaError) -> None:
    log.debug("the Kafka client reports: %s", error)
