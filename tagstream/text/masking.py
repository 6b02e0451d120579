"""Hides the words that name labels, to see what a tagger knows when the title does not name it.

Words of every value name of every evaluated group go, whatever the row's own label, with or without a
final s or es, and the words for men, women and children. Han text loses the names themselves, longest first.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.text.plain import folded, has_han, with_endings

_PEOPLE = (
    *("man", "men", "mens", "woman", "women", "womens"),
    *("boy", "boys", "girl", "girls", "kid", "kids", "unisex"),
)
_KEPT = frozenset({"and", "of", "the", "free", "other"})
_LETTERS = re.compile(r"[^\W\d_]+")
#: Plain, U+2010 and soft; NFKC makes the plain one of the full-width and the small one, U+2010 of U+2011.
_HYPHENS = dict.fromkeys(map(ord, "-\u2010\u00ad"))


class LabelWords:
    """The words to hide for these value names."""

    def __init__(self, value_names: Iterable[str]) -> None:
        words, han = {*_PEOPLE}, set()
        for name in value_names:
            plain = _plain(name)
            if has_han(plain):
                han.add(plain)
            else:
                words.update(_LETTERS.findall(plain))
        self.words = frozenset(form for word in words - _KEPT for form in with_endings(word, 1)) - _KEPT
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


def label_words(taxonomies: Sequence[Taxonomy], labels: Sequence[Mapping[str, Sequence[str]]]) -> LabelWords:
    """The words of every value, known or only labelled, of every group that is evaluated.

    `labels`: of each row, group → values.
    """
    labelled = {group for of_row in labels for group in of_row}
    groups = [group for taxonomy in taxonomies for group in taxonomy.groups if group.name in labelled]
    named = {value.value for group in groups for value in group.values}
    evaluated = {group.name for group in groups}
    return LabelWords(
        named | {value for of_row in labels for group in evaluated for value in of_row.get(group, ())}
    )


def _plain(text: str) -> str:
    return folded(text).translate(_HYPHENS)
