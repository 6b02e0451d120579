"""Writes the JSON Schema of each topic's value beside this file: `python infra/schemas/export.py`."""

from __future__ import annotations

import json
from pathlib import Path

from tagstream.core.events import ProductEvent, ProductTags

FOLDER = Path(__file__).parent


def schemas() -> dict[str, str]:
    """File name → its content."""
    contents = {
        "product-events.schema.json": ProductEvent.model_json_schema(),
        "product-tags.schema.json": ProductTags.model_json_schema(mode="serialization"),
    }
    return {name: json.dumps(content, indent=2) + "\n" for name, content in contents.items()}


if __name__ == "__main__":
    for name, content in schemas().items():
        (FOLDER / name).write_text(content)
