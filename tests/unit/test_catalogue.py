"""The built-in catalogue and records that are malformed on purpose."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from infra.catalogue import draw
from tagstream.catalogue import built_in
from tagstream.catalogue.malformed import Malformed, malformed
from tagstream.core.errors import InvalidEvent
from tagstream.core.events import Event
from tagstream.core.ports import Record
from tagstream.core.records import KeyValue, encode
from tagstream.stream.decode import Decoder
from tests.support.load import events, sized

_NOW_MS = 1_800_000_000_000


def _decode(record: KeyValue | Malformed) -> Event:
    return Decoder().decode(Record("product-events", 0, 0, record.key, record.value), _NOW_MS)


# built-in


def test_the_built_in_catalogue_has_enough_products_a_third_of_them_chinese() -> None:
    events = built_in.products()
    assert len(events) >= 240
    assert len({event.product_id for event in events}) == len(events)
    assert len({event.title for event in events}) == len(events)
    chinese = [event for event in events if event.lang == "zh"]
    assert 0.3 <= len(chinese) / len(events) <= 0.4
    assert all(re.search(r"[一-鿿]", event.title) for event in chinese)
    assert all(event.title.isascii() for event in events if event.lang == "en")


def test_english_titles_name_their_brand() -> None:
    assert [e.title for e in built_in.products() if e.lang == "en" and not e.brand] == []


def test_most_products_have_a_picture_of_the_usual_size_and_some_have_none() -> None:
    images = [event.image for event in built_in.products()]
    without = sum(image is None for image in images)
    assert 0 < without < 0.1 * len(images)
    for image in images[:30]:
        if image is not None:
            with Image.open(io.BytesIO(base64.b64decode(image.data or ""))) as picture:
                assert (picture.format, picture.size) == ("JPEG", (168, 224))


def test_a_picture_shows_the_products_colour_on_white() -> None:
    red = next(p for p in built_in.listed() if (p.shape, p.colour, p.pattern) == ("skirt", "red", "solid"))
    with Image.open(io.BytesIO(red.image)) as picture:
        assert min(picture.getpixel((3, 3))) > 240  # type: ignore[type-var, arg-type]
        r, g, b = picture.getpixel((84, 120))  # type: ignore[misc]
    assert r > 120 > 2 * max(g, b)


def test_the_pictures_are_those_that_the_code_draws_and_no_two_are_the_same() -> None:
    products = built_in.listed()
    assert len({product.image for product in products}) == len(products)
    drawn = draw.rows()
    assert [row["title"] for row in drawn] == [product.title for product in products]
    for row, product in list(zip(drawn, products, strict=True))[::20]:
        now, then = (
            np.asarray(Image.open(io.BytesIO(jpeg)), float) for jpeg in (row["image"], product.image)
        )
        assert np.abs(now - then).mean() < 2, "another Pillow may round another way, and no more"


def test_the_history_is_accepted_whole_and_each_products_versions_rise() -> None:
    versions: dict[str, list[int]] = defaultdict(list)
    kinds: Counter[str] = Counter()
    for event in built_in.history():
        decoded = _decode(encode(event))
        versions[decoded.product.product_id].append(decoded.event_version)
        kinds[decoded.product.type] += 1
    assert all(numbers == sorted(set(numbers)) for numbers in versions.values())
    assert max(map(len, versions.values())) >= 3
    assert kinds["delete"] >= 5
    assert kinds["upsert"] > len(versions)


def test_deletes_are_the_last_word_about_their_products() -> None:
    events = built_in.history()
    first_delete = next(n for n, event in enumerate(events) if event.type == "delete")
    assert all(event.type == "delete" for event in events[first_delete:])


def test_load_events_are_valid_repeatable_and_come_round_with_higher_versions() -> None:
    records = list(events(700, seed=3, distinct_products=300))
    assert records == list(events(700, seed=3, distinct_products=300))
    versions: dict[str, list[int]] = defaultdict(list)
    for record in records:
        event = _decode(record)
        versions[event.product.product_id].append(event.event_version)
    assert len(versions) == 300
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in versions.values())


def test_two_seeds_share_no_product() -> None:
    keys = [{record.key for record in events(50, seed=seed)} for seed in (1, 2)]
    assert not keys[0] & keys[1]


@pytest.mark.parametrize("value_bytes", [3_000, 6_144, 200_000])
def test_load_events_have_the_size_asked_for_and_a_picture_that_decodes(value_bytes: int) -> None:
    for record in events(60, value_bytes=value_bytes):
        assert abs(len(record.value or b"") - value_bytes) <= 32
        image = _decode(record).product.image
        assert image is not None
        encoded = base64.b64decode(image.data or "", validate=True)
        pixels = decode_jpeg(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
        assert pixels.shape[0] == 3


def test_no_picture_fits_into_nothing() -> None:
    with pytest.raises(ValueError, match="no picture fits"):
        sized(built_in.listed()[0].image, 100)


def test_chinese_products_do_not_all_say_the_same() -> None:
    endings = {e.description.split("。")[1] for e in built_in.products() if e.lang == "zh" and e.description}
    assert len(endings) == 9


# malformed


@pytest.mark.parametrize("record", malformed(huge_value_bytes=20_000_000), ids=lambda r: str(r.key)[:24])
def test_each_malformed_record_is_refused_for_its_own_reason(record: Malformed) -> None:
    with pytest.raises(InvalidEvent) as caught:
        _decode(record)
    assert record.expected_reason_fragment.lower() in caught.value.reason.lower()
