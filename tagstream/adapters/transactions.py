"""Exactly-once delivery on Kafka's transactions.

A transaction is over when its coordinator says so; what a reader sees depends on the marks that the
coordinator then writes to every partition. Kafka (4.4) passes over a partition that has no leader at that
moment: after a crash of a lone broker that is every one. What has no mark stays open, and the producer's next
transaction there decides over both: it hides what was committed if it is rolled back, and shows what was
rolled back if it is committed. So whenever anything went wrong, what may be open is swept: closed for good by
a transaction that is rolled back; and what was committed, and is not shown then, is sent again.
"""

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

from tagstream.adapters.kafka import connect, served
from tagstream.adapters.kafka_publisher import TRANSACTION_TIMEOUT_S, produce, transactional_config
from tagstream.adapters.kafka_source import KafkaSource
from tagstream.adapters.read_committed import partitions_shown
from tagstream.core.errors import TransactionAborted, Unavailable
from tagstream.core.ports import OutRecord, TopicPartition

log = logging.getLogger(__name__)

#: One call of `commit`: as long as this for the work, and then as long as that to undo it.
_WORK_TIMEOUT_S = 7.0
_ABORT_TIMEOUT_S = 3.0
#: What was committed longer ago than this, before anything went wrong, has been marked; and it may have been
#: compacted, so that not to be shown means nothing.
_MARKED_AFTER_S = 60 * TRANSACTION_TIMEOUT_S

_KAFKA = ck.KafkaError

