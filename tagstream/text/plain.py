"""One form for all spellings of a text."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from tagstream.core.language import HAN

_HAN = re.compile(f"[{HAN}]")


def folded(text: str) -> str:
    """NFKC and casefold: width, ligatures and case no longer matter. The length may change."""
    return unicodedata.normalize("NFKC", text).casefold()


def folded_in_place(text: str) -> str:
    """The same for each character alone, cut to one, so that offsets stay valid."""
    return "".join(map(_folded_character, text))


@lru_cache(maxsize=1 << 16)
def _folded_character(character: str) -> str:
    return folded(character)[:1] or character


def has_han(text: str) -> bool:
    """Whether a character is Chinese."""
    return _HAN.search(text) is not None


def with_endings(word: str, stem_min_chars: int) -> set[str]:
    """The word with and without a final s or es. Shorter stems are left out."""
    stems = {word, word.removesuffix("s"), word.removesuffix("es")}
    return {stem + end for stem in stems if len(stem) >= stem_min_chars for end in ("", "s", "es")}
