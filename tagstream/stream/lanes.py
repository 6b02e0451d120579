"""One product is never in flight twice: newer events of it wait, and the newest overtakes the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tagstream.stream.entry import Entry


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
        product_id = entry.product.product_id
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
        product_id = entry.product.product_id
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


def _newest(waiting: Entry | None, entry: Entry) -> Entry:
    if waiting is None:
        return entry
    assert waiting.event is not None
    assert entry.event is not None
    newer, older = (entry, waiting) if entry.event.order >= waiting.event.order else (waiting, entry)
    newer.overtaken += older.with_overtaken()
    older.overtaken = []
    return newer
