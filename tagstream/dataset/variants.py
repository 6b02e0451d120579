"""Variants of labelled rows, for training: texts as other shops write them, the same for the same seed."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.text.masking import LabelWords

#: The share of rows that gets a copy with words moved out of the title.
MOVED_SHARE = 0.15
#: Languages without spaces between words: moving words makes no sense there.
_UNSPACED = frozenset({"zh", "ja", "th"})


def spread_over_fields(rows: Sequence[Row], seed: int) -> list[Row]:
    """All rows, and for a share of them a second one with some words of the title in another field.

    The first one or two words become the brand; any run of words becomes an attribute or the description.
    """
    rng = random.Random(seed)
    spread = list(rows)
    for row in rows:
        words = [] if row.lang in _UNSPACED else row.text.title.split()
        if len(words) >= 3 and rng.random() < MOVED_SHARE:
            spread.append(Row(row.product_id, _moved(words, row.text.lang, rng), row.labels))
    return spread


def _moved(words: list[str], lang: str | None, rng: random.Random) -> TextFields:
    field = rng.choice(("brand", "attributes", "description"))
    if field == "brand":
        length = rng.randint(1, min(2, len(words) - 1))
        return TextFields(" ".join(words[length:]), brand=" ".join(words[:length]), lang=lang)
    start = rng.randrange(len(words))
    end = rng.randint(start + 1, len(words))
    title, moved = " ".join(words[:start] + words[end:]), " ".join(words[start:end])
    if field == "attributes":
        return TextFields(title, attributes={"": moved}, lang=lang)
    return TextFields(title, description=moved, lang=lang)


#: The share of rows that come again with what must not matter.
CHANGED_SHARE = 0.2
_AMOUNTS = (99, 199, 299, 499, 799, 999, 1299, 1999, 2495, 4999)
_PRICES = (" Rs. {:,} only", " Rs {}", " at ₹{:,}", " Price: Rs. {}", " ${}.99", " now {} INR", " MRP {}")
_CHINESE_PRICES = (" {}元", " 仅{}元包邮", " 原价{}", " ￥{}")


def changed_harmlessly(rows: Sequence[Row], seed: int) -> list[Row]:
    """A share of the rows once more: with a price at the end, or with two neighbouring words swapped."""
    rng = random.Random(f"harmless {seed}")
    return [_changed(row, rng) for row in rows if row.text.title and rng.random() < CHANGED_SHARE]


def _changed(row: Row, rng: random.Random) -> Row:
    title, words = row.text.title, row.text.title.split()
    if len(words) >= 3 and rng.random() < 0.5:
        at = rng.randrange(len(words) - 1)
        words[at], words[at + 1] = words[at + 1], words[at]
        changed = " ".join(words)
    else:
        prices = _CHINESE_PRICES if row.lang == "zh" else _PRICES
        changed = title + rng.choice(prices).format(rng.choice(_AMOUNTS))
    return replace(row, text=row.text._replace(title=changed))


def masked_rows(rows: Sequence[Row], taxonomy: Taxonomy, share: float, seed: int) -> list[Row]:
    """A share of the rows without the words that name labels: what is left is what a text may know then."""
    rng = random.Random(f"masked {seed}")
    words = LabelWords(value.value for group in taxonomy.groups for value in group.values)
    masked = (replace(row, text=words.hide(row.text)) for row in rows if rng.random() < share)
    return [row for row in masked if row.text.title]


_Some = Annotated[tuple[str, ...], Field(min_length=1)]


class ShortTitles(BaseModel):
    """How sellers of one language write short titles out of the labels of long copy. A file says it, because
    it knows a data set's groups.

    `keywords`: groups whose values come first, in any order. Then a noun: a value of `noun_group`, or one of
    `nouns` for the value of `garment_group`; and one of `tails`. `written`: value → how it is written, where
    that is not its name. `optional_ending`: may be left out where only one character is before it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lang: str
    keywords: tuple[str, ...]
    noun_group: str
    garment_group: str
    nouns: dict[str, _Some]
    tails: _Some = ("",)
    written: dict[str, _Some] = {}
    optional_ending: str = ""

    def write(self, value: str, rng: random.Random) -> str:
        """One way to write a value."""
        first, *others = ways = self.written.get(value, (value,))
        if others:
            return rng.choice(ways)
        return first[0] if self._may_be_cut(first) and rng.random() < 0.2 else first

    def names(self, title: str, value: str) -> bool:
        """Whether a title has a value in any of the ways to write it."""
        ways = self.written.get(value, (value,))
        return any((way[0] if self._may_be_cut(way) else way) in title.casefold() for way in ways)

    def _may_be_cut(self, way: str) -> bool:
        return len(way) == 2 and way[1] == self.optional_ending


