"""When to stop taking records, and when to pause the partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: take: poll for records. wait: do not poll. pause/resume: tell the source, then poll.
Move = Literal["take", "wait", "pause", "stay_paused", "resume"]


@dataclass(slots=True)
class Backpressure:
    """First stop taking (the client bounds its own queue). Pause only if that lasts: a pause throws the
    prefetched records away, but a consumer that does not poll for long is put out of its group. Resume
    at half."""

    pause_after_s: float
    _full_since_s: float | None = None
    _paused: bool = False

    def move(self, *, load: float, now_s: float, at_once: bool = False) -> Move:
        """`load` is the fraction of the worker's bounds in use: 1 or more is full. `at_once`: pause as soon
        as it is full."""
        if self._paused:
            if load > 0.5:
                return "stay_paused"
            self._paused = False
            self._full_since_s = None
            return "resume"
        if load < 1:
            self._full_since_s = None
            return "take"
        if self._full_since_s is None:
            self._full_since_s = now_s
        if now_s - self._full_since_s < self.pause_after_s and not at_once:
            return "wait"
        self._paused = True
        return "pause"
