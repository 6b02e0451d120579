"""The built-in catalogue: titles written by hand for tagstream, pictures drawn in code (infra/catalogue).

Good for a demo, for tests and for load, and for nothing else: no real shop looks like this, so no
quality may be measured on it.

    products()   every product once, at event_version 1
    history()    the same, then newer versions of some and deletes of others, as a shop would send
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from tagstream.core.events import SCHEMA_VERSION, ImageRef, ProductEvent
from tagstream.dataset.table import read_table

FILE = Path(__file__).with_name("products.parquet")
_TEXT_COLUMNS = ("id", "lang", "title", "brand", "description")
_FIRST_DAY = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
# Coprime to every other choice made by position, so that no shape always lacks its picture.
_WITHOUT_PICTURE_EVERY, _UPDATED_EVERY, _DELETED_EVERY = 17, 13, 29


@dataclass(frozen=True, slots=True)
class Product:
    """One product. `number` counts from 0; `image` is a JPEG, 168 pixels wide and 224 high."""

    number: int
    product_id: str
    lang: str
    title: str
    brand: str | None
    description: str | None
    shape: str
    pattern: str
    colour: str
    image: bytes


@cache
def listed() -> tuple[Product, ...]:
    """All products, in the order of the file."""
    found = []
    for number, line in enumerate(read_table(FILE).lines()):
        image = line.cells["image"]
        assert isinstance(image, bytes)
        product_id, lang, title, brand, description = map(line.text, _TEXT_COLUMNS)
        shape, pattern, colour = map(line.text, ("shape", "pattern", "colour"))
        look = (shape, pattern, colour, image)
        found.append(Product(number, product_id, lang, title, brand or None, description or None, *look))
    return tuple(found)


def products() -> list[ProductEvent]:
    """Every product once. Most carry their picture inline, a few come without."""
    return [as_event(product, 1, picture=not lacks_picture(product)) for product in listed()]


def history() -> list[ProductEvent]:
    """`products()`, then newer versions of some (among them those without picture, which now have one), then
    deletes."""
    changed = [one for one in listed() if one.number % _UPDATED_EVERY == 0 or lacks_picture(one)]
    updates = [as_event(one, 2) for one in changed]
    updates += [as_event(one, 3, title=f"{one.title} XL") for one in changed[::3] if one.lang == "en"]
    gone = [one for one in listed() if one.number % _DELETED_EVERY == _DELETED_EVERY - 1]
    return [*products(), *updates, *(as_event(one, 4, gone=True) for one in gone)]


def lacks_picture(product: Product) -> bool:
    """Whether its first event comes without picture."""
    return product.number % _WITHOUT_PICTURE_EVERY == _WITHOUT_PICTURE_EVERY - 1


def as_event(
    product: Product,
    event_version: int,
    *,
    picture: bool = True,
    gone: bool = False,
    title: str | None = None,
) -> ProductEvent:
    """The product at this version; `gone`: its delete. `title`: another one."""
    occurred_at = _FIRST_DAY + timedelta(days=event_version - 1, seconds=7 * product.number)
    identity = {
        "schema_version": SCHEMA_VERSION,
        "event_id": f"{product.product_id}-{event_version}",
        "product_id": product.product_id,
        "event_version": event_version,
        "occurred_at": occurred_at,
    }
    if gone:
        return ProductEvent.model_validate({**identity, "type": "delete"})
    image = ImageRef(data=base64.b64encode(product.image).decode()) if picture else None
    return ProductEvent.model_validate(
        {
            **identity,
            "type": "upsert",
            "title": title or product.title,
            "description": product.description,
            "brand": product.brand,
            "lang": product.lang,
            "image": image,
        }
    )
