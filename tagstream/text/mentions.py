"""Which values of the taxonomy a text names: one binary feature a value, beside the hashed n-grams.

In long copy a colour's name drowns among hundreds of n-grams; as a feature of its own it does not, and
values with few training rows profit most. Longer names hide shorter ones within them ("Navy Blue" is
not "Blue"), even those that are not learned (墨绿色 is not 绿色). A final s or es does not matter. Han names
are found anywhere in a run of text, and colours without their final 色 too (迷彩 is 迷彩色), where two
characters are left of them.

A title, brand or attribute may name several choices of one group in words between spaces. Then the last is
meant, as in "T-shirt Bra"; of joined ones the first, as in "black & grey".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import VALUE_MAX_CHARS, Taxonomy
from tagstream.text.fields import FIELD_MAX_CHARACTERS
from tagstream.text.plain import folded, has_han, with_endings

_TOKEN = re.compile(r"[^\W_]+")
_JOINS = {"&", "/", "+", "and"}
_JOINED = re.compile(r"[&/+,、]|\band\b")


def name_form(text: str) -> str:
    """The form in which names are compared: folded, without hyphens."""
    return folded(text).replace("-", "")


class _Place(NamedTuple):
    """Where tokens `start` to `end` name the value of a column, or one that has none: it is not learned."""

    start: int
    end: int
    column: int | None


class Mentions:
    """Finds the names of a taxonomy's values; compiled once."""

    def __init__(self, taxonomy: Taxonomy, max_characters: int = FIELD_MAX_CHARACTERS) -> None:
        self._size = taxonomy.size
        self._max_characters = max_characters
        #: (tokens of a name) → the groups and columns that it means
        self._names: dict[tuple[str, ...], list[tuple[str, int | None]]] = defaultdict(list)
        self._han: list[tuple[re.Pattern[str], dict[str, int | None]]] = []
        for group in taxonomy.groups:
            columns: dict[str, int | None] = {
                name_form(v.value): taxonomy.slices[group.name].start + i for i, v in enumerate(group.values)
            }
            # A renamed value is still found by its former name.
            columns = {name_form(old): columns[name_form(now)] for old, now in group.former.items()} | columns
            for name in group.not_learned:
                columns.setdefault(name_form(name), None)
            forms = [
                (form, column)
                for name, column in columns.items()
                for form in _forms(name) - (columns.keys() - {name})
            ]
            for form, column in forms:
                self._names[tuple(_TOKEN.findall(form))].append((group.name, column))
            if han := {form: column for form, column in forms if has_han(form)}:
                alternatives = "|".join(map(re.escape, sorted(han, key=len, reverse=True)))
                self._han.append((re.compile(alternatives), han))
        self._longest = max(map(len, self._names), default=0)
        self._choices = {group.name for group in taxonomy.groups if group.kind == "single"}

    def find(self, texts: Sequence[TextFields]) -> npt.NDArray[np.float32]:
        """(texts, taxonomy.size): 1 where a field of the text names the value."""
        named = np.zeros((len(texts), self._size), np.float32)
        for row, text in enumerate(texts):
            attributes = " | ".join(text.attributes.values())[: self._max_characters].split(" | ")
            fields = [(field, True) for field in (text.title, text.brand, *attributes)]
            for field, choose in (*fields, (text.description, False)):
                if field:
                    plain = name_form(field[: self._max_characters])
                    named[row, self._by_tokens(plain, choose)] = 1
                    if has_han(plain):
                        found = [columns[name] for han, columns in self._han for name in han.findall(plain)]
                        named[row, [column for column in found if column is not None]] = 1
        return named

    def _by_tokens(self, plain: str, choose: bool) -> list[int]:
        tokens = _TOKEN.findall(plain)
        found: dict[str, list[_Place]] = defaultdict(list)
        taken: set[tuple[str, int]] = set()
        for length in range(min(self._longest, len(tokens)), 0, -1):
            for start in range(len(tokens) - length + 1):
                for group, column in self._names.get(tuple(tokens[start : start + length]), ()):
                    places = {(group, place) for place in range(start, start + length)}
                    if not places & taken:
                        taken |= places
                        found[group].append(_Place(start, start + length, column))
        columns: list[int] = []
        for group, of_group in found.items():
            if choose and group in self._choices and len(of_group) > 1:
                of_group = [_meant(sorted(of_group), plain)]
            columns += [place.column for place in of_group if place.column is not None]
        return columns


def longer_names(learned: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Of `others`, those with a learned name within them that means something else there. A label that joins
    names ("Black / White") and what no value can be called are left out."""
    forms = {form for name in learned for form in _forms(name_form(name))}
    han = {form for form in forms if has_han(form)}
    words = {" ".join(_TOKEN.findall(form)) for form in forms - han}

    def hides(name: str) -> bool:
        plain = name_form(name)
        apart = f" {' '.join(_TOKEN.findall(plain))} "
        within = any(f" {word} " in apart for word in words if word) or any(form in plain for form in han)
        may_be_a_value = len(name) <= VALUE_MAX_CHARS and name.isprintable()
        return within and may_be_a_value and plain not in forms and not _JOINED.search(plain)

    return tuple(sorted({name for name in others if hides(name)}))


def _meant(places: list[_Place], plain: str) -> _Place:
    """The first of the last chain of joined names. `places` in the order of the text `plain`."""
    spans = [token.span() for token in _TOKEN.finditer(plain)]
    *before, meant = places
    for place in reversed(before):
        if plain[spans[place.end - 1][1] : spans[meant.start][0]].strip() not in _JOINS:
            break
        meant = place
    return meant


def _forms(name: str) -> set[str]:
    """The name with and without a final s or es, or a final 色."""
    if has_han(name):
        short = name.removesuffix("色")
        return {name, short} if len(short) > 1 else {name}
    return with_endings(name, 2)
