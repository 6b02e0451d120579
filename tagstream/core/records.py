"""A record on its way to the event topic, before it has a partition."""

from __future__ import annotations

from typing import NamedTuple

from tagstream.core.events import ProductEvent


class KeyValue(NamedTuple):
    """Key and value as they are published. No key: the record names no product and will be a dead letter."""

    key: bytes | None
    value: bytes | None


def encode(event: ProductEvent) -> KeyValue:
    """The event as a producer sends it: keyed by its product, as JSON without the fields that are None."""
    return KeyValue(event.product_id.encode(), event.model_dump_json(exclude_none=True).encode())
