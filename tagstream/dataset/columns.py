"""Which column of a products file means what, and how its cells are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tagstream.core.ports import TextFields
from tagstream.dataset.table import Line, Member

#: Columns that are no label unless they are named as one.
NOT_GROUPS = frozenset(
    {
        *("id", "product_id", "title", "description", "brand", "lang", "attributes", "year", "image"),
        *("image_source", "event_version"),
    }
)
#: In place of a column's name: there is none.
NO_COLUMN = "none"
#: The names, in lower case with _ for spaces, by which a column is found that is not given.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "product_id", "sku", "uniq_id", "item_id", "asin"),
    "title": ("title", "name", "product_name", "product_title", "item_name", "标题", "商品名称", "text"),
    "description": ("description", "product_description", "desc", "描述"),
    "brand": ("brand", "vendor", "品牌"),
    "image": ("image", "image_path", "picture", "photo", "图片"),
    "lang_column": ("lang", "language", "locale"),
}
#: A column of objects whose members are labels, unless another one is named.
_LABELS_FROM = "tags"


class Columns(BaseModel):
    """Which column means what. None: the first that has one of its `ALIASES`; "none": there is none.

    `labels`: the groups. None: the taxonomy's groups; without a taxonomy every other column.
    `labels_from`: the column of objects, {group: values}, whose members are the labels; None: `tags`, where
    that is one. `separators`: each of these characters comes between values of a `multi` group. `strip`:
    marks that are taken out of texts. `lang`: the language of a row that names none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    title: str | None = None
    description: str | None = None
    brand: str | None = None
    image: str | None = None
    lang: str | None = Field(default=None, pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*$")
    lang_column: str | None = None
    labels: list[str] | None = None
    labels_from: str | None = None
    separators: str = "|;"
    strip: list[Annotated[str, Field(min_length=1)]] = []

    def found_in(self, header: Sequence[str], groups: Iterable[str] | None = None) -> Columns:
        """The same with every role and label decided: a column of the header, or `NO_COLUMN`.

        Raises:
            ValueError: a named column is missing, or there is neither text nor picture, or no label.
        """
        there = f"; there are: {', '.join(header)}"
        outer = self.labels_from or (_LABELS_FROM if _members(header, _LABELS_FROM) else NO_COLUMN)
        offered = header if outer == NO_COLUMN else _members(header, outer)
        if not offered and outer != NO_COLUMN:
            raise ValueError(f"no column of objects {outer!r} for labels_from{there}")
        labels = self.labels
        if labels is None and groups is not None:
            labels = [group for group in groups if group in offered]
            if not labels:
                raise ValueError(f"no column is a group of the taxonomy{there}")
        if missing := [name for name in labels or () if name not in offered]:
            raise ValueError(f"no column {missing[0]!r} for labels{there}")
        plain = {name.casefold().replace(" ", "_"): name for name in header if name not in (labels or ())}
        roles: dict[str, Any] = {}
        for role, aliases in ALIASES.items():
            given = getattr(self, role)
            if given not in (None, NO_COLUMN, *header):
                raise ValueError(f"no column {given!r} for {role}{there}")
            found = next((plain[alias] for alias in aliases if alias in plain), NO_COLUMN)
            roles[role] = found if given is None else given
        if {roles["title"], roles["description"], roles["image"]} == {NO_COLUMN}:
            raise ValueError(f"no column of titles, descriptions or pictures{there}")
        if labels is None and outer != NO_COLUMN:
            labels = [*offered]
        elif labels is None:
            objects = objects_of(header)
            taken = NOT_GROUPS | set(roles.values()) | objects
            labels = [name for name in offered if not (name in taken or isinstance(name, Member))]
        return self.model_copy(update={"labels": labels, "labels_from": outer, **roles})

    def of_label(self, group: str) -> str:
        """The column that has the labels of a group, once `labels_from` is decided."""
        return group if self.labels_from in (None, NO_COLUMN) else f"{self.labels_from}.{group}"

    def changed_by(self, other: Columns) -> Columns:
        """The same with everything in which `other` differs from the defaults."""
        return self.model_copy(update=other.model_dump(exclude_defaults=True))

    def texts(self, line: Line) -> TextFields:
        """The texts of a row, once the columns are found. Empty ones but the title are None."""
        texts = [line.text(of or NO_COLUMN) for of in (self.title, self.brand, self.description)]
        for mark in self.strip:
            texts = [text.replace(mark, " ") for text in texts]
        title, brand, description = texts
        lang = line.text(self.lang_column or NO_COLUMN) or self.lang
        return TextFields(title=title, brand=brand or None, description=description or None, lang=lang)


def objects_of(header: Sequence[str]) -> set[str]:
    """The columns whose cells are objects."""
    return {name.partition(".")[0] for name in header if isinstance(name, Member)}


def _members(header: Sequence[str], outer: str) -> list[str]:
    members = (name for name in header if isinstance(name, Member))
    return [name.removeprefix(f"{outer}.") for name in members if name.startswith(f"{outer}.")]


def split_cell(cell: str, separators: str) -> list[str]:
    """The values of one cell, in order, each once, white space collapsed."""
    parts = re.split(f"[{re.escape(separators)}]", cell) if separators else [cell]
    return list(dict.fromkeys(value for part in parts if (value := " ".join(part.split()))))
