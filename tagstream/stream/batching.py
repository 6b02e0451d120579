"""Step 3: micro-batches that are full by count, full by bytes, or due."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MicroBatchLimits:
    max_events: int = 64
    max_bytes: int = 4 * 2**20
    flush_timeout_s: float = 0.05


class MicroBatcher(Generic[T]):
    """A queue that is cut into micro-batches, oldest first. Time comes in as `now_s`."""

    def __init__(self, limits: MicroBatchLimits) -> None:
        self._limits = limits
        self._queue: deque[tuple[T, int, float]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, entry: T, size_bytes: int, now_s: float) -> None:
        """Behind all others."""
        self._queue.append((entry, size_bytes, now_s))
        self._bytes += size_bytes

    def add_first(self, entry: T, size_bytes: int, now_s: float) -> None:
        """Before all others: it has waited longest."""
        self._queue.appendleft((entry, size_bytes, min(now_s, self._queue[0][2]) if self._queue else now_s))
        self._bytes += size_bytes

    def due_in_s(self, now_s: float) -> float | None:
        """0 if a micro-batch can be taken now; else the time until it can; None when empty."""
        if not self._queue:
            return None
        if len(self._queue) >= self._limits.max_events or self._bytes >= self._limits.max_bytes:
            return 0.0
        return max(0.0, self._queue[0][2] + self._limits.flush_timeout_s - now_s)

    def take(self) -> list[T]:
        """At most `max_events`, and `max_bytes` unless the first alone is larger."""
        taken: list[T] = []
        taken_bytes = 0
        while self._queue and len(taken) < self._limits.max_events:
            entry, size_bytes, _ = self._queue[0]
            if taken and taken_bytes + size_bytes > self._limits.max_bytes:
                break
            self._queue.popleft()
            taken.append(entry)
            taken_bytes += size_bytes
        self._bytes -= taken_bytes
        return taken

    def drop(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return every entry that is `unwanted`."""
        dropped = [entry for entry, _, _ in self._queue if unwanted(entry)]
        if dropped:
            self._queue = deque(item for item in self._queue if not unwanted(item[0]))
            self._bytes = sum(size_bytes for _, size_bytes, _ in self._queue)
        return dropped
