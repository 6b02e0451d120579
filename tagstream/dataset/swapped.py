"""Chinese copy with the name of another free tag in place of one that it says, for training.

Copy that says 白色 is about summer more often than copy that says 黑色; the name must count for more than
what usually stands around it. Scarce values are drawn as often as others, so they gain rows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from tagstream.dataset.rows import Row
from tagstream.dataset.tags import MULTI_GROUPS

#: 棉 is in 海绵, 格 in 风格: a single character is a part of other words too often.
_MIN_CHARACTERS = 2


def swapped(rows: Sequence[Row], share: float, seed: int) -> list[Row]:
    """About `share` of the rows once more, with one of their labels and its name exchanged. Rows that name
    none of their labels are left out."""
    names = _names(rows)
    found = []
    for row in rows:
        rng = random.Random(f"swapped {seed} {row.product_id} {row.text.title}")
        if rng.random() < share and (other := _swapped(row, names, rng)) is not None:
            found.append(other)
    return found


def _names(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Group of free tags → the values that labels use and that are long enough."""
    used: dict[str, set[str]] = {group: set() for group in sorted(MULTI_GROUPS)}
    for row in rows:
        for group in used.keys() & row.labels.keys():
            used[group].update(v for v in row.labels[group] if len(v) >= _MIN_CHARACTERS)
    return {group: sorted(values) for group, values in used.items()}


def _swapped(row: Row, names: dict[str, list[str]], rng: random.Random) -> Row | None:
    title = row.text.title
    labels_of_all = [value for values in row.labels.values() for value in values]
    said = [
        (group, value, others)
        for group, of_group in names.items()
        for value in row.labels.get(group, ())
        # 条纹 within 竖条纹: the other label would be gone too.
        if value in of_group and value in title and sum(value in one for one in labels_of_all) == 1
        if (others := [name for name in of_group if name not in row.labels[group] and name not in title])
    ]
    if not said:
        return None
    group, value, others = rng.choice(said)
    other = rng.choice(others)
    exchanged = tuple(other if label == value else label for label in row.labels[group])
    text = row.text._replace(title=title.replace(value, other))
    return replace(row, text=text, labels={**row.labels, group: exchanged})
