"""Labelled products, as training and evaluation read them from a table.

An empty label is unknown, not negative. A row without picture has `image` None; a row without title has an
empty one. Without a taxonomy every cell is one value, as it is written. With one, labels are found by their
names and former names in any case, `multi` groups have several in a cell, and retired values are no labels.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tagstream.core.language import language_of
from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Group, Taxonomy
from tagstream.dataset.columns import NO_COLUMN, Columns, split_cell
from tagstream.dataset.description import DataFile, Dataset, read_dataset
from tagstream.dataset.table import Line, read_table

#: What is shown of a long list of complaints.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled product. `labels` lists the known groups only.

    `image`: a file that may be missing, or the encoded bytes. `unsaid`: values of free tags that the product
    has but this text does not name; unknown in training.
    """

    product_id: str
    text: TextFields
    labels: Mapping[str, tuple[str, ...]]
    image: Path | bytes | None = None
    unsaid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def lang(self) -> str:
        """The language of its text, as `language_of` finds it."""
        return language_of(self.text.title or self.text.description or "", self.text.lang)

    @property
    def encoded(self) -> bytes | None:
        if isinstance(self.image, Path):
            return self.image.read_bytes() if self.image.is_file() else None
        return self.image

    @property
    def has_picture(self) -> bool:
        return self.image.is_file() if isinstance(self.image, Path) else self.image is not None

    @property
    def picture_hash(self) -> str | None:
        encoded = self.encoded
        return None if encoded is None else hashlib.blake2b(encoded, digest_size=16).hexdigest()


#: What becomes of a label outside the taxonomy: `refuse` the file, or `keep` it as a label that no tag can
#: match, so that evaluation counts a tag in its place as wrong. Training takes it as unknown.
Unknown = Literal["refuse", "keep"]
#: Id → the file and the line that have it.
Places = dict[str, tuple[Path, int]]


def read_products(
    source: Path | Dataset,
    limit: int | None = None,
    columns: Columns | None = None,
    taxonomy: Taxonomy | None = None,
    unknown: Unknown = "refuse",
) -> list[Row]:
    """Rows of all products files of a data set, or of what `read_dataset` finds at a path.

    A row without an id gets one of its content, which stays the same when rows are added or moved.

    Args:
        limit: at most so many rows of each file.

    Raises:
        ValueError: a file cannot be read; a column is missing; an id is there twice; a label is outside the
            taxonomy and `unknown` is "refuse". The line is named.
    """
    dataset = source if isinstance(source, Dataset) else read_dataset(source, columns)
    places: Places = {}
    rows: list[Row] = []
    for file in dataset.products:
        rows += read_rows(file, limit, taxonomy, unknown, places)
    return rows


def read_rows(
    file: DataFile,
    limit: int | None = None,
    taxonomy: Taxonomy | None = None,
    unknown: Unknown = "refuse",
    places: Places | None = None,
) -> list[Row]:
    """Rows of one file, as `read_products`. `places`: ids that are taken; those of this file are added."""
    table = read_table(file.path)
    groups = [group.name for group in taxonomy.groups] if taxonomy else None
    lines = list(itertools.islice(table.lines(), limit))  # first: no other complaint hides a broken line
    try:
        columns = file.columns.found_in(table.columns, groups)
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
    reader = _Reader(file.path, columns, taxonomy, {} if places is None else places)
    rows = [reader.row(line) for line in lines]
    if unknown == "refuse" and reader.outside and taxonomy:
        more = f" and {len(reader.outside) - _SHOWN:,} more" if len(reader.outside) > _SHOWN else ""
        raise ValueError(
            f"{file.path}: labels outside the taxonomy {taxonomy.taxonomy_version}: "
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


class _Reader:
    """Makes rows of one file's lines.

    `places`: the ids that are taken. `outside`: complaints about labels that the taxonomy does not know.
    """

    def __init__(self, path: Path, columns: Columns, taxonomy: Taxonomy | None, places: Places) -> None:
        self._path = path
        self._columns = columns
        self._places = places
        self._groups = {group.name: group for group in taxonomy.groups} if taxonomy else {}
        self._retired = {
            name: {v.value.casefold() for v in group.values if group.current(v.value) is None}
            for name, group in self._groups.items()
        }
        self.outside: list[str] = []

    def row(self, line: Line) -> Row:
        """Raises ValueError: a cell is no text, the id is taken, or there are too many labels."""
        columns = self._columns
        try:
            text = columns.texts(line)
            image = line.cells.get(columns.image or NO_COLUMN)
            picture: Path | bytes | None = image if isinstance(image, bytes) else None
            if picture is None and (name := line.text(columns.image or NO_COLUMN)) and "://" not in name:
                picture = self._path.parent / name
            labels = {name: said for name in columns.labels or () if (said := self._labels(line, name))}
            product_id = self._id(line, text, picture)
        except ValueError as error:
            raise ValueError(f"{self._path}: {error}") from error
        lang = text.lang or language_of(text.title or text.description or "")
        return Row(product_id, text._replace(lang=lang), labels, picture)

    def _id(self, line: Line, text: TextFields, picture: Path | bytes | None) -> str:
        image = self._columns.image or NO_COLUMN
        if product_id := line.text(self._columns.id or NO_COLUMN):
            if product_id in self._places:
                path, number = self._places[product_id]
                first = f"line {number}" if path == self._path else f"{path}, line {number},"
                raise ValueError(f"line {line.number}: {first} has the id {product_id!r} too")
        else:
            content = "\x00".join((text.title, text.description or "", "")).encode(errors="replace")
            content += picture if isinstance(picture, bytes) else line.text(image).encode(errors="replace")
            digest = hashlib.blake2b(content, digest_size=8).hexdigest()
            product_id, times = f"row-{digest}", 1
            while product_id in self._places:
                times += 1
                product_id = f"row-{digest}-{times}"
        self._places[product_id] = (self._path, line.number)
        return product_id

    def _labels(self, line: Line, name: str) -> tuple[str, ...]:
        cell, group = line.cell(self._columns.of_label(name)), self._groups.get(name)
        said: Sequence[str] = cell if isinstance(cell, tuple) else [cell]
        if isinstance(cell, str) and group is not None and group.kind == "multi":
            said = split_cell(cell, self._columns.separators)
        if group is None:
            return tuple(label for label in said if label)
        if group.kind == "single" and len(said) > 1:
            raise ValueError(f"line {line.number}: {name} has {len(said)} values, it takes one")
        meant = (self._meaning(group, label, line.number) for label in said if label)
        return tuple(dict.fromkeys(label for label in meant if label is not None))

    def _meaning(self, group: Group, label: str, number: int) -> str | None:
        spelling = " ".join(label.split()).casefold()
        if spelling in self._retired[group.name]:
            return None
        if spelling not in group.spoken:
            self.outside.append(f"line {number}: {group.name}={label}")
        return group.spoken.get(spelling, label)
