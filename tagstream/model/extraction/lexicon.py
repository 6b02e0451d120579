"""What was labelled before: where a title holds a term that some training title labels.

For every character and group, the share of a term's occurrences that are labelled, on the characters where
the term begins, goes on, ends, or is alone (the BMES features that gazetteers give to taggers: Zhang & Yang
2018, Ding et al. 2019). Of several terms the highest share counts.

In training a title must not see its own labels: its near-duplicates' counts are taken off first
(`without`), so that a term which only they label is unknown, as terms of new titles are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tagstream.dataset.titles import Title
from tagstream.text.plain import folded_in_place

TERM_MAX_CHARACTERS = 10
#: Added to the occurrences: a term seen once is not certain.
_PRIOR_OCCURRENCES = 1.0
#: Of each group: begins, goes on, ends, is alone; first over all terms, then over longest matches only.
PLACES = 8


class Lexicon:
    """`labelled`: term → how often it is labelled with each group; `seen`: term → how often it occurs."""

    def __init__(
        self, groups: Sequence[str], labelled: dict[str, tuple[int, ...]], seen: dict[str, int]
    ) -> None:
        self.groups = tuple(groups)
        self.labelled = labelled
        self.seen = seen

    @classmethod
    def of(cls, titles: Sequence[Title], groups: Sequence[str]) -> Lexicon:
        """Counted over labelled titles."""
        labelled, seen = _count(titles, groups, None)
        return cls(groups, labelled, seen)

    @property
    def width(self) -> int:
        """Features a character."""
        return PLACES * len(self.groups)

    def features(self, text: str, without: Sequence[Title] = ()) -> npt.NDArray[np.float32]:
        """(characters, width) of shares from 0 to 1. `without`: titles that are counted out."""
        minus_labelled, minus_seen = _count(without, self.groups, self.labelled)
        features = np.zeros((len(text), self.width), np.float32)
        matches = []
        for start, end, term in _terms(folded_in_place(text), self.labelled):
            less = minus_labelled.get(term)
            of = self.labelled[term]
            counts = [n - m for n, m in zip(of, less, strict=True)] if less else of
            if any(counts):
                occurrences = self.seen[term] - minus_seen.get(term, 0) + _PRIOR_OCCURRENCES
                matches.append((start, end, [count / occurrences for count in counts]))
        for match in matches:
            _mark(features, *match, offset=0)
        for match in _longest(matches):
            _mark(features, *match, offset=4)
        return features


def _count(
    titles: Sequence[Title], groups: Sequence[str], known: dict[str, tuple[int, ...]] | None
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    labelled: dict[str, list[int]] = defaultdict(lambda: [0] * len(groups))
    texts = [folded_in_place(title.text) for title in titles]
    for title, text in zip(titles, texts, strict=True):
        for span in title.spans:
            if span.end - span.start <= TERM_MAX_CHARACTERS:
                labelled[text[span.start : span.end]][groups.index(span.group)] += 1
    terms = known if known is not None else labelled
    seen = Counter(term for text in texts for _, _, term in _terms(text, terms))
    return {term: tuple(counts) for term, counts in labelled.items()}, dict(seen)


def _terms(text: str, known: Container[str]) -> Iterator[tuple[int, int, str]]:
    """(start, end, term) of every known term in the text."""
    for start in range(len(text)):
        for end in range(start + 1, min(start + TERM_MAX_CHARACTERS, len(text)) + 1):
            if text[start:end] in known:
                yield start, end, text[start:end]


Match = tuple[int, int, list[float]]


def _longest(matches: list[Match]) -> list[Match]:
    """The matches that a reader takes who always takes the longest from the left."""
    taken, free_from = [], 0
    for match in sorted(matches, key=lambda match: (match[0], -match[1])):
        if match[0] >= free_from:
            taken.append(match)
            free_from = match[1]
    return taken


def _mark(
    features: npt.NDArray[np.float32], start: int, end: int, shares: list[float], *, offset: int
) -> None:
    kinds = [3] if end - start == 1 else [0, *[1] * (end - start - 2), 2]
    rows, columns = np.arange(start, end), np.asarray(kinds) + offset
    for group, share in enumerate(shares):
        at = rows, columns + PLACES * group
        features[at] = np.maximum(features[at], share)
