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


class HaltSwitch:
    """A consumer's end of the switch that halts them all. Any thread may throw it; the rest is the loop's.

    Until the store has said otherwise, the stream is halted.
    """

    def __init__(self, halts: Halts, guard: DeadLetterGuard, interval_s: float) -> None:
        self.guard = guard
        self._halts, self._interval_s = halts, interval_s
        self._obeyed_s = -math.inf
        self._reason = "the store has not said yet whether the stream is halted"
        self._to_say = ""

    @property
    def is_on(self) -> bool:
        return bool(self._reason or self._to_say)

    def throw(self, reason: str) -> None:
        """Takes effect here at once, and on the others when the store knows of it."""
        self._to_say = reason

    def is_due(self, now_s: float) -> bool:
        return bool(self._to_say) or now_s - self._obeyed_s >= self._interval_s

    def obey(self, now_s: float) -> None:
        """Tell the store of a halt, and hear of one. Once it is lifted, the past is forgotten.

        Raises:
            TooManyDeadLetters: the stream is halted.
            Unavailable: the store does not answer; what was halted stays so, and what was not goes on.
        """
        self._obeyed_s = now_s
        if to_say := self._to_say:
            self._halts.halt(to_say)
            self._reason, self._to_say = to_say, ""
        reason = self._halts.halted()
        if self._reason and not reason:
            self.guard.reset()
        self._reason = reason
        if reason:
            raise TooManyDeadLetters(f"{reason}; mend the cause, then `tagstream resume`")
