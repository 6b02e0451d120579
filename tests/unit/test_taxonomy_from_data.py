"""`taxonomy init` on files of the kinds that shops have."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tagstream.cli.taxonomy import app
from tagstream.core.errors import BadSettings
from tagstream.core.ports import TextFields
from tagstream.dataset.columns import Columns
from tagstream.dataset.description import read_dataset
from tagstream.dataset.induce import apart, induce, induce_rows, respelt
from tagstream.dataset.names import named
from tagstream.dataset.rows import Row, read_products
from tagstream.taxonomy.files import read_taxonomy


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def marketplace(tmp_path: Path) -> Path:
    """Text only; categories in two levels, labels with holes, several occasions in a cell."""
    rng = random.Random(1)
    trees = {"Shirts": "Clothing", "Jeans": "Clothing", "Rings": "Jewellery", "Mugs": "Kitchen"}
    rows = []
    for number in range(300):
        kind = rng.choice([*trees])
        occasion = "|".join(rng.sample(["Casual", "Party", "Formal"], rng.choice([1, 1, 2])))
        colour = rng.choice(["Black", "black", "White", "Navy Blue", ""])
        title = f"Acme {number} {colour} {kind}"
        prose = f"{title}. Made of good things by people who know what they do, number {number % 150}."
        link = f"http://shop.example/{kind}"
        rows.append(
            [f"sku-{number}", title, prose, trees[kind], kind, colour, occasion, number % 90 + 10, link]
        )
    rows[0][5] = "Chartreuse"
    header = ["uniq_id", "product_name", "details", "section", "kind", "colour", "occasion", "price", "url"]
    return write(tmp_path / "marketplace.csv", header, rows)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures with the class's name for a title, as photo collections have."""
    departments = {"Apple": "Fruit", "Pear": "Fruit", "Milk": "Packages"}
    fine = {f"{coarse} {n}": coarse for coarse in departments for n in range(3)}
    rows = [
        [
            f"{name}/{n}",
            name,
            f"What {name} is.",
            departments[fine[name]],
            fine[name],
            name,
            f"images/{name}-{n}.jpg",
        ]
        for name in fine
        for n in range(12)
    ]
    header = ["id", "title", "description", "department", "coarse", "fine", "image"]
    return write(tmp_path / "photos.csv", header, rows)


def test_labels_are_told_from_ids_prose_measures_and_addresses(marketplace: Path) -> None:
    taxonomy, findings = induce(marketplace)
    why = {finding.column: (finding.role, finding.why) for finding in findings}
    assert {column: role for column, (role, _) in why.items()} == {
        "uniq_id": "id", "product_name": "title", "details": "", "section": "label", "kind": "label",
        "colour": "label", "occasion": "label", "price": "", "url": "",
    }  # fmt: skip
    assert "prose" in why["details"][1]
    assert "measure" in why["price"][1]
    assert "addresses" in why["url"][1]
    assert "1 scarcer or longer ones left out (1 rows)" in why["colour"][1]
    colours = [value.value for value in taxonomy.group("colour").values]
    assert sorted(colours) in (["Black", "Navy Blue", "White"], ["Navy Blue", "White", "black"])
    assert taxonomy.group("occasion").kind == "multi"
    assert {value.value for value in taxonomy.group("occasion").values} == {"Casual", "Party", "Formal"}
    assert taxonomy.group("kind").parent_group == "section"
    assert taxonomy.group("kind").by_value["Rings"].parent == "Jewellery"
    assert taxonomy.group("colour").parent_group is None


def test_what_was_made_reads_the_file_it_was_made_of(marketplace: Path) -> None:
    taxonomy, _ = induce(marketplace)
    with pytest.raises(ValueError, match="line 2: colour=Chartreuse"):
        read_products(marketplace, taxonomy=taxonomy)
    rows = read_products(marketplace, taxonomy=taxonomy, unknown="keep")
    assert {group for row in rows for group in row.labels} == {"section", "kind", "colour", "occasion"}
    assert {len(row.labels["occasion"]) for row in rows} == {1, 2}
    everything, _ = induce(marketplace, min_rows=1)
    assert len(read_products(marketplace, taxonomy=everything)) == 300


