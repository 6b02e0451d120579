"""Figures that can be checked by hand, the slices, and the job over a folder of products."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from jobs import evaluate as job
from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.events import ImageUse, Tag
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value
from tagstream.dataset.rows import Row, read_products
from tagstream.evaluation import measures
from tagstream.evaluation.comparison import Candidate, EmptySlice, difference, measure_slice
from tagstream.evaluation.figures import PartFigures, by_frequency, report, value_figures
from tagstream.evaluation.measures import Judged, judge
from tagstream.model.pictures import Frame, decode_all
from tagstream.text.masking import LabelWords, label_words
from tests.support.plain_figures import accuracy, calibration_error, macro_f1

COLOURS = ("Red", "Blue", "Green")
TAXONOMY = Taxonomy(
    taxonomy_version="1",
    groups=(
        Group(name="colour", values=tuple(Value(value=name) for name in COLOURS)),
        Group(name="pattern", kind="multi", values=(Value(value="Dots"), Value(value="Stripes"))),
    ),
)


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
    figures = report(scores, rows, taxonomy, {"colour": ("Red", "Blue")}).groups["colour"]

    assert figures.rows == 2
    assert figures.accuracy == 0.5
    assert figures.macro_f1 == pytest.approx(2 / 3)


def test_near_duplicates_widen_the_interval() -> None:
    right = np.tile(np.random.default_rng(0).random(40) < 0.5, (10, 1)).T.ravel()
    alone, grouped = (
        measures.interval(
            right.mean(), measures.resampled([str(n // size) for n in range(400)], 200) @ right / 400
        )
        for size in (1, 10)
    )

    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0]) > 0


@pytest.fixture
def judged() -> Judged:
    """300 rows of a single-choice group, answered well but not always; some labels are unknown or foreign."""
    rng = np.random.default_rng(3)
    labels = [[name] for name in rng.choice([*COLOURS, "Mauve"], 300, p=[0.5, 0.3, 0.15, 0.05])]
    labels[7] = []
    scores = rng.dirichlet([0.7] * 3, 300)
    for row, of_row in enumerate(labels):
        if of_row and of_row[0] in COLOURS:
            scores[row, COLOURS.index(of_row[0])] += 0.5
    return judge(scores / scores.sum(axis=1, keepdims=True), labels, TAXONOMY.groups[0], COLOURS)


def _plain(judged: Judged) -> dict[str, float]:
    said = [judged.names[at] for at in judged.answers.argmax(axis=1)]
    truth = [judged.names[int(row.argmax())] if row.any() else "Mauve" for row in judged.labels]
    return {
        "accuracy": accuracy(truth, said),
        "macro_f1": macro_f1(truth, said, COLOURS),
        "ece": calibration_error(judged.confidence[:, 0], judged.right[:, 0]),
    }


def _weighted(judged: Judged, weights: np.ndarray) -> dict[str, float]:
    return {
        "accuracy": float(measures.accuracy_of(judged, weights)[0]),
        "macro_f1": float(measures.macro_f1_of(judged, weights)[0]),
        "ece": float(measures.calibration_of(judged, weights)[0]),
    }


def test_a_figure_over_weights_is_the_figure_over_rows_that_often(judged: Judged) -> None:
    n = len(judged.places)
    assert n == 299
    assert _weighted(judged, np.ones((1, n))) == pytest.approx(_plain(judged))

    times = np.random.default_rng(0).integers(0, 4, n)
    often = np.repeat(np.arange(n), times)
    repeated = Judged(
        judged.group,
        judged.places[often],
        judged.names,
        judged.measured,
        judged.scores[often],
        judged.answers[often],
        judged.labels[often],
        judged.foreign[often],
    )
    assert _weighted(judged, times[None].astype(float)) == pytest.approx(_plain(repeated))


def test_perfect_calibration_still_shows_an_error_and_less_of_it_on_more_rows() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, 40_000)
    right = rng.random(40_000) < confidence
    few, many = (measures.perfect_calibration(confidence[:n]) for n in (200, 40_000))

    assert few > 4 * many > 0
    measured = np.mean(
        [calibration_error(confidence[at : at + 200], right[at : at + 200]) for at in range(0, 40_000, 200)]
    )
    assert measured == pytest.approx(few, rel=0.1)
    assert calibration_error(confidence, confidence > 0.5) > 10 * many


def test_an_interval_lies_around_its_figure_even_where_resampling_adds_error() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.4, 1, 300)
    labels = [["Red" if right else "Blue"] for right in rng.random(300) < confidence]
    scores = np.stack([confidence, 0.3 * (1 - confidence), 0.7 * (1 - confidence)], axis=1)
    one = judge(scores, labels, TAXONOMY.groups[0], None)
    figure = float(measures.calibration_of(one, np.ones((1, 300)))[0])
    drawn = measures.calibration_of(one, measures.resampled([str(n) for n in range(300)], 500))
    low, high = measures.interval(figure, drawn)

    assert drawn.mean() > figure + 0.005
    assert low < figure < high
    assert high - low == pytest.approx(float(np.subtract(*np.percentile(drawn, [97.5, 2.5]))))


def test_coverage_is_how_many_rows_are_answered_before_precision_falls() -> None:
    scores = np.array([[c, 1 - c, 0] for c in (0.99, 0.95, 0.9, 0.85, 0.8, 0.7)])
    labels = [["Red"], ["Red"], ["Red"], ["Blue"], ["Red"], ["Blue"]]
    one = judge(scores, labels, TAXONOMY.groups[0], None)
    every = np.ones((1, 6))

    assert measures.coverage_of(one, every)[0] == pytest.approx(3 / 6)
    assert measures.coverage_of(one, every, precision=0.8)[0] == pytest.approx(5 / 6)
    assert measures.coverage_of(one, every, precision=0.6)[0] == 1


def test_average_precision_is_one_when_every_hit_comes_first() -> None:
    truth = np.array([True, True, False, False])

    assert measures.average_precision(np.array([0.9, 0.8, 0.2, 0.1]), truth) == 1
    # Hits at ranks 2 and 4: (1/2 + 2/4) / 2.
    assert measures.average_precision(np.array([0.8, 0.1, 0.9, 0.3]), truth) == pytest.approx(0.5)
    # A tie is one step: nothing is told apart.
    assert measures.average_precision(np.full(4, 0.5), truth) == pytest.approx(0.5)


def test_free_tags_count_a_label_that_nobody_was_taught_as_missed() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.9], [0.1, 0.2]])
    labels = [["Dots"], ["Dots", "Checks"], ["Stripes"]]
    one = judge(scores, labels, TAXONOMY.groups[1], None)
    every = np.ones((1, 3))

    # Said: Dots, Dots, Stripes; two hits; four labels, three of them listed.
    assert measures.micro_f1_of(one, every)[0] == pytest.approx(2 * 2 / (3 + 4))
    assert measures.micro_f1_of(one, every, listed_only=True)[0] == pytest.approx(2 * 2 / (3 + 3))


def test_every_tag_has_its_precision_and_recall_and_its_training_rows() -> None:
    scores = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.3, 0.7, 0]])
    one = judge(scores, [["Red"], ["Blue"], ["Blue"]], TAXONOMY.groups[0], None)
    values = value_figures(one, {"Red": 12, "Blue": 400})

    assert (values["Red"].precision, values["Red"].recall) == (0.5, 1)
    assert (values["Blue"].precision, values["Blue"].recall) == (1, 0.5)
    assert (values["Green"].precision, values["Green"].f1) == (None, None)
    assert values["Red"].training_rows == 12
    parts = by_frequency({"colour": values})
    assert parts["scarce"] == PartFigures(values=1, macro_f1=pytest.approx(2 / 3))
    assert parts["head"] == parts["rest"] == PartFigures(values=1, macro_f1=pytest.approx(2 / 3))
    assert parts["mid"] == PartFigures(values=0, macro_f1=None)


def test_masking_deletes_label_words_whatever_the_rows_own_label() -> None:
    words = LabelWords(["Navy Blue", "Tshirts", "Free Items", "Sports Shoes", "白色", "米白色"])

    assert (
        words.hide(TextFields("Nike Men's Navy-Blue T-Shirt and free watch")).title
        == "nike s navyblue and free watch"
    )
    assert words.hide(TextFields("Puma Boys Blue Sport Shoe")).title == "puma"
    assert words.hide(TextFields("Womens navy tshirt")).title == ""
    assert words.hide(TextFields("米白色棉T恤")).title == "棉t恤"


@pytest.mark.parametrize(
    ("title", "left"),
    [
        ("Watch Watches WATCHE watchs", ""),  # with or without a final s or es
        ("Dress dresses shoe Shoes", ""),
        ("Ｗａｔｃｈ", ""),  # full width
        ("T-shirt T\u2010shirt T\u2011shirt T\u00adshirt tshirts", ""),  # every kind of hyphen
        ("Red/Blue,red_blue;red2blue", ""),  # split on whatever is no letter
        ("Man men mens woman women womens boy boys girl girls kid kids unisex", ""),
        ("Others and of the free other", "and of the free other"),
        ("Redwood bluebird watchmaker", "redwood bluebird watchmaker"),  # whole words alone
        ("红色和米白色和白色", "和 和"),  # longest first
    ],
)
def test_masking_normalises_first_and_keeps_five_words(title: str, left: str) -> None:
    words = LabelWords(
        [
            "Watches",
            "Dresses",
            "Shoes",
            "Tshirts",
            "Red",
            "Blue",
            "Others",
            "Free of the and",
            "白色",
            "米白色",
            "红色",
        ]
    )

    assert words.hide(TextFields(title)).title == left


def test_only_the_words_of_evaluated_groups_are_hidden_and_a_rows_own_labels_are() -> None:
    rows = [Row("1", TextFields("x"), {"colour": ("Mauve",), "maker": ("Acme",)})]
    words = label_words([TAXONOMY], [row.labels for row in rows])

    left = words.hide(TextFields("Acme mauve green dots")).title
    assert left == "acme dots"  # no row has a pattern, and the tagger knows no maker


def test_masking_has_a_hash_of_its_list() -> None:
    assert LabelWords(["Red"]).content_hash() == LabelWords(["Red", "red"]).content_hash()
    assert LabelWords(["Red"]).content_hash() != LabelWords(["Blue"]).content_hash()


# Slices, side by side


@dataclass
class Reader:
    """A tagger that believes what the title says, and of a picture only that it is there."""

    taxonomy: Taxonomy = TAXONOMY
    sure: float = 0.9
    blind: bool = False

    def score(self, batch: MicroBatch) -> tuple[np.ndarray, list[ImageUse]]:
        uses: list[ImageUse] = decode_all(batch.images, Frame(8, 8))[1]
        scores = np.full((len(batch), 5), 0.1, np.float32)
        for row, text in enumerate(batch.texts):
            words = text.title.casefold().split()
            named = [at for at, name in enumerate(COLOURS) if name.casefold() in words and not self.blind]
            scores[row, named or [0]] = self.sure
            scores[row, 3:] = [self.sure if name in words else 0.1 for name in ("dots", "stripes")]
        return scores, ["none"] * len(batch) if self.blind else uses


class Writing(Reader):
    def generate(self, texts: Sequence[TextFields]) -> list[tuple[Tag, ...]]:
        return [(Tag(group="colour", value="Red", score=1.0, source="model"),)] * len(texts)


def _candidate(tagger: Reader, name: str = "one") -> Candidate:
    return Candidate(name, tagger, {"colour": {"Red": 20, "Blue": 500}})


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Sixty titles that name their colour; a third with a picture, one of which is damaged."""
    from tests.model.conftest import drawn

    made = []
    for number in range(60):
        image = tmp_path / f"{number}.jpg" if number % 3 == 0 else None
        if image:
            image.write_bytes(drawn((number, 0, 0), 0.5) if number else b"\xff\xd8 cut off")
        colour = COLOURS[number % 2]
        labels = {"colour": (colour,), "pattern": ("Dots",)}
        lang = "zh" if number % 4 == 0 else "en"
        made.append(Row(str(number), TextFields(f"thing{number} {colour} dots", lang=lang), labels, image))
    return made


