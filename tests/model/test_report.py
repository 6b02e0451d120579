"""The training report: whole in one file, its pictures beside it, and no glyph that the font lacks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the report needs the train extra")

from PIL import Image

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value
from tagstream.dataset.rows import Row
from tagstream.evaluation import plots
from tagstream.evaluation.measures import judge
from tagstream.evaluation.report import write_report

TAXONOMY = Taxonomy(
    taxonomy_version="1",
    groups=(
        Group(name="colour", values=tuple(Value(value=name) for name in ("Red", "Blue", "$5 & up", "<i>"))),
        Group(
            name="材质",
            kind="multi",
            names={"en": "Material"},
            values=(Value(value="棉", names={"en": "Cotton"}), Value(value="雪纺")),
        ),
    ),
)
PICTURES = {"learning_curves", "precision_recall", "reliability", "confusion", "frequency"}


@pytest.fixture
def rows() -> list[Row]:
    labels = [
        {"colour": (("Red", "Blue", "$5 & up")[n % 3],), "材质": (("棉", "雪纺")[n % 2],)} for n in range(30)
    ]
    return [Row(str(n), TextFields(f"thing {n}"), of) for n, of in enumerate(labels)]


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).random((30, TAXONOMY.size)).astype(np.float32)


CURVES = [
    {"part": part, "epoch": epoch, "loss": 2.0 / (epoch + 1), "macro_f1": 0.2 * epoch}
    for part in ("text", "图像")
    for epoch in range(3)
]
COUNTS = {"colour": {"Red": 900, "Blue": 12}, "材质": {"棉": 40, "雪纺": 20}}


def test_the_report_is_one_file_with_every_picture_in_it_and_beside_it(
    tmp_path: Path, rows: list[Row], scores: np.ndarray
) -> None:
    page = write_report(
        tmp_path / "report", CURVES, scores, rows, TAXONOMY, COUNTS, title="A try", facts={"seed": 3}
    )
    text = page.read_text(encoding="utf-8")

    assert {path.stem for path in page.parent.glob("*.png")} == PICTURES
    assert len(re.findall(r'src="data:image/png;base64,', text)) == len(PICTURES)
    assert set(re.findall(r"(?:src|href)=\W*(\w+:?)", text)) == {"data:"}
    for name in PICTURES:
        with Image.open(page.parent / f"{name}.png") as picture:
            assert min(picture.size) > 100
            assert len(set(picture.convert("L").getdata())) > 10
    for word in ("A try", "seed", "材质", "雪纺", "scarce", "Confusion of the worst group: colour"):
        assert word in text
    assert "<i>" not in text
    assert "&lt;i&gt;" in text


def test_without_curves_and_without_a_single_choice_those_pictures_are_left_out(
    tmp_path: Path, rows: list[Row], scores: np.ndarray
) -> None:
    only_tags = [Row(row.product_id, row.text, {"材质": row.labels["材质"]}) for row in rows]
    page = write_report(tmp_path, [], scores, only_tags, TAXONOMY, {})

    assert {path.stem for path in tmp_path.glob("*.png")} == PICTURES - {"learning_curves", "confusion"}
    assert "Confusion" not in page.read_text(encoding="utf-8")


def test_rows_without_a_label_of_the_taxonomy_make_no_report(tmp_path: Path, scores: np.ndarray) -> None:
    rows = [Row(str(n), TextFields("thing"), {"size": ("L",)}) for n in range(30)]

    with pytest.raises(ValueError, match="nothing to report"):
        write_report(tmp_path, [], scores, rows, TAXONOMY, {})


def test_a_name_that_the_font_cannot_draw_is_english_or_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plots, "font", lambda: ("DejaVu Sans", frozenset(map(ord, "CotnMaerilRd# 0123456789")))
    )
    colour, material = (judge(np.zeros((0, len(of.values))), [], of, None) for of in TAXONOMY.groups)

    assert plots.group_names(TAXONOMY)["材质"] == "Material"
    assert plots.value_name(material, 0) == "Cotton"
    assert plots.value_name(material, 1) == "#1"
    assert plots.value_name(colour, 0) == "Red"


def test_a_font_that_knows_han_is_used_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    name, known = plots.font()

    assert (ord("红") in known) == (name in plots.HAN_FONTS)
    assert ord("R") in known
