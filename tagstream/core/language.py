"""What of a product's text is read, and in which language it is."""

from __future__ import annotations

import re

from tagstream.core.events import ProductEvent
from tagstream.core.ports import TextFields

#: Chinese characters, as ranges inside the brackets of a regular expression.
HAN = "㐀-鿿豈-﫿"
_HAN = re.compile(f"[{HAN}]")
#: The rest of a description is cut off before it travels to a replica.
DESCRIPTION_MAX_CHARS = 4000


def language_of(title: str, lang: str | None = None) -> str:
    """The event's own primary language subtag if it has one, else `zh` for Han text, else `en`."""
    if lang:
        return lang.replace("_", "-").split("-", 1)[0].lower()
    return "zh" if _HAN.search(title) else "en"


def text_fields(product: ProductEvent) -> TextFields:
    """The text of an event as models read it."""
    description = product.description[:DESCRIPTION_MAX_CHARS] if product.description else None
    return TextFields(product.title, product.brand, description, product.attributes, product.lang)