def _measure(name: str, rows: list[Row], *taggers: Reader) -> list[dict[str, Any]]:
    candidates = [_candidate(tagger, str(place)) for place, tagger in enumerate(taggers or (Reader(),))]
    words = label_words([TAXONOMY], [row.labels for row in rows])
    return [one.figures.to_json() for one in measure_slice(name, candidates, rows, {}, words, rounds=100)]


def test_a_slice_has_the_rows_that_it_leaves_something_of(rows: list[Row]) -> None:
    rows.append(Row("61", TextFields(""), {"colour": ("Red",)}))
    (both,), (text,), (image,) = (_measure(name, rows) for name in ("both", "text", "image"))

    assert (both["rows"], text["rows"], image["rows"]) == (60, 60, 19)
    assert both["pictures"] == {"none": 40, "unusable": 1, "used": 19}
    assert text["pictures"] == {"none": 60}
    assert text["groups"]["colour"]["accuracy"] == 1
    assert image["groups"]["colour"]["accuracy"] < 1
    assert both["groups"]["pattern"]["micro_f1"] == 1


def test_a_title_of_label_words_alone_is_missing_text_and_stays(rows: list[Row]) -> None:
    rows.append(Row("61", TextFields("Red dots"), {"colour": ("Red",)}))
    (masked,) = _measure("masked-text", rows)

    assert masked["rows"] == 61
    assert masked["groups"]["colour"]["accuracy"] == pytest.approx(31 / 61)  # Red is said of everything


