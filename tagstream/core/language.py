"""Which language a product's text is in, as far as the taxonomy's groups need to know."""

from __future__ import annotations

import re

_HAN = re.compile(r"[㐀-鿿豈-﫿]")


def language_of(title: str, lang: str | None = None) -> str:
    """The event's own primary language subtag if it has one, else `zh` for Han text, else `en`."""
    if lang:
        return lang.replace("_", "-").split("-", 1)[0].lower()
    return "zh" if _HAN.search(title) else "en"
