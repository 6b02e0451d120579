"""Step 9: which offsets are committed when, alone or in one transaction with what they stand for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tagstream.core.errors import TransactionAborted, Unavailable
from tagstream.core.ports import OutRecord, Source, TopicPartition, Transactions
from tagstream.stream.limits import WorkerLimits
from tagstream.stream.offsets import OffsetTracker

#: A transaction must end within 7 s, on a slow link too; it may hold one record more.
_TRANSACTION_MAX_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class _Transaction:
    """One that was begun and of which the broker has not said how it ended."""

    records: list[OutRecord]
    progress: dict[TopicPartition, int]
    trackers: dict[TopicPartition, OffsetTracker]


class Committer:
    """The trackers of the assigned partitions, and their commits. Used by the worker's loop.

    `transactions`: None for at least once.
    """

    def __init__(
        self, source: Source, transactions: Transactions | None, limits: WorkerLimits, now_s: float
    ) -> None:
        self.trackers: dict[TopicPartition, OffsetTracker] = {}
        self._source, self._transactions, self._limits = source, transactions, limits
        self._committed_s = self._heard_s = now_s
        self._undecided: _Transaction | None = None
        #: exactly once: the last transaction was not committed, or is not known to be
        self.is_refused = False

    @property
    def uncommitted(self) -> int:
        """Events taken and not committed."""
        return sum(len(tracker) for tracker in list(self.trackers.values()))

    @property
    def exposed(self) -> int:
        """Records that would be published again by the partitions' next owner, should they go now."""
        return sum(tracker.exposed for tracker in list(self.trackers.values()))

    @property
    def is_unheard(self) -> bool:
        """The group does not answer, and may have given the partitions away."""
        unacknowledged = sum(tracker.unacknowledged for tracker in list(self.trackers.values()))
        return unacknowledged >= self._limits.micro_batch.max_events

    def unheard_for_s(self, now_s: float) -> float:
        """0 while the group answers. To be asked at every turn."""
        if not self.is_unheard:
            self._heard_s = now_s
        return now_s - self._heard_s

    def is_due(self, now_s: float, load: float) -> bool:
        """Exactly once, a commit is a transaction and dear. At least once, what is published and not
        committed comes twice after a crash, so a micro-batch of it is enough."""
        waits_s = now_s - self._committed_s
        if waits_s >= self._limits.commit_interval_s:
            return True
        if self._transactions is None:
            passed = sum(tracker.passed for tracker in self.trackers.values())
            return passed >= self._limits.micro_batch.max_events
        # Outputs that wait for their transaction use up the room for more.
        return load >= 0.5 and waits_s >= 0.1 * self._limits.commit_interval_s

    def commit(self, partitions: Collection[TopicPartition], now_s: float, *, wait: bool) -> None:
        """Of what is ready in these partitions; with `wait`, or in a transaction, until the answer.

        Raises:
            Unavailable: the broker does not answer; it is said again at the next call.
            TransactionAborted: nothing of it is visible; it is sent again at the next call.
        """
        self._committed_s = now_s
        if self._transactions is not None:
            self.is_refused = True
            while self._transact(self._transactions, partitions):
                pass
            self.is_refused = False
            return
        if self.is_unheard:  # the last ones may have been refused in a rebalance: say them again
            self.doubt()
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
            self.doubt()
            raise

    def doubt(self) -> None:
        """The last commits may not have arrived."""
        for tracker in self.trackers.values():
            tracker.doubt_commits()

    def acknowledged(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        for partition, next_offset in next_offsets.items():
            if partition in self.trackers:
                self.trackers[partition].acknowledged(next_offset)

    def _transact(self, transactions: Transactions, partitions: Collection[TopicPartition]) -> bool:
        """Steps 8 and 9 in one: the outputs of exactly the offsets that it commits. One whose end is unknown
        comes first, because what it holds may be published already. True: there may be more to commit."""
        begun = self._undecided or self._gathered(partitions)
        if not begun.progress:
            transactions.settle()
            return False
        try:
            transactions.commit(begun.records, begun.progress)
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
