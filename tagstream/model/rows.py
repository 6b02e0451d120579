"""Labelled products, as training and evaluation read them from files.

    products.csv   id, title, one column a group, image (path in the folder); as fashion_products
    titles file    the same columns without image, .csv or .csv.gz
    items.jsonl    {"id", "text", "tags": {group: [values]}}; Chinese copy, as advertisegen

An empty label is unknown, not negative. Columns that are no group are named in `NOT_GROUPS`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tagstream.core.ports import TextFields

NOT_GROUPS = frozenset(
    {
        "id",
        "product_id",
        "title",
        "description",
        "brand",
        "lang",
        "attributes",
        "year",
        "image",
        "image_source",
    }
)
#: Groups of the Chinese copy that are used: those with at least a thousand labelled rows and a plain meaning.
ZH_GROUPS = ("类型", "材质", "颜色", "风格", "图案", "版型", "衣样式")


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled product. `labels` lists the known groups only. `image` is a file that may not exist.

    `unsaid`: values of free tags that the product has but this text does not say; unknown in training.
    """

    product_id: str
    text: TextFields
    labels: Mapping[str, tuple[str, ...]]
    image: Path | None = None
    unsaid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def encoded(self) -> bytes | None:
        return self.image.read_bytes() if self.image is not None and self.image.is_file() else None

    @property
    def picture_hash(self) -> str | None:
        encoded = self.encoded
        return None if encoded is None else hashlib.blake2b(encoded, digest_size=16).hexdigest()


def read_products(source: Path, limit: int | None = None) -> list[Row]:
    """Rows of `products.csv` in the folder `source`, or of a .csv/.csv.gz file; none without an id.

    Raises:
        ValueError: the file has no columns `id` and `title`.
    """
    path = source / "products.csv" if source.is_dir() else source
    rows: list[Row] = []
    with _open(path) as file:
        reader = csv.DictReader(file)
        if not {"id", "title"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path}: needs the columns id and title, has {reader.fieldnames}")
        groups = [name for name in reader.fieldnames or () if name not in NOT_GROUPS]
        for line in reader:
            if not line["id"]:
                continue
            labels = {group: (line[group].strip(),) for group in groups if (line[group] or "").strip()}
            image = path.parent / line["image"] if line.get("image") else None
            rows.append(Row(line["id"], _text(line), labels, image))
            if limit is not None and len(rows) >= limit:
                break
    return rows


def _text(line: Mapping[str, str | None]) -> TextFields:
    return TextFields(
        title=line["title"] or "",
        brand=line.get("brand") or None,
        description=line.get("description") or None,
        lang=line.get("lang") or "en",
    )


def read_zh(path: Path, limit: int | None = None) -> list[Row]:
    """Chinese copy as descriptions; the marks that stand for lost words are taken out."""
    rows = []
    with _open(path) as file:
        for line in _first(file, limit):
            copy = json.loads(line)
            labels = {group: tuple(copy["tags"][group]) for group in ZH_GROUPS if copy["tags"].get(group)}
            text = copy["text"].replace("<UNK>", " ").replace("BRAND", " ")
            rows.append(Row(copy["id"], TextFields(title=text, lang="zh"), labels))
    return rows


def _first(lines: IO[str], limit: int | None) -> Iterator[str]:
    for number, line in enumerate(lines):
        if limit is not None and number >= limit:
            return
        yield line


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
