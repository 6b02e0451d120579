"""Titles with labelled spans, and how they are read from files.

    {"id": "…", "text": "飞利浦 理发器", "entities": [{"start": 0, "end": 3, "label": "HP"}, …]}

Offsets count characters (code points), `end` is exclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tagstream.dataset.split import normalised_title, part_of
from tagstream.dataset.table import read_table

#: Labels, HC and HP those of the Chinese e-commerce set (Ding et al., ACL 2019) → groups of tags.
_GROUPS: Mapping[str, str] = {"HC": "product", "HP": "brand", "product": "product", "brand": "brand"}


class Labelled(NamedTuple):
    """A stretch of a title: characters `start` to `end` (exclusive) name a value of `group`."""

    start: int
    end: int
    group: str


class Title(NamedTuple):
    """`spans` do not overlap and are in order."""

    text: str
    spans: tuple[Labelled, ...]


def read_titles(path: Path) -> list[Title]:
    """The titles of a .jsonl file; spans with other labels than of products and brands are left out.

    Raises:
        ValueError: a line is not such an object, or its spans overlap or leave the text.
    """
    titles = []
    for line in read_table(path).lines():
        try:
            titles.append(_title(line.cells))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: line {line.number} is no labelled title: {error!r}") from error
    if not titles:
        raise ValueError(f"{path}: holds no titles")
    return titles


def _title(raw: Any) -> Title:
    entities = [entity for entity in raw["entities"] if entity["label"] in _GROUPS]
    spans = sorted(Labelled(one["start"], one["end"], _GROUPS[one["label"]]) for one in entities)
    if not isinstance(raw["text"], str):
        raise ValueError("the text is no text")
    last = 0
    for span in spans:
        if not (isinstance(span.start, int) and isinstance(span.end, int)):
            raise ValueError(f"span {span.start}:{span.end} is not two numbers of characters")
        if not last <= span.start < span.end <= len(raw["text"]):
            raise ValueError(f"span {span.start}:{span.end} overlaps another one or leaves the text")
        last = span.end
    return Title(raw["text"], tuple(spans))


def cut(titles: Sequence[Title], seed: int) -> tuple[list[Title], list[Title]]:
    """(to learn from, to validate on): about 12 % are held out, near-duplicates on one side."""
    parts: tuple[list[Title], list[Title]] = ([], [])
    for title in titles:
        parts[part_of(normalised_title(title.text), seed) == "validation"].append(title)
    if not all(parts):
        raise ValueError(f"{len(titles)} titles are too few to hold some out for validation")
    return parts
