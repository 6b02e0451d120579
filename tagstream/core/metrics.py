"""Every metric of tagstream: name, kind, unit, labels, meaning. Nothing else may be counted.

Ray exports them with the prefix `ray_`, e.g. `ray_tagstream_records_total`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True, slots=True)
class Described:
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


class Metric(Enum):
    RECORDS = Described("tagstream_records_total", "counter", "records taken from the event topic")
    TAGGED = Described("tagstream_tagged_total", "counter", "events whose tags were applied and published")
    REPEATED = Described("tagstream_repeated_total", "counter", "events stored before; published again")
    SUPERSEDED = Described("tagstream_superseded_total", "counter", "events overtaken while waiting")
    STALE = Described("tagstream_stale_total", "counter", "events older than what the store holds")
    DELETED = Described("tagstream_deleted_total", "counter", "deletes applied and published")
    DEAD_LETTERS = Described(
        "tagstream_dead_letters_total", "counter", "records sent to the dead letters", ("stage",)
    )
    DROPPED = Described(
        "tagstream_dropped_total", "counter", "events let go with their partition; its next owner has them"
    )
    RETRIES = Described("tagstream_retries_total", "counter", "calls tried again", ("step",))
    OFFSETS_LOST = Described(
        "tagstream_offsets_lost_total", "counter", "offsets deleted by retention before they were read"
    )
    LAG = Described("tagstream_lag_records", "gauge", "records not yet polled", ("partition",))
    IN_FLIGHT = Described("tagstream_in_flight_micro_batches", "gauge", "micro-batches not done")
    UNCOMMITTED = Described("tagstream_uncommitted_events", "gauge", "events taken and not yet committed")
    MICRO_BATCH_EVENTS = Described(
        "tagstream_micro_batch_events", "histogram", "events a micro-batch", (), _SIZES
    )
    STEP_S = Described(
        "tagstream_step_seconds",
        "histogram",
        "a step's duration: of a micro-batch, or of a commit",
        ("step",),
        _STEP_S,
    )
    LATENCY_S = Described(
        "tagstream_publish_to_store_seconds",
        "histogram",
        "from the event record's timestamp to the store, oldest of a micro-batch",
        (),
        (*_STEP_S, 60, 300, 1800),
    )
    PICTURES = Described("tagstream_pictures_total", "counter", "pictures by outcome", ("use",))
    STORED = Described("tagstream_stored_products", "gauge", "products with tags in the store")
    INDEX = Described("tagstream_index_entries", "gauge", "entries of the tag index in the store")
    MODEL = Described(
        "tagstream_model_info", "gauge", "1 for the model that answers", ("model_version", "generation")
    )


class NoMetrics:
    """The `Metrics` of a process whose metrics nobody reads."""

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None: ...

    def set(self, metric: Metric, value: float, **labels: str) -> None: ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None: ...
