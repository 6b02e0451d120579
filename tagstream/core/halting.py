"""When so many events fail that the fault must be ours: a bad deploy must not empty a topic into the dead
letters. By length of a run and by ratio, as sentry-arroyo's `DlqLimit` has them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tagstream.core.errors import TooManyDeadLetters


@dataclass(frozen=True, slots=True)
class DeadLetterLimits:
    """`max_ratio` holds over the last `window` events, once there were so many."""

    max_run: int = 200
    max_ratio: float = 0.5
    window: int = 1000


class DeadLetterGuard:
    """Counts what fails, micro-batch by micro-batch. Any thread may use it."""

    def __init__(self, limits: DeadLetterLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._run = self._failed = 0
        self._last: deque[bool] = deque(maxlen=limits.window)

    def reset(self) -> None:
        """Forget the past, which somebody has mended."""
        with self._lock:
            self._run = self._failed = 0
            self._last.clear()

    def take(self, failed: Sequence[bool]) -> None:
        """Whether each event of a micro-batch is a dead letter. Raises TooManyDeadLetters."""
        with self._lock:
            for one in failed:
                self._count(one)
                if self._run > self._limits.max_run:
                    raise TooManyDeadLetters(f"{self._run} dead letters in a row")
                full = len(self._last) == self._limits.window
                if one and full and self._failed > self._limits.max_ratio * self._limits.window:
                    raise TooManyDeadLetters(
                        f"{self._failed} of the last {self._limits.window} events are dead letters"
                    )

    def _count(self, failed: bool) -> None:
        self._run = self._run + 1 if failed else 0
        if len(self._last) == self._last.maxlen:
            self._failed -= self._last[0]
        self._last.append(failed)
        self._failed += failed
