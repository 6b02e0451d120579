"""A record on its way through the steps, and the partitions that this worker holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from tagstream.core.errors import InvalidEvent
from tagstream.core.events import Event, ProductEvent
from tagstream.core.ports import OutRecord, Picture, Record, Standing, TopicPartition, Write
from tagstream.stream.healing import Mark, mark_of

NO_PICTURE = Picture("none")

Outcome = Literal["tagged", "repeated", "superseded", "stale", "deleted", "dead_lettered"]


@dataclass(slots=True, eq=False)
class Entry:
    """A record on its way, and what the steps have found out about it so far.

    Exactly one of `event` and `invalid` is set after decoding; tagging may turn an event invalid.
    `overtaken` are all older events of the product that are done when this one is.
    """

    record: Record
    epoch: int
    event: Event | None = None
    invalid: InvalidEvent | None = None
    picture: Picture = NO_PICTURE
    write: Write | None = None
    standing: Standing | None = None
    output: OutRecord | None = None
    outcome: Outcome | None = None
    attempts: int = 0
    overtaken: list[Entry] = field(default_factory=list)

    def conclude(self) -> None:
        """Set the outcome. Called once its record is published, or waits for its transaction."""
        if self.invalid is not None:
            self.outcome = "dead_lettered"
            return
        assert self.standing is not None, "neither stored nor refused"
        if self.standing.verdict == "applied":
            self.outcome = "deleted" if self.standing.deleted else "tagged"
        else:
            self.outcome = "stale" if self.standing.verdict == "stale" else "repeated"

    def reset(self) -> None:
        """Forget what the steps after decoding found out."""
        if self.event is not None:
            self.invalid = None
        self.picture, self.write, self.standing, self.output = NO_PICTURE, None, None, None

    @property
    def size_bytes(self) -> int:
        """Of key, value and header values."""
        record = self.record
        return (
            len(record.value or b"") + len(record.key or b"") + sum(len(v or b"") for _, v in record.headers)
        )

    @property
    def product_id(self) -> str | None:
        return self.event.product.product_id if self.event else None

    @property
    def published(self) -> Mark | None:
        """The state of the product that its record on the tag topic tells; None if it has no such record."""
        standing = self.standing
        return mark_of(standing) if standing is not None and standing.verdict != "stale" else None

    @property
    def to_tag(self) -> bool:
        return self.invalid is None and self.event is not None and not self.event.deletes

    def with_overtaken(self) -> list[Entry]:
        """This entry, then all that it overtook."""
        return [self, *self.overtaken]

    @property
    def product(self) -> ProductEvent:
        """Of a decoded entry."""
        assert self.event is not None, "an undecodable record has no product"
        return self.event.product

    @property
    def origin(self) -> dict[str, object]:
        """For the log: where the record came from."""
        record = self.record
        return {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "product_id": self.product_id,
        }


class Assignment:
    """The partitions that this worker holds, each with the epoch of its assignment. The worker's loop
    writes it; the threads of the micro-batches read it."""

    def __init__(self) -> None:
        self.epochs: dict[TopicPartition, int] = {}

    def held(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those whose partition is still ours, in the same assignment."""
        return [entry for entry in entries if self.epochs.get(entry.record.source) == entry.epoch]
