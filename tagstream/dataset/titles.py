"""Titles with labelled spans, and how they are read from files.

    {"id": "…", "text": "飞利浦 理发器", "entities": [{"start": 0, "end": 3, "label": "HP"}, …]}

Offsets count characters (code points), `end` is exclusive. Labels become groups by `GROUP_OF_LABEL`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tagstream.dataset.split import normalised_title, part_of
from tagstream.dataset.table import read_table

#: Labels of the Chinese e-commerce set (Ding et al., ACL 2019) → groups of tags.
GROUP_OF_LABEL: Mapping[str, str] = {
    "HC": "product",
    "HP": "brand",
    "product": "product",
    "brand": "brand",
}


class Labelled(NamedTuple):
    """A stretch of a title: characters `start` to `end` (exclusive) name a value of `group`."""

    start: int
    end: int
    group: str


class Title(NamedTuple):
    """`spans` do not overlap and are in order."""

    text: str
    spans: tuple[Labelled, ...]


def read_titles(path: Path, groups: Mapping[str, str] = GROUP_OF_LABEL) -> list[Title]:
    """The titles of a .jsonl file; spans whose label is not in `groups` are left out.

    Raises:
        ValueError: a line is not such an object, or its spans overlap or leave the text.
    """
    titles = []
    for line in read_table(path).lines():
        raw: Any = line.cells
        try:
            found = [
                Labelled(entity["start"], entity["end"], groups[entity["label"]])
                for entity in raw["entities"]
                if entity["label"] in groups
            ]
            titles.append(Title(raw["text"], tuple(sorted(found))))
            _check(titles[-1])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: line {line.number} is no labelled title: {error!r}") from error
    if not titles:
        raise ValueError(f"{path}: holds no titles")
    return titles


def _check(title: Title) -> None:
    if not isinstance(title.text, str):
        raise ValueError("the text is no text")
    last = 0
    for span in title.spans:
        if not (isinstance(span.start, int) and isinstance(span.end, int)):
            raise ValueError(f"span {span.start}:{span.end} is not two numbers of characters")
        if not last <= span.start < span.end <= len(title.text):
            raise ValueError(f"span {span.start}:{span.end} overlaps another one or leaves the text")
        last = span.end


def cut(titles: Sequence[Title], seed: int) -> tuple[list[Title], list[Title]]:
    """(to learn from, to validate on): about 12 % are held out, near-duplicates on one side."""
    held = [part_of(normalised_title(title.text), seed) == "validation" for title in titles]
    learn = [title for title, out in zip(titles, held, strict=True) if not out]
    validate = [title for title, out in zip(titles, held, strict=True) if out]
    if not learn or not validate:
        raise ValueError(f"{len(titles)} titles are too few to hold some out for validation")
    return learn, validate