def test_a_title_that_only_names_the_class_is_left_out(photos: Path) -> None:
    taxonomy, findings = induce(photos)
    roles = {finding.column: finding.role for finding in findings}
    assert (roles["title"], roles["description"], roles["image"]) == ("", "", "image")
    assert [group.parent_group for group in taxonomy.groups] == [None, "department", "coarse"]
    assert taxonomy.group("fine").by_value["Milk 2"].parent == "Milk"
    told, _ = induce(photos, Columns(title="title"))
    assert told == taxonomy


def test_named_labels_are_taken_whatever_they_look_like(marketplace: Path) -> None:
    taxonomy, findings = induce(marketplace, Columns(labels=["price", "kind"]), min_rows=3)
    assert [group.name for group in taxonomy.groups] == ["kind", "price"]
    assert ("section", "", "not among --labels") in [(f.column, f.role, f.why) for f in findings]


def test_a_file_without_labels_says_why_each_column_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", ["id", "title", "size"], [[n, f"Shoe {n}", n % 3] for n in range(60)])
    with pytest.raises(BadSettings, match="no column is a label: size: numbers: a measure"):
        induce(path)
    with pytest.raises(BadSettings, match="no column 'colour' for labels"):
        induce(path, Columns(labels=["colour"]))


def test_init_writes_a_file_once_and_says_what_it_chose(photos: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.yaml"
    command = ["init", str(made), "--data", str(photos)]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert result.exit_code == 0, result.exception
    assert "tells of a class, not a product" in result.output
    assert "without title and description: dataset.toml can name their columns" in result.output
    assert len(read_taxonomy(made).groups) == 3
    again = CliRunner().invoke(app, command)
    assert "is there already" in str(again.exception)
    assert CliRunner().invoke(app, [*command, "--overwrite", "--labels", "coarse"]).exit_code == 0
    assert [group.name for group in read_taxonomy(made).groups] == ["coarse"]


def test_init_describes_the_data_beside_the_taxonomy(marketplace: Path, tmp_path: Path) -> None:
    write(tmp_path / "titles.csv", ["uniq_id", "product_name", "kind"], [["sku-x", "Acme cup", "Mugs"]])
    data = marketplace.rename(tmp_path / "products.csv")
    made = tmp_path / "made"
    made.mkdir()
    command = ["init", str(made / "shop.yaml"), "--data", str(tmp_path), "--separators", "|"]
    assert "dataset.toml: what --data takes" in CliRunner(env={"COLUMNS": "200"}).invoke(app, command).output
    dataset = read_dataset(made)
    assert dataset.taxonomy == made / "shop.yaml"
    products, titles = dataset.files
    assert products.path.samefile(data)
    assert products.columns == Columns(id="uniq_id", title="product_name", separators="|")
    assert titles.columns == Columns(id="uniq_id", title="product_name", image="none", separators="|")
    taxonomy = read_taxonomy(dataset.taxonomy)
    rows = read_products(made, taxonomy=taxonomy, unknown="keep")
    assert {group for row in rows for group in row.labels} == {"section", "kind", "colour", "occasion"}
    written = (made / "dataset.toml").read_text()
    again = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*command, "--overwrite"])
    assert "dataset.toml is there already" in again.output
    assert (made / "dataset.toml").read_text() == written


def test_the_description_leaves_out_texts_that_name_the_class(photos: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["init", str(tmp_path / "t.json"), "--data", str(photos)]).exit_code == 0
    [file] = read_dataset(tmp_path).files
    assert file.columns == Columns(id="id", title="none", description="none", image="image")
    assert {row.text.title for row in read_products(tmp_path)} == {""}
    described = CliRunner().invoke(app, ["init", str(tmp_path / "u.json"), "--data", str(tmp_path)])
    assert described.exit_code == 0, "a described data set is read as described"


