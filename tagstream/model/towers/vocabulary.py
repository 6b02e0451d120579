"""Texts → token ids: words, Han characters, and a mark before each field; unknown words are hashed."""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import torch

from tagstream.core.ports import TextFields
from tagstream.model.towers.base import Tokens

_PIECE = re.compile(r"[㐀-鿿豈-﫿]|[^\W_㐀-鿿豈-﫿]+")
PADDING, MASK, FIRST_FIELD = 0, 1, 2
_FIELDS = 4
#: Words outside the vocabulary share these ids, by hash.
HASHED_IDS = 256
FIRST_HASHED = FIRST_FIELD + _FIELDS
FIRST_WORD = FIRST_HASHED + HASHED_IDS


class Vocabulary:
    """Words with their own id: those that training texts have at least twice, the most frequent first."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.words = tuple(words)
        self._ids = {word: FIRST_WORD + place for place, word in enumerate(self.words)}

    def __len__(self) -> int:
        return FIRST_WORD + len(self.words)

    @classmethod
    def of(cls, texts: Sequence[TextFields], max_words: int) -> Vocabulary:
        counts = Counter(piece for text in texts for _, pieces in _pieces(text) for piece in pieces)
        frequent = sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
        return cls([word for word, count in frequent[:max_words] if count > 1])

    def ids(self, text: TextFields, max_tokens: int) -> list[int]:
        """At most `max_tokens`; [] for a text without a letter or digit."""
        found: list[int] = []
        for field, pieces in _pieces(text):
            if pieces:
                found.append(FIRST_FIELD + field)
                found += [self._ids.get(piece) or _hashed(piece) for piece in pieces]
        return found[:max_tokens]

    def tokens(self, texts: Sequence[TextFields], max_tokens: int) -> Tokens:
        """Padded to the longest; a text without words has one padding token that is not there."""
        rows = [self.ids(text, max_tokens) for text in texts]
        longest = max([1, *map(len, rows)])
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        return Tokens(ids, ids != PADDING)

    def to_json(self) -> bytes:
        return json.dumps(self.words, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, stored: bytes) -> Vocabulary:
        return cls(json.loads(stored))


def _pieces(text: TextFields) -> list[tuple[int, list[str]]]:
    attributes = " ".join(f"{name} {value}" for name, value in text.attributes.items())
    fields = (text.title, text.brand, attributes, text.description)
    return [(place, _words(content)) for place, content in enumerate(fields) if content]


def _words(content: str) -> list[str]:
    # The rest of a field is not read: it bounds the time that a long description takes.
    plain = unicodedata.normalize("NFKC", content[:2000]).casefold()
    return [match.group() for match in islice(_PIECE.finditer(plain), 512)]


def _hashed(piece: str) -> int:
    return FIRST_HASHED + zlib.crc32(piece.encode(errors="replace")) % HASHED_IDS
