"""The form in which characters are compared, one for one, so that offsets stay what they are."""

from __future__ import annotations

import unicodedata
from functools import lru_cache


def plain(text: str) -> str:
    """NFKC and casefold of each character; its first one where that makes several."""
    return "".join(map(_plain, text))


@lru_cache(maxsize=1 << 16)
def _plain(character: str) -> str:
    return unicodedata.normalize("NFKC", character).casefold()[:1] or character
