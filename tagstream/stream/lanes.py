"""One product is never in flight twice: newer events of it wait, and the newest overtakes the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tagstream.core.errors import InvalidEvent
from tagstream.core.events import Event
from tagstream.core.ports import OutRecord, Picture, Record, Standing, Write
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
        """Set the outcome, once what it stands for is published."""
        if self.invalid is not None:
            self.outcome = "dead_lettered"
            return
        assert self.standing is not None, "neither stored nor refused"
        if self.standing.verdict == "applied":
            self.outcome = "deleted" if self.standing.deleted else "tagged"
        else:
            self.outcome = "stale" if self.standing.verdict == "stale" else "repeated"

    def start_over(self) -> None:
        """Forget what the steps found out; the decoder's word stands."""
        if self.event is not None:
            self.invalid = None
        self.picture, self.write, self.standing, self.output = NO_PICTURE, None, None, None

    @property
    def size_bytes(self) -> int:
        record = self.record
        return (
            len(record.value or b"") + len(record.key or b"") + sum(len(v or b"") for _, v in record.headers)
        )

    @property
    def product_id(self) -> str | None:
        return self.event.product.product_id if self.event else None

    @property
    def published(self) -> Mark | None:
        """What is published of it when it is concluded."""
        told = self.standing is not None and self.standing.verdict != "stale"
        return mark_of(self.standing) if self.standing is not None and told else None

    @property
    def to_tag(self) -> bool:
        return self.invalid is None and self.event is not None and not self.event.deletes

    def with_overtaken(self) -> list[Entry]:
        """This entry, then all that it overtook."""
        return [self, *self.overtaken]


@dataclass(slots=True)
class _Lane:
    current: Entry
    waiting: Entry | None = None


class Lanes:
    """The products that are under way."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def admit(self, entry: Entry) -> bool:
        """True if the entry may go now; False if it waits behind its product's current one."""
        product_id = _key(entry)
        lane = self._lanes.get(product_id)
        if lane is None:
            self._lanes[product_id] = _Lane(entry)
            return True
        lane.waiting = _newest(lane.waiting, entry)
        return False

    def finish(self, entry: Entry) -> tuple[list[Entry], Entry | None]:
        """The superseded entries that are done with this one, and the entry of its product to go next.

        If the entry ended as a dead letter, the newest that it overtook is tagged after all.
        """
        product_id = _key(entry)
        lane = self._lanes[product_id]
        superseded, entry.overtaken = entry.overtaken, []
        if entry.outcome == "dead_lettered":
            for older in superseded:
                lane.waiting = _newest(lane.waiting, older)
            superseded = []
        if lane.waiting is None:
            del self._lanes[product_id]
            return superseded, None
        lane.current, lane.waiting = lane.waiting, None
        return superseded, lane.current

    def drop_waiting(self, unwanted: Callable[[Entry], bool]) -> list[Entry]:
        """Remove and return those that are `unwanted`, overtaken ones too; the rest waits on."""
        dropped: list[Entry] = []
        for lane in self._lanes.values():
            waiting = lane.waiting.with_overtaken() if lane.waiting is not None else []
            lane.waiting = None
            for entry in waiting:
                entry.overtaken = []
                if unwanted(entry):
                    dropped.append(entry)
                else:
                    lane.waiting = _newest(lane.waiting, entry)
        return dropped


def _key(entry: Entry) -> str:
    assert entry.event is not None, "an undecodable record has no product"
    return entry.event.product.product_id


def _newest(waiting: Entry | None, entry: Entry) -> Entry:
    if waiting is None:
        return entry
    assert waiting.event is not None
    assert entry.event is not None
    newer, older = (entry, waiting) if entry.event.order >= waiting.event.order else (waiting, entry)
    newer.overtaken += older.with_overtaken()
    older.overtaken = []
    return newer
