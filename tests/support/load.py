"""Any number of product events for load, with values of a given size."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Iterator
from typing import Any

from PIL import Image

from tagstream.catalogue.built_in import Product, as_event, lacks_picture, listed
from tagstream.core.records import KeyValue

_COMMENT = b"\xff\xfe"
_COMMENT_MAX_BYTES = 65_533  # a segment's length field counts itself: 2 + 65,533 = 0xFFFF
_QUALITIES = (85, 60, 40, 25, 12)
_SCALES = (1.0, 0.7, 0.5, 0.35)


def events(
    count: int, seed: int = 0, *, distinct_products: int = 1000, value_bytes: int | None = None
) -> Iterator[KeyValue]:
    """`count` upserts for load tests: product ids come round again and again with a higher event_version.

    Args:
        seed: order of the looks behind the ids; part of the ids, so that two seeds share no product.
        distinct_products: how many product ids there are.
        value_bytes: size of each value, met to within 32 bytes by shrinking the picture or padding its file.
            None leaves pictures as they are (values of 4 to 14 KB) and a few products without.

    Raises:
        ValueError: `value_bytes` has no room for the smallest picture (about 2 KB).
    """
    looks = list(listed())
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


def _frame(product: Product, value_bytes: int | None) -> tuple[bytes, bytes]:
    """The value around its numbers: what comes before them, what comes after."""
    event = as_event(product, 1, picture=value_bytes is None and not lacks_picture(product))
    content: dict[str, Any] = event.model_dump(mode="json", exclude_none=True)
    for numbered in ("product_id", "event_id", "event_version"):
        del content[numbered]
    if value_bytes is not None:
        content["image"] = {"data": ""}
        room = value_bytes - len(_dumped(content)) - len(_numbers(b"load-0-0000000", 1)) - 1
        content["image"] = {"data": base64.b64encode(sized(product.image, room // 4 * 3)).decode()}
    return b"{", b"," + _dumped(content)[1:]


def _dumped(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def sized(jpeg: bytes, size_bytes: int) -> bytes:
    """The picture as a JPEG of `size_bytes`, or a few bytes less where no comment segment fits.

    Too large a picture is encoded again, worse and then smaller; what is left is filled with comment
    segments of noise after the start marker, which decoders skip and compression cannot shrink.

    Raises:
        ValueError: not even the smallest picture fits.
    """
    fitting = jpeg if len(jpeg) <= size_bytes else _shrunk(jpeg, size_bytes)
    start, rest = fitting[:2], fitting[2:]
    missing = size_bytes - len(fitting)
    noise = random.Random(missing)
    segments = []
    while missing >= 4:
        filling = min(_COMMENT_MAX_BYTES, missing - 4)
        segments.append(_COMMENT + (filling + 2).to_bytes(2, "big") + noise.randbytes(filling))
        missing -= filling + 4
    return start + b"".join(segments) + rest


def _shrunk(jpeg: bytes, size_bytes: int) -> bytes:
    with Image.open(io.BytesIO(jpeg)) as picture:
        for scale in _SCALES:
            small = picture.resize((round(picture.width * scale), round(picture.height * scale)))
            for quality in _QUALITIES:
                out = io.BytesIO()
                small.save(out, "JPEG", quality=quality)
                if out.tell() <= size_bytes:
                    return out.getvalue()
    raise ValueError(f"no picture fits into {size_bytes} bytes")
