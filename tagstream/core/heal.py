"""What a consumer owes after it lost partitions unseen.

Frozen between store and publish, it may wake and publish an older revision after its successor's newer
one. So it reads the store again, and publishes what stands until topic and store agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tagstream.core.letters import tag_record
from tagstream.core.ports import Publisher, Standing, TagStore


class Healer:
    """The products under suspicion. Used by the worker's loop."""

    def __init__(self, store: TagStore, publisher: Publisher, tags_topic: str) -> None:
        self._store = store
        self._publisher = publisher
        self._tags_topic = tags_topic
        self._suspects: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._suspects)

    def suspect(self, product_ids: Iterable[str], last_submitted: int) -> None:
        """Micro-batches up to number `last_submitted` may publish these products once more."""
        self._suspects.update(dict.fromkeys(product_ids, last_submitted))

    def heal(self, in_flight: Collection[int]) -> None:
        """Publish what stands for the suspects that no micro-batch in flight can touch any more.

        Raises:
            Unavailable: store or broker do not answer; the suspects stay.
        """
        ready = [p for p, last in self._suspects.items() if last < min(in_flight, default=last + 1)]
        standing = self._standing(ready)
        while standing:
            self._publisher.publish([tag_record(self._tags_topic, s) for s in standing.values()])
            published, now = standing, self._standing(list(standing))
            standing = {product_id: s for product_id, s in now.items() if s != published[product_id]}
        for product_id in ready:
            del self._suspects[product_id]

    def _standing(self, product_ids: list[str]) -> dict[str, Standing]:
        found = self._store.get(product_ids) if product_ids else []
        return {p: standing for p, standing in zip(product_ids, found, strict=True) if standing is not None}
