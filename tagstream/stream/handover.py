"""Partitions come and go: a clean hand-over, and a loss that is noticed late.

A clean revoke finishes what is in flight and what lies before it, commits, and gives the rest back. After an
unclean loss the next owner works already: whatever this worker published lately is compared with the store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from tagstream.core.ports import Clock, TopicPartition
from tagstream.stream.account import Account
from tagstream.stream.delivery import Delivery
from tagstream.stream.entry import Assignment, Entry
from tagstream.stream.healing import Healer
from tagstream.stream.offsets import OffsetTracker

#: The longest wait for a micro-batch that finishes.
_WAIT_S = 0.2


class Loop(Protocol):
    """What a hand-over needs of the worker's loop."""

    def in_flight_entries(self) -> list[Entry]: ...

    @property
    def last_submitted(self) -> int:
        """The number of the newest micro-batch."""

    @property
    def is_halted(self) -> bool: ...

    def submit_due(self) -> None: ...

    def collect_finished(self, timeout_s: float) -> None: ...

    def commit_if_due(self, *, wait: bool) -> None: ...

    def commit(self, partitions: Collection[TopicPartition], *, wait: bool) -> None: ...

    def drop_waiting(self) -> None:
        """Drop what waits and is left to a next owner (`Handover.is_left`)."""


class Handover:
    """The listener of the source: called on the thread that polls."""

    def __init__(
        self,
        loop: Loop,
        delivery: Delivery,
        assignment: Assignment,
        healer: Healer,
        account: Account,
        clock: Clock,
        revoke_timeout_s: float,
    ) -> None:
        self._loop = loop
        self._delivery = delivery
        self._assignment = assignment
        self._healer = healer
        self._account = account
        self._clock = clock
        self._revoke_timeout_s = revoke_timeout_s
        self._last_epoch = 0
        #: partitions that are going, and the first offset of each that is left to its next owner
        self._leaving: dict[TopicPartition, int] = {}

    @property
    def is_going_on(self) -> bool:
        """Whether partitions are being handed over."""
        return bool(self._leaving)

    def is_left(self, entry: Entry) -> bool:
        """Whether an entry is the next owner's."""
        first_offset = self._leaving.get(entry.record.source)
        return first_offset is not None and entry.record.offset >= first_offset

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Each partition starts a new epoch."""
        self._delivery.recheck()  # a commit sent during the rebalance was refused
        for partition in partitions:
            # Wall time, so that the epochs of two consumers can be compared: the later one owns it.
            self._last_epoch = max(self._clock.wall_ms(), self._last_epoch + 1)
            self._delivery.trackers[partition] = OffsetTracker(self._last_epoch)
            self._assignment.epochs[partition] = self._last_epoch

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """A clean hand-over: finish what is in flight and what lies before it, commit, return."""
        try:
            held = self._assignment.held(self._loop.in_flight_entries())
            self._leave({part: self._delivery.handover_offset(part, held) for part in partitions})
            try:
                self._finish_leaving()
            finally:
                self._loop.commit(self._leaving.keys() & self._delivery.trackers.keys(), wait=True)
        finally:
            self._leave(dict.fromkeys(partitions, 0))
            # What is still in flight may publish after the next owner has published. And where the group
            # refused the last commit, the partitions were lost before this call.
            self._suspect_leaving()
            self._release_partitions()

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """The next owner has them already, and has perhaps tagged newer events."""
        self._leave(dict.fromkeys(partitions, 0))
        self._suspect_leaving()
        self._release_partitions()

    def on_committed(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """The group took a commit."""
        self._delivery.acknowledged(next_offsets)

    def _leave(self, first_offsets: dict[TopicPartition, int]) -> None:
        """What waits of these partitions, from these offsets on, is left to their next owners."""
        self._leaving = first_offsets
        self._loop.drop_waiting()

    def _finish_leaving(self) -> None:
        """Work until all is done that is not left to the next owners, or time is up."""
        if submits := any(self._leaving.values()):
            self._delivery.recheck()
            # Nobody polls meanwhile, so this must wait for the answer.
            self._loop.commit(self._delivery.trackers, wait=True)
            leaving = [tracker for part, tracker in self._delivery.trackers.items() if part in self._leaving]
            if any(tracker.unacknowledged for tracker in leaving):  # the group has moved on
                submits = False
                self._leave(dict.fromkeys(self._leaving, 0))
        deadline_s = self._clock.monotonic_s() + self._revoke_timeout_s
        while self._is_unfinished() and (left_s := deadline_s - self._clock.monotonic_s()) > 0:
            if submits:
                self._loop.submit_due()
            in_flight = self._loop.in_flight_entries()
            is_stuck = self._loop.is_halted or self._delivery.is_unacknowledged or not in_flight
            if is_stuck and not self._has_leaving(in_flight):
                return
            self._loop.collect_finished(min(left_s, _WAIT_S))
            if submits:
                self._loop.commit_if_due(wait=True)

    def _is_unfinished(self) -> bool:
        return self._has_leaving(self._loop.in_flight_entries()) or any(
            not self._delivery.trackers[partition].is_done_to(first_offset)
            for partition, first_offset in self._leaving.items()
            if partition in self._delivery.trackers
        )

    def _has_leaving(self, entries: list[Entry]) -> bool:
        return any(entry.record.source in self._leaving for entry in entries)

    def _suspect_leaving(self) -> None:
        in_flight = self._loop.in_flight_entries()
        for partition in self._leaving:
            for product_id, mark in self._delivery.suspects(partition, in_flight):
                self._healer.suspect([product_id], self._loop.last_submitted)
                if mark is not None:
                    self._healer.published(mark)

    def _release_partitions(self) -> None:
        for partition in self._leaving:
            self._assignment.epochs.pop(partition, None)
            self._delivery.trackers.pop(partition, None)
            self._account.forget_lag(partition)
        self._leaving = {}