def test_each_language_is_measured_on_its_own(rows: list[Row]) -> None:
    (text,) = _measure("text", rows)

    assert {lang: of["rows"] for lang, of in text["languages"].items()} == {"en": 45, "zh": 15}


def test_versions_are_compared_on_the_same_draws(rows: list[Row]) -> None:
    candidates = [
        _candidate(Reader(), "one"),
        _candidate(Reader(), "twin"),
        _candidate(Reader(blind=True), "blind"),
    ]
    one, twin, blind = measure_slice(
        "text", candidates, rows, {}, label_words([TAXONOMY], [row.labels for row in rows])
    )
    same, worse = difference(twin, one).to_json(), difference(blind, one).to_json()

    assert same["mean_accuracy"] == {"difference": 0, "low": 0, "high": 0}
    assert worse["mean_accuracy"]["difference"] == pytest.approx(-0.5)
    assert -0.7 < worse["mean_accuracy"]["low"] < -0.5 < worse["mean_accuracy"]["high"] < -0.3
    assert worse["groups"]["colour"]["macro_f1"]["high"] < 0
    assert worse["groups"]["pattern"]["micro_f1"]["difference"] == 0


def test_a_tagger_that_writes_has_an_edit_distance(rows: list[Row]) -> None:
    read, written = _measure("text", rows, Reader(), Writing())

    assert read["tags"] == {"set_f1": 1}
    # Red of 30 rows is right; every row has two labels.
    assert written["tags"]["set_f1"] == pytest.approx(2 * 30 / (60 + 120))
    # To "colour=Red" 14 characters are added; for Blue, R→B, l, u, e stays, d→; and 13 more: 17.
    reds, blues = 14 / len("colour=Red; pattern=Dots"), 17 / len("colour=Blue; pattern=Dots")
    assert written["tags"]["edit_distance"] == pytest.approx((reds + blues) / 2)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("image", lambda row: Row(row.product_id, row.text, row.labels), "no row has a picture"),
        ("text", lambda row: Row(row.product_id, TextFields(""), row.labels, row.image), "no row has a text"),
        (
            "both",
            lambda row: Row(row.product_id, row.text, {"size": ("L",)}),
            "labelled are size; known colour, p",
        ),
        ("both", lambda row: Row(row.product_id, row.text, {}), "labelled are none"),
    ],
)
def test_a_slice_without_anything_to_measure_says_why(
    rows: list[Row], name: str, change: Callable[[Row], Row], message: str
) -> None:
    with pytest.raises(EmptySlice, match=message):
        _measure(name, [change(row) for row in rows])


