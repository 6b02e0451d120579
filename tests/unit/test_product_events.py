"""Product files and files of events as records for the event topic. Nothing is lost silently."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tagstream.catalogue import built_in
from tagstream.core.errors import BadSettings, InvalidEvent
from tagstream.core.events import Event, ProductEvent
from tagstream.core.ports import Record
from tagstream.core.records import KeyValue, encode
from tagstream.dataset.events import ProductEvents, events_of, records_of
from tagstream.dataset.rows import read_products
from tagstream.stream.decode import Decoder

_NOW_MS = 1_800_000_000_000


def _decode(record: KeyValue) -> Event:
    return Decoder().decode(Record("product-events", 0, 0, record.key, record.value), _NOW_MS)


def _refused(record: KeyValue) -> bool:
    try:
        _decode(record)
    except InvalidEvent:
        return True
    return False


_JPEG = b"\xff\xd8 not a whole picture, but bytes all the same"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(_JPEG)
    return tmp_path


def _csv(folder: Path, *lines: bytes) -> ProductEvents:
    (folder / "products.csv").write_bytes(b"\n".join([b"id,title,baseColour,image", *lines]))
    return ProductEvents(folder, occurred_at=datetime(2026, 1, 1, tzinfo=UTC))


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


def test_a_picture_with_an_address_goes_by_it(folder: Path) -> None:
    [record] = _csv(folder, b"2,Shirt,Blue,https://shop.example/2.jpg")
    image = _decode(record).product.image
    assert image is not None
    assert image.url == "https://shop.example/2.jpg"


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
    numbers = [int(record.key or b"") for record in ProductEvents(folder, limit=10)]
    assert numbers == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]
    assert len(list(ProductEvents(folder, limit=7))) == 7
    assert len(list(ProductEvents(folder, limit=1000))) == 100


def test_a_folder_can_be_read_again_with_a_fresh_tally(folder: Path) -> None:
    reader = _csv(folder, b"1,Shirt,Red,", b"2,Hat")
    assert list(reader) == list(reader)
    assert reader.tally == {"product": 1, "malformed": 1}


def test_a_byte_order_mark_is_no_part_of_the_first_column(folder: Path) -> None:
    (folder / "products.csv").write_bytes(b"\xef\xbb\xbfid,title\r\n1,Shirt\r\n")
    assert [record.key for record in ProductEvents(folder)] == [b"1"]


def test_json_lines_are_read_and_broken_ones_go_out_as_they_came(folder: Path) -> None:
    lines = [
        '{"id": 1, "title": "纯棉T恤", "lang": "zh", "image": "images/1.jpg", "event_version": 5}',
        '{"id": "2", "title":',
        '["3", "a list"]',
        '{"id": "4", "title": "\\ud800"}',
        '{"title": "no id"}',
    ]
    (folder / "products.jsonl").write_text("\n".join(lines) + "\n\n")
    reader = ProductEvents(folder)
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
    reader = ProductEvents(folder)
    first, second = list(reader)
    product = _decode(first).product
    assert product.image is not None
    assert base64.b64decode(product.image.data or "") == _JPEG
    assert not product.attributes
    assert _refused(second)
    assert reader.tally == {"product": 1, "malformed": 1}


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda f: None, "no folder with one of products.csv"),
        (
            lambda f: (f / "products.csv").write_text("title,colour\nShirt,Red\n"),
            "no column of ids; there are: title",
        ),
        (lambda f: (f / "products.csv").write_text("id,words\n1,Shirt\n"), "no column of titles"),
        (lambda f: (f / "products.csv").write_text(""), "names no columns"),
        (lambda f: (f / "products.csv").write_text("id,title\n", "utf-16"), "line 1 is not UTF-8"),
    ],
)
def test_a_folder_without_products_says_what_is_missing(
    folder: Path, prepare: Callable[[Path], Any], said: str
) -> None:
    prepare(folder)
    with pytest.raises(BadSettings, match=re.escape(said)):
        ProductEvents(folder)


def test_a_file_of_events_goes_out_line_by_line_as_it_is(tmp_path: Path) -> None:
    event = built_in.products()[0]
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


# Publishing and training read the same files.


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("products.csv", b"sku,product_name,color\n1,Shoe,Red\n2,Hat,Blue\n"),
        ("products.csv", b"\xef\xbb\xbfSKU;Product Name;color\r\n1;Shoe;Red\r\n2;Hat;Blue\r\n"),
        ("products.tsv", b"color\tname\tuniq_id\nRed\tShoe\t1\n\nBlue\tHat\t2"),
        ("products.csv.gz", b"id,title,color\n1,Shoe,Red\n2,Hat,Blue\n"),
        ("products.jsonl", b'{"id": 1, "title": "Shoe", "color": "Red"}\n{"id": 2, "title": "Hat"}'),
        ("products.jsonl.gz", b'{"sku": "1", "name": "Shoe"}\n{"sku": "2", "name": "Hat"}\n'),
        ("items.jsonl", b'{"id": "1", "text": "Shoe", "tags": {"color": ["Red"]}}\n{"id": 2, "text": "Hat"}'),
    ],
)  # fmt: skip
def test_a_file_that_trains_also_publishes_alone_or_in_its_folder(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for source in (tmp_path, tmp_path / name):
        rows = read_products(source)
        assert [(row.product_id, row.text.title) for row in rows] == [("1", "Shoe"), ("2", "Hat")]
        events = [_decode(record).product for record in records_of(source)]
        assert [(event.product_id, event.title) for event in events] == [("1", "Shoe"), ("2", "Hat")]
    assert dict(rows[0].labels) == ({"color": ("Red",)} if b"color" in content else {})


def test_pictures_in_parquet_are_published_and_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "shop.parquet"
    lines = [{"sku": 1, "image": _JPEG, "use": ["Home", "Work"]}, {"sku": 2, "image": None, "use": None}]
    parquet.write_table(pa.Table.from_pylist(lines), path)
    first, second = read_products(path)
    assert (first.encoded, first.has_picture, second.has_picture) == (_JPEG, True, False)
    assert first.labels == {"use": ("Home", "Work")}
    [whole, bare] = records_of(path)
    image = _decode(whole).product.image
    assert image is not None
    assert image.data == base64.b64encode(_JPEG).decode()
    assert _refused(bare)


def test_what_publishing_sends_as_it_came_training_refuses_by_line(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_bytes(b'id,title\n1,Shoe\n2,"Hat\n3,Cap\n4,"A long\n coat"\n')
    records = list(records_of(tmp_path))
    assert [record.key for record in records] == [b"1", None, b"3", b"4"]
    assert records[1].value == b'2,"Hat'
    with pytest.raises(ValueError, match=r"products\.csv: line 3 is not CSV"):
        read_products(tmp_path)


def test_a_quoted_cell_may_have_many_lines(tmp_path: Path) -> None:
    long = "\n".join(f"line {number}" for number in range(200))
    (tmp_path / "products.csv").write_text(f'id,title,description\n1,Shoe,"{long}"\n2,Hat,\n')
    assert [row.text.description for row in read_products(tmp_path)] == [long, None]
    assert [_decode(record).product.description for record in records_of(tmp_path)] == [long, None]


def test_a_quote_that_is_never_closed_costs_one_row_of_a_long_file(tmp_path: Path) -> None:
    rows = [f"{number},Shoe" for number in range(3000)]
    rows[1] = '1,"Shoe'
    (tmp_path / "products.csv").write_text("\n".join(["id,title", *rows]))
    reader = ProductEvents(tmp_path)
    assert [record.key for record in reader][:3] == [b"0", None, b"2"]
    assert reader.tally == {"product": 2999, "malformed": 1}


def test_a_cell_that_is_no_text_makes_a_record_that_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "products.jsonl"
    path.write_text('{"id": "1", "title": {"en": "Shoe"}}\n{"id": "2", "title": "Hat", "more": {"a": [1]}}\n')
    reader = ProductEvents(path)
    odd, sound = list(reader)
    assert _refused(odd)
    assert json.loads(odd.value or b"") == {"id": "1", "title": {"en": "Shoe"}}
    assert _decode(sound).product.title == "Hat"
    assert reader.tally == {"malformed": 1, "product": 1}


def test_a_described_data_set_is_published_without_its_titles(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("code,headline,size\n1,<UNK>Shoe,L\n2,Boot,M\n")
    (tmp_path / "titles.csv").write_text("id,title\n9,Cap\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.jsonl").write_text('{"id": "3", "title": "Hat", "image": "b.jpg"}\n')
    (tmp_path / "more" / "b.jpg").write_bytes(_JPEG)
    (tmp_path / "dataset.toml").write_text(
        """
        files = [
            {path = "a.csv", id = "code", title = "headline", lang = "en", strip = ["<UNK>"]},
            {path = "more/b.jsonl"},
            {path = "titles.csv", role = "titles"},
        ]
        """
    )
    for source in (tmp_path, tmp_path / "dataset.toml"):
        shoe, boot, hat = (_decode(record).product for record in records_of(source))
        assert (shoe.product_id, shoe.title.strip(), shoe.lang) == ("1", "Shoe", "en")
        assert (boot.title, hat.title, hat.image is not None) == ("Boot", "Hat", True)
    assert [record.key for record in records_of(tmp_path, limit=2)] == [b"1", b"3"]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("events.jsonl", '{"event_id": "1", "title": "no product"}'),
        ("events.jsonl", "no object\n[]\n"),
        ("events.jsonl", ""),
        ("events.ndjson", '{"id": "1", "title": "Shoe"}'),
    ],
)
def test_a_file_of_events_is_told_from_products(tmp_path: Path, name: str, first: str) -> None:
    path = tmp_path / name
    path.write_text(f"{first}\n")
    assert [record.value for record in records_of(path)] == [line.encode() for line in first.splitlines()]


def test_nothing_to_publish_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="does not exist"):
        records_of(tmp_path / "missing")
    (tmp_path / "dataset.toml").write_text("files = 3")
    with pytest.raises(BadSettings, match="files: Input should be a valid list"):
        records_of(tmp_path)
