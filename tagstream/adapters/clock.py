"""The real time."""

from __future__ import annotations

import threading
import time


class SystemClock:
    """The `Clock`. See `core.ports.Clock`. Waits end early once `stopping` is set."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wait(self, timeout_s: float) -> bool:
        return self._stopping.wait(timeout_s)