def test_pictures_that_all_fail_to_decode_are_an_empty_slice(rows: list[Row]) -> None:
    with pytest.raises(EmptySlice, match="no picture decodes"):
        _measure("image", rows[:1])


def test_a_group_without_a_measured_class_has_no_macro_f1(rows: list[Row]) -> None:
    words = label_words([TAXONOMY], [row.labels for row in rows])
    (one,) = measure_slice("text", [_candidate(Reader())], rows, {"colour": ["Mauve"]}, words, rounds=20)

    assert one.figures.groups["colour"].accuracy == 1
    assert np.isnan(one.figures.groups["colour"].macro_f1)
    assert np.isnan(one.figures.intervals["mean_macro_f1"]).all()


# The job


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Titles with an empty label, a label that nobody was taught, and a picture that does not decode."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"\xff\xd8 cut off")
    lines = [
        ("1", "Nike Men Black Running Shoes", "Men", "Black", "1.jpg"),
        ("2", "Puma Women Pink T-shirt", "Women", "", "2.jpg"),
        ("3", "Levis Men Blue Jeans", "Men", "Ultramarine", ""),
    ]
    _write(folder, ("id", "title", "gender", "baseColour", "image"), *lines)
    return folder


def _write(folder: Path, *lines: Sequence[str]) -> None:
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)


