"""How long to wait before trying again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter (Brooker, "Exponential Backoff And Jitter", 2015), at least a tenth."""

    initial_s: float = 0.1
    max_s: float = 5.0

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """The wait after the `attempt`-th failure, counted from 1."""
        ceiling = min(self.max_s, self.initial_s * 2.0 ** min(attempt - 1, 30))
        return ceiling * rng.uniform(0.1, 1.0)
