"""What every client of Kafka shares: how it is made, how its errors and log lines become ours.

Import modules of confluent_kafka, never names: a Serve deployment is pickled by value, and librdkafka's
classes do not survive that. A client connects when it is made, in the process that uses it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import confluent_kafka as ck
import confluent_kafka.admin

from tagstream.core.errors import BadSettings, Unavailable
from tagstream.core.ports import Record, TopicPartition

#: Its stubs do not export what it exports.
ck_admin: Any = confluent_kafka.admin

log = logging.getLogger(__name__)

_T = TypeVar("_T")

MIB = 2**20
#: A record of 25 MiB (a dead letter: an event of 24 MiB and its headers) and its batch's framing.
RECORD_MAX_BYTES = 25 * MIB


class _NotTooOften(logging.Filter):
    """Lets each kind of line pass once in a while: librdkafka repeats itself at every attempt to connect."""

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
    """A Producer, Consumer or AdminClient. Raises BadSettings: librdkafka refuses the settings."""
    try:
        return kind(config)
    except (ck.KafkaException, ValueError, TypeError) as error:
        reason = error.args[0].str() if isinstance(error, ck.KafkaException) else error
        raise BadSettings(f"the Kafka client refuses its settings: {reason}") from error


def served(call: Callable[[float], _T], timeout_s: float) -> _T:
    """Call a producer's method that also serves delivery reports.

    librdkafka sets a fatal error as an exception before it calls the reports of the same turn. Whatever they
    call then fails with SystemError, and those reports are lost. This raises the KafkaException instead.
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
    """The next offsets of the consumer's group, negative where there is none. An open transaction on them
    delays the answer. Raises Unavailable."""
    with unavailable("the broker does not tell the offsets"):
        answer = consumer.committed([ck.TopicPartition(*part) for part in partitions], timeout=timeout_s)
        if refused := next((part.error for part in answer if part.error is not None), None):
            raise ck.KafkaException(refused)
    return {TopicPartition(part.topic, part.partition): part.offset for part in answer}


@contextlib.contextmanager
def unavailable(what: str = "the broker does not answer or refuses") -> Iterator[None]:
    """Raises Unavailable, with these words, in place of KafkaException."""
    try:
        yield
    except ck.KafkaException as error:
        raise Unavailable(f"{what}: {error.args[0].str()}") from error


def left_s(deadline_s: float) -> float:
    """Seconds until this moment of the monotonic clock, at least 0.1: librdkafka may read 0 as no limit."""
    return max(0.1, deadline_s - time.monotonic())


def record_of(message: Any) -> Record:
    """Our record of a confluent_kafka.Message."""
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
        message.timestamp()[1],
    )


def log_error(error: ck.KafkaError) -> None:
    """The default `error_cb`: librdkafka goes on trying, and a call that needs the broker fails by itself."""
    log.debug("the Kafka client reports: %s", error)
