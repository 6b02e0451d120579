"""Exactly-once delivery on Kafka's transactions.

A transaction ends when its coordinator says so. What a reader sees depends on the markers that the
coordinator then writes to every partition. Kafka (4.4) skips a partition that has no leader at that moment:
after the crash of a single broker, all of them. A partition without its marker stays open, and the producer's
next transaction there decides over both: if it is aborted, it hides what was committed; if it is committed,
it shows what was aborted.

So after any error the producer repairs. First it sweeps: an aborted transaction on every partition closes
what may be open. Then it checks what it had committed, and sends again what readers do not see.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal
from uuid import uuid4

import confluent_kafka as ck

from tagstream.adapters.kafka.client import committed_offsets, connect, left_s, log_error, served
from tagstream.adapters.kafka.publisher import produce, transactional_config
from tagstream.adapters.kafka.source import KafkaSource
from tagstream.adapters.kafka.visibility import partitions_shown
from tagstream.core.errors import TransactionAborted, Unavailable
from tagstream.core.ports import KafkaAddress, OutRecord, TopicPartition

log = logging.getLogger(__name__)

#: For sending and ending a transaction, for a sweep, for sending again; then for undoing any of them.
_WORK_TIMEOUT_S = 7.0
_ABORT_TIMEOUT_S = 3.0

_KAFKA = ck.KafkaError
#: Settings that would make a consumer a member of its group.
_MEMBERSHIP = ("group.protocol", "group.instance.id", "group.remote.assignor")


@dataclass(frozen=True)
class _Transaction:
    """What was written: progress, the assignments that it was made under, and records with their offsets.
    Within a partition all records are shown or none."""

    next_offsets: Mapping[TopicPartition, int]
    assignments: Mapping[TopicPartition, int]
    records: dict[TopicPartition, list[tuple[int, OutRecord]]] = field(default_factory=dict)

    def note(self, record: OutRecord, error: ck.KafkaError | None, message: ck.Message) -> None:
        """A delivery report. A record that was not delivered makes the transaction abort."""
        offset = message.offset()
        if error is None and offset is not None:
            partition = TopicPartition(message.topic() or "", message.partition() or 0)
            self.records.setdefault(partition, []).append((offset, record))

    def within(self, partitions: Collection[TopicPartition]) -> _Transaction:
        """The same with the records of these partitions alone."""
        return replace(
            self, records={part: some for part, some in self.records.items() if part in partitions}
        )


class KafkaTransactions:
    """The `Transactions` of `source`'s group. See `core.ports.Transactions`.

    The group itself refuses a consumer that it has given up (KIP-447; Kafka 2.5). So the transactional id has
    nothing to fence, and is always new.
    """

    def __init__(self, kafka: KafkaAddress, group_id: str, source: KafkaSource) -> None:
        """`group_id`: of the source. Every transactional id begins with it, so the broker's ACLs can name it.
        Raises BadSettings: librdkafka refuses the settings."""
        self._source = source
        self._reading = {**kafka.config, "group.id": group_id}
        self._config = transactional_config(kafka, f"{group_id}-{uuid4().hex}")
        self._config["error_cb"] = self._on_error
        self._producer = connect(ck.Producer, self._config)
        self._is_initialised = False
        self._next: Literal["send", "end", "repair"] = "send"
        self._current = _Transaction({}, {})
        # Committed, and not known to have its markers: the last one of each partition; since an error, all.
        self._committed: list[_Transaction] = []
        # After an error: open, something may lack its marker; swept, nothing is open, some may be hidden.
        self._doubt: Literal["none", "open", "swept"] = "none"
        # Where something of this producer may be open: topics, and one partition that names the group.
        self._topics: set[str] = set()
        self._progress: dict[TopicPartition, int] = {}

    def commit(self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int]) -> None:
        """See the port. Takes about 10 s at most, and some 20 s more for each repair, before and after."""
        if self._next == "send":
            self.settle()
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        if self._next == "send":
            self._send(records, next_offsets, deadline_s)
            self._next = "end"
        if self._next == "end":
            self._end(deadline_s)
        if self._next == "repair":
            try:
                self._repair()
            except TransactionAborted as error:
                raise Unavailable(f"a transaction is not decided yet: {error}") from error
            self._next = "send"

    def settle(self) -> None:
        """See the port."""
        with contextlib.suppress(ck.KafkaException):  # a later call raises it again
            served(self._producer.poll, 0)  # calls `_on_error`
        if self._doubt != "none" and self._progress:
            self._repair()

    def close(self) -> None:
        """Takes a second at most; logs an error if the last transaction may be hidden."""
        with contextlib.suppress(ck.KafkaException):  # of a producer that is given up
            self._producer.purge()
            served(self._producer.flush, 1.0)
        if self._next == "end" or (self._doubt != "none" and self._committed):
            log.error("the last transaction may be hidden: `tagstream verify` tells")

    def _on_error(self, error: ck.KafkaError) -> None:
        """A broker that was away may have crashed and written no markers, though no call fails."""
        log_error(error)
        self._doubt = "open"

    def _send(
        self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int], deadline_s: float
    ) -> None:
        """All of a transaction but its end. Raises TransactionAborted: nothing of it remains."""
        group = self._source.group_metadata(next_offsets.keys())
        self._initialise(deadline_s)
        self._topics |= {record.topic for record in records}
        self._progress = dict.fromkeys(list(next_offsets)[:1], 0) or self._progress
        self._current = self._write(records, next_offsets, group, deadline_s)

    def _initialise(self, deadline_s: float) -> None:
        """Also ends what a replaced producer has left undecided. Raises TransactionAborted."""
        if self._is_initialised:
            return
        try:
            self._producer.init_transactions(left_s(deadline_s))
        except ck.KafkaException as error:
            if not _may_still_work(error):
                self._replace()
            raise TransactionAborted(f"the broker grants no transactions: {error.args[0]}") from error
        self._is_initialised = True

    def _write(
        self,
        records: Sequence[OutRecord],
        next_offsets: Mapping[TopicPartition, int],
        group: bytes,
        deadline_s: float,
    ) -> _Transaction:
        """A new transaction with these records. Raises TransactionAborted: nothing of it remains."""
        written = _Transaction(dict(next_offsets), self._source.assignments(next_offsets))
        try:
            self._producer.begin_transaction()
            for record in records:
                produce(self._producer, record, partial(written.note, record), deadline_s)
            if waiting := served(self._producer.flush, left_s(deadline_s)):
                raise TimeoutError(f"{waiting} of {len(records)} records are not acknowledged")
            self._send_offsets(next_offsets, group, deadline_s)
            if sum(map(len, written.records.values())) != len(records):
                raise TimeoutError("the offsets of some records are not known")
        except TimeoutError as error:
            # Not aborted: the call that hangs is the only one that this producer allows.
            self._doubt = "open"
            self._replace()
            raise TransactionAborted(f"a transaction was given up: {error}") from error
        except ck.KafkaException as error:
            self._doubt = "open"
            if not self._abort():
                self._replace()
            raise TransactionAborted(f"a transaction was rolled back: {error.args[0]}") from error
        return written

    def _end(self, deadline_s: float) -> None:
        """Commit. One whose end cannot be learned is repaired like one that was committed and is hidden."""
        try:
            served(self._producer.commit_transaction, left_s(deadline_s))
        except ck.KafkaException as error:
            self._doubt = "open"
            if _may_still_work(error):
                raise Unavailable(f"a transaction is not decided yet: {error.args[0]}") from error
            log.error("the transactional producer could not commit: %s", error.args[0])
            if not (error.args[0].txn_requires_abort() and self._abort()):
                self._replace()
        earlier = self._committed
        if self._doubt == "none":  # where this one has its marker, those before it have theirs
            rest = [each.within(each.records.keys() - self._current.records.keys()) for each in earlier]
            earlier = [each for each in rest if each.records]
        self._committed = [*earlier, self._current]
        self._next = "send" if self._doubt == "none" else "repair"

    def _repair(self) -> None:
        """Close what is open, and show what was committed. Raises TransactionAborted: not done yet."""
        if self._doubt == "open":
            self._doubt = "swept"  # an error from here on sets it to open again
            with self._open_on_error():
                self._sweep()
        ours: dict[TopicPartition, int] = {}
        for each in self._committed:
            ours |= self._still_ours(each)
        # Outside of the block below: a consumer that the group has given up can show nothing, and must not
        # sweep again and again before it learns that.
        group = self._source.group_metadata(ours) if ours else b""
        with self._open_on_error():
            self._show_again(ours, group)
        if self._doubt == "swept":
            self._doubt = "none"

    @contextlib.contextmanager
    def _open_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._doubt = "open"
            raise

    def _show_again(self, ours: Mapping[TopicPartition, int], group: bytes) -> None:
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        progress_of = self._group_progress(ours, deadline_s)
        hidden: list[OutRecord] = []
        for each in self._committed:
            its_hidden, its_progress = self._hidden(each, deadline_s), self._still_ours(each)
            is_behind = any(progress_of[part] < offset for part, offset in its_progress.items())
            if its_progress and (its_hidden or is_behind):
                hidden += its_hidden
                continue
            if its_hidden:
                log.warning(
                    "%d committed records are hidden, and their partitions have moved: if the next owner "
                    "does not send them again, `tagstream verify` tells",
                    len(its_hidden),
                )
            # One look is enough: the time may not suffice for a second one at all of them.
            self._committed = [other for other in self._committed if other is not each]
        if not self._committed:
            return
        if hidden:
            log.warning("%d committed records are hidden, and are sent again", len(hidden))
        progress = {partition: max(offset, progress_of[partition]) for partition, offset in ours.items()}
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        # With the progress, even if the group has it: the group refuses it if there is a new owner.
        written = self._write(hidden, progress, group, deadline_s)
        # From now on these must be shown, however the transaction ends.
        self._committed = [written]
        try:
            served(self._producer.commit_transaction, left_s(deadline_s))
        except ck.KafkaException as error:
            self._replace()
            raise TransactionAborted(f"hidden records are not shown yet: {error.args[0]}") from error

    def _still_ours(self, of: _Transaction) -> dict[TopicPartition, int]:
        """Its progress in partitions that, as far as we know, nobody else has held since."""
        now = self._source.assignments(of.next_offsets)
        return {part: of.next_offsets[part] for part in now if now[part] == of.assignments[part]}

    def _sweep(self) -> None:
        """Close what an earlier transaction may have left open: abort one on every partition, and wait for
        its markers. Raises TransactionAborted: not done yet."""
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        self._initialise(deadline_s)
        try:
            known = self._producer.list_topics(timeout=left_s(deadline_s)).topics
        except ck.KafkaException as error:
            self._replace()  # it may have lost all brokers for good (librdkafka's issue 5301)
            raise TransactionAborted(f"an earlier transaction may be open still: {error}") from error
        if unknown := {name for name in self._topics if name not in known or not known[name].partitions}:
            raise TransactionAborted(f"the broker does not know now what is open in {sorted(unknown)}")
        blanks = [
            OutRecord(name, b"aborted", None, partition=number)
            for name in self._topics
            for number in known[name].partitions
        ]
        with self._nonmember() as consumer:
            nobody = consumer.consumer_group_metadata()
        swept = self._write(blanks, self._progress, nobody, deadline_s)
        if not self._abort():
            self._replace()
            raise TransactionAborted("an earlier transaction may be open still")
        self._shown(swept, deadline_s)
        self._group_progress(self._progress, deadline_s)

    def _group_progress(
        self, partitions: Collection[TopicPartition], deadline_s: float
    ) -> dict[TopicPartition, int]:
        """The group's committed offsets. Raises TransactionAborted: a transaction on them is open."""
        if not partitions:
            return {}
        try:
            with self._nonmember() as consumer:
                return committed_offsets(consumer, partitions, left_s(deadline_s))
        except Unavailable as error:
            raise TransactionAborted(f"an earlier transaction may be open still: {error}") from error

    def _hidden(self, of: _Transaction, deadline_s: float) -> list[OutRecord]:
        """Its records that are in the log and not shown. Raises TransactionAborted: that is not decided."""
        hidden = of.records.keys() - self._shown(of, deadline_s)
        there = self._shown(of.within(hidden), deadline_s, "read_uncommitted")
        return [record for partition, some in of.records.items() if partition in there for _, record in some]

    def _shown(
        self,
        of: _Transaction,
        deadline_s: float,
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
    ) -> set[TopicPartition]:
        if not of.records:
            return set()
        first_offsets = {partition: some[0][0] for partition, some in of.records.items()}
        try:
            return partitions_shown(first_offsets, self._reading, deadline_s, isolation=isolation)
        except (TimeoutError, ck.KafkaException) as error:
            raise TransactionAborted(
                f"an earlier transaction, perhaps of another process, may be open still: {error} "
                "(kafka-transactions.sh find-hanging tells, if it stays so)"
            ) from error

    @contextlib.contextmanager
    def _nonmember(self) -> Iterator[Any]:
        """A consumer that names the group without joining it. During a rebalance the broker answers it, and
        takes its offsets, where it would refuse a member."""
        config = {name: value for name, value in self._reading.items() if name not in _MEMBERSHIP}
        with contextlib.closing(connect(ck.Consumer, {"log_level": 0, **config})) as consumer:
            yield consumer

    def _send_offsets(
        self, next_offsets: Mapping[TopicPartition, int], group: bytes, deadline_s: float
    ) -> None:
        """Raises TimeoutError, KafkaException."""
        if not next_offsets:
            return
        offsets = [ck.TopicPartition(*partition, offset) for partition, offset in next_offsets.items()]
        call = partial(self._producer.send_offsets_to_transaction, offsets, group, left_s(deadline_s))
        _within(deadline_s, call)

    def _abort(self) -> bool:
        """False: only the broker knows whether it is aborted."""
        try:
            served(self._producer.abort_transaction, _ABORT_TIMEOUT_S)
        except ck.KafkaException as error:
            log.warning("the transactional producer cannot abort: %s", error.args[0])
            return False
        return True

    def _replace(self) -> None:
        """With a producer of the same id: initialising that ends what the old one has left undecided."""
        old, self._producer = self._producer, connect(ck.Producer, self._config)
        self._is_initialised = False
        with contextlib.suppress(ck.KafkaException):  # the same error again
            old.purge()
            served(old.flush, 0)


def _may_still_work(error: ck.KafkaException) -> bool:
    problem = error.args[0]
    return bool(problem.retriable() or problem.code() == _KAFKA._TIMED_OUT) and not problem.fatal()


def _within(deadline_s: float, call: Callable[[], object]) -> None:
    """Make the call on a thread of its own, and abandon that thread at the deadline: librdkafka ignores the
    timeout of send_offsets_to_transaction while the group's coordinator is down (its issues 5456 and 5511).

    Raises TimeoutError, or what the call raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    caller = threading.Thread(target=run, name="send-offsets", daemon=True)
    caller.start()
    caller.join(left_s(deadline_s) + 0.5)
    if caller.is_alive():
        raise TimeoutError("the group's coordinator does not answer")
    if raised:
        raise raised[0]
