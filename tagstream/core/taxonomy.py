"""The versioned tree of tags: groups, their values, parents, thresholds and names.

    {"taxonomy_version": "…",
     "groups": [{"name": "baseColour", "kind": "single", "langs": ["en"], "parent_group": null,
                 "names": {"en": "Colour", "zh": "颜色"},
                 "values": [{"value": "Navy Blue", "threshold": 0.41, "parent": null,
                             "names": {"zh": "藏青色"}},
                            {"value": "Navy", "replaced_by": "Navy Blue"}, …]}, …]}

The columns of a score matrix are the groups' values in this order. A `single` group gives at most one
value, a `multi` group every value above its threshold. `langs` is what the group applies to: a group
without it applies to every language. `parent` names a value of `parent_group`.

A value never leaves: it is `replaced_by` another of its group, or `retired`. Then it is never given as a
tag, its scores count for its successor, and tags that were stored under it can still be read. `former`
are values that were replaced and have no column of their own in a model: old value → the present one.
`not_learned`: names the model has seen but cannot predict, because they had too few rows or were added
later. They still block shorter names inside them, so that 墨绿色 does not count as 绿色.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tagstream.core.language import name_in

VALUE_MAX_CHARS = 64


class Value(BaseModel):
    """One value that a group can take. `threshold`: the calibrated score from which the tag is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str = Field(min_length=1, max_length=VALUE_MAX_CHARS)
    threshold: float = Field(default=0.5, ge=0, le=1)
    parent: str | None = None
    names: dict[str, str] = Field(default_factory=dict)
    replaced_by: str | None = None
    retired: bool = False

    @property
    def is_live(self) -> bool:
        return self.replaced_by is None and not self.retired


class _Indexed(BaseModel):
    """Keeps what is looked up often as cached properties."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Without what was cached: it may not fit the updated fields."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


class Group(_Indexed):
    """One attribute of a product, such as its colour."""

    name: str = Field(min_length=1, max_length=64)
    kind: Literal["single", "multi"] = "single"
    langs: tuple[str, ...] = ()
    parent_group: str | None = None
    names: dict[str, str] = Field(default_factory=dict)
    former: dict[str, str] = Field(default_factory=dict)
    not_learned: tuple[Annotated[str, Field(min_length=1, max_length=VALUE_MAX_CHARS)], ...] = ()
    values: tuple[Value, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_consistent(self) -> Group:
        known = {value.value: value for value in self.values}
        if len(known) != len(self.values):
            raise ValueError(
                f"group {self.name}: {_first_twice(v.value for v in self.values)!r} is listed twice"
            )
        for value in self.values:
            if value.replaced_by is not None and value.retired:
                raise ValueError(f"{self.name}={value.value}: replaced_by and retired exclude each other")
            if value.replaced_by is not None and value.replaced_by not in known:
                raise ValueError(f"{self.name}={value.value}: its successor {value.replaced_by} is unknown")
            self._walk(value)
        for old, now in self.former.items():
            if old in known or now not in known:
                raise ValueError(f"group {self.name}: the former value {old} → {now} is not one of its kind")
        return self

    def _walk(self, value: Value) -> Value:
        """The end of a chain of successors. Raises ValueError if it runs in a circle."""
        seen = {value.value}
        while value.replaced_by is not None:
            value = self.by_value[value.replaced_by]
            if value.value in seen:
                raise ValueError(f"{self.name}: {' → '.join(sorted(seen))} replace each other in a circle")
            seen.add(value.value)
        return value

    @cached_property
    def by_value(self) -> Mapping[str, Value]:
        return {value.value: value for value in self.values}

    @cached_property
    def spoken(self) -> Mapping[str, str]:
        """Casefolded spelling → the live value that it means: values, their names, and what they replaced.

        A value's own spelling goes before another's display name, and that before what was replaced.
        """
        spoken = {}
        for old in (*self.former, *(value.value for value in self.values if not value.is_live)):
            if (now := self.current(old)) is not None:
                spoken[old.casefold()] = now
        live = [value for value in self.values if value.is_live]
        spoken |= {name.casefold(): value.value for value in live for name in value.names.values()}
        return spoken | {value.value.casefold(): value.value for value in live}

    def current(self, value: str) -> str | None:
        """The present value: itself, its last successor, or None if that is retired.

        Raises KeyError for a value that was never in this group.
        """
        end = self._walk(self.by_value[self.former.get(value, value)])
        return None if end.retired else end.value

    def applies_to(self, lang: str) -> bool:
        return not self.langs or lang in self.langs

    def name_in(self, wanted: Sequence[str]) -> str:
        """The group's name in the first of these languages that it has one in, else its own."""
        return name_in(self._own(self.name) | self.names, wanted) or self.name

    def value_name_in(self, value: str, wanted: Sequence[str]) -> str:
        """The same for a value, old ones included. What is unknown here is its own name."""
        known = self.by_value.get(self.former.get(value, value))
        return name_in(self._own(value) | (known.names if known else {}), wanted) or value

    def _own(self, text: str) -> dict[str, str]:
        """A group of one language is written in it."""
        return {self.langs[0]: text} if len(self.langs) == 1 else {}


class Taxonomy(_Indexed):
    """All groups of one taxonomy version, in the order of the score columns."""

    taxonomy_version: str
    groups: tuple[Group, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_consistent(self) -> Taxonomy:
        known = {group.name: group for group in self.groups}
        if len(known) != len(self.groups):
            raise ValueError(
                f"the group {_first_twice(group.name for group in self.groups)!r} is listed twice"
            )
        for group in self.groups:
            if group.parent_group is not None and group.parent_group not in known:
                raise ValueError(f"group {group.name}: its parent group {group.parent_group} is unknown")
            above = known.get(group.parent_group or "")
            for value in group.values:
                if value.parent is not None and (above is None or value.parent not in above.by_value):
                    raise ValueError(f"{group.name}={value.value}: its parent {value.parent} is unknown")
        for group in self.groups:
            seen = {group.name}
            while group.parent_group is not None:
                group = known[group.parent_group]
                if group.name in seen:
                    raise ValueError(f"the groups {', '.join(sorted(seen))} are parents in a circle")
                seen.add(group.name)
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
        body = self.model_dump_json(exclude={"taxonomy_version"}, exclude_defaults=True)
        return hashlib.sha256(body.encode()).hexdigest()[:12]


def versioned(groups: Iterable[Group]) -> Taxonomy:
    """The taxonomy of these groups, named by its content. Raises ValueError if they do not fit together."""
    bare = Taxonomy(taxonomy_version="", groups=tuple(groups))
    return bare.model_copy(update={"taxonomy_version": bare.content_hash()})


def subset(taxonomy: Taxonomy, groups: Sequence[str]) -> Taxonomy:
    """These groups alone, in this order, without their parents."""
    made = []
    for name in groups:
        group = taxonomy.group(name)
        values = tuple(value.model_copy(update={"parent": None}) for value in group.values)
        made.append(group.model_copy(update={"parent_group": None, "values": values}))
    return versioned(made)


def columns_of(taxonomy: Taxonomy, groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """The score columns of these groups, in the order of the groups."""
    slices = [taxonomy.slices[group] for group in groups]
    return np.concatenate([np.arange(s.start, s.stop) for s in slices]) if slices else np.empty(0, np.int64)


def _first_twice(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""
