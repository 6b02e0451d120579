"""The versioned tree of tags: groups, their values, parents, thresholds and names.

    {"taxonomy_version": "…",
     "groups": [{"name": "baseColour", "kind": "single", "langs": ["en"], "parent_group": null,
                 "names": {"en": "Colour", "zh": "颜色"},
                 "values": [{"value": "Navy Blue", "threshold": 0.41, "parent": null,
                             "names": {"zh": "藏青色"}}, …]}, …]}

The columns of a score matrix are the groups' values in this order. A `single` group gives at most one
value, a `multi` group every value above its threshold. `langs` is what the group applies to: a group
without it applies to every language. `parent` names a value of `parent_group`.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Value(BaseModel):
    """One value that a group can take. `threshold`: the calibrated score from which the tag is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str = Field(min_length=1, max_length=64)
    threshold: float = Field(default=0.5, ge=0, le=1)
    parent: str | None = None
    names: dict[str, str] = Field(default_factory=dict)


class Group(BaseModel):
    """One attribute of a product, such as its colour."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    kind: Literal["single", "multi"] = "single"
    langs: tuple[str, ...] = ()
    parent_group: str | None = None
    names: dict[str, str] = Field(default_factory=dict)
    values: tuple[Value, ...] = Field(min_length=1)

    def applies_to(self, lang: str) -> bool:
        return not self.langs or lang in self.langs


class Taxonomy(BaseModel):
    """All groups of one taxonomy version, in the order of the score columns."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    taxonomy_version: str
    groups: tuple[Group, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_consistent(self) -> Taxonomy:
        names = [group.name for group in self.groups]
        if len(set(names)) != len(names):
            raise ValueError("a group name stands twice")
        known = {group.name: {value.value for value in group.values} for group in self.groups}
        for group in self.groups:
            if len(known[group.name]) != len(group.values):
                raise ValueError(f"group {group.name}: a value stands twice")
            if group.parent_group is not None and group.parent_group not in known:
                raise ValueError(f"group {group.name}: its parent group {group.parent_group} is unknown")
            for value in group.values:
                if value.parent is not None and value.parent not in known.get(group.parent_group or "", ()):
                    raise ValueError(f"{group.name}={value.value}: its parent {value.parent} is unknown")
        return self

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Group name → its columns in a score matrix."""
        slices, start = {}, 0
        for group in self.groups:
            slices[group.name] = slice(start, start + len(group.values))
            start += len(group.values)
        return slices

    @property
    def size(self) -> int:
        """Number of score columns."""
        return sum(len(group.values) for group in self.groups)

    def group(self, name: str) -> Group:
        """Raises KeyError for a name that is not a group."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def content_hash(self) -> str:
        """Twelve hex digits over everything but the version: a good `taxonomy_version`."""
        body = self.model_dump_json(exclude={"taxonomy_version"})
        return hashlib.sha256(body.encode()).hexdigest()[:12]
