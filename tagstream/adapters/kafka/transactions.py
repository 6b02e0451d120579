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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal
from uuid import uuid4

import confluent_kafka as ck

from tagstream.adapters.kafka.client import committed_offsets, connect, log_error, served
from tagstream.adapters.kafka.publisher import BY_KEY, produce, transactional_config
from tagstream.adapters.kafka.read_committed import partitions_shown
from tagstream.adapters.kafka.source import KafkaSource
from tagstream.core.errors import TransactionAborted, Unavailable
from tagstream.core.ports import OutRecord, TopicPartition

log = logging.getLogger(__name__)

#: To send and end a transaction, to sweep, to send again: as long as this, then as long as that to undo it.
_WORK_TIMEOUT_S = 7.0
_ABORT_TIMEOUT_S = 3.0

_KAFKA = ck.KafkaError
#: What makes a member of a consumer that is not to be one.
_MEMBERSHIP = ("group.protocol", "group.instance.id", "group.remote.assignor")


@dataclass(frozen=True)
class _Transaction:
    """What was written: progress, in these assignments of the partitions, and records with their offsets. In
    a partition their fate is one."""

    next_offsets: Mapping[TopicPartition, int]
    assignments: Mapping[TopicPartition, int]
    records: dict[TopicPartition, list[tuple[int, OutRecord]]] = field(default_factory=dict)

    def note(self, record: OutRecord, error: ck.KafkaError | None, message: ck.Message) -> None:
        """A delivery report. A record that was not delivered makes the transaction abort."""
        offset = message.offset()
        if error is None and offset is not None:
            partition = TopicPartition(message.topic() or "", message.partition() or 0)
            self.records.setdefault(partition, []).append((offset, record))

    def is_whole(self, count: int) -> bool:
        """Whether so many records were acknowledged."""
        return sum(map(len, self.records.values())) == count

    def within(self, partitions: Collection[TopicPartition]) -> _Transaction:
        """The same with the records of these partitions alone."""
        return replace(
            self, records={part: some for part, some in self.records.items() if part in partitions}
        )


