"""Display names of groups and values, as a file says them.

colour:
  names: {en: Colour, zh: 颜色}
  values:
    Black: {zh: 黑色}
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, RootModel

from tagstream.core.taxonomy import Taxonomy, versioned
from tagstream.dataset.documents import read_document


class _GroupNames(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    names: dict[str, str] = Field(default_factory=dict)
    values: dict[str, dict[str, str]] = Field(default_factory=dict)


class Names(RootModel[dict[str, _GroupNames]]):
    """Group → its names, and those of its values, by language."""


def named(taxonomy: Taxonomy, path: Path) -> Taxonomy:
    """The taxonomy with the display names of a file too. Names of unknown groups and values are left out.

    Raises:
        BadSettings: the file cannot be read or holds no names; names the line and the field.
    """
    names = read_document(path, Names, "GROUP").root
    groups = []
    for group in taxonomy.groups:
        if found := names.get(group.name):
            values = tuple(
                value.model_copy(update={"names": value.names | found.values.get(value.value, {})})
                for value in group.values
            )
            group = group.model_copy(update={"names": group.names | found.names, "values": values})
        groups.append(group)
    return versioned(groups)
