"""The outgoing topics as a `Publisher`, and what it shares with the transactional producer."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import confluent_kafka as ck

from tagstream.adapters.kafka.client import MIB, RECORD_MAX_BYTES, connect, librdkafka_log, log_error, served
from tagstream.core.errors import Unavailable
from tagstream.core.ports import KafkaAddress, OutRecord

log = logging.getLogger(__name__)

_KAFKA = ck.KafkaError

#: librdkafka's partition of a record that goes where its key belongs.
_BY_KEY = -1


def producer_config(kafka: KafkaAddress, delivery_timeout_s: float) -> dict[str, Any]:
    """What every producer of tagstream shares; the address' own settings win."""
    return {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "linger.ms": 5,
        "compression.type": "lz4",
        "message.max.bytes": RECORD_MAX_BYTES + MIB,
        "queue.buffering.max.kbytes": 65_536,
        "delivery.timeout.ms": int(delivery_timeout_s * 1000),
        "socket.keepalive.enable": True,
        "logger": librdkafka_log,
        "error_cb": log_error,
        **kafka.config,
    }


#: The broker aborts a transaction that is open for longer; librdkafka keeps no record for longer either.
TRANSACTION_TIMEOUT_S = 10.0


def transactional_config(kafka: KafkaAddress, transactional_id: str) -> dict[str, Any]:
    """What every transactional producer shares; the address' own settings win, except on timeouts."""
    config = producer_config(kafka, TRANSACTION_TIMEOUT_S)
    config.pop("message.timeout.ms", None)  # the other name of delivery.timeout.ms
    timeout_ms = int(TRANSACTION_TIMEOUT_S * 1000)
    return config | {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout_ms,
        "delivery.timeout.ms": timeout_ms,
    }


class _Delivery:
    """The delivery reports of one `publish`. Any thread may serve them."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._errors: list[ck.KafkaError | None] = []
        self._complete = threading.Event()

    def report(self, error: ck.KafkaError | None, _: ck.Message) -> None:
        self._errors.append(error)  # atomic: two threads cannot both miss the last one
        if len(self._errors) >= self._expected:
            self._complete.set()

    def wait(self, timeout_s: float) -> ck.KafkaError | None:
        """The first error, or None if all are delivered. Raises TimeoutError."""
        if not self._complete.wait(timeout_s):
            raise TimeoutError(f"{self._expected - len(self._errors)} of {self._expected} are not answered")
        return next((error for error in self._errors if error is not None), None)


class KafkaPublisher:
    """The `Publisher`. See `core.ports.Publisher`. Idempotent: librdkafka's own retries keep the order."""

    def __init__(self, kafka: KafkaAddress, *, delivery_timeout_s: float = 30.0) -> None:
        """`delivery_timeout_s`: how long the broker may take before `publish` raises Unavailable. Raises
        BadSettings: librdkafka refuses the settings."""
        self._delivery_timeout_s = delivery_timeout_s
        self._config = producer_config(kafka, delivery_timeout_s)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._producer = connect(ck.Producer, self._config)
        self._poller = threading.Thread(target=self._serve_reports, name="kafka-reports", daemon=True)
        self._poller.start()

    def publish(self, records: Sequence[OutRecord]) -> None:
        """See the port."""
        if not records:
            return
        producer = self._producer
        delivery = _Delivery(len(records))
        deadline_s = time.monotonic() + self._delivery_timeout_s
        try:
            for record in records:
                produce(producer, record, delivery.report, deadline_s)
            # librdkafka fails what is not delivered in time; the margin only guards against its own delay.
            failure = delivery.wait(self._delivery_timeout_s + 5.0)
        except ck.KafkaException as error:
            self._renew_if_fatal(producer, error.args[0])
            raise Unavailable(f"a record was not taken for publishing: {_in_words(error.args[0])}") from error
        except TimeoutError as error:
            raise Unavailable(f"the broker does not acknowledge: {error}") from error
        if failure is not None:
            self._renew_if_fatal(producer, failure)
            reason = f"a record was not delivered: {_in_words(failure)}"
            raise Unavailable(reason) from ck.KafkaException(failure)

    def close(self) -> None:
        """Takes a second at most: every `publish` has returned already."""
        self._closed.set()
        self._poller.join()
        self._producer.flush(1.0)

    def _serve_reports(self) -> None:
        while not self._closed.is_set():
            producer = self._producer
            try:
                served(producer.poll, 0.1)
            except ck.KafkaException as error:
                self._renew_if_fatal(producer, error.args[0])

    def _renew_if_fatal(self, producer: Any, error: ck.KafkaError) -> None:
        """An idempotent producer that lost count refuses all further work: a new one starts at zero."""
        if not error.fatal() and error.code() != _KAFKA._FATAL:
            return
        with self._lock:
            if self._producer is not producer:
                return
            log.error("the Kafka producer cannot go on and is replaced: %s", error)
            self._producer = connect(ck.Producer, self._config)
        with contextlib.suppress(ck.KafkaException):  # the same error again
            producer.purge()
            served(producer.flush, 1.0)  # whoever waits for the old one learns now, not at the deadline


def produce(producer: Any, record: OutRecord, report: Callable[..., None], deadline_s: float) -> None:
    """Hand one record to librdkafka, which calls `report` when it is delivered or has failed.

    Raises TimeoutError: its queue is still full at the deadline (monotonic clock); KafkaException: it cannot
    take the record.
    """
    while True:
        try:
            producer.produce(
                record.topic,
                record.value,
                record.key,
                partition=_BY_KEY if record.partition is None else record.partition,
                on_delivery=report,
                timestamp=record.timestamp_ms or 0,
                headers=list(record.headers),
            )
        except BufferError:
            if time.monotonic() > deadline_s:
                raise TimeoutError("the queue of unacknowledged records is full") from None
            served(producer.poll, 0.05)
        else:
            return


def _in_words(error: ck.KafkaError) -> str:
    """Our records fit the topics that `tagstream topics create` makes: a smaller limit is a fault."""
    is_size = error.code() == _KAFKA.MSG_SIZE_TOO_LARGE
    return f"{error}; `tagstream topics check` says which limit is too low" if is_size else str(error)