def test_display_names_of_a_described_data_set_are_in_its_taxonomy(marketplace: Path, tmp_path: Path) -> None:
    (tmp_path / "names.yaml").write_text("kind:\n  values:\n    Mugs: {de: Becher}\n", encoding="utf-8")
    described = f"names = 'names.yaml'\n[[files]]\npath = '{marketplace.name}'\n"
    (tmp_path / "dataset.toml").write_text(described, encoding="utf-8")
    made = tmp_path / "made"
    made.mkdir()
    result = CliRunner().invoke(app, ["init", str(made / "shop.yaml"), "--data", str(tmp_path)])
    assert result.exit_code == 0, result.exception
    taxonomy = read_taxonomy(made / "shop.yaml")
    assert taxonomy.group("kind").by_value["Mugs"].names == {"de": "Becher"}
    assert read_dataset(made).names == made / "../names.yaml"


def labelled(count: int, title: str = "Shoe", **labels: str) -> list[Row]:
    return [Row("", TextFields(title), {name: (label,) for name, label in labels.items()})] * count


def test_parents_are_what_most_rows_say(tmp_path: Path) -> None:
    rows = labelled(199, master="Footwear", sub="Shoes") + labelled(1, master="Apparel", sub="Shoes")
    rows += labelled(100, master="Apparel", sub="Shirts") + labelled(100, master="Apparel", sub="Trousers")
    rows += labelled(20, sub="Topwear") + labelled(20, "鞋", 颜色="红色") + labelled(20, "鞋", 颜色="绿色")
    (tmp_path / "names.yaml").write_text(
        "sub:\n  names: {en: Kind}\n  values:\n    Shoes: {zh: 鞋}\n    No: {zh: 否}\n"
    )
    taxonomy = named(induce_rows(rows)[0], tmp_path / "names.yaml")

    kinds = taxonomy.group("sub")
    assert kinds.parent_group == "master"
    assert kinds.by_value["Shoes"].parent == "Footwear"
    assert kinds.by_value["Topwear"].parent is None
    assert kinds.by_value["Shoes"].names == {"zh": "鞋"}
    assert kinds.names == {"en": "Kind"}
    assert kinds.applies_to("en")
    assert not kinds.applies_to("zh")
    assert taxonomy.group("颜色").langs == ("zh",)
    assert induce_rows(rows[:400])[0].group("sub").langs == (), "data of one language say nothing of others"


def test_a_parent_with_too_few_rows_is_none() -> None:
    rows = labelled(100, sub="Shoes", master="Footwear") + labelled(100, sub="Shirts", master="Apparel")
    rows += labelled(100, sub="Trousers", master="Apparel")
    rows += labelled(8, sub="Bottles", master="Bottles") + labelled(2, sub="Bottles", master="Apparel")
    kinds = induce_rows(rows)[0].group("sub")
    assert (kinds.parent_group, kinds.by_value["Bottles"].parent) == ("master", None)


def test_labels_too_scarce_to_be_learned_are_known_where_they_name_a_learned_one() -> None:
    rows = [row for colour in ("Green", "Black") for row in labelled(10, colour=colour)]
    rows += labelled(1, colour="Sea Green") + labelled(1, colour="Teal")
    assert induce_rows(rows)[0].group("colour").not_learned == ("Sea Green",)


def test_cells_of_rows_are_taken_apart_and_spelt_as_most_are() -> None:
    rows = labelled(90, use="Party", colour="Black") + labelled(9, use="Casual|Party", colour="black")
    rows += labelled(30, use="Casual", colour="White|Gold") + labelled(3000, colour="White")
    rows = apart(rows, "|;")
    taxonomy, findings = induce_rows(rows)
    assert {group.name: group.kind for group in taxonomy.groups} == {"use": "multi", "colour": "single"}
    assert findings[0].why == "multi (9 cells have several), 2 values in 129 rows"
    assert [dict(row.labels) for row in respelt(rows, taxonomy)[89:91]] == [
        {"use": ("Party",), "colour": ("Black",)},
        {"use": ("Casual", "Party"), "colour": ("Black",)},
    ]


def test_told_labels_are_taken_whatever_they_look_like_but_need_two_values() -> None:
    rows = labelled(10, size="38", made="2011") + labelled(10, size="39", made="2011")
    assert [group.name for group in induce_rows(rows, told={"size", "made"})[0].groups] == ["size"]
    with pytest.raises(ValueError, match=r"nothing to learn, as .*: size: numbers: a measure"):
        induce_rows(rows)
