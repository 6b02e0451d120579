"""Exactly-once delivery on Kafka's transactions, and the question whether a broker can be trusted with it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal
from uuid import uuid4

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tagstream.adapters.kafka import connect, has_leaders
from tagstream.adapters.kafka_publisher import produce, producer_config
from tagstream.adapters.kafka_source import KafkaSource
from tagstream.core.errors import TransactionAborted, Unavailable
from tagstream.core.ports import OutRecord, TopicPartition

log = logging.getLogger(__name__)

#: The broker aborts a transaction that is open for longer; librdkafka keeps no record for longer either.
_TRANSACTION_TIMEOUT_S = 10.0
#: One call of `commit`: as long as this for the work, and then as long as that to undo it.
_WORK_TIMEOUT_S = 7.0
_ABORT_TIMEOUT_S = 3.0

_KAFKA = ck.KafkaError


class KafkaTransactions:
    """The `Transactions` of `source`'s group. See `core.ports.Transactions`.

    The group itself refuses a consumer that it has given up (KIP-447), so that the transactional id has
    nothing to fence and is new in every process.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        transactional_id: str,
        source: KafkaSource,
        *,
        client_config: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            transactional_id: what the id of every process begins with; the broker's rights go by it.
            client_config: handed to librdkafka as it is; wins over our defaults, except on timeouts.

        Raises:
            BadSettings: librdkafka refuses the settings.
        """
        self._source = source
        self._config = _transactional(bootstrap_servers, transactional_id, client_config)
        self._producer = connect(ck.Producer, self._config)
        self._is_initialised = False
        self._written: set[str] = set()
        self._next: Literal["send", "end", "look"] = "send"

    def commit(self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int]) -> None:
        """See the port. Takes about 10 s at most."""
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        if self._next == "send":
            self._send(records, next_offsets, deadline_s)
            self._next = "end"
        if self._next == "end":
            self._end(deadline_s)
        if self._next == "look":
            self._look(next_offsets, deadline_s)

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(1.0)

    def _send(
        self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int], deadline_s: float
    ) -> None:
        """All of a transaction but its end. Raises TransactionAborted: none of it."""
        group = self._source.group_metadata(next_offsets.keys())
        self._initialise(deadline_s)
        self._written |= {record.topic for record in records}
        offsets = [ck.TopicPartition(*partition, offset) for partition, offset in next_offsets.items()]
        try:
            self._producer.begin_transaction()
            for record in records:
                produce(self._producer, record, _ignore_report, deadline_s)
            waiting = self._producer.flush(_left_s(deadline_s))
            if waiting:
                raise TimeoutError(f"{waiting} of {len(records)} records are not acknowledged")
            send = partial(self._producer.send_offsets_to_transaction, offsets, group, _left_s(deadline_s))
            _within(deadline_s, send)
        except TimeoutError as error:
            # Not aborted: the call that hangs is the only one that this producer allows.
            self._replace()
            raise TransactionAborted(f"a transaction was given up: {error}") from error
        except ck.KafkaException as error:
            if not self._abort():
                self._replace()
            raise TransactionAborted(f"a transaction was rolled back: {error.args[0]}") from error

    def _initialise(self, deadline_s: float) -> None:
        """Also ends what a producer that was replaced has left open. Raises TransactionAborted."""
        if self._is_initialised:
            return
        try:
            if leaderless := self._leaderless(deadline_s):
                raise TransactionAborted(f"no leader is known for partitions of {', '.join(leaderless)}")
            self._producer.init_transactions(_left_s(deadline_s))
        except ck.KafkaException as error:
            if not _may_still_work(error):
                self._replace()
            raise TransactionAborted(f"the broker grants no transactions: {error.args[0]}") from error
        self._is_initialised = True

    def _leaderless(self, deadline_s: float) -> list[str]:
        """Topics of which a partition has no leader. What was left open there would not be marked as rolled
        back now (Kafka 4.4 passes over such partitions), and the next commit would commit it."""
        if not self._written:
            return []
        known = self._producer.list_topics(timeout=_left_s(deadline_s)).topics
        written = sorted({*self._written, "__consumer_offsets"} & known.keys())
        return [name for name in written if not has_leaders(known[name])]

    def _end(self, deadline_s: float) -> None:
        """Commit. The next is to look if only the offsets can tell how it ended."""
        try:
            self._producer.commit_transaction(_left_s(deadline_s))
        except ck.KafkaException as error:
            if _may_still_work(error):
                raise Unavailable(f"a transaction is not decided yet: {error.args[0]}") from error
            if error.args[0].txn_requires_abort() and self._abort():
                self._next = "send"
                raise TransactionAborted(f"a transaction was rolled back: {error.args[0]}") from error
            log.error("the transactional producer could not commit: %s", error.args[0])
            self._next = "look"
            self._replace()
        else:
            self._next = "send"

    def _look(self, next_offsets: Mapping[TopicPartition, int], deadline_s: float) -> None:
        """Its producer is gone: it was committed if, and only if, its offsets are there. Whoever else may
        have committed them has published the same records."""
        try:
            self._initialise(deadline_s)
        except TransactionAborted as error:
            raise Unavailable(f"a transaction is not decided yet: {error}") from error
        stand = self._source.committed(next_offsets.keys(), _left_s(deadline_s))
        self._next = "send"
        if any(stand[partition] < offset for partition, offset in next_offsets.items()):
            raise TransactionAborted("a transaction was rolled back: its producer was given up")

    def _abort(self) -> bool:
        """False: whether it is rolled back is for the broker to say."""
        try:
            self._producer.abort_transaction(_ABORT_TIMEOUT_S)
        except ck.KafkaException as error:
            log.warning("the transactional producer cannot abort: %s", error.args[0])
            return False
        return True

    def _replace(self) -> None:
        """By one with the same id: when it is initialised, the broker ends what the old one left open."""
        old, self._producer = self._producer, connect(ck.Producer, self._config)
        self._is_initialised = False
        with contextlib.suppress(ck.KafkaException):  # says the same once more
            old.purge()
            old.flush(0)


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
        aborted, committed = f"aborted-{uuid4().hex}".encode(), f"committed-{uuid4().hex}".encode()
        first_offset = _write_both(topic, aborted, committed, settings, deadline_s)
        return aborted not in _values_until(committed, topic, first_offset, settings, deadline_s)


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
        if error.args[0].code() != _KAFKA.TOPIC_ALREADY_EXISTS:
            raise


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


def _write_both(
    topic: str, aborted: bytes, committed: bytes, settings: Mapping[str, Any], deadline_s: float
) -> int:
    """The offset of the aborted record."""
    producer = connect(ck.Producer, _transactional(settings["bootstrap.servers"], topic, settings))
    written: list[int] = []

    def report(error: ck.KafkaError | None, message: ck.Message) -> None:
        if error is not None:
            raise ck.KafkaException(error)
        written.append(message.offset() or 0)

    _initialise(producer, deadline_s)
    for value, end in ((aborted, producer.abort_transaction), (committed, producer.commit_transaction)):
        producer.begin_transaction()
        produce(producer, OutRecord(topic, None, value), report, deadline_s)
        if producer.flush(_left_s(deadline_s)):
            raise TimeoutError("a record is not acknowledged")
        end(_left_s(deadline_s))
    return written[0]


def _values_until(
    last: bytes, topic: str, first_offset: int, settings: Mapping[str, Any], deadline_s: float
) -> list[bytes | None]:
    reading = {"group.id": topic, "enable.auto.commit": False, "log_level": 0}
    consumer = connect(ck.Consumer, {**reading, **settings, "isolation.level": "read_committed"})
    values: list[bytes | None] = []
    try:
        consumer.assign([ck.TopicPartition(topic, 0, first_offset)])
        while last not in values:
            message = consumer.poll(_left_s(deadline_s))
            if message is None:
                raise TimeoutError("a committed record cannot be read")
            if message.error() is not None:
                raise ck.KafkaException(message.error())
            values.append(message.value())
        return values
    finally:
        consumer.close()


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (ck.KafkaException, TimeoutError) as error:
        raise Unavailable(f"the broker could not be asked about its transactions: {error}") from error


def _transactional(
    bootstrap_servers: str, transactional_id: str, client_config: Mapping[str, Any] | None
) -> dict[str, Any]:
    config = producer_config(bootstrap_servers, _TRANSACTION_TIMEOUT_S, client_config or {})
    config.pop("message.timeout.ms", None)  # the other name of delivery.timeout.ms
    timeout_ms = int(_TRANSACTION_TIMEOUT_S * 1000)
    return config | {
        "transactional.id": f"{transactional_id}-{uuid4().hex}",
        "transaction.timeout.ms": timeout_ms,
        "delivery.timeout.ms": timeout_ms,
    }


def _may_still_work(error: ck.KafkaException) -> bool:
    problem = error.args[0]
    return bool(problem.retriable() or problem.code() == _KAFKA._TIMED_OUT) and not problem.fatal()


def _within(deadline_s: float, call: Callable[[], object]) -> None:
    """Make the call on a thread that is left alone at the deadline: librdkafka ignores the timeout of
    send_offsets_to_transaction while the group's coordinator is down (its issues 5456 and 5511).

    Raises TimeoutError, or what the call raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    caller = threading.Thread(target=run, name="send-offsets", daemon=True)
    caller.start()
    caller.join(_left_s(deadline_s) + 0.5)
    if caller.is_alive():
        raise TimeoutError("the group's coordinator does not answer")
    if raised:
        raise raised[0]


def _left_s(deadline_s: float) -> float:
    return max(0.1, deadline_s - time.monotonic())


def _ignore_report(*_: object) -> None:
    """A record that was not delivered makes the transaction abort."""
