"""Which offsets may be committed when work finishes out of order."""

from __future__ import annotations

from collections import deque

from tagstream.core.ports import OutRecord
from tagstream.stream.healing import Mark


class OffsetTracker:
    """The offsets of one assignment (epoch) of one partition.

    The committed offset is the next one to read: it may pass an offset only when that one, and every
    earlier one, is done.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._committed: int | None = None
        self._next: int | None = None
        self._open: deque[int] = deque()
        self._done: set[int] = set()
        self._outputs: dict[int, tuple[int, OutRecord]] = {}
        self._waiting: deque[tuple[int, tuple[int, OutRecord]]] = deque()
        self._outputs_made = 0
        #: held by outputs that wait for their transaction
        self.output_bytes = 0
        #: events that became committable since the last commit
        self.newly_committable = 0
        self._published: dict[str, Mark] = {}
        #: offsets with a published record that lie behind an open one, and how many have passed it since
        self._published_ahead: set[int] = set()
        self._published_count = 0
        self._published_before: deque[tuple[int, int, dict[str, Mark]]] = deque()
        #: records that were published before a commit that is not acknowledged yet
        self.unacknowledged = 0

    def __len__(self) -> int:
        """Offsets taken and not yet committable, and outputs that wait for their transaction."""
        return len(self._open) + len(self._waiting)

    def take(self, offset: int) -> None:
        """Raises ValueError if offsets do not grow: order is lost, and nothing may be committed."""
        if self._open and offset <= self._open[-1]:
            raise ValueError(f"offset {offset} came after {self._open[-1]}")
        self._open.append(offset)

    def done(
        self,
        offset: int,
        output: OutRecord | None = None,
        published: Mark | None = None,
        dead_lettered: bool = False,
    ) -> None:
        """`output`: what must be published with this offset, in one transaction. Without transactions,
        `published` or `dead_lettered`: what was."""
        self._done.add(offset)
        if published is not None:
            self._published[published.product_id] = published
        if published is not None or dead_lettered:
            self._published_ahead.add(offset)
        if output is not None:
            self._outputs_made += 1
            self._outputs[offset] = (self._outputs_made, output)
            self.output_bytes += output.size_bytes
        while self._open and self._open[0] in self._done:
            passed = self._open.popleft()
            self._done.remove(passed)
            self._next = passed + 1
            self.newly_committable += 1
            if passed in self._published_ahead:
                self._published_ahead.remove(passed)
                self._published_count += 1
            if passed in self._outputs:
                self._waiting.append((passed, self._outputs.pop(passed)))

    def committable(self) -> int | None:
        """The next offset to read, if it moved since the last `committed`."""
        return self._next if self._next != self._committed else None

    def outputs(self, room_bytes: int) -> tuple[int, list[OutRecord]]:
        """The next offset to read, and what belongs to the offsets before it, in the order in which it was
        stored. They reach as far as `room_bytes` do, and one output further."""
        assert self._next is not None, "nothing is committable"
        waiting, newest, count = list(self._waiting), dict[bytes | None, int](), 0
        for place, (_, (made, output)) in enumerate(waiting, 1):
            # A product's outputs may lie the other way round than they were made: those go together.
            if room_bytes > 0 or made < newest.get(output.key, 0):
                for _, (earlier, passed) in waiting[count:place]:
                    newest[passed.key] = max(earlier, newest.get(passed.key, 0))
                count = place
            room_bytes -= output.size_bytes
        next_offset = self._next if count == len(waiting) else waiting[count][0]
        return next_offset, [output for _, output in sorted((made for _, made in waiting[:count]), key=_made)]

    @property
    def holds_outputs(self) -> bool:
        return bool(self._outputs or self._waiting)

    def committed(self, next_offset: int) -> None:
        """A commit was sent."""
        while self._waiting and self._waiting[0][0] < next_offset:
            _, (_, output) = self._waiting.popleft()
            self.output_bytes -= output.size_bytes
        self._committed = next_offset
        self.newly_committable = 0
        self._published_before.append((next_offset, self._published_count, self._published))
        self.unacknowledged += self._published_count
        self._published, self._published_count = {}, 0

    @property
    def republishable(self) -> int:
        """Records published and not known to be committed: the next owner would publish them again."""
        return self.unacknowledged + self._published_count + len(self._published_ahead)

    @property
    def published_until(self) -> int:
        """One after the last offset with a published record that lies behind an open one; else 0."""
        return max(self._published_ahead, default=-1) + 1

    def is_done_to(self, offset: int) -> bool:
        """Whether every offset that was taken, and is smaller, is done."""
        return not self._open or self._open[0] >= offset

    def recheck(self) -> None:
        """The last commit may not have arrived: it is committable again."""
        self._committed = None

    def acknowledged(self, next_offset: int) -> None:
        """The group took a commit: the partition was still ours, and what had been published when the commit
        was sent is older than whatever a successor may publish."""
        before = self._published_before
        while before and before[0][0] <= next_offset:
            offset, count, _ = before.popleft()
            self.unacknowledged -= count
            if offset == next_offset:  # committed twice, it is acknowledged twice
                break

    def suspects(self) -> list[Mark]:
        """What may be younger than a successor's records if the partition was lost unseen, oldest first."""
        before = [mark for _, _, marks in self._published_before for mark in marks.values()]
        return [*before, *self._published.values()]


def _made(output: tuple[int, OutRecord]) -> int:
    return output[0]
