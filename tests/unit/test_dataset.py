"""A data set's description: which files it has, how they are read, and what is wrong with one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tagstream.core.errors import BadSettings
from tagstream.dataset.columns import Columns
from tagstream.dataset.description import DataFile, Dataset, read_dataset, write_dataset
from tagstream.dataset.events import ProductEvents
from tagstream.dataset.rows import read_products, read_rows
from tagstream.dataset.table import read_table

ITEMS = [
    {"id": "1", "text": "红色<UNK>连衣裙", "tags": {"类型": ["裙"], "颜色": ["红色", "黑色"]}},
    {"id": "2", "text": "BRAND牛仔裤", "tags": {"类型": ["裤"], "裤长": ["长裤"]}},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "products.csv").write_text("sku,product_name,color,locale\n1,Red shoe,Red,\n2,Hut,Blau,de\n")
    (tmp_path / "all_titles.csv").write_text("sku,product_name,color\n3,Blue hat,Blue\n")
    lines = (json.dumps(item, ensure_ascii=False) for item in ITEMS)
    (tmp_path / "items.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def described(folder: Path, text: str) -> Path:
    (folder / "dataset.toml").write_text(text, encoding="utf-8")
    return folder / "dataset.toml"


def test_a_folder_without_description_is_a_products_file_and_its_titles_files(folder: Path) -> None:
    assert read_dataset(folder, Columns(brand="none")) == Dataset(
        (
            DataFile(folder / "products.csv", "products", Columns(brand="none")),
            DataFile(folder / "all_titles.csv", "titles", Columns(brand="none", image="none")),
        )
    )
    assert not read_dataset(folder, Columns(title="none")).titles
    assert read_dataset(folder / "items.jsonl") == Dataset((DataFile(folder / "items.jsonl"),))


def test_a_description_says_how_every_file_is_read(folder: Path) -> None:
    (folder / "shop.json").touch()
    path = described(
        folder,
        """
        taxonomy = "shop.json"
        [[files]]
        path = "products.csv"
        title = "product_name"
        brand = "none"
        lang = "en"
        labels = ["color"]
        [[files]]
        path = "items.jsonl"
        labels = ["类型", "颜色"]
        labels_from = "tags"
        lang = "zh"
        strip = ["<UNK>", "BRAND"]
        [[files]]
        path = "all_titles.csv"
        role = "titles"
        """,
    )
    dataset = read_dataset(folder)
    assert dataset == read_dataset(path)
    assert dataset.taxonomy == folder / "shop.json"
    assert [file.path.name for file in dataset.titles] == ["all_titles.csv"]
    with pytest.raises(
        ValueError, match=r"items\.jsonl: line 1: .*products\.csv, line 2, has the id '1' too"
    ):
        read_products(folder)
    shoe, hut = read_rows(dataset.files[0])
    assert (shoe.text.title, shoe.text.lang, dict(shoe.labels)) == ("Red shoe", "en", {"color": ("Red",)})
    assert hut.text.lang == "de"
    dress, jeans = read_rows(dataset.files[1])
    assert (dress.text.title, dress.text.lang, jeans.text.title) == ("红色 连衣裙", "zh", " 牛仔裤")
    assert dress.labels == {"类型": ("裙",), "颜色": ("红色", "黑色")}
    assert jeans.labels == {"类型": ("裤",)}, "a group without a label is unknown"


def test_objects_of_labels_are_found_without_a_description(folder: Path) -> None:
    (folder / "products.csv").unlink()
    dress, jeans = read_products(folder)
    assert dress.labels == {"类型": ("裙",), "颜色": ("红色", "黑色")}
    assert jeans.labels == {"类型": ("裤",), "裤长": ("长裤",)}
    lines = '{"title": "Shoe", "tags": {"year": "2011", "brand": ["Acme"]}, "size": "L"}'
    (folder / "products.jsonl").write_text(lines)
    assert [dict(row.labels) for row in read_products(folder)] == [{"year": ("2011",), "brand": ("Acme",)}]
    with pytest.raises(ValueError, match="no column of objects 'size' for labels_from"):
        read_products(folder, columns=Columns(labels_from="size"))
    [row] = read_products(folder, columns=Columns(labels_from="none"))
    assert row.labels == {"size": ("L",)}


def test_a_file_without_any_object_has_no_columns(folder: Path) -> None:
    (folder / "products.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no column of titles, descriptions or pictures"):
        read_products(folder / "products.jsonl")


def test_the_command_line_goes_before_the_description_of_products(folder: Path) -> None:
    described(
        folder,
        """
        files = [
            {path = "products.csv", id = "sku", title = "none", separators = "/"},
            {path = "all_titles.csv", role = "titles", id = "sku"},
        ]
        """,
    )
    products, titles = read_dataset(folder, Columns(title="product_name")).files
    assert products.columns == Columns(id="sku", title="product_name", separators="/")
    assert titles.columns == Columns(id="sku")


def test_a_description_is_written_as_it_is_read(folder: Path) -> None:
    (folder / "made").mkdir()
    (folder / "made" / 'a "b".yaml').touch()
    columns = Columns(id="sku", lang_column="locale", lang="en", labels=["color"], strip=['"', "\\"])
    dataset = Dataset(
        (
            DataFile(folder / "products.csv", "products", columns),
            DataFile(folder / "all_titles.csv", "titles"),
        ),
        taxonomy=folder / "made" / 'a "b".yaml',
    )
    write_dataset(folder / "made" / "dataset.toml", dataset)
    found = read_dataset(folder / "made")
    assert [file.path.resolve() for file in found.files] == [file.path for file in dataset.files]
    assert [(file.role, file.columns) for file in found.files] == [
        ("products", columns),
        ("titles", Columns()),
    ]
    assert found.taxonomy is not None
    assert found.taxonomy.samefile(folder / "made" / 'a "b".yaml')


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("files = [", r"dataset\.toml is no TOML"),
        ("", r"files: Field required"),
        ("files = []", r'files: none has the role "products"'),
        ("[[files]]\nrole = 'titles'", r"files\[1\]\.path: Field required"),
        (
            "[[files]]\npath = 'products.csv'\n[[files]]\npath = 'missing.csv'",
            r"files\[2\]\.path: no such file: missing\.csv",
        ),
        ("[[files]]\npath = 'products.csv'\nrole = 'test'", r"files\[1\]\.role: Input should be 'products'"),
        ("[[files]]\npath = 'products.csv'\ntilte = 'x'", r"files\[1\]\.tilte: Extra inputs"),
        (
            "[[files]]\npath = 'products.csv'\nlabels = 'x'",
            r"files\[1\]\.labels: Input should be a valid list",
        ),
        ("taxonomy = 'x.json'\n[[files]]\npath = 'products.csv'", r"taxonomy: no such file: x\.json"),
    ],
)
def test_what_is_wrong_in_a_description_is_named_by_its_key(folder: Path, text: str, complaint: str) -> None:
    described(folder, text)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_dataset(folder)
    assert "dataset.toml" in str(caught.value)


def test_a_dot_in_a_csv_header_is_a_letter_like_others(tmp_path: Path) -> None:
    file = tmp_path / "products.csv"
    file.write_text("id,title,colour,colour.1,brand,brand.country\n1,Cap,Red,Dark,Acme,IN\n")
    header = read_table(file).columns
    assert Columns().found_in(header).labels == ["colour", "colour.1", "brand.country"]
    [row] = read_products(file)
    assert row.labels == {"colour": ("Red",), "colour.1": ("Dark",), "brand.country": ("IN",)}


def test_a_description_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("id,title,colour\n1,Cap,Red\n")
    description = tmp_path / "dataset.toml"
    description.write_text('\ufeff[[files]]\npath = "products.csv"\nrole = "products"\n', encoding="utf-8")
    assert [file.role for file in read_dataset(description).files] == ["products"]


@pytest.mark.parametrize(("line", "key"), [('lang = "language"', "lang"), ('strip = [""]', "strip")])
def test_a_language_that_is_none_and_an_empty_mark_are_refused(tmp_path: Path, line: str, key: str) -> None:
    (tmp_path / "products.csv").write_text("id,title,colour\n1,Cap,Red\n")
    description = tmp_path / "dataset.toml"
    description.write_text(f'[[files]]\npath = "products.csv"\nrole = "products"\n{line}\n')
    with pytest.raises(ValueError, match=rf"files\[1\]\.{key}"):
        read_dataset(description)


@pytest.mark.parametrize("name", ["products.csv.gz", "products.parquet"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not what its name says")
    with pytest.raises(ValueError, match=name):
        read_products(tmp_path / name)


@pytest.mark.parametrize("name", ["products.csv.gz", "products.jsonl.gz"])
def test_a_file_that_was_cut_off_is_named_in_training_and_publishing(tmp_path: Path, name: str) -> None:
    lines = [f'{{"id": "{n}", "title": "Cap {n}", "colour": "Red"}}' for n in range(3000)]
    if "csv" in name:
        lines = ["id,title,colour", *(f"{n},Cap {n},Red" for n in range(3000))]
    whole = gzip.compress("\n".join(lines).encode())
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=name):
        read_products(tmp_path / name)
    with pytest.raises(BadSettings, match=name):
        list(ProductEvents(tmp_path / name))
