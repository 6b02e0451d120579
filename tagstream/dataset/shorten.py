"""Short titles out of long Chinese copy, for training: shops send titles, the labelled rows are prose.

    clauses     one to three neighbouring clauses of the copy
    keywords    the row's own labels in any order, with a noun, as sellers write titles

A free tag is kept only where its words are in the short text; elsewhere that tag becomes unknown.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from tagstream.core.ports import TextFields
from tagstream.dataset.rows import Row
from tagstream.dataset.tags import MULTI_GROUPS

_CLAUSE = re.compile(r"[^，。！？；、,.!?;\s]+")
_NOUNS = {
    "上衣": ("上衣", "T恤", "短袖T恤", "长袖T恤", "打底衫", "女装上衣", "男装上衣"),
    "裙": ("连衣裙", "半身裙", "裙子", "长裙", "短裙"),
    "裤": ("裤子", "长裤", "休闲裤", "短裤", "直筒裤", "牛仔裤"),
}
_TAILS = ("", "", "", " 新款", " 夏季新款", " 春秋款", " 2026新款", " 女", " 男", " 百搭")
_COTTON = ("纯棉", "棉质", "全棉", "棉")


def short_titles(rows: Sequence[Row], per_row: int, seed: int) -> list[Row]:
    """`per_row` clause titles and as many keyword titles of each row, the same for the same seed."""
    short = []
    for row in rows:
        rng = random.Random(f"{seed} {row.product_id}")
        for _ in range(per_row):
            short.append(_clauses(row, rng))
            short.append(_keywords(row, rng))
    return short


def _clauses(row: Row, rng: random.Random) -> Row:
    clauses = _CLAUSE.findall(row.text.title) or [row.text.title]
    start, length = rng.randrange(len(clauses)), rng.randint(1, 3)
    title = rng.choice(("", " ", "，")).join(clauses[start : start + length])[:60]
    return _short(row, title)


def _keywords(row: Row, rng: random.Random) -> Row:
    words = []
    for group in ("材质", "颜色", "风格", "图案", "版型"):
        values = row.labels.get(group, ())
        words += [_said(value, rng) for value in rng.sample(values, min(len(values), rng.randint(0, 2)))]
    rng.shuffle(words)
    kinds = row.labels.get("衣样式", ())
    garment = row.labels.get("类型", ("",))[0]
    noun = rng.choice(kinds) if kinds and rng.random() < 0.7 else rng.choice(_NOUNS.get(garment, ("",)))
    title = rng.choice(("", "", " ")).join([*words, noun]) + rng.choice(_TAILS)
    return _short(row, title)


def _said(value: str, rng: random.Random) -> str:
    if value == "棉":
        return rng.choice(_COTTON)
    if value == "牛仔布":
        return "牛仔"
    if len(value) == 2 and value.endswith("色") and rng.random() < 0.2:
        return value[0]
    return value


def _short(row: Row, title: str) -> Row:
    said: dict[str, tuple[str, ...]] = {}
    unsaid: dict[str, tuple[str, ...]] = {}
    for group, values in row.labels.items():
        if group not in MULTI_GROUPS:
            said[group] = values
            continue
        here = tuple(value for value in values if _stem(value) in title.casefold())
        if here:
            said[group] = here
        unsaid[group] = tuple(value for value in values if value not in here)
    return Row(row.product_id, TextFields(title=title, lang="zh"), said, unsaid=unsaid)


def _stem(value: str) -> str:
    """What of a value's name is in a text that says it: 牛仔布 is mostly written 牛仔, 白色 also 白."""
    if value == "牛仔布":
        return "牛仔"
    return value[:-1] if len(value) == 2 and value.endswith("色") else value
