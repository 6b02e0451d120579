"""When so many events fail that the fault must be ours: a bad deploy must not empty a topic into the dead
letters. By length of a run and by ratio, as sentry-arroyo's `DlqLimit` has them."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tagstream.core.errors import TooManyDeadLetters
from tagstream.core.ports import Halts


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
        """Start to count anew: somebody has removed the cause."""
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


class HaltSwitch:
    """A consumer's end of the switch that halts them all. Used by the worker's loop.

    The stream is halted until the store has answered that it is not.
    """

    def __init__(self, halts: Halts, guard: DeadLetterGuard, interval_s: float) -> None:
        self.guard = guard
        self._halts, self._interval_s = halts, interval_s
        self._checked_s = -math.inf
        self._reason = "the store has not answered yet whether the stream is halted"
        self._unsent = ""

    @property
    def is_on(self) -> bool:
        """Whether this consumer must not work."""
        return bool(self._reason or self._unsent)

    def throw(self, reason: str) -> None:
        """Halt here at once, and the others with the next `check`."""
        self._unsent = reason

    def is_due(self, now_s: float) -> bool:
        """Whether to `check` now."""
        return bool(self._unsent) or now_s - self._checked_s >= self._interval_s

    def check(self, now_s: float) -> None:
        """Write a halt of ours to the store, and read whether there is one. Once it is lifted, the count of
        dead letters starts again.

        Raises:
            TooManyDeadLetters: the stream is halted.
            Unavailable: the store does not answer; what was halted stays so, and what was not goes on.
        """
        self._checked_s = now_s
        if unsent := self._unsent:
            self._halts.halt(unsent)
            self._reason, self._unsent = unsent, ""
        reason = self._halts.halted()
        if self._reason and not reason:
            self.guard.reset()
        self._reason = reason
        if reason:
            raise TooManyDeadLetters(f"{reason}; remove the cause, then run `tagstream resume`")
