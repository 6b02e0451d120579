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
from tagstream.dataset.columns import Columns
from tagstream.dataset.description import read_dataset
from tagstream.dataset.induce import induce
from tagstream.dataset.rows import read_products
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
    taxonomy, findings = induce(marketplace, Columns(labels=("price", "kind")), min_rows=3)
    assert [group.name for group in taxonomy.groups] == ["kind", "price"]
    assert ("section", "", "not among --labels") in [(f.column, f.role, f.why) for f in findings]


def test_a_file_without_labels_says_why_each_column_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", ["id", "title", "size"], [[n, f"Shoe {n}", n % 3] for n in range(60)])
    with pytest.raises(BadSettings, match="no column is a label: size: numbers: a measure"):
        induce(path)
    with pytest.raises(BadSettings, match="no column 'colour' for labels"):
        induce(path, Columns(labels=("colour",)))


def test_init_writes_a_file_once_and_says_what_it_chose(photos: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.yaml"
    command = ["init", str(made), "--data", str(photos)]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert result.exit_code == 0, result.exception
    assert "tells of a class, not a product" in result.output
    assert "train with --title none --description none" in result.output
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
