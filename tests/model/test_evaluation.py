from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from jobs import evaluate as job
from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value
from tagstream.model.evaluate import bootstrap_half_width, calibration_error, macro_f1, report
from tagstream.model.masking import LabelWords
from tagstream.model.rows import Row, read_products


def test_macro_f1_leaves_out_classes_without_a_row_and_keeps_false_positives() -> None:
    truth = ["Red", "Red", "Blue", "Rare"]
    predicted = ["Red", "Blue", "Blue", "Blue"]

    # Red: 1 hit of 2 rows, said once: 2/3. Blue: 1 hit, said 3 times: 2/4. Green has no row.
    assert macro_f1(truth, predicted, ["Red", "Blue", "Green"]) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    confidence = np.array([0.9] * 10 + [0.6] * 10)
    right = np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)

    assert calibration_error(confidence, right) == pytest.approx(0.15)


def test_unknown_labels_are_left_out_of_a_report_and_foreign_ones_are_not() -> None:
    taxonomy = Taxonomy(
        taxonomy_version="1", groups=(Group(name="colour", values=(Value(value="Red"), Value(value="Blue"))),)
    )
    rows = [Row(str(n), TextFields("x"), labels) for n, labels in enumerate(
        [{"colour": ("Red",)}, {"colour": ("Mauve",)}, {}])]  # fmt: skip
    scores = np.array([[0.9, 0.1]] * 3, np.float32)
    figures = report(scores, rows, taxonomy, {"colour": ("Red", "Blue")})["groups"]["colour"]

    assert figures["rows"] == 2
    assert figures["accuracy"] == 0.5
    assert figures["macro_f1"] == pytest.approx(2 / 3)


def test_near_duplicates_widen_the_interval() -> None:
    right = np.tile(np.random.default_rng(0).random(40) < 0.5, (10, 1)).T.ravel()
    alone = bootstrap_half_width(lambda rows: float(right[rows].mean()), [str(n) for n in range(400)])
    grouped = bootstrap_half_width(lambda rows: float(right[rows].mean()), [str(n // 10) for n in range(400)])

    assert grouped > 2 * alone > 0


def test_masking_deletes_label_words_whatever_the_rows_own_label() -> None:
    words = LabelWords(["Navy Blue", "Tshirts", "Free Items", "Sports Shoes", "白色", "米白色"])

    assert (
        words.hide(TextFields("Nike Men's Navy-Blue T-Shirt and free watch")).title
        == "nike s navyblue and free watch"
    )
    assert words.hide(TextFields("Puma Boys Blue Sport Shoe")).title == "puma"
    assert words.hide(TextFields("Womens navy tshirt")).title == ""
    assert words.hide(TextFields("米白色棉T恤")).title == "棉t恤"


def test_masking_has_a_hash_of_its_list() -> None:
    assert LabelWords(["Red"]).content_hash() == LabelWords(["Red", "red"]).content_hash()
    assert LabelWords(["Red"]).content_hash() != LabelWords(["Blue"]).content_hash()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Titles with an empty label, a label that nobody was taught, and pictures that are not there."""
    lines = [
        ("1", "Nike Men Black Running Shoes", "Men", "Black", "images/1.jpg"),
        ("2", "Puma Women Pink T-shirt", "Women", "", "images/2.jpg"),
        ("3", "Levis Men Blue Jeans", "Men", "Ultramarine", ""),
    ]
    with (tmp_path / "products.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "title", "gender", "baseColour", "image"), *lines])
    return tmp_path


def _run(*arguments: str) -> None:
    app = typer.Typer()
    app.command()(job.main)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_the_champion_is_evaluated_on_any_folder_with_these_columns(shop: Path) -> None:
    _run("--data", str(shop), "--json", str(shop / "report.json"))
    result = json.loads((shop / "report.json").read_text())

    assert set(result["groups"]) == {"gender", "baseColour"}
    assert result["groups"]["gender"] == {
        "rows": 3,
        "accuracy": 1.0,
        "macro_f1": 1.0,
        "ece": pytest.approx(0, abs=0.2),
    }
    assert result["groups"]["baseColour"]["rows"] == 2
    assert result["groups"]["baseColour"]["accuracy"] == 0.5
    assert result["spec_hash"] is None


def test_a_spec_chooses_rows_and_classes_and_leaves_its_hash(shop: Path) -> None:
    spec = {"test_ids": ["1"], "classes": {"gender": ["Men"], "baseColour": ["Black"]}, "seed": 0}
    (shop / "spec.json").write_text(json.dumps(spec))
    _run(
        "--data",
        str(shop),
        "--spec",
        str(shop / "spec.json"),
        "--mask-label-words",
        "--json",
        str(shop / "report.json"),
    )
    result = json.loads((shop / "report.json").read_text())

    assert result["rows"] == 1
    assert result["masked"]
    assert result["spec_hash"]
    assert result["mask_hash"]


def test_a_file_without_titles_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("sku,name\n1,Shoe\n")

    with pytest.raises(ValueError, match="needs the columns id and title"):
        read_products(tmp_path)