def _run(*arguments: str | Path, expect: int = 0) -> str:
    app = typer.Typer()
    app.command()(job.main)
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == expect, result.output
    return result.output


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The champion under another name: a second version to stand beside it."""
    registry = Registry(str(BUNDLED))
    folder = tmp_path / "versions" / "another-name"
    shutil.copytree(registry.fetch(registry.champion()[0]), folder)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    (folder / "MANIFEST.json").write_text(json.dumps(manifest | {"model_version": folder.name}))
    return folder


def test_the_champion_is_evaluated_on_any_folder_with_these_columns(shop: Path) -> None:
    said = _run("--data", shop, "--json", shop / "figures.json")
    figures = json.loads((shop / "figures.json").read_text())

    assert set(figures["groups"]) == {"gender", "baseColour"}
    gender = figures["groups"]["gender"]
    assert (gender["rows"], gender["accuracy"], gender["macro_f1"]) == (3, 1, 1)
    assert gender["ece"] < 0.2
    assert figures["groups"]["baseColour"]["rows"] == 2
    assert figures["groups"]["baseColour"]["accuracy"] == 0.5
    assert figures["spec_hash"] is None
    (model,) = figures["models"]
    assert set(model["slices"]) == {"both", "text", "masked-both", "masked-text"}
    assert figures["pictures"] == {"none": 2, "unusable": 1}
    assert "no picture decodes" in figures["slices_left_out"]["image"]
    assert model["slices"]["both"]["groups"] == model["slices"]["text"]["groups"]
    assert "masked-text" in said


def test_a_description_of_the_data_names_the_columns(shop: Path) -> None:
    _write(shop, ("sku", "words", "gender"), ("1", "Nike Men Running Shoes", "Men"))
    (shop / "dataset.toml").write_text('[[files]]\npath = "products.csv"\ntitle = "words"\n')
    for data in (shop, shop / "dataset.toml"):
        _run("--data", data, "--slices", "text", "--json", shop / "figures.json")
        assert json.loads((shop / "figures.json").read_text())["groups"]["gender"]["accuracy"] == 1


def test_one_slice_can_be_asked_for(shop: Path) -> None:
    _run("--data", shop, "--json", shop / "figures.json", "--slices", "masked-text")
    figures = json.loads((shop / "figures.json").read_text())

    assert (figures["modalities"], figures["masked"]) == ("text", True)
    assert list(figures["models"][0]["slices"]) == ["masked-text"]


def test_a_spec_chooses_rows_and_classes_and_leaves_its_hash(shop: Path) -> None:
    spec = {"test_ids": ["1"], "classes": {"gender": ["Men"], "baseColour": ["Black"]}, "seed": 0}
    (shop / "spec.json").write_text(json.dumps(spec))
    _run("--data", shop, "--spec", shop / "spec.json", "--json", shop / "figures.json")
    figures = json.loads((shop / "figures.json").read_text())

    assert figures["rows"] == 1
    assert figures["spec_hash"]
    assert figures["mask_hash"]


def test_versions_stand_side_by_side_and_in_a_report(shop: Path, other: Path) -> None:
    pytest.importorskip("matplotlib", reason="the report needs the train extra")
    both = ("--model", "champion", "--model", other, "--registry", BUNDLED)
    said = _run(
        "--data", shop, *both, "--slices", "text", "--json", shop / "f.json", "--report", shop / "report"
    )
    figures = json.loads((shop / "f.json").read_text())

    assert [of["model_version"] for of in figures["models"]][1] == other.name
    assert figures["differences"][0]["model"] == other.name
    assert figures["differences"][0]["mean_macro_f1"] == {"difference": 0, "low": 0, "high": 0}
    assert "B − A" in said
    assert other.name in (shop / "report" / "index.html").read_text()
    assert "baseColour" in (shop / "report" / other.name / "report.html").read_text()


def test_chinese_copy_is_evaluated_without_pictures(tmp_path: Path) -> None:
    lines = [
        {"id": str(n), "text": text, "tags": {"类型": [kind], "颜色": [colour]}}
        for n, (text, kind, colour) in enumerate([("红色连衣裙", "裙", "红色"), ("黑色牛仔裤", "裤", "黑色")])
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    _run("--data", tmp_path, "--json", tmp_path / "f.json")
    figures = json.loads((tmp_path / "f.json").read_text())

    assert figures["groups"]["颜色"]["micro_f1"] == figures["groups"]["类型"]["accuracy"] == 1
    assert list(figures["slices_left_out"]) == ["image"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "no-such-version"), "no model no-such-version: neither a folder nor in the registry"),
        (("--model", "champion", "--model", "champion"), "named twice"),
        (("--slices", "image"), "no picture decodes"),
    ],
)
def test_a_wrong_choice_is_named_in_one_line(shop: Path, arguments: tuple[str, ...], message: str) -> None:
    said = _run("--data", shop, *arguments, expect=2)

    assert said.startswith("evaluate: ")
    assert message in said


def test_data_without_anything_to_measure_is_named_in_one_line(tmp_path: Path) -> None:
    assert "no such file" in _run("--data", tmp_path, expect=2)
    _write(tmp_path, ("id", "title", "gender"))
    assert "no rows" in _run("--data", tmp_path, expect=2)
    _write(tmp_path, ("id", "title", "size"), ("1", "Shirt", "L"))
    assert "no column is a group of the taxonomy" in _run("--data", tmp_path, expect=2)
    _write(tmp_path, ("id", "title", "gender"), ("1", "Shirt", ""))
    assert "labelled are none" in _run("--data", tmp_path, expect=2)
    _write(tmp_path, ("id", "title", "gender"), ("1", "Shirt", "Men"))
    (tmp_path / "spec.json").write_text('{"test_ids": ["2"], "classes": {}, "seed": 0}')
    assert "none of the 1 test ids" in _run("--data", tmp_path, "--spec", tmp_path / "spec.json", expect=2)
    (tmp_path / "spec.json").write_text('{"ids": []}')
    assert "is no evaluation spec" in _run("--data", tmp_path, "--spec", tmp_path / "spec.json", expect=2)
    (tmp_path / "items.jsonl").write_text('{"id": "1", "text": "裙"}\n')
    assert "no column is a group of the taxonomy" in _run("--data", tmp_path / "items.jsonl", expect=2)


def test_a_file_without_titles_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text("sku,words\n1,Shoe\n")

    with pytest.raises(ValueError, match="no column of titles, descriptions or pictures"):
        read_products(tmp_path)
