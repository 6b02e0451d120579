"""What bounds a worker's memory and its waits."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tagstream.stream.batching import MicroBatchLimits
from tagstream.stream.halting import DeadLetterLimits


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter (Brooker, "Exponential Backoff And Jitter", 2015), at least a tenth."""

    initial_s: float = 0.1
    max_s: float = 5.0

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """The wait after the `attempt`-th failure, counted from 1."""
        ceiling = min(self.max_s, self.initial_s * 2.0 ** min(attempt - 1, 30))
        return ceiling * rng.uniform(0.1, 1.0)


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    micro_batch: MicroBatchLimits = field(default_factory=MicroBatchLimits)
    max_in_flight: int = 4
    max_uncommitted_events: int = 2000
    held_max_bytes: int = 48 * 2**20
    poll_max_records: int = 500
    commit_interval_s: float = 1.0
    pause_after_s: float = 5.0
    revoke_timeout_s: float = 30.0
    dead_letters: DeadLetterLimits = field(default_factory=DeadLetterLimits)
    backoff: Backoff = field(default_factory=Backoff)
