"""The built-in catalogue. It is generated: titles written by hand for tagstream, pictures drawn in code.

Good for a demo, for tests and for load, and for nothing else: no real shop looks like this, so no
quality may be measured on it. The same arguments give the same bytes (with the same Pillow).

    products()          every product once, at event_version 1
    history()           the same, then newer versions of some and deletes of others, as a shop would send
    events(count, …)    any number of events, cheap enough for load tests
"""

from __future__ import annotations

import base64
import json
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from tagstream.catalogue.canvas import Canvas, sized
from tagstream.catalogue.garments import GARMENTS
from tagstream.catalogue.goods import GOODS
from tagstream.catalogue.patterns import PATTERNS
from tagstream.core.events import SCHEMA_VERSION, ImageRef, ProductEvent
from tagstream.core.records import KeyValue

_SHAPES = {**GARMENTS, **GOODS}
#: Brands, products by language, their copy, and colours, as written by hand.
_WRITTEN: dict[str, Any] = tomllib.loads(Path(__file__).with_name("products.toml").read_text("utf-8"))
_FIRST_DAY = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
_Line = tuple[str, str, str, str]  # shape, pattern, colour, title
# Coprime to every other choice made by position, so that no shape always lacks its picture.
_WITHOUT_PICTURE_EVERY, _UPDATED_EVERY, _DELETED_EVERY = 17, 13, 29


@dataclass(frozen=True, slots=True)
class Drawn:
    """One product as written in products.toml. `number` counts from 0 over the whole catalogue."""

    number: int
    lang: str
    shape: str
    pattern: str
    colour: str
    title: str

    @property
    def product_id(self) -> str:
        return f"{self.lang}-{self.number:04d}"

    @property
    def brand(self) -> str | None:
        return next((brand for brand in _WRITTEN["brands"] if self.title.startswith(brand)), None)

    @property
    def description(self) -> str | None:
        """Chinese products always have copy, a third of the English ones do."""
        if self.lang == "en":
            copy = _WRITTEN["english_copy"]
            return str(copy[self.number // 3 % len(copy)]) if self.number % 3 == 0 else None
        copies = _WRITTEN["chinese_copy"]
        copy = next((copy for word, copy in copies.items() if word in self.title), copies["上衣"])
        return f"{self.title.replace(' ', '，')}。{copy[self.number // 3 % len(copy)]}"

    def picture(self) -> bytes:
        """A JPEG, 168 pixels wide and 224 high."""
        return _picture(self)


@cache
def _picture(product: Drawn) -> bytes:
    red, green, blue = _WRITTEN["colours"][product.colour]
    canvas = Canvas(product.number, (red, green, blue), PATTERNS[product.pattern])
    _SHAPES[product.shape](canvas)
    return canvas.jpeg()


@cache
def drawn() -> tuple[Drawn, ...]:
    """The products, English and Chinese mixed two to one, as far as both last."""
    english, chinese = (_parsed(table) for table in (_WRITTEN["english"], _WRITTEN["chinese"]))
    ordered: list[tuple[str, _Line]] = []
    while english or chinese:
        ordered += [("en", line) for line in english[:2]] + [("zh", line) for line in chinese[:1]]
        del english[:2], chinese[:1]
    return tuple(Drawn(number, lang, *line) for number, (lang, line) in enumerate(ordered))


def _parsed(table: str) -> list[_Line]:
    rows = []
    for line in table.strip().splitlines():
        look, title = line.split("|")
        shape, pattern, colour = look.split()
        rows.append((shape, pattern, colour, title.strip()))
    random.Random(7).shuffle(rows)  # a shop's newest products are not sorted by kind
    return rows


def products() -> list[ProductEvent]:
    """Every product once. Most carry their picture inline, a few come without."""
    return [_event(product, 1, picture=not _lacks_picture(product)) for product in drawn()]


def history() -> list[ProductEvent]:
    """`products()`, then newer versions of some (among them those without picture, which now have one), then
    deletes."""
    changed = [
        product for product in drawn() if product.number % _UPDATED_EVERY == 0 or _lacks_picture(product)
    ]
    updates = [_event(product, 2) for product in changed]
    updates += [
        _event(product, 3, title=f"{product.title} XL") for product in changed[::3] if product.lang == "en"
    ]
    gone = [product for product in drawn() if product.number % _DELETED_EVERY == _DELETED_EVERY - 1]
    return [*products(), *updates, *(_event(product, 4, gone=True) for product in gone)]


def events(
    count: int, seed: int = 0, *, distinct_products: int = 1000, value_bytes: int | None = None
) -> Iterator[KeyValue]:
    """`count` upserts for load tests: product ids come round again and again with a higher event_version.

    Args:
        seed: order of the looks behind the ids; part of the ids, so that two seeds share no product.
        distinct_products: how many product ids there are.
        value_bytes: size of each value, met to within 32 bytes by shrinking the picture or padding its file.
            None leaves pictures as drawn (values of 4 to 14 KB) and a few products without.

    Raises:
        ValueError: `value_bytes` has no room for the smallest picture (about 2 KB).
    """
    looks = list(drawn())
    random.Random(seed).shuffle(looks)
    frames: dict[int, tuple[bytes, bytes]] = {}
    for number in range(count):
        slot, event_version = number % distinct_products, 1 + number // distinct_products
        look = slot % len(looks)
        if look not in frames:
            frames[look] = _frame(looks[look], value_bytes)
        head, tail = frames[look]
        product_id = b"load-%d-%07d" % (seed, slot)
        yield KeyValue(product_id, head + _numbers(product_id, event_version) + tail)


def _numbers(product_id: bytes, event_version: int) -> bytes:
    return b'"product_id":"%b","event_id":"%b-%d","event_version":%d' % (
        product_id, product_id, event_version, event_version,
    )  # fmt: skip


def _frame(product: Drawn, value_bytes: int | None) -> tuple[bytes, bytes]:
    """The value around its numbers: what comes before them, what comes after."""
    event = _event(product, 1, picture=value_bytes is None and not _lacks_picture(product))
    content: dict[str, Any] = event.model_dump(mode="json", exclude_none=True)
    for numbered in ("product_id", "event_id", "event_version"):
        del content[numbered]
    if value_bytes is not None:
        content["image"] = {"data": ""}
        room = value_bytes - len(_dumped(content)) - len(_numbers(b"load-0-0000000", 1)) - 1
        content["image"] = {"data": base64.b64encode(sized(product.picture(), room // 4 * 3)).decode()}
    return b"{", b"," + _dumped(content)[1:]


def _dumped(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _lacks_picture(product: Drawn) -> bool:
    return product.number % _WITHOUT_PICTURE_EVERY == _WITHOUT_PICTURE_EVERY - 1


def _event(
    product: Drawn, event_version: int, *, picture: bool = True, gone: bool = False, title: str | None = None
) -> ProductEvent:
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
    image = ImageRef(data=base64.b64encode(product.picture()).decode()) if picture else None
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
