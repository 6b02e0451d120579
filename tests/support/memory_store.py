"""The store's twin in memory, for tests. Its faults are data, as in `memory`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from tagstream.core.errors import StoreNotInitialised
from tagstream.core.events import ProductTags
from tagstream.core.ports import Standing, StoreVerdict, Write
from tests.support.memory import Faults


class MemoryStore:
    """The `TagStore` and the `Halts`. Delete markers never expire."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._is_initialised = False
        self._halted = ""
        self._states: dict[str, tuple[Write, int]] = {}
        self._lock = threading.Lock()

    def put(self, writes: Sequence[Write]) -> list[Standing]:
        """See the port."""
        with self.faults.around(), self._lock:
            if not self._is_initialised:
                raise StoreNotInitialised("the store was emptied or is new")
            return [self._put(write) for write in writes]

    def get(self, product_ids: Sequence[str]) -> list[Standing | None]:
        """See the port."""
        with self._lock:
            known = [self._states.get(product_id) for product_id in product_ids]
        return [_as_standing("same", *standing) if standing else None for standing in known]

    def find(self, group: str, value: str, limit: int) -> list[tuple[str, float]]:
        """See the port."""
        scores = {
            product.product_id: tag.score
            for product in self._tagged()
            for tag in product.tags
            if (tag.group, tag.value) == (group, value)
        }
        return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[: max(0, limit)]

    def initialise(self) -> None:
        self._is_initialised = True

    def empty(self) -> None:
        """What an accident does to a store: everything is gone, its layout mark too."""
        self._is_initialised = False
        self._states.clear()

    def halt(self, reason: str) -> None:
        self._halted = self._halted or reason

    def halted(self) -> str:
        return self._halted

    def resume(self) -> bool:
        """See the port."""
        was, self._halted = self._halted, ""
        return bool(was)

    def size(self) -> tuple[int, int]:
        """See the port."""
        tagged = self._tagged()
        return len(tagged), sum(len({(tag.group, tag.value) for tag in product.tags}) for product in tagged)

    def close(self) -> None:
        return

    def _tagged(self) -> list[ProductTags]:
        with self._lock:
            return [write.product for write, _ in self._states.values() if not write.deleted]

    def _put(self, write: Write) -> Standing:
        old, revision = self._states.get(write.product.product_id, (None, 0))
        if old is not None:
            if _place(write) < _place(old):
                return Standing("stale", None)
            is_repeated_delete = write.deleted and old.deleted
            if _place(write) == _place(old) and (is_repeated_delete or _tagging(write) <= _tagging(old)):
                return _as_standing("same", old, revision)
        if write.deleted:
            write = replace(write, product=write.product.model_copy(update={"tags": ()}))
        revision = revision + 1 if write.revision is None else max(write.revision, revision)
        self._states[write.product.product_id] = (write, revision)
        return _as_standing("applied", write, revision)


def _place(write: Write) -> tuple[int, int]:
    return write.product.event_version, write.source_offset


def _tagging(write: Write) -> tuple[int, bool]:
    return write.product.model_generation, write.product.image == "used"


def _as_standing(verdict: StoreVerdict, write: Write, revision: int) -> Standing:
    product = write.product.model_copy(update={"revision": revision})
    return Standing(verdict, product, write.deleted, write.source_offset)
