"""Which language a text is in, which languages a reader wants, and a name in one of them.

RFC 9110 §12.5.4 (Accept-Language), RFC 4647 §3.4 (look-up).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

#: Chinese characters, as ranges inside the brackets of a regular expression.
HAN = "㐀-鿿豈-﫿"
_HAN = re.compile(f"[{HAN}]")
_RANGE = re.compile(
    r"([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)(?:\s*;\s*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)
#: More than any reader means; the header comes from outside.
_MAX_RANGES = 20


def language_of(title: str, lang: str | None = None) -> str:
    """The event's own primary language subtag if it has one, else `zh` for Han text, else `en`."""
    if lang:
        return lang.replace("_", "-").split("-", 1)[0].lower()
    return "zh" if _HAN.search(title) else "en"


def wanted_languages(accept_language: str | None, lang: str | None = None) -> tuple[str, ...]:
    """Language tags in lower case, the most wanted first; equal quality in the order given.

    `lang` goes before everything in the header. Parts of the header that cannot be read, `*`, and what
    has quality 0 are left out.
    """
    found: list[tuple[float, str]] = []
    for part in (accept_language or "").split(",")[:_MAX_RANGES]:
        if (match := _RANGE.fullmatch(part.strip())) and match[1] != "*":
            quality = float(match[2] or 1)
            if quality > 0:
                found.append((-quality, match[1].lower()))
    tags = [tag for _, tag in sorted(found, key=lambda pair: pair[0])]
    own = [lang.strip().replace("_", "-").lower()] if lang and lang.strip() else []
    return tuple(dict.fromkeys(own + tags))


def name_in(names: Mapping[str, str], wanted: Sequence[str]) -> str | None:
    """The name in the first wanted language that has one; `zh-Hans-CN` is content with `zh`."""
    if not names:
        return None
    lower = {lang.replace("_", "-").lower(): name for lang, name in names.items()}
    for tag in wanted:
        while tag:
            if tag in lower:
                return lower[tag]
            tag = tag.rpartition("-")[0]
    return None
