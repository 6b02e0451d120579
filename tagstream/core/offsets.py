"""Which offsets may be committed when work finishes out of order."""

from __future__ import annotations

from collections import deque

from tagstream.core.ports import OutRecord


class OffsetTracker:
    """The offsets of one assignment (epoch) of one partition.

    The committed offset is the next one to read: it may pass an offset only when that one, and every
    earlier one, is done.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._committed: int | None = None
        self._next: int | None = None
        self._open: deque[tuple[int, str | None]] = deque()
        self._done: set[int] = set()
        self._outputs: dict[int, tuple[int, OutRecord]] = {}
        self._waiting: deque[tuple[int, tuple[int, OutRecord]]] = deque()
        self._outputs_made = 0
        #: held by outputs that wait for their transaction
        self.output_bytes = 0
        self._passed: set[str] = set()
        self._passed_before: set[str] = set()

    def __len__(self) -> int:
        """Offsets taken and not yet committable, and outputs that wait for their transaction."""
        return len(self._open) + len(self._waiting)

    def take(self, offset: int, product_id: str | None) -> None:
        """Raises ValueError if offsets do not grow: order is lost, and nothing may be committed."""
        if self._open and offset <= self._open[-1][0]:
            raise ValueError(f"offset {offset} came after {self._open[-1][0]}")
        self._open.append((offset, product_id))

    def done(self, offset: int, output: OutRecord | None = None) -> None:
        """`output`: what must be published with this offset, in one transaction."""
        self._done.add(offset)
        if output is not None:
            self._outputs_made += 1
            self._outputs[offset] = (self._outputs_made, output)
            self.output_bytes += output.size_bytes
        while self._open and self._open[0][0] in self._done:
            passed, product_id = self._open.popleft()
            self._done.remove(passed)
            self._next = passed + 1
            if passed in self._outputs:
                self._waiting.append((passed, self._outputs.pop(passed)))
            if product_id is not None:
                self._passed.add(product_id)

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
        while self._waiting and self._waiting[0][0] < next_offset:
            _, (_, output) = self._waiting.popleft()
            self.output_bytes -= output.size_bytes
        self._committed = next_offset
        self._passed_before, self._passed = self._passed, set()

    def doubt_commits(self) -> None:
        """The last commit may not have arrived: say it again."""
        self._committed = None

    def suspects(self) -> set[str]:
        """Products whose records a successor may have published already, when the partition was lost unseen:
        all that is done and waits for earlier offsets, and all that passed since the last commit but one
        (the last may have failed)."""
        waiting = {product for offset, product in self._open if offset in self._done and product is not None}
        return waiting | self._passed | self._passed_before


def _made(output: tuple[int, OutRecord]) -> int:
    return output[0]