#: Records of a transaction: partition → offset and record, in order. In a partition their fate is one.
_Written = dict[TopicPartition, list[tuple[int, OutRecord]]]


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
        self._reading = {**(client_config or {}), "bootstrap.servers": bootstrap_servers}
        self._reading["group.id"] = transactional_id
        unique_id = f"{transactional_id}-{uuid4().hex}"
        self._config = transactional_config(bootstrap_servers, unique_id, client_config or {})
        self._producer = connect(ck.Producer, self._config)
        self._is_initialised = False
        self._is_suspect = False
        self._topics: set[str] = set()
        self._written: _Written = {}
        self._committed: _Written = {}
        self._committed_s = 0.0
        self._next: Literal["send", "end", "look", "mend"] = "send"

    def commit(self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int]) -> None:
        """See the port. Takes about 10 s at most."""
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        if self._next == "send":
            self._send(records, next_offsets, deadline_s)
            self._next = "end"
        if self._next == "end":
            self._end(deadline_s)
        if self._next == "look":
            self._look(deadline_s)
        if self._next == "mend":
            with _undecided():
                self._mend(next_offsets, deadline_s)
            self._next = "send"

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(1.0)

    def _send(
        self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int], deadline_s: float
    ) -> None:
        """All of a transaction but its end. Raises TransactionAborted: none of it."""
        group = self._source.group_metadata(next_offsets.keys())
        if self._is_suspect:
            self._mend({}, deadline_s)
        self._initialise(deadline_s)
        self._write(records, next_offsets, group, deadline_s)

    def _initialise(self, deadline_s: float) -> None:
        """Also ends what a producer that was replaced has left undecided. Raises TransactionAborted."""
        if self._is_initialised:
            return
        try:
            self._producer.init_transactions(_left_s(deadline_s))
        except ck.KafkaException as error:
            if not _may_still_work(error):
                self._replace()
            raise TransactionAborted(f"the broker grants no transactions: {error.args[0]}") from error
        self._is_initialised = True

    def _write(
        self,
        records: Sequence[OutRecord],
        next_offsets: Mapping[TopicPartition, int],
        group: Any,
        deadline_s: float,
    ) -> None:
        """A new transaction with these. Raises TransactionAborted: none of it."""
        self._written = {}
        self._topics |= {record.topic for record in records}
        offsets = [ck.TopicPartition(*partition, offset) for partition, offset in next_offsets.items()]
        try:
            self._producer.begin_transaction()
            for record in records:
                produce(self._producer, record, partial(_note, self._written, record), deadline_s)
            waiting = served(self._producer.flush, _left_s(deadline_s))
            if waiting:
                raise TimeoutError(f"{waiting} of {len(records)} records are not acknowledged")
            send = partial(self._producer.send_offsets_to_transaction, offsets, group, _left_s(deadline_s))
            if offsets:
                _within(deadline_s, send)
        except TimeoutError as error:
            # Not aborted: the call that hangs is the only one that this producer allows.
            self._suspect()
            self._replace()
            raise TransactionAborted(f"a transaction was given up: {error}") from error
        except ck.KafkaException as error:
            self._suspect()
            if not self._abort():
                self._replace()
            raise TransactionAborted(f"a transaction was rolled back: {error.args[0]}") from error

    def _end(self, deadline_s: float) -> None:
        """Commit. The next is to look if only the records can tell how it ended."""
        try:
            served(self._producer.commit_transaction, _left_s(deadline_s))
        except ck.KafkaException as error:
            self._suspect()
            if _may_still_work(error):
                raise Unavailable(f"a transaction is not decided yet: {error.args[0]}") from error
            if error.args[0].txn_requires_abort() and self._abort():
                self._next = "send"
                raise TransactionAborted(f"a transaction was rolled back: {error.args[0]}") from error
            log.error("the transactional producer could not commit: %s", error.args[0])
            self._next = "look"
            self._replace()
        else:
            self._is_committed()

    def _look(self, deadline_s: float) -> None:
        """Its producer is gone: it was committed if, and only if, any record of it is shown, when nothing of
        it is open any more. One of which all are hidden then, or without a record, can be sent again."""
        with _undecided():
            self._sweep(deadline_s)
            shown = self._shown(self._written, deadline_s)
        if not shown:
            self._next = "send"
            raise TransactionAborted("a transaction was rolled back: its producer was given up")
        self._is_committed()

    def _is_committed(self) -> None:
        # Beside what was committed before, as long as it may not be marked: the sweep would hide it, too.
        earlier = self._committed if self._is_suspect else {}
        self._committed, self._written = {**earlier, **self._written}, {}
        self._committed_s = time.monotonic()
        self._next = "mend" if self._is_suspect else "send"

    def _suspect(self) -> None:
        if not self._is_suspect and time.monotonic() - self._committed_s > _MARKED_AFTER_S:
            self._committed = {}
        self._is_suspect = True

    def _mend(self, next_offsets: Mapping[TopicPartition, int], deadline_s: float) -> None:
        """Leave nothing open, and show what was committed last. Its offsets go again, which harms nobody.
        Raises TransactionAborted: not done yet."""
        self._sweep(deadline_s)
        shown = self._shown(self._committed, deadline_s)
        hidden = {partition: of for partition, of in self._committed.items() if partition not in shown}
        records = [record for of in hidden.values() for _, record in of]
        if records:
            log.warning("%d records are committed, but hidden, and are sent again", len(records))
        try:
            group = self._source.group_metadata(next_offsets.keys())
        except TransactionAborted:  # the offsets are the next owner's now
            group, next_offsets = None, {}
        if records or next_offsets:
            self._write(records, next_offsets, group, deadline_s)
            # These are to be shown now, in place of those, however the transaction ends.
            self._committed, self._written = {**self._committed, **self._written}, {}
            self._commit_or_replace(deadline_s)
        self._is_suspect, self._committed = False, {}

    def _sweep(self, deadline_s: float) -> None:
        """Close what an earlier transaction may have left open, wherever this producer has written. Raises
        TransactionAborted: not done yet."""
        self._initialise(deadline_s)
        failures: list[ck.KafkaError] = []
        report = partial(_note_failure, failures)
        try:
            known = self._producer.list_topics(timeout=_left_s(deadline_s)).topics
            self._producer.begin_transaction()
            for topic in sorted(self._topics & known.keys()):
                for number in known[topic].partitions:
                    self._producer.produce(topic, None, b"aborted", partition=number, on_delivery=report)
            if served(self._producer.flush, _left_s(deadline_s)) or failures:
                raise TimeoutError(f"not every partition can be written to {failures[:1]}")
            served(self._producer.abort_transaction, _left_s(deadline_s))
        except (TimeoutError, ck.KafkaException) as error:
            self._replace()
            raise TransactionAborted(f"an earlier transaction may be open still: {error}") from error

    def _shown(self, written: _Written, deadline_s: float) -> set[TopicPartition]:
        """Where these are shown. Raises TransactionAborted: it cannot be told yet."""
        if not written:
            return set()
        offsets = {partition: of[0][0] for partition, of in written.items()}
        try:
            return partitions_shown(offsets, self._reading, deadline_s)
        except (TimeoutError, ck.KafkaException) as error:
            raise TransactionAborted(f"an earlier transaction may be open still: {error}") from error

    def _abort(self) -> bool:
        """False: whether it is rolled back is for the broker to say."""
        try:
            served(self._producer.abort_transaction, _ABORT_TIMEOUT_S)
        except ck.KafkaException as error:
            log.warning("the transactional producer cannot abort: %s", error.args[0])
            return False
        return True

    def _commit_or_replace(self, deadline_s: float) -> None:
        """Raises TransactionAborted: the broker has not said that it is committed."""
        try:
            served(self._producer.commit_transaction, _left_s(deadline_s))
        except ck.KafkaException as error:
            self._replace()
            raise TransactionAborted(f"a transaction is not decided yet: {error.args[0]}") from error

    def _replace(self) -> None:
        """By one with the same id: to initialise it is to end what the old one has left undecided."""
        old, self._producer = self._producer, connect(ck.Producer, self._config)
        self._is_initialised = False
        with contextlib.suppress(ck.KafkaException):  # says the same once more
            old.purge()
            served(old.flush, 0)


@contextlib.contextmanager
def _undecided() -> Iterator[None]:
    try:
        yield
    except TransactionAborted as error:
        raise Unavailable(f"a transaction is not decided yet: {error}") from error


def _note(written: _Written, record: OutRecord, error: ck.KafkaError | None, message: ck.Message) -> None:
    """A delivery report. A record that was not delivered makes the transaction abort."""
    if error is None:
        partition = TopicPartition(message.topic() or "", message.partition() or 0)
        written.setdefault(partition, []).append((message.offset() or 0, record))


def _note_failure(failures: list[ck.KafkaError], error: ck.KafkaError | None, _: ck.Message) -> None:
    if error is not None:
        failures.append(error)


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
