"""Hides the words that name labels: what does a tagger know when the title does not say it?

Words of every value name of every evaluated group go, whatever the row's own label, with or without a
final s or es, and the words for men, women and children. Han text loses the names themselves, longest first.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from tagstream.core.ports import TextFields

_PEOPLE = [
    "man",
    "men",
    "mens",
    "woman",
    "women",
    "womens",
    "boy",
    "boys",
    "girl",
    "girls",
    "kid",
    "kids",
    "unisex",
]
_KEPT = frozenset({"and", "of", "the", "free", "other"})
_HAN = re.compile("[㐀-鿿豈-﫿]")
_LETTERS = re.compile(r"[^\W\d_]+")


class LabelWords:
    """The words to hide for these value names."""

    def __init__(self, value_names: Iterable[str]) -> None:
        words, han = set(_PEOPLE), set()
        for name in value_names:
            plain = _plain(name)
            if _HAN.search(plain):
                han.add(plain)
            else:
                words.update(_LETTERS.findall(plain))
        self.words = frozenset(form for word in words - _KEPT for form in _forms(word)) - _KEPT
        self.names = tuple(sorted(han, key=lambda name: (-len(name), name)))

    def hide(self, text: TextFields) -> TextFields:
        """All fields without label words; a title that was nothing else becomes empty."""
        return TextFields(
            title=self._hidden(text.title),
            brand=self._hidden(text.brand) or None if text.brand else None,
            description=self._hidden(text.description) or None if text.description else None,
            attributes={name: self._hidden(value) for name, value in text.attributes.items()},
            lang=text.lang,
        )

    def content_hash(self) -> str:
        listed = "\n".join([*sorted(self.words), *self.names])
        return hashlib.sha256(listed.encode()).hexdigest()[:16]

    def _hidden(self, text: str) -> str:
        plain = _plain(text)
        for name in self.names:
            plain = plain.replace(name, " ")
        return " ".join(word for word in _LETTERS.findall(plain) if word not in self.words)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("-", "")


def _forms(word: str) -> set[str]:
    stems = {word, word.removesuffix("s"), word.removesuffix("es")}
    return {stem + end for stem in stems if stem for end in ("", "s", "es")}
