"""Steps 8 and 9: in which order a record is published and its offset committed.

AtLeastOnce   publish, then commit
ExactlyOnce   publish and commit in one transaction
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tagstream.core.errors import TransactionAborted, Unavailable
from tagstream.core.ports import OutRecord, Ports, Publisher, Source, TopicPartition, Transactions
from tagstream.stream.entry import Entry
from tagstream.stream.healing import Mark
from tagstream.stream.limits import WorkerLimits
from tagstream.stream.offsets import OffsetTracker

#: A transaction must end within 7 s, on a slow link too; it may hold one record more.
_TRANSACTION_MAX_BYTES = 16 * 2**20


def delivery_of(ports: Ports, limits: WorkerLimits, now_s: float) -> Delivery:
    """Exactly once where `ports` have transactions, else at least once."""
    if ports.transactions is not None:
        return ExactlyOnce(ports.transactions, limits, now_s)
    return AtLeastOnce(ports.source, ports.publisher, limits, now_s)


class Delivery(ABC):
    """The offset trackers of the assigned partitions, and how their progress is committed.

    Any thread may call `publish` and read `uncommitted`. The rest is for the worker's loop.
    """

    #: the last commit failed, or it is not known whether it did
    last_commit_failed = False

    def __init__(self, limits: WorkerLimits, now_s: float) -> None:
        self.trackers: dict[TopicPartition, OffsetTracker] = {}
        self._limits = limits
        self._committed_s = self._acknowledged_s = now_s

    @abstractmethod
    def publish(self, records: Sequence[OutRecord]) -> bool:
        """Step 8. True: the broker has acknowledged all of them. False: they wait for their transaction.

        Raises:
            Unavailable: some were not acknowledged. Publishing all of them again is harmless.
        """

    @abstractmethod
    def done(self, entry: Entry) -> None:
        """The work of this entry is done: its offset may be committed once all before it are done."""

    @abstractmethod
    def is_due(self, now_s: float, load: float) -> bool:
        """Whether to commit now. `load`: the share of the worker's bounds in use."""

    @abstractmethod
    def commit(self, partitions: Collection[TopicPartition], now_s: float, *, wait: bool) -> None:
        """Step 9: commit what is ready in these partitions. `wait`: until the answer.

        Raises:
            Unavailable: the broker does not answer. The next call commits it again.
            TransactionAborted: readers see nothing of it. The next call sends it again.
        """

    def handover_offset(self, partition: TopicPartition, in_flight: Iterable[Entry]) -> int:
        """The offset up to which this worker must finish before it hands the partition over. Stopping
        earlier would publish twice. `in_flight`: its entries of any partition."""
        return 0

    def suspects(
        self, partition: TopicPartition, in_flight: Iterable[Entry]
    ) -> list[tuple[str, Mark | None]]:
        """Products of a lost partition that may have been published after the next owner published them, and
        what was published last, if anything was."""
        return []

    @property
    def holds_outputs(self) -> bool:
        """Whether stored results wait to be published."""
        return False

    @property
    def uncommitted(self) -> int:
        """Events taken and not committed."""
        return sum(len(tracker) for tracker in list(self.trackers.values()))

    @property
    def output_bytes(self) -> int:
        """Held by records that wait for their transaction."""
        return sum(tracker.output_bytes for tracker in self.trackers.values())

    @property
    def republishable(self) -> int:
        """Records that the next owner would publish again if the partitions went now."""
        return sum(tracker.republishable for tracker in list(self.trackers.values()))

    @property
    def is_unacknowledged(self) -> bool:
        """The group answers no commits, and may have given the partitions away."""
        unacknowledged = sum(tracker.unacknowledged for tracker in list(self.trackers.values()))
        return unacknowledged >= self._limits.micro_batch.max_events

    def unacknowledged_for_s(self, now_s: float) -> float:
        """How long the group has not answered; 0 while it does. Ask at every turn."""
        if not self.is_unacknowledged:
            self._acknowledged_s = now_s
        return now_s - self._acknowledged_s

    def acknowledged(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """The group took a commit."""
        for partition, next_offset in next_offsets.items():
            if partition in self.trackers:
                self.trackers[partition].acknowledged(next_offset)

    def recheck(self) -> None:
        """The last commits may not have arrived: the next one repeats them."""
        for tracker in self.trackers.values():
            tracker.recheck()

    def _tracker_of(self, entry: Entry) -> OffsetTracker | None:
        """None if the partition is not held any more, or was assigned anew."""
        tracker = self.trackers.get(entry.record.source)
        return tracker if tracker is not None and tracker.epoch == entry.epoch else None


class AtLeastOnce(Delivery):
    """The order, for each event:

    1. its tags are stored (step 7)
    2. its record is published, and the broker acknowledges it (`publish`)
    3. its offset is done (`done`)
    4. the offset is committed with all done offsets before it (`commit`)

    A crash between 1 and 4 repeats the event, which changes nothing in the store and publishes it again.
    """

    def __init__(self, source: Source, publisher: Publisher, limits: WorkerLimits, now_s: float) -> None:
        super().__init__(limits, now_s)
        self._source, self._publisher = source, publisher

    def publish(self, records: Sequence[OutRecord]) -> bool:
        """At once."""
        self._publisher.publish(records)
        return True

    def done(self, entry: Entry) -> None:
        """Its record, or its dead letter, is acknowledged."""
        if (tracker := self._tracker_of(entry)) is not None:
            is_letter = entry.outcome == "dead_lettered"
            tracker.done(entry.record.offset, published=entry.published, dead_lettered=is_letter)

    def is_due(self, now_s: float, load: float) -> bool:
        """What is published and not committed comes twice after a crash: one micro-batch of it is enough."""
        if now_s - self._committed_s >= self._limits.commit_interval_s:
            return True
        ready = sum(tracker.newly_committable for tracker in self.trackers.values())
        return ready >= self._limits.micro_batch.max_events

    def commit(self, partitions: Collection[TopicPartition], now_s: float, *, wait: bool) -> None:
        """Offsets alone: their records are published."""
        self._committed_s = now_s
        if self.is_unacknowledged:  # a rebalance may have refused the last ones
            self.recheck()
        progress = {
            partition: next_offset
            for partition in partitions
            if (next_offset := self.trackers[partition].committable()) is not None
        }
        if not progress:
            return
        for partition, next_offset in progress.items():
            self.trackers[partition].committed(next_offset)
        try:
            self._source.commit(progress, wait=wait)
        except Unavailable:
            self.recheck()
            raise

    def handover_offset(self, partition: TopicPartition, in_flight: Iterable[Entry]) -> int:
        """One after the last offset that is published, or in flight, before all offsets below it are done."""
        tracker = self.trackers.get(partition)
        if tracker is None:
            return 0
        flying = [entry.record.offset + 1 for entry in in_flight if entry.record.source == partition]
        return max([tracker.published_until, *flying])

    def suspects(
        self, partition: TopicPartition, in_flight: Iterable[Entry]
    ) -> list[tuple[str, Mark | None]]:
        """What is in flight, and what was published since the last commit that the group took."""
        found: list[tuple[str, Mark | None]] = [
            (entry.product_id, None)
            for entry in in_flight
            if entry.product_id is not None and entry.record.source == partition
        ]
        tracker = self.trackers.get(partition)
        found += [(mark.product_id, mark) for mark in tracker.suspects()] if tracker is not None else []
        return found


@dataclass(frozen=True, slots=True)
class _Transaction:
    """One that was begun, while the broker has not said how it ended."""

    records: list[OutRecord]
    progress: dict[TopicPartition, int]
    trackers: dict[TopicPartition, OffsetTracker]


class ExactlyOnce(Delivery):
    """The order, for each event:

    1. its tags are stored (step 7)
    2. its record waits beside its offset, which is done (`done`)
    3. one transaction publishes the records of exactly the offsets that it commits (`commit`)

    A crash before the end of 3 repeats the event; no reader at `read_committed` has seen its record. So a
    hand-over need not wait. The group fences a consumer that lost its partition, so nothing comes late.
    """

    def __init__(self, transactions: Transactions, limits: WorkerLimits, now_s: float) -> None:
        super().__init__(limits, now_s)
        self._transactions = transactions
        self._undecided: _Transaction | None = None

    def publish(self, records: Sequence[OutRecord]) -> bool:
        return False

    def done(self, entry: Entry) -> None:
        """Its record, or its dead letter, waits beside the offset."""
        if (tracker := self._tracker_of(entry)) is not None:
            tracker.done(entry.record.offset, entry.output)

    def is_due(self, now_s: float, load: float) -> bool:
        """A transaction is expensive. Records that wait for it use up the room for more."""
        waits_s = now_s - self._committed_s
        interval_s = self._limits.commit_interval_s
        return waits_s >= interval_s or (load >= 0.5 and waits_s >= 0.1 * interval_s)

    def commit(self, partitions: Collection[TopicPartition], now_s: float, *, wait: bool) -> None:
        """Records and offsets, in one transaction after the other. Always waits for the answer."""
        self._committed_s = now_s
        self.last_commit_failed = True
        while self._transact(partitions):
            pass
        self.last_commit_failed = False

    @property
    def holds_outputs(self) -> bool:
        return any(tracker.holds_outputs for tracker in self.trackers.values())

    def _transact(self, partitions: Collection[TopicPartition]) -> bool:
        """One transaction. True: there may be more to commit. One whose end is unknown comes first, because
        what it holds may be published already."""
        begun = self._undecided or self._gathered(partitions)
        if not begun.progress:
            self._transactions.settle()
            return False
        try:
            self._transactions.commit(begun.records, begun.progress)
        except TransactionAborted:
            self._undecided = None
            raise
        except Unavailable:
            self._undecided = begun
            raise
        self._undecided = None
        for partition, next_offset in begun.progress.items():
            begun.trackers[partition].committed(next_offset)
            begun.trackers[partition].acknowledged(next_offset)
        return True

    def _gathered(self, partitions: Collection[TopicPartition]) -> _Transaction:
        """What is ready, as far as one transaction can carry it."""
        gathered, room_bytes = _Transaction([], {}, {}), _TRANSACTION_MAX_BYTES
        for partition in partitions:
            tracker = self.trackers[partition]
            if tracker.committable() is None or room_bytes <= 0:
                continue
            gathered.progress[partition], records = tracker.outputs(room_bytes)
            gathered.trackers[partition] = tracker
            gathered.records.extend(records)
            room_bytes -= sum(record.size_bytes for record in records)
        return gathered
