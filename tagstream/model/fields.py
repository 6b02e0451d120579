"""Titles spread over the other text fields, for training: catalogues that label titles rarely have them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tagstream.core.ports import TextFields
from tagstream.model.rows import Row

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
