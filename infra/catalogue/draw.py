"""Draws the built-in catalogue and writes it for the package: `python -m infra.catalogue.draw`.

Titles are written by hand in products.toml, pictures are drawn in code. The same Pillow draws the same bytes.
"""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from infra.catalogue.canvas import Canvas
from infra.catalogue.garments import GARMENTS
from infra.catalogue.goods import GOODS
from infra.catalogue.patterns import PATTERNS
from tagstream.catalogue.built_in import FILE

_SHAPES = {**GARMENTS, **GOODS}
#: Brands, products by language, their copy, and colours.
_WRITTEN: dict[str, Any] = tomllib.loads(Path(__file__).with_name("products.toml").read_text("utf-8"))


def rows() -> list[dict[str, Any]]:
    """Every product with its JPEG, 168 pixels wide and 224 high. English and Chinese products are mixed two
    to one, as far as both last."""
    english, chinese = (_parsed(_WRITTEN[lang]) for lang in ("english", "chinese"))
    ordered: list[tuple[str, tuple[str, str, str, str]]] = []
    while english or chinese:
        ordered += [("en", line) for line in english[:2]] + [("zh", line) for line in chinese[:1]]
        del english[:2], chinese[:1]
    return [_row(number, lang, *line) for number, (lang, line) in enumerate(ordered)]


def _parsed(table: str) -> list[tuple[str, str, str, str]]:
    """(shape, pattern, colour, title) of each line."""
    lines = []
    for line in table.strip().splitlines():
        look, title = line.split("|")
        shape, pattern, colour = look.split()
        lines.append((shape, pattern, colour, title.strip()))
    random.Random(7).shuffle(lines)  # a shop's newest products are not sorted by kind
    return lines


def _row(number: int, lang: str, shape: str, pattern: str, colour: str, title: str) -> dict[str, Any]:
    red, green, blue = _WRITTEN["colours"][colour]
    canvas = Canvas(number, (red, green, blue), PATTERNS[pattern])
    _SHAPES[shape](canvas)
    return {
        "id": f"{lang}-{number:04d}",
        "lang": lang,
        "title": title,
        "brand": next((brand for brand in _WRITTEN["brands"] if title.startswith(brand)), None),
        "description": _description(number, lang, title),
        "shape": shape,
        "pattern": pattern,
        "colour": colour,
        "image": canvas.jpeg(),
    }


def _description(number: int, lang: str, title: str) -> str | None:
    """Chinese products always have copy, a third of the English ones do."""
    if lang == "en":
        copy = _WRITTEN["english_copy"]
        return str(copy[number // 3 % len(copy)]) if number % 3 == 0 else None
    copies = _WRITTEN["chinese_copy"]
    copy = next((copy for word, copy in copies.items() if word in title), copies["上衣"])
    return f"{title.replace(' ', '，')}。{copy[number // 3 % len(copy)]}"


if __name__ == "__main__":
    parquet.write_table(pa.Table.from_pylist(rows()), FILE, compression="zstd")
