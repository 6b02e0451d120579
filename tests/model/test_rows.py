"""Anyone's products file: which column means what, ids, labels through a taxonomy, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tagstream.core.taxonomy import Group, Taxonomy, Value, versioned
from tagstream.dataset.columns import Columns
from tagstream.dataset.induce import induce_rows, learnable
from tagstream.dataset.rows import read_products, unknown_labels
from tagstream.dataset.split import near_duplicate_groups
from tagstream.dataset.training_set import training_set

TAXONOMY = Taxonomy.model_validate(
    {
        "taxonomy_version": "t",
        "groups": [
            {
                "name": "colour",
                "values": [
                    {"value": "Red", "names": {"zh": "红色"}},
                    {"value": "Navy", "replaced_by": "Blue"},
                    {"value": "Blue"},
                    {"value": "Multi", "retired": True},
                ],
            },
            {"name": "use", "kind": "multi", "values": [{"value": "Home"}, {"value": "Work"}]},
        ],
    }
)


def labels(path: Path, **options: object) -> list[dict[str, tuple[str, ...]]]:
    return [dict(row.labels) for row in read_products(path, **options)]  # type: ignore[arg-type]


def write(folder: Path, text: str, name: str = "products.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffSKU,Product Name,colour\r\n1,Shoe,Red\r\n2,\"A \"\"big\"\" hat,\r\nred\",Blue\r\n",
        'sku;name;colour\n1;Shoe;Red\n\n2;"A ""big"" hat,\r\nred";Blue\n',
        'Colour\tsku\ttitle\nRed\t1\tShoe\nBlue\t2\t"A ""big"" hat,\r\nred"',
    ],
)  # fmt: skip
def test_any_csv_is_read_by_its_header(tmp_path: Path, text: str) -> None:
    plain, zipped = write(tmp_path, text), tmp_path / "zipped.csv.gz"
    zipped.write_bytes(gzip.compress(text.encode()))
    for path in (plain, zipped):
        rows = read_products(path)
        assert [(row.product_id, row.text.title) for row in rows] == [
            ("1", "Shoe"),
            ("2", 'A "big" hat,\r\nred'),
        ]
        assert [next(iter(row.labels.values())) for row in rows] == [("Red",), ("Blue",)]


def test_jsonl_and_parquet_are_read_like_csv(tmp_path: Path) -> None:
    lines = [
        {"id": 1, "title": "Shoe", "use": ["Home", "Work"], "colour": None},
        {"id": 2, "title": "Hat", "colour": "Red"},
    ]
    jsonl = write(tmp_path, "\n".join(map(json.dumps, lines)), "products.jsonl")
    table = tmp_path / "p.parquet"
    parquet.write_table(pa.Table.from_pylist(lines), table)
    for path in (jsonl, table, tmp_path):
        rows = read_products(path, taxonomy=TAXONOMY)
        assert [row.product_id for row in rows] == ["1", "2"]
        assert [dict(row.labels) for row in rows] == [{"use": ("Home", "Work")}, {"colour": ("Red",)}]


def test_named_columns_go_before_found_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "id,title,code,headline,brand,colour,year\n1,a,x,Shoe,Acme,Red,2011\n")
    [row] = read_products(
        path, columns=Columns(id="code", title="headline", brand="none", labels=["brand", "year"])
    )
    assert (row.product_id, row.text.title, row.text.brand) == ("x", "Shoe", None)
    assert row.labels == {"brand": ("Acme",), "year": ("2011",)}


def test_sets_without_titles_or_without_pictures_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    pictures = write(tmp_path, "id,image,colour\n1,a.jpg,Red\n2,https://example.com/b.jpg,Blue\n3,,Red\n")
    rows = read_products(pictures)
    assert [row.encoded for row in rows] == [b"picture", None, None]
    assert [row.image is None for row in rows] == [False, True, True]
    assert {row.text.title for row in rows} == {""}
    [row] = read_products(write(tmp_path, "id,description,colour\n1,A red shoe,Red\n", "t.csv"))
    assert (row.text.title, row.text.description, row.image) == ("", "A red shoe", None)


def test_the_language_is_told_by_the_column_or_the_text(tmp_path: Path) -> None:
    path = write(tmp_path, "id,title,lang\n1,红色连衣裙,\n2,Red dress,\n3,Rotes Kleid,de\n")
    assert [row.text.lang for row in read_products(path)] == ["zh", "en", "de"]


def test_a_row_without_an_id_gets_one_that_outlives_a_move(tmp_path: Path) -> None:
    first = read_products(write(tmp_path, "id,title\n,Shoe\n,Hat\n,Shoe\nown,Cap\n"))
    moved = read_products(write(tmp_path, "title\nNew\nHat\nShoe\n"))
    ids = {row.text.title: row.product_id for row in moved}
    assert len({row.product_id for row in first}) == 4
    assert [row.product_id for row in first[:2]] == [ids["Shoe"], ids["Hat"]]
    assert first[3].product_id == "own"


def test_labels_are_taken_in_any_spelling_and_old_ones_for_what_replaced_them(tmp_path: Path) -> None:
    cells = ["RED", " 红色 ", "navy", "Multi", ""]
    path = write(tmp_path, "id,title,colour\n" + "".join(f"{n},x,{cell}\n" for n, cell in enumerate(cells)))
    assert [found.get("colour") for found in labels(path, taxonomy=TAXONOMY)] == [
        ("Red",), ("Red",), ("Blue",), None, None,
    ]  # fmt: skip


def test_only_groups_that_take_several_values_are_split(tmp_path: Path) -> None:
    path = write(tmp_path, "id,title,use,colour\n1,x,home|Work; home,Red\n")
    assert labels(path, taxonomy=TAXONOMY) == [{"use": ("Home", "Work"), "colour": ("Red",)}]
    assert labels(path) == [{"use": ("home|Work; home",), "colour": ("Red",)}]
    path = write(tmp_path, 'id,title,use\n1,x,"Home, Work"\n')
    assert labels(path, taxonomy=TAXONOMY, columns=Columns(separators=",")) == [{"use": ("Home", "Work")}]


def test_a_label_outside_the_taxonomy_names_its_lines_or_is_kept_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "id,title,colour\n1,x,Red\n2,x,Mauve\n3,x,Mauve\n4,x,Teal\n")
    with pytest.raises(
        ValueError, match=r"taxonomy t: line 3: colour=Mauve; line 4: .*; line 5: colour=Teal"
    ):
        read_products(path, taxonomy=TAXONOMY)
    kept = read_products(path, taxonomy=TAXONOMY, unknown="keep")
    assert unknown_labels(kept, TAXONOMY) == {("colour", "Mauve"): 2, ("colour", "Teal"): 1}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("id,title\n1,a\n2,b\n1,c\n", "line 4: line 2 has the id '1' too"),
        ("id,title\n1,a,b\n", "line 2 has 3 fields, the header 2"),
        ('id,title\n1,"a\n', "line 2 is not CSV: unexpected end"),
        ("id,title,id\n", "'id' is there twice"),
        ("", "names no columns"),
        ("id,words\n1,a\n", "no column of titles, descriptions or pictures; there are: id, words"),
    ],
)
def test_a_file_that_cannot_be_taken_at_its_word_is_refused_by_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=r"products\.csv") as caught:
        read_products(write(tmp_path, text))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (Columns(title="words"), "no column 'words' for title"),
        (Columns(labels=["size"]), "no column 'size' for labels"),
    ],
)
def test_a_named_column_has_to_be_there(tmp_path: Path, columns: Columns, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_products(write(tmp_path, "id,title\n1,a\n"), columns=columns)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", b"id,title\n1,\xff\n", "not UTF-8"),
        ("a.csv", b"\xff\xfei", "line 1 is not UTF-8"),
        ("a.jsonl", b'{"id": 1}\n[2]\n', "line 2 is not a JSON object"),
        ("a.jsonl", b'{"id": 1}\n{"id": \n', "line 2 is not JSON"),
        ("a.jsonl", b'{"title": "x", "colour": {"a": 1}}\n', "line 1: colour is neither text nor"),
        ("a.jsonl", b'{"title": "x", "colour": ["Red", "Blue"]}\n', "line 1: colour has 2 values"),
    ],
)  # fmt: skip
def test_what_is_not_text_is_refused_by_line(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_products(tmp_path / name, taxonomy=TAXONOMY)


def test_a_place_without_products_or_groups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file, and no folder with one of products\.csv"):
        read_products(tmp_path / "missing")
    with pytest.raises(ValueError, match="no column is a group of the taxonomy"):
        read_products(write(tmp_path, "id,title,size\n1,x,XL\n"), taxonomy=TAXONOMY)


def test_classes_with_one_row_and_groups_with_one_class_are_not_learned() -> None:
    rows = [{"colour": ("Red",), "use": ("Home",)}] * 10 + [{"colour": ("Blue",)}] * 10 + [{"use": ("Work",)}]
    learned, left_out = learnable(TAXONOMY, rows)
    assert [group.name for group in learned.groups] == ["colour"]
    assert [value.value for value in learned.groups[0].values] == ["Red", "Blue"]
    assert learned.groups[0].former == {"Navy": "Blue"}
    assert left_out == ["use: 1 of its values have 10 labelled rows, two are needed"]
    assert len(learnable(TAXONOMY, rows, min_rows=1)[0].groups) == 2


def test_a_value_with_too_few_rows_is_known_where_it_names_a_learned_one() -> None:
    colours = ("Red", "Blue", "Sky Blue", "Teal")
    taxonomy = versioned([Group(name="colour", values=tuple(Value(value=colour) for colour in colours))])
    rows = [{"colour": ("Red",)}, {"colour": ("Blue",)}] * 10 + [{"colour": ("Sky Blue",)}]
    assert learnable(taxonomy, rows)[0].group("colour").not_learned == ("Sky Blue",)


def test_where_nothing_can_be_learned_that_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        learnable(TAXONOMY, [{"colour": ("Red",)}] * 20)
    with pytest.raises(ValueError, match="nothing to learn"):
        induce_rows([])


def test_a_set_that_leaves_a_part_empty_is_refused(tmp_path: Path) -> None:
    """All titles are the same, so all rows fall into one part."""
    same = "id,title,colour\n" + "".join(f"{n},shoe,{'Red' if n % 2 else 'Blue'}\n" for n in range(100))
    with pytest.raises(ValueError, match="too few to be cut"):
        training_set(read_products(write(tmp_path, same)), [], seed=0)


def test_rows_with_neither_title_nor_picture_are_like_no_other() -> None:
    names = near_duplicate_groups(["", "", "Shoe", " shoe"], [None, None, None, "p"], ["a", "b", "c", "d"])
    assert names == ["row a", "row b", "shoe", "shoe"]
    assert len(set(near_duplicate_groups(["", "", ""], [None] * 3))) == 3
