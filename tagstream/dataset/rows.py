"""Labelled products, as training and evaluation read them from files.

    products.csv   an id, a title, one column a group, image (a path in the folder): any CSV, JSONL or Parquet
                   file with a header (`model.tables`); which column means what: `Columns`
    items.jsonl    {"id", "text", "tags": {group: [values]}}; Chinese copy, as advertisegen

An empty label is unknown, not negative. A set without pictures, or without titles, is read all the same: its
rows have `image` None, or an empty title. Without a taxonomy every cell is one value, as it is written. With
one, labels are taken by their names and former names in any case, `multi` groups have several in a cell, and
retired values are no labels.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from tagstream.core.language import language_of
from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Group, Taxonomy
from tagstream.dataset.table import Line, open_text, products_file, read_lines

#: Columns that are no label unless they are named as one.
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

#: In place of a column's name: there is none.
NO_COLUMN = "none"
#: The names, in lower case with _ for spaces, by which a column is found that is not given.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "product_id", "sku", "uniq_id", "item_id", "asin"),
    "title": ("title", "name", "product_name", "product_title", "item_name", "标题", "商品名称"),
    "description": ("description", "product_description", "desc", "描述"),
    "brand": ("brand", "vendor", "品牌"),
    "image": ("image", "image_path", "picture", "photo", "图片"),
    "lang": ("lang", "language", "locale"),
}
#: What is shown of a long list of complaints.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column means what. None: the first that has one of its `ALIASES`; "none": there is none.

    `labels`: the columns that are groups. None: the taxonomy's groups, or without a taxonomy every column
    that is nothing else. `separators`: each of these characters stands between values of a `multi` group.
    """

    id: str | None = None
    title: str | None = None
    description: str | None = None
    brand: str | None = None
    image: str | None = None
    lang: str | None = None
    labels: tuple[str, ...] | None = None
    separators: str = "|;"

    def found_in(self, header: Sequence[str], groups: Iterable[str] | None = None) -> Columns:
        """The same with every role and label decided: a column of the header, or `NO_COLUMN`.

        Raises:
            ValueError: a named column is not there, or there is neither text nor picture, or no label.
        """
        there = f"; there are: {', '.join(header)}"
        labels = self.labels
        if labels is None and groups is not None:
            labels = tuple(group for group in groups if group in header)
            if not labels:
                raise ValueError(f"no column is a group of the taxonomy{there}")
        if missing := [name for name in labels or () if name not in header]:
            raise ValueError(f"no column {missing[0]!r} for labels{there}")
        plain = {name.casefold().replace(" ", "_"): name for name in header if name not in (labels or ())}
        roles = {}
        for role, aliases in ALIASES.items():
            given = getattr(self, role)
            if given not in (None, NO_COLUMN, *header):
                raise ValueError(f"no column {given!r} for {role}{there}")
            found = next((plain[alias] for alias in aliases if alias in plain), NO_COLUMN)
            roles[role] = found if given is None else given
        if {roles["title"], roles["description"], roles["image"]} == {NO_COLUMN}:
            raise ValueError(f"no column of titles, descriptions or pictures{there}")
        if labels is None:
            taken = NOT_GROUPS | set(roles.values())
            labels = tuple(name for name in header if name not in taken)
        return replace(self, labels=labels, **roles)


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


#: What becomes of a label outside the taxonomy: `refuse` the file, or `keep` it as a label that no tag can
#: match, so that evaluation counts what is said in its place as wrong, and training takes it as unknown.
Unknown = Literal["refuse", "keep"]


def columns_of(
    id: str | None = None,
    title: str | None = None,
    description: str | None = None,
    brand: str | None = None,
    image: str | None = None,
    labels: str | None = None,
    separators: str = "|;",
) -> Columns:
    """`Columns` from what a command line says; `labels` are comma-separated."""
    groups = tuple(name.strip() for name in labels.split(",")) if labels else None
    return Columns(
        id=id,
        title=title,
        description=description,
        brand=brand,
        image=image,
        labels=groups,
        separators=separators,
    )


