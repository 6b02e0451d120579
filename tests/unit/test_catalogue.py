"""The catalogues: drawn in code, read from a folder, read from a file. Nothing is lost silently."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from tagstream.catalogue import drawn
from tagstream.catalogue.folder import ProductFolder, events_of
from tagstream.catalogue.jpeg import sized
from tagstream.catalogue.malformed import Malformed, malformed
from tagstream.catalogue.records import KeyValue, encode
from tagstream.core.errors import BadSettings, InvalidEvent
from tagstream.core.events import Event, ProductEvent
from tagstream.core.ports import Record
from tagstream.stream.decode import Decoder

_NOW_MS = 1_800_000_000_000


def _decode(record: KeyValue | Malformed) -> Event:
    return Decoder().decode(Record("product-events", 0, 0, record.key, record.value), _NOW_MS)


def _refused(record: KeyValue) -> bool:
    try:
        _decode(record)
    except InvalidEvent:
        return True
    return False


# drawn


def test_the_built_in_catalogue_has_enough_products_a_third_of_them_chinese() -> None:
    events = drawn.products()
    assert len(events) >= 240
    assert len({event.product_id for event in events}) == len(events)
    assert len({event.title for event in events}) == len(events)
    chinese = [event for event in events if event.lang == "zh"]
    assert 0.3 <= len(chinese) / len(events) <= 0.4
    assert all(re.search(r"[一-鿿]", event.title) for event in chinese)
    assert all(event.title.isascii() for event in events if event.lang == "en")


def test_english_titles_name_their_brand() -> None:
    assert [e.title for e in drawn.products() if e.lang == "en" and not e.brand] == []


def test_most_products_have_a_picture_of_the_usual_size_and_some_have_none() -> None:
    images = [event.image for event in drawn.products()]
    without = sum(image is None for image in images)
    assert 0 < without < 0.1 * len(images)
    for image in images[:30]:
        if image is not None:
            with Image.open(io.BytesIO(base64.b64decode(image.data or ""))) as picture:
                assert (picture.format, picture.size) == ("JPEG", (168, 224))


def test_a_picture_shows_the_products_colour_on_white() -> None:
    red = next(p for p in drawn.drawn() if (p.shape, p.colour, p.pattern) == ("skirt", "red", "solid"))
    with Image.open(io.BytesIO(red.picture())) as picture:
        assert min(picture.getpixel((3, 3))) > 240  # type: ignore[type-var, arg-type]
        r, g, b = picture.getpixel((84, 120))  # type: ignore[misc]
    assert r > 120 > 2 * max(g, b)


def test_drawing_twice_gives_the_same_bytes_and_two_products_never_do() -> None:
    products = drawn.drawn()[:40]
    first = [product.picture() for product in products]
    drawn._picture.cache_clear()
    assert [product.picture() for product in products] == first
    assert len(set(first)) == len(first)


def test_the_history_is_accepted_whole_and_each_products_versions_rise() -> None:
    versions: dict[str, list[int]] = defaultdict(list)
    kinds: Counter[str] = Counter()
    for event in drawn.history():
        decoded = _decode(encode(event))
        versions[decoded.product.product_id].append(decoded.event_version)
        kinds[decoded.product.type] += 1
    assert all(numbers == sorted(set(numbers)) for numbers in versions.values())
    assert max(map(len, versions.values())) >= 3
    assert kinds["delete"] >= 5
    assert kinds["upsert"] > len(versions)


def test_deletes_are_the_last_word_about_their_products() -> None:
    events = drawn.history()
    first_delete = next(n for n, event in enumerate(events) if event.type == "delete")
    assert all(event.type == "delete" for event in events[first_delete:])


def test_load_events_are_valid_repeatable_and_come_round_with_higher_versions() -> None:
    records = list(drawn.events(700, seed=3, distinct_products=300))
    assert records == list(drawn.events(700, seed=3, distinct_products=300))
    versions: dict[str, list[int]] = defaultdict(list)
    for record in records:
        event = _decode(record)
        versions[event.product.product_id].append(event.event_version)
    assert len(versions) == 300
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in versions.values())


def test_two_seeds_share_no_product() -> None:
    keys = [{record.key for record in drawn.events(50, seed=seed)} for seed in (1, 2)]
    assert not keys[0] & keys[1]


@pytest.mark.parametrize("value_bytes", [3_000, 6_144, 200_000])
def test_load_events_have_the_size_asked_for_and_a_picture_that_decodes(value_bytes: int) -> None:
    for record in drawn.events(60, value_bytes=value_bytes):
        assert abs(len(record.value or b"") - value_bytes) <= 32
        image = _decode(record).product.image
        assert image is not None
        encoded = base64.b64decode(image.data or "", validate=True)
        pixels = decode_jpeg(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
        assert pixels.shape[0] == 3


def test_no_picture_fits_into_nothing() -> None:
    with pytest.raises(ValueError, match="no picture fits"):
        sized(drawn.drawn()[0].picture(), 100)


def test_chinese_products_do_not_all_say_the_same() -> None:
    endings = {e.description.split("。")[1] for e in drawn.products() if e.lang == "zh" and e.description}
    assert len(endings) == 9


# malformed


@pytest.mark.parametrize("record", malformed(huge_value_bytes=20_000_000), ids=lambda r: str(r.key)[:24])
def test_each_malformed_record_is_refused_for_its_own_reason(record: Malformed) -> None:
    with pytest.raises(InvalidEvent) as caught:
        _decode(record)
    assert record.expected_reason_fragment.lower() in caught.value.reason.lower()


# folder

_JPEG = b"\xff\xd8 not a whole picture, but bytes all the same"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(_JPEG)
    return tmp_path


def _csv(folder: Path, *lines: bytes) -> ProductFolder:
    (folder / "products.csv").write_bytes(b"\n".join([b"id,title,baseColour,image", *lines]))
    return ProductFolder(folder, occurred_at=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_row_becomes_an_event_without_its_labels(folder: Path) -> None:
    reader = _csv(folder, b"1,Haldis Men Shirt,Navy Blue,images/1.jpg")
    [record] = list(reader)
    assert record.key == b"1"
    event = json.loads(record.value or b"")
    assert event == {
        "schema_version": "1.0",
        "type": "upsert",
        "event_version": 1,
        "event_id": "1-1",
        "product_id": "1",
        "occurred_at": "2026-01-01T00:00:00+00:00",
        "title": "Haldis Men Shirt",
        "image": {"data": base64.b64encode(_JPEG).decode()},
    }
    assert _decode(record).product.title == "Haldis Men Shirt"
    assert reader.tally == {"product": 1}


def test_a_named_column_becomes_an_attribute(folder: Path) -> None:
    _csv(folder, b"1,Shirt,Navy Blue,")
    [record] = list(ProductFolder(folder, attribute_columns=["baseColour"]))
    assert _decode(record).product.attributes == {"baseColour": "Navy Blue"}


def test_pictures_can_go_by_address(folder: Path) -> None:
    _csv(folder, b"1,Shirt,Blue,images/1.jpg", b"2,Shirt,Blue,https://shop.example/2.jpg")
    urls = [_decode(record).product.image for record in ProductFolder(folder, inline=False)]
    assert [image and image.url for image in urls] == [
        (folder / "images" / "1.jpg").resolve().as_uri(),
        "https://shop.example/2.jpg",
    ]


def test_commas_quotes_and_line_breaks_inside_quotes_are_part_of_the_title(folder: Path) -> None:
    reader = _csv(folder, b'1,"White, Blue ""XL""\r\nShoes",White,', b"2,Plain,Red,")
    titles = [_decode(record).product.title for record in reader]
    assert titles == ['White, Blue "XL"\r\nShoes', "Plain"]


@pytest.mark.parametrize(
    ("row", "key"),
    [
        (b",No id at all,Red,", None),
        (b"7,Too few", None),
        (b"8,Too,many,fields,here", None),
        (b"9,Caf\xe9 in Latin-1,Red,", None),
        (b'10,"Never closed,Red,', None),
        (b'11,"Closed" too early,Red,', None),
        (b"12,,Red,", b"12"),
        (b"13,,Red,images/missing.jpg", b"13"),
    ],
)
def test_a_malformed_row_becomes_a_record_that_is_refused_and_the_rest_is_read(
    folder: Path, row: bytes, key: bytes | None
) -> None:
    reader = _csv(folder, b"1,Before,Red,", row, b"2,After,Red,", b"3,Last,Red,")
    before, bad, after, last = list(reader)
    assert [before.key, after.key, last.key] == [b"1", b"2", b"3"]
    assert bad.key == key
    assert _refused(bad)
    assert bad.value
    assert reader.tally == {"product": 3, "malformed": 1}


def test_an_unreadable_line_goes_out_as_it_came(folder: Path) -> None:
    line = b"9,Caf\xe9 in Latin-1,Red,"
    [record] = list(_csv(folder, line))
    assert record.value == line


def test_a_missing_picture_costs_the_picture_and_not_the_product(folder: Path) -> None:
    (folder.parent / "outside.jpg").write_bytes(_JPEG)
    reader = _csv(
        folder, b"1,Shirt,Red,images/nowhere.jpg", b"2,Shirt,Red,../outside.jpg", b"3,Shirt,Red,images"
    )
    assert [_decode(record).product.image for record in reader] == [None, None, None]
    assert reader.tally == {"picture missing": 3}


def test_a_limit_takes_rows_from_all_over_the_file(folder: Path) -> None:
    _csv(folder, *(b"%d,Shirt,Red," % number for number in range(1, 101)))
    numbers = [int(record.key or b"") for record in ProductFolder(folder, limit=10)]
    assert numbers == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]
    assert len(list(ProductFolder(folder, limit=7))) == 7
    assert len(list(ProductFolder(folder, limit=1000))) == 100


def test_a_folder_can_be_read_again_with_a_fresh_tally(folder: Path) -> None:
    reader = _csv(folder, b"1,Shirt,Red,", b"2,Hat")
    assert list(reader) == list(reader)
    assert reader.tally == {"product": 1, "malformed": 1}


def test_a_byte_order_mark_is_no_part_of_the_first_column(folder: Path) -> None:
    (folder / "products.csv").write_bytes(b"\xef\xbb\xbfid,title\r\n1,Shirt\r\n")
    assert [record.key for record in ProductFolder(folder)] == [b"1"]


def test_json_lines_are_read_and_broken_ones_go_out_as_they_came(folder: Path) -> None:
    lines = [
        '{"id": 1, "title": "纯棉T恤", "lang": "zh", "image": "images/1.jpg", "event_version": 5}',
        '{"id": "2", "title":',
        '["3", "a list"]',
        '{"id": "4", "title": "\\ud800"}',
        '{"title": "no id"}',
    ]
    (folder / "products.jsonl").write_text("\n".join(lines) + "\n\n")
    reader = ProductFolder(folder)
    first, *rest = list(reader)
    event = _decode(first)
    assert (event.product.title, event.product.lang, event.event_version) == ("纯棉T恤", "zh", 5)
    assert [record.value for record in rest[:3]] == [line.encode() for line in lines[1:4]]
    assert all(_refused(record) for record in rest)
    assert reader.tally == {"product": 1, "malformed": 4}


def test_parquet_with_pictures_inside_is_read(folder: Path) -> None:
    rows = [
        {"product_id": "1", "title": "Shirt", "image": _JPEG, "year": 2020},
        {"product_id": None, "title": "No id", "image": None, "year": None},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "products.parquet")
    reader = ProductFolder(folder, attribute_columns=["year"])
    first, second = list(reader)
    product = _decode(first).product
    assert product.image is not None
    assert base64.b64decode(product.image.data or "") == _JPEG
    assert product.attributes == {"year": "2020"}
    assert _refused(second)
    assert reader.tally == {"product": 1, "malformed": 1}


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda f: None, "no products.csv"),
        (lambda f: (f / "products.csv").write_text("title,colour\nShirt,Red\n"), "no column 'id'"),
        (lambda f: (f / "products.csv").write_text("id,name\n1,Shirt\n"), "no column 'title'"),
        (lambda f: (f / "products.csv").write_text(""), "no column 'title'"),
        (lambda f: (f / "products.csv").write_text("id,title\n", "utf-16"), "not a CSV header"),
    ],
)
def test_a_folder_without_products_says_what_is_missing(
    folder: Path, prepare: Callable[[Path], Any], said: str
) -> None:
    prepare(folder)
    with pytest.raises(BadSettings, match=re.escape(said)):
        ProductFolder(folder)


# file


def test_a_file_of_events_goes_out_line_by_line_as_it_is(tmp_path: Path) -> None:
    event = drawn.products()[0]
    whole = encode(event)
    strange = [b"not json", b'{"product_id": 7}', b"[1]", b'{"product_id": "\\ud800"}', b"[" * 5000]
    lines = [whole.value or b"", b"", *strange]
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\r\n".join(lines))
    records = list(events_of(path))
    assert records[0] == whole
    assert ProductEvent.model_validate_json(records[0].value or b"") == event
    assert [record.value for record in records[1:]] == strange
    assert {record.key for record in records[1:]} == {None}
