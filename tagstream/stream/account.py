"""What a worker reports: its books, its troubles, how long its steps took, how far behind it is."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tagstream.core.metrics import Metric
from tagstream.core.ports import Metrics, TopicPartition

log = logging.getLogger("tagstream.worker")

_METRIC_OF = {
    "consumed": Metric.RECORDS,
    "dropped": Metric.DROPPED,
    "tagged": Metric.TAGGED,
    "repeated": Metric.REPEATED,
    "superseded": Metric.SUPERSEDED,
    "stale": Metric.STALE,
    "deleted": Metric.DELETED,
}


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The state of a worker. With `uncommitted` 0 the books balance:
    consumed = tagged + repeated + superseded + stale + deleted + dead_lettered + dropped.
    """

    ready: bool
    reason: str
    heartbeat_s: float
    in_flight: int
    uncommitted: int
    #: of each assigned partition: (records not yet polled, epoch)
    partitions: dict[int, tuple[int, int]]
    books: dict[str, int]


class Account:
    """The worker's loop counts. The threads of its micro-batches time their steps and note their troubles.
    Any thread may ask for the status."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._troubles: dict[str, str] = {}
        self._books: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self._lag: dict[TopicPartition, int] = {}

    def count(self, book: str) -> None:
        """One more event in this book."""
        self._books[book] += 1

    def trouble(self, step: str, error: Exception) -> None:
        """This step fails, and the worker is not ready, until it has `recovered`. Logged once."""
        if step not in self._troubles:
            log.warning("%s: %s: %s", step, type(error).__name__, error, extra={"step": step})
        self._troubles[step] = f"{type(error).__name__}: {error}"

    def recovered(self, step: str) -> None:
        """This step works again."""
        self._troubles.pop(step, None)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Observe how long the body took, unless it raises."""
        started_s = time.perf_counter()
        yield
        self._metrics.observe(Metric.STEP_S, time.perf_counter() - started_s, step=step)

    def report_books(self) -> None:
        """Add what was counted since the last report to the metrics."""
        for book, metric in _METRIC_OF.items():
            if more := self._books[book] - self._reported[book]:
                self._metrics.add(metric, more)
        self._reported = self._books.copy()

    def report_load(self, *, in_flight: int, uncommitted: int) -> None:
        """Micro-batches in flight, and events taken and not committed."""
        self._metrics.set(Metric.IN_FLIGHT, in_flight)
        self._metrics.set(Metric.UNCOMMITTED, uncommitted)

    def report_lag(self, lag: dict[TopicPartition, int]) -> None:
        """Records not yet polled, of each assigned partition."""
        self._lag = lag
        for partition, records in lag.items():
            self._metrics.set(Metric.LAG, records, partition=str(partition.partition))

    def forget_lag(self, partition: TopicPartition) -> None:
        """Its next owner reports it."""
        if self._lag.pop(partition, None) is not None:
            self._metrics.set(Metric.LAG, 0, partition=str(partition.partition))

    def report_size(self, *, products: int, entries: int) -> None:
        """Products with tags and index entries in the store."""
        self._metrics.set(Metric.STORED, products)
        self._metrics.set(Metric.INDEX, entries)

    def status(
        self, epochs: Mapping[TopicPartition, int], *, heartbeat_s: float, in_flight: int, uncommitted: int
    ) -> WorkerStatus:
        """`epochs`: of the assigned partitions. Any thread may ask."""
        troubles, lag, epochs = dict(self._troubles), dict(self._lag), dict(epochs)
        reason = "; ".join(f"{step}: {why}" for step, why in troubles.items())
        return WorkerStatus(
            ready=not troubles and bool(epochs),
            reason=reason or ("" if epochs else "no partition assigned yet"),
            heartbeat_s=heartbeat_s,
            in_flight=in_flight,
            uncommitted=uncommitted,
            partitions={p.partition: (lag.get(p, 0), epoch) for p, epoch in epochs.items()},
            books=dict(self._books),
        )