def read_products(
    source: Path,
    limit: int | None = None,
    columns: Columns | None = None,
    taxonomy: Taxonomy | None = None,
    unknown: Unknown = "refuse",
) -> list[Row]:
    """Rows of a products file, or of the one in the folder `source`.

    A row without an id gets one of its content, which stays the same when rows are added or moved.

    Raises:
        ValueError: the file cannot be read; a column is missing; an id stands twice; a label is outside the
            taxonomy and `unknown` is "refuse". The line is named.
    """
    path = products_file(source)
    header, lines = read_lines(path)
    groups = [group.name for group in taxonomy.groups] if taxonomy else None
    try:
        found = (columns or Columns()).found_in(header, groups)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    reader = _Reader(path, found, taxonomy)
    rows = []
    for line in lines:
        rows.append(reader.row(line))
        if limit is not None and len(rows) >= limit:
            break
    if unknown == "refuse" and reader.outside and taxonomy:
        more = f" and {len(reader.outside) - _SHOWN:,} more" if len(reader.outside) > _SHOWN else ""
        raise ValueError(
            f"{path}: labels outside the taxonomy {taxonomy.taxonomy_version}: "
            f"{'; '.join(reader.outside[:_SHOWN])}{more}"
        )
    return rows


def unknown_labels(rows: Iterable[Row], taxonomy: Taxonomy) -> Counter[tuple[str, str]]:
    """(group, label) → rows, for the labels that were kept although the taxonomy does not know them."""
    known = {group.name: group.by_value for group in taxonomy.groups}
    return Counter(
        (group, label)
        for row in rows
        for group, labels in row.labels.items()
        for label in labels
        if group in known and label not in known[group]
    )


def split_cell(cell: str, separators: str) -> list[str]:
    """The values of one cell, in order, each once, white space collapsed."""
    parts = re.split(f"[{re.escape(separators)}]", cell) if separators else [cell]
    return list(dict.fromkeys(said for part in parts if (said := " ".join(part.split()))))


class _Reader:
    """Makes rows of lines. `outside`: complaints about labels that the taxonomy does not know."""

    def __init__(self, path: Path, columns: Columns, taxonomy: Taxonomy | None) -> None:
        self._path = path
        self._columns = columns
        self._groups = {group.name: group for group in taxonomy.groups} if taxonomy else {}
        self._retired = {
            name: {v.value.casefold() for v in group.values if group.current(v.value) is None}
            for name, group in self._groups.items()
        }
        self._line_of: dict[str, int] = {}
        self.outside: list[str] = []

    def row(self, line: Line) -> Row:
        columns = self._columns
        title, description = line.text(columns.title), line.text(columns.description)
        image = line.text(columns.image)
        text = TextFields(
            title=title,
            brand=line.text(columns.brand) or None,
            description=description or None,
            lang=line.text(columns.lang) or language_of(title or description),
        )
        is_file = image and "://" not in image
        return Row(
            self._id(line, title, description, image),
            text,
            {name: labels for name in columns.labels or () if (labels := self._labels(line, name))},
            self._path.parent / image if is_file else None,
        )

    def _id(self, line: Line, *content: str) -> str:
        if product_id := line.text(self._columns.id):
            if product_id in self._line_of:
                first = self._line_of[product_id]
                raise ValueError(
                    f"{self._path}: line {line.number}: line {first} has the id {product_id!r} too"
                )
        else:
            digest = hashlib.blake2b("\x00".join(content).encode(errors="replace"), digest_size=8).hexdigest()
            product_id, times = f"row-{digest}", 1
            while product_id in self._line_of:
                times += 1
                product_id = f"row-{digest}-{times}"
        self._line_of[product_id] = line.number
        return product_id

    def _labels(self, line: Line, name: str) -> tuple[str, ...]:
        cell, group = line.cells.get(name, ""), self._groups.get(name)
        if isinstance(cell, str):
            multi = group is not None and group.kind == "multi"
            said = split_cell(cell, self._columns.separators) if multi else [cell.strip()]
        else:
            said = list(cell)
        if group is None:
            return tuple(label for label in said if label)
        if group.kind == "single" and len(said) > 1:
            raise ValueError(f"{self._path}: line {line.number}: {name} has {len(said)} values, it takes one")
        meant = (self._meaning(group, label, line.number) for label in said if label)
        return tuple(dict.fromkeys(label for label in meant if label is not None))

    def _meaning(self, group: Group, label: str, number: int) -> str | None:
        spelling = " ".join(label.split()).casefold()
        if spelling in self._retired[group.name]:
            return None
        if spelling not in group.spoken:
            self.outside.append(f"line {number}: {group.name}={label}")
        return group.spoken.get(spelling, label)


def read_zh(path: Path, limit: int | None = None) -> list[Row]:
    """Chinese copy as descriptions; the marks that stand for lost words are taken out."""
    rows = []
    with open_text(path) as file:
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
