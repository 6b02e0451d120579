"""A known past of a shop: what is published before a fault, drawn from a seed."""

from __future__ import annotations

import base64
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from consumer import POISON

from tagstream.catalogue.built_in import listed
from tagstream.catalogue.malformed import malformed
from tagstream.core.events import ImageRef, ProductEvent
from tagstream.core.records import KeyValue, encode

_UNDECODABLE_EVERY = 100
_DELETE_SHARE = 0.05
_POISON_COUNT = 3
_FIRST_DAY = datetime(2026, 1, 5, 8, tzinfo=UTC)
_COLOURS = ("Red", "Blue", "Green")


def past(
    seed: int, products: int, versions: int, *, picture_url: str = "", poison: bool = False
) -> list[KeyValue]:
    """`products` × `versions` events, interleaved at random but in order for each product, 5 % deletes
    (some products come back after it); every hundredth record is one that cannot be decoded.

    Args:
        picture_url: every eighth product has its picture there.
        poison: three more products, of which the tagger dies.
    """
    rng = random.Random(seed)
    order = [number for number in range(products) for _ in range(versions)]
    rng.shuffle(order)
    picture_of = _pictures(picture_url)
    version_of: Counter[int] = Counter()
    records: list[KeyValue] = []
    bad = _undecodable()
    for number in order:
        version_of[number] += 1
        records.append(encode(_event(rng, number, version_of[number], picture_of)))
        if len(records) % _UNDECODABLE_EVERY == _UNDECODABLE_EVERY - 1:
            records.append(next(bad))
    for n in range(_POISON_COUNT if poison else 0):
        event = _event(rng, products + n, 1, picture_of, title=f"{POISON} {n}", deletes=False)
        records.insert(rng.randrange(len(records)), encode(event))
    return records


def is_poison(event: ProductEvent) -> bool:
    return POISON in event.title


def _pictures(url: str) -> Callable[[int], ImageRef | None]:
    inline = ImageRef(data=base64.b64encode(listed()[0].image).decode())

    def picture_of(number: int) -> ImageRef | None:
        if url and number % 8 == 0:
            return ImageRef(url=f"{url}/{number}.jpg")
        return inline if number % 8 == 1 else None

    return picture_of


def _event(
    rng: random.Random,
    number: int,
    version: int,
    picture_of: Callable[[int], ImageRef | None],
    *,
    title: str = "",
    deletes: bool = True,
) -> ProductEvent:
    content = {
        "schema_version": "1.0",
        "event_id": f"p{number}-{version}",
        "product_id": f"p{number}",
        "event_version": version,
        "occurred_at": _FIRST_DAY + timedelta(days=version, seconds=number),
    }
    if deletes and rng.random() < _DELETE_SHARE:
        return ProductEvent.model_validate({**content, "type": "delete"})
    title = title or f"Puma Men {rng.choice(_COLOURS)} Shirt {number} edition {version}"
    return ProductEvent.model_validate(
        {**content, "type": "upsert", "title": title, "image": picture_of(number)}
    )


def _undecodable() -> Iterator[KeyValue]:
    """Each with a key of its own, so that one that is lost cannot hide behind one that came twice."""
    for n, bad in enumerate(itertools.cycle(malformed())):
        yield KeyValue(b"bad-%d" % n, bad.value)
