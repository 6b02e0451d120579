"""Labels for English fashion titles that nobody labelled, made from the columns of a catalogue.

    Reid & Taylor Men Solid Grey Socks        articleType Socks
    ^^^^^^^^^^^^^ brand            ^^^^^ product

Product: the words of the title's own articleType, with or without a final s or es and hyphens; if they do
not follow each other, the last of them alone ("Formal Shoes" → "Shoes"). The last place in the title counts.

Brand: the one to four words before the first word for whom it is ("Men", "Women's", "Kids" …), unless a
colour of the catalogue or the product begins among them. A title without such a word gets the longest
beginning that is the brand of another title; if there is none, the title is left out, since it would teach
that its brand is no brand.

A collection's name before "Men" counts as brand ("Casio Youth Series"), and synonyms of an articleType (tee,
wedges) are not found. What is measured on such labels is agreement with this procedure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tagstream.dataset.table import read_table
from tagstream.dataset.titles import Labelled, Title

_WORD = re.compile(r"\S+")
_WHOM = re.compile(
    r"(?:men|women|man|woman|boy|girl|kid|gent|lady|ladie|unisex|infant|teen)(?:'?s|s')?", re.IGNORECASE
)
_BRAND_MAX_WORDS = 4


class _Word(NamedTuple):
    start: int
    end: int
    stem: str


def read_weakly_labelled(path: Path) -> list[Title]:
    """The titles of a file with the columns title, articleType and, if it has it, baseColour.

    Raises:
        ValueError: a column is missing, or no title could be labelled.
    """
    table = read_table(path)
    if not {"title", "articleType"} <= set(table.columns):
        raise ValueError(f"{path}: needs the columns title and articleType, has {', '.join(table.columns)}")
    lines = list(table.lines())
    titles = weak_labels(
        [(line.text("title"), line.text("articleType")) for line in lines],
        {line.text("baseColour") for line in lines},
    )
    if not titles:
        raise ValueError(f"{path}: no title could be labelled")
    return titles


def weak_labels(products: Sequence[tuple[str, str]], colours: Iterable[str]) -> list[Title]:
    """Labels of (title, articleType). Titles whose brand stays unknown are left out."""
    colour_stems = {_stem(word) for colour in colours for word in colour.split()}
    read = []
    for title, article_type in products:
        words = [_Word(m.start(), m.end(), _stem(m.group())) for m in _WORD.finditer(title)]
        product = _product(words, article_type)
        read.append((title, words, product, _brand_length(title, words, product, colour_stems)))
    known = {_stems(words[:length]) for _, words, _, length in read if length}
    titles = []
    for title, words, product, length in read:
        lengths = [length] if length else range(min(_BRAND_MAX_WORDS, len(words)), 0, -1)
        if brand := next((n for n in lengths if _stems(words[:n]) in known), 0):
            named = Labelled(words[0].start, words[brand - 1].end, "brand")
            spans = (named, product) if product and product.start >= named.end else (named,)
            titles.append(Title(title, spans))
    return titles


def _stem(word: str) -> str:
    plain = re.sub(r"[^\w&/]", "", word).casefold()
    if len(plain) <= 3:
        return plain
    if plain.endswith(("ches", "shes", "sses", "xes")):
        return plain[:-2]
    return plain.removesuffix("s")


def _stems(words: Sequence[_Word]) -> tuple[str, ...]:
    return tuple(word.stem for word in words)


def _product(words: Sequence[_Word], article_type: str) -> Labelled | None:
    wanted = tuple(map(_stem, article_type.split()))
    for name in (wanted, wanted[-1:]):
        for first in range(len(words) - len(name), -1, -1):
            part = words[first : first + len(name)]
            if name and _stems(part) == name:
                return Labelled(part[0].start, part[-1].end, "product")
    return None


def _brand_length(title: str, words: Sequence[_Word], product: Labelled | None, colours: set[str]) -> int:
    """Words of the brand, 0 if unknown."""
    for place, word in enumerate(words):
        if _WHOM.fullmatch(title[word.start : word.end]):
            return place if place <= _BRAND_MAX_WORDS else 0
        # A brand may begin with a colour ("Red Tape").
        if (word.stem in colours and place) or (product and word.start >= product.start):
            return 0
    return 0