class KafkaTransactions:
    """The `Transactions` of `source`'s group. See `core.ports.Transactions`.

    The group itself refuses a consumer that it has given up (KIP-447; Kafka 2.5), so that the transactional
    id has nothing to fence and is always new.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        group_id: str,
        source: KafkaSource,
        *,
        client_config: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            group_id: of the source; also what the transactional id of every process begins with, and the
                broker's rights go by that.
            client_config: handed to librdkafka as it is; wins over our defaults, except on timeouts.

        Raises:
            BadSettings: librdkafka refuses the settings.
        """
        self._source = source
        self._reading = {
            **(client_config or {}),
            "bootstrap.servers": bootstrap_servers,
            "group.id": group_id,
        }
        transactional_id = f"{group_id}-{uuid4().hex}"
        self._config = transactional_config(bootstrap_servers, transactional_id, client_config or {})
        self._config["error_cb"] = self._hear
        self._producer = connect(ck.Producer, self._config)
        self._is_initialised = False
        self._next: Literal["send", "end", "mend"] = "send"
        self._current = _Transaction({}, {})
        # Committed, and not known to be marked: the last one of each partition, and of those in which
        # anything went wrong since, all.
        self._committed: list[_Transaction] = []
        # Since anything went wrong: something may be open; all is closed, and may be hidden.
        self._doubt: Literal["none", "open", "swept"] = "none"
        # Where anything of this producer may be open: topics, and one partition that leads to the group.
        self._topics: set[str] = set()
        self._progress: dict[TopicPartition, int] = {}

    def commit(self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int]) -> None:
        """See the port. Takes about 10 s at most, and some 20 s more for each mending, before and after."""
        if self._next == "send":
            self.settle()
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        if self._next == "send":
            self._send(records, next_offsets, deadline_s)
            self._next = "end"
        if self._next == "end":
            self._end(deadline_s)
        if self._next == "mend":
            try:
                self._mend()
            except TransactionAborted as error:
                raise Unavailable(f"a transaction is not decided yet: {error}") from error
            self._next = "send"

    def settle(self) -> None:
        with contextlib.suppress(ck.KafkaException):  # says itself again
            served(self._producer.poll, 0)  # hears
        if self._doubt != "none" and self._progress:
            self._mend()

    def close(self) -> None:
        with contextlib.suppress(ck.KafkaException):  # of a producer that is given up
            self._producer.purge()
            served(self._producer.flush, 1.0)
        if self._next == "end" or (self._doubt != "none" and self._committed):
            log.error("the last transaction may be hidden: `tagstream verify` tells")

    def _hear(self, error: ck.KafkaError) -> None:
        """A broker that was away may have crashed, and marks nothing, though no call fails."""
        log_error(error)
        self._doubt = "open"

    def _send(
        self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int], deadline_s: float
    ) -> None:
        """All of a transaction but its end. Raises TransactionAborted: none of it."""
        group = self._source.group_metadata(next_offsets.keys())
        self._initialise(deadline_s)
        self._topics |= {record.topic for record in records}
        self._progress = dict.fromkeys(list(next_offsets)[:1], 0) or self._progress
        by_key = [(record, BY_KEY) for record in records]
        self._current = self._write(by_key, next_offsets, group, deadline_s)

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
        records: Sequence[tuple[OutRecord, int]],
        next_offsets: Mapping[TopicPartition, int],
        group: bytes,
        deadline_s: float,
    ) -> _Transaction:
        """A new transaction with these records, each by its partition or `BY_KEY`. Raises TransactionAborted:
        none of it."""
        written = _Transaction(dict(next_offsets), self._source.assignments(next_offsets))
        try:
            self._producer.begin_transaction()
            for record, partition in records:
                report = partial(written.note, record)
                produce(self._producer, record, report, deadline_s, partition=partition)
            if waiting := served(self._producer.flush, _left_s(deadline_s)):
                raise TimeoutError(f"{waiting} of {len(records)} records are not acknowledged")
            self._send_offsets(next_offsets, group, deadline_s)
            if not written.is_whole(len(records)):
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
        """Commit. One whose end nobody tells any more is mended, as one that was committed and is hidden."""
        try:
            served(self._producer.commit_transaction, _left_s(deadline_s))
        except ck.KafkaException as error:
            self._doubt = "open"
            if _may_still_work(error):
                raise Unavailable(f"a transaction is not decided yet: {error.args[0]}") from error
            log.error("the transactional producer could not commit: %s", error.args[0])
            if not (error.args[0].txn_requires_abort() and self._abort()):
                self._replace()
        earlier = self._committed
        if self._doubt == "none":  # where this one is marked, those before it are
            rest = [each.within(each.records.keys() - self._current.records.keys()) for each in earlier]
            earlier = [each for each in rest if each.records]
        self._committed = [*earlier, self._current]
        self._next = "send" if self._doubt == "none" else "mend"

    def _mend(self) -> None:
        """Leave nothing open, and show what was committed. Raises TransactionAborted: not done yet."""
        if self._doubt == "open":
            self._doubt = "swept"  # a broker that goes away once more from here on opens it again
            with self._or_open():
                self._sweep()
        ours: dict[TopicPartition, int] = {}
        for each in self._committed:
            ours |= self._still_ours(each)
        # A consumer that the group has given up can show nothing, and is not kept from hearing of it by
        # sweeping again and again.
        group = self._source.group_metadata(ours) if ours else b""
        with self._or_open():
            self._show_again(ours, group)
        if self._doubt == "swept":
            self._doubt = "none"

    @contextlib.contextmanager
    def _or_open(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._doubt = "open"
            raise

    def _show_again(self, ours: Mapping[TopicPartition, int], group: bytes) -> None:
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        stand = self._stand(ours, deadline_s)
        hidden: list[OutRecord] = []
        for each in self._committed:
            its_hidden, its_progress = self._hidden(each, deadline_s), self._still_ours(each)
            is_missed = its_hidden or any(stand[part] < offset for part, offset in its_progress.items())
            if its_progress and is_missed:
                hidden += its_hidden
                continue
            if its_hidden:
                log.warning(
                    "%d committed records are hidden, and their partitions have moved: if the next owner "
                    "does not send them again, `tagstream verify` tells",
                    len(its_hidden),
                )
            # Looked at once is enough: there may be more than can be looked at in the time.
            self._committed = [other for other in self._committed if other is not each]
        if not self._committed:
            return
        if hidden:
            log.warning("%d committed records are hidden, and are sent again", len(hidden))
        progress = {partition: max(offset, stand[partition]) for partition, offset in ours.items()}
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        # With the progress, though it may be known: so that it is refused if there is a new owner.
        written = self._write([(record, BY_KEY) for record in hidden], progress, group, deadline_s)
        # From now on it is these that must be shown, however the transaction ends.
        self._committed = [written]
        try:
            served(self._producer.commit_transaction, _left_s(deadline_s))
        except ck.KafkaException as error:
            self._replace()
            raise TransactionAborted(f"hidden records are not shown yet: {error.args[0]}") from error

    def _still_ours(self, of: _Transaction) -> dict[TopicPartition, int]:
        """Its progress where nobody else can have held the partition since, as far as we have heard."""
        now = self._source.assignments(of.next_offsets)
        return {part: of.next_offsets[part] for part in now if now[part] == of.assignments[part]}

    def _sweep(self) -> None:
        """Close whatever an earlier transaction may have left open, by one that is rolled back, and see that
        it is marked. Raises TransactionAborted: not done yet."""
        deadline_s = time.monotonic() + _WORK_TIMEOUT_S
        self._initialise(deadline_s)
        try:
            known = self._producer.list_topics(timeout=_left_s(deadline_s)).topics
        except ck.KafkaException as error:
            self._replace()  # it may know no broker any more, and learn of none (librdkafka's issue 5301)
            raise TransactionAborted(f"an earlier transaction may be open still: {error}") from error
        if unknown := {name for name in self._topics if name not in known or not known[name].partitions}:
            raise TransactionAborted(f"the broker does not know now what is open in {sorted(unknown)}")
        blanks = [
            (OutRecord(name, b"aborted", None), number)
            for name in self._topics
            for number in known[name].partitions
        ]
        with self._outsider() as outsider:
            nobody = outsider.consumer_group_metadata()
        swept = self._write(blanks, self._progress, nobody, deadline_s)
        if not self._abort():
            self._replace()
            raise TransactionAborted("an earlier transaction may be open still")
        self._shown(swept, deadline_s)
        self._stand(self._progress, deadline_s)

    def _stand(self, partitions: Collection[TopicPartition], deadline_s: float) -> dict[TopicPartition, int]:
        """The group's progress, when none is open. Raises TransactionAborted: some is."""
        if not partitions:
            return {}
        try:
            with self._outsider() as outsider:
                return committed_offsets(outsider, partitions, _left_s(deadline_s))
        except Unavailable as error:
            raise TransactionAborted(f"an earlier transaction may be open still: {error}") from error

    def _hidden(self, of: _Transaction, deadline_s: float) -> list[OutRecord]:
        """Its records that lie in the log and are not shown. Raises TransactionAborted: it cannot be told."""
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
    def _outsider(self) -> Iterator[Any]:
        """A consumer that names the group and is no member of it. It is told what a member is not told while
        the group is in motion, and the offsets that it sends are taken."""
        config = {name: value for name, value in self._reading.items() if name not in _MEMBERSHIP}
        outsider = connect(ck.Consumer, {"log_level": 0, **config})
        try:
            yield outsider
        finally:
            outsider.close()

    def _send_offsets(
        self, next_offsets: Mapping[TopicPartition, int], group: bytes, deadline_s: float
    ) -> None:
        """Raises TimeoutError, KafkaException."""
        if not next_offsets:
            return
        offsets = [ck.TopicPartition(*partition, offset) for partition, offset in next_offsets.items()]
        call = partial(self._producer.send_offsets_to_transaction, offsets, group, _left_s(deadline_s))
        _within(deadline_s, call)

    def _abort(self) -> bool:
        """False: whether it is rolled back is for the broker to say."""
        try:
            served(self._producer.abort_transaction, _ABORT_TIMEOUT_S)
        except ck.KafkaException as error:
            log.warning("the transactional producer cannot abort: %s", error.args[0])
            return False
        return True

    def _replace(self) -> None:
        """By one with the same id: to initialise it is to end what the old one has left undecided."""
        old, self._producer = self._producer, connect(ck.Producer, self._config)
        self._is_initialised = False
        with contextlib.suppress(ck.KafkaException):  # says the same once more
            old.purge()
            served(old.flush, 0)


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
