"""Which rows may teach, tune and test. Pure, and stable: a row's part depends on its near-duplicate
group and the seed alone, so new rows never move an old one from one part to another.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tagstream.text.plain import folded

Part = Literal["train", "validation", "test"]

TEST_SHARE = 0.16
VALIDATION_SHARE = 0.12

#: (k, n): the k-th of n folds, so that every row is in the test part of one of them.
Fold = tuple[int, int]
#: A class with fewer training rows is not measured: its score would be noise.
CLASS_MIN_ROWS = 10


def normalised_title(title: str) -> str:
    """NFKC, casefolded, white space collapsed: two titles that agree here are near-duplicates."""
    return re.sub(r"\s+", " ", folded(title)).strip()


def near_duplicate_groups(
    titles: Sequence[str], picture_hashes: Sequence[str | None], ids: Sequence[str] | None = None
) -> list[str]:
    """A name per row, shared by all rows that are linked by a normalised title or a picture hash.

    A row with neither is like no other. It is named by its id, without `ids` by its place, so that it may
    fall into another part when rows are added before it. Where there are no titles, give descriptions.
    """
    parents = list(range(len(titles)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    first: dict[tuple[str, str], int] = {}
    normalised = [normalised_title(title) for title in titles]
    for row, (title, picture) in enumerate(zip(normalised, picture_hashes, strict=True)):
        for kind, key in (("title", title), ("picture", picture)):
            if key:
                parents[root(row)] = root(first.setdefault((kind, key), row))

    names: dict[int, str] = {}
    for row, (title, picture) in enumerate(zip(normalised, picture_hashes, strict=True)):
        name = title or (f"picture {picture}" if picture else f"row {ids[row] if ids else row}")
        names[root(row)] = min(name, names.get(root(row), name))
    return [names[root(row)] for row in range(len(titles))]


def part_of(group_name: str, seed: int, fold: Fold | None = None) -> Part:
    """The part that a near-duplicate group falls into, by hash."""
    digest = hashlib.blake2b(f"{seed} {group_name}".encode(errors="replace"), digest_size=8).digest()
    place, test_share = int.from_bytes(digest, "big") / 2**64, TEST_SHARE
    if fold is not None:
        place, test_share = (place - fold[0] / fold[1]) % 1, 1 / fold[1]
    if place < test_share:
        return "test"
    return "validation" if place < test_share + VALIDATION_SHARE else "train"


def permitted(
    ids: Sequence[str], titles: Sequence[str], held_ids: Iterable[str], held_titles: Iterable[str]
) -> list[bool]:
    """Per row: may it be trained on? Not if it shares its id or normalised title with a held-out row."""
    forbidden_ids = set(held_ids)
    forbidden_titles = {normalised_title(title) for title in held_titles} - {""}
    return [
        product_id not in forbidden_ids and normalised_title(title) not in forbidden_titles
        for product_id, title in zip(ids, titles, strict=True)
    ]


class EvaluationSpec(BaseModel):
    """What a report measured: test rows, groups and the classes of each. Its hash is in the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    test_ids: tuple[str, ...]
    validation_ids: tuple[str, ...] = ()
    classes: dict[str, tuple[str, ...]]
    seed: int
    #: of the words that masked slices hide; None where it is not known
    mask_hash: str | None = None

    def content_hash(self) -> str:
        body = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(body.encode()).hexdigest()[:16]


def class_lists(
    labels: Iterable[Mapping[str, Sequence[str]]], min_rows: int = CLASS_MIN_ROWS
) -> dict[str, tuple[str, ...]]:
    """Group → its values with at least `min_rows` rows, the most frequent first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in labels:
        for group, values in row.items():
            counts[group].update(values)
    return {
        group: tuple(v for v, n in sorted(counter.items(), key=lambda kv: (-kv[1], kv[0])) if n >= min_rows)
        for group, counter in counts.items()
    }
