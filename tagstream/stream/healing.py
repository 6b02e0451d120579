"""What a consumer must repair after it lost partitions without noticing.

A consumer that was frozen between store and publish may wake and publish an older revision after the next
owner's newer one. So it reads the store again. Where the store holds something else than this consumer
published last, it publishes what is stored, until topic and store agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from tagstream.core.ports import Publisher, Standing, TagStore
from tagstream.stream.outgoing import tag_record


class Mark(NamedTuple):
    """Which state of a product a record holds."""

    product_id: str
    revision: int
    event_version: int
    source_offset: int
    model_generation: int


def mark_of(standing: Standing) -> Mark:
    """Of any verdict but `stale`."""
    product = standing.product
    assert product is not None
    return Mark(
        product.product_id,
        product.revision,
        product.event_version,
        standing.source_offset,
        product.model_generation,
    )


class Healer:
    """The products under suspicion. Used by the worker's loop."""

    def __init__(self, store: TagStore, publisher: Publisher, tags_topic: str) -> None:
        self._store = store
        self._publisher = publisher
        self._tags_topic = tags_topic
        self._suspects: dict[str, int] = {}
        self._published: dict[str, Mark | None] = {}

    def __bool__(self) -> bool:
        return bool(self._suspects)

    def suspect(self, product_ids: Iterable[str], last_submitted: int) -> None:
        """Micro-batches up to number `last_submitted` may publish these products once more."""
        self._suspects.update(dict.fromkeys(product_ids, last_submitted))

    def published(self, mark: Mark) -> None:
        """This worker has published it, after whatever it published of the product before."""
        if mark.product_id in self._suspects:
            self._published[mark.product_id] = mark

    def mark_uncertain(self, product_id: str) -> None:
        """A record was sent and not acknowledged: what is stored is published in any case."""
        if product_id in self._suspects:
            self._published[product_id] = None

    def heal(self, in_flight: Collection[int]) -> None:
        """Publish what is stored for the suspects that no micro-batch in flight can touch any more. Left out:
        what this worker published last, and products of which it published nothing: their next owner does.

        Raises:
            Unavailable: store or broker do not answer; the suspects stay.
        """
        ready = [p for p, last in self._suspects.items() if last < min(in_flight, default=last + 1)]
        published = [product_id for product_id in ready if product_id in self._published]
        standing = {
            product_id: s
            for product_id, s in self._standing(published).items()
            if mark_of(s) != self._published[product_id]
        }
        while standing:
            self._publisher.publish([tag_record(self._tags_topic, s) for s in standing.values()])
            sent, now = standing, self._standing(list(standing))
            standing = {product_id: s for product_id, s in now.items() if s != sent[product_id]}
        for product_id in ready:
            del self._suspects[product_id]
            self._published.pop(product_id, None)

    def _standing(self, product_ids: list[str]) -> dict[str, Standing]:
        found = self._store.get(product_ids) if product_ids else []
        return {p: standing for p, standing in zip(product_ids, found, strict=True) if standing is not None}
