"""Which fields of a text are read, in which order, and how far."""

from __future__ import annotations

from tagstream.core.ports import TextFields

#: The rest of a field is not read: this bounds the time that a long description takes.
FIELD_MAX_CHARACTERS = 2000


def in_order(text: TextFields, between: str = " ") -> tuple[str | None, ...]:
    """Title, brand, attributes with their names, description. `between` separates attributes."""
    attributes = between.join(f"{name} {value}" for name, value in text.attributes.items())
    return text.title, text.brand, attributes, text.description
