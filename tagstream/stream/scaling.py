"""How many consumers a lag calls for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class PartitionLag(NamedTuple):
    """What one consumer reports of a partition. `epoch` grows with every assignment."""

    partition: int
    lag_records: float
    epoch: float


def consumers_for(reports: Iterable[PartitionLag], *, lag_per_consumer: float) -> int:
    """Enough consumers for `lag_per_consumer` each: at least one, never more than partitions with lag.

    A consumer that lost a partition may still report it, so the newest epoch of a partition counts.
    """
    newest: dict[int, PartitionLag] = {}
    for report in reports:
        known = newest.get(report.partition)
        if known is None or report.epoch > known.epoch:
            newest[report.partition] = report
    behind = [report.lag_records for report in newest.values() if report.lag_records > 0]
    return max(1, min(len(behind), math.ceil(sum(behind) / lag_per_consumer)))