_CLAUSE = re.compile(r"[^，。！？；、,.!?;\s]+")
_TITLE_MAX_CHARS = 60


def short_titles(
    rows: Sequence[Row], how: ShortTitles | None, taxonomy: Taxonomy, per_row: int, seed: int
) -> list[Row]:
    """`per_row` titles of one to three neighbouring clauses, and as many of keywords, of each row.

    A `multi` tag is kept only where the short text has it; elsewhere it is unknown.
    """
    if how is None:
        return []
    multi = _multi_groups(taxonomy)
    short = []
    for row in rows:
        rng = random.Random(f"{seed} {row.product_id}")
        titles = [write(row, how, rng) for _ in range(per_row) for write in (_clauses, _keywords)]
        short += [_shortened(row, title, how, multi) for title in titles]
    return short


def _multi_groups(taxonomy: Taxonomy) -> list[str]:
    return sorted(group.name for group in taxonomy.groups if group.kind == "multi")


def _clauses(row: Row, _: ShortTitles, rng: random.Random) -> str:
    clauses = _CLAUSE.findall(row.text.title) or [row.text.title]
    start, length = rng.randrange(len(clauses)), rng.randint(1, 3)
    return rng.choice(("", " ", "，")).join(clauses[start : start + length])[:_TITLE_MAX_CHARS]


def _keywords(row: Row, how: ShortTitles, rng: random.Random) -> str:
    words = []
    for group in how.keywords:
        values = row.labels.get(group, ())
        words += [how.write(value, rng) for value in rng.sample(values, min(len(values), rng.randint(0, 2)))]
    rng.shuffle(words)
    kinds = row.labels.get(how.noun_group, ())
    (garment, *_) = row.labels.get(how.garment_group, ("",))
    noun = rng.choice(kinds) if kinds and rng.random() < 0.7 else rng.choice(how.nouns.get(garment, ("",)))
    return rng.choice(("", "", " ")).join([*words, noun]) + rng.choice(how.tails)


def _shortened(row: Row, title: str, how: ShortTitles, multi: Sequence[str]) -> Row:
    labels, unsaid = dict(row.labels), {}
    for group in (name for name in multi if name in row.labels):
        values = row.labels[group]
        labels[group] = tuple(value for value in values if how.names(title, value))
        unsaid[group] = tuple(value for value in values if value not in labels[group])
    labels = {group: values for group, values in labels.items() if values}
    return Row(row.product_id, TextFields(title=title, lang=row.text.lang), labels, unsaid=unsaid)


#: 棉 is in 海绵, 格 in 风格: a single character is a part of other words too often.
_SWAPPED_MIN_CHARACTERS = 2


def swapped(rows: Sequence[Row], taxonomy: Taxonomy, share: float, seed: int) -> list[Row]:
    """About `share` of the rows once more, with one `multi` label and its name exchanged for another one.

    Copy that has 白色 is about summer more often than copy that has 黑色; the name must count for more than
    what usually comes with it. Scarce values are drawn as often as others, so they gain rows. Rows that name
    none of their labels are left out.
    """
    used: dict[str, set[str]] = {group: set() for group in _multi_groups(taxonomy)}
    for row in rows:
        for group in used.keys() & row.labels.keys():
            used[group].update(v for v in row.labels[group] if len(v) >= _SWAPPED_MIN_CHARACTERS)
    names = {group: sorted(values) for group, values in used.items()}
    found = []
    for row in rows:
        rng = random.Random(f"swapped {seed} {row.product_id} {row.text.title}")
        if rng.random() < share and (other := _swapped(row, names, rng)) is not None:
            found.append(other)
    return found


def _swapped(row: Row, names: dict[str, list[str]], rng: random.Random) -> Row | None:
    title = row.text.title
    labels_of_all = [value for values in row.labels.values() for value in values]
    candidates = [
        (group, value, others)
        for group, of_group in names.items()
        for value in row.labels.get(group, ())
        # 条纹 within 竖条纹: the other label would be gone too.
        if value in of_group and value in title and sum(value in one for one in labels_of_all) == 1
        if (others := [name for name in of_group if name not in row.labels[group] and name not in title])
    ]
    if not candidates:
        return None
    group, value, others = rng.choice(candidates)
    other = rng.choice(others)
    exchanged = tuple(other if label == value else label for label in row.labels[group])
    text = row.text._replace(title=title.replace(value, other))
    return replace(row, text=text, labels={**row.labels, group: exchanged})
