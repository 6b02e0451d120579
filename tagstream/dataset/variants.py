"""Titles as other shops would write them, for training: in other fields, in another order, with a price."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.text.masking import LabelWords

#: The share of rows that gets a copy with words moved out of the title.
MOVED_SHARE = 0.15


def spread_over_fields(rows: Sequence[Row], seed: int) -> list[Row]:
    """All rows, and for a share of them a second one whose title has lent words to another field.

    The first one or two words become the brand; any run of words becomes an attribute or the description.
    """
    rng = random.Random(seed)
    spread = list(rows)
    for row in rows:
        words = row.text.title.split()
        if len(words) >= 3 and rng.random() < MOVED_SHARE:
            spread.append(Row(row.product_id, _moved(words, rng), row.labels))
    return spread


def _moved(words: list[str], rng: random.Random) -> TextFields:
    field = rng.choice(("brand", "attributes", "description"))
    if field == "brand":
        length = rng.randint(1, min(2, len(words) - 1))
        return TextFields(" ".join(words[length:]), brand=" ".join(words[:length]), lang="en")
    start = rng.randrange(len(words))
    end = rng.randint(start + 1, len(words))
    title, moved = " ".join(words[:start] + words[end:]), " ".join(words[start:end])
    if field == "attributes":
        return TextFields(title, attributes={"": moved}, lang="en")
    return TextFields(title, description=moved, lang="en")


#: The share of rows that come again with what must not matter.
CHANGED_SHARE = 0.2
_PRICES = {
    "en": ("Rs. {:,} only", "Rs {}", "at ₹{:,}", "Price: Rs. {}", "${}.99", "now {} INR", "MRP {}"),
    "zh": (" {}元", " 仅{}元包邮", " 原价{}", " ￥{}"),
}


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
        lang = "zh" if row.text.lang == "zh" else "en"
        price = rng.choice(_PRICES[lang]).format(
            rng.choice((99, 199, 299, 499, 799, 999, 1299, 1999, 2495, 4999))
        )
        changed = f"{title} {price}" if lang == "en" else title + price
    return replace(row, text=row.text._replace(title=changed))


def masked_rows(rows: Sequence[Row], taxonomy: Taxonomy, share: float, seed: int) -> list[Row]:
    """A share of the rows without the words that name labels: what is left is what a text may know then."""
    rng = random.Random(f"masked {seed}")
    words = LabelWords(value.value for group in taxonomy.groups for value in group.values)
    masked = (replace(row, text=words.hide(row.text)) for row in rows if rng.random() < share)
    return [row for row in masked if row.text.title]
