"""Changes of a taxonomy; each returns a new one, named by its content. No value is ever deleted.

All raise BadSettings for an unknown group or value, and for a change that contradicts the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from tagstream.core.errors import BadSettings
from tagstream.core.taxonomy import Group, Taxonomy, Value, versioned


def add(
    taxonomy: Taxonomy,
    group: str,
    value: str,
    *,
    parent: str | None = None,
    names: Mapping[str, str] | None = None,
    kind: Literal["single", "multi"] = "single",
    parent_group: str | None = None,
) -> Taxonomy:
    """A new value at the end of its group. `kind` and `parent_group`: of a group that is new too."""
    made: dict[str, Any] = {"value": value}
    if parent is not None:
        made["parent"] = parent
    if names:
        made["names"] = dict(names)
    groups = _dumped(taxonomy)
    own = next((one for one in groups if one["name"] == group), None)
    if own is None:
        own = {"name": group, "kind": kind, "values": ()}
        if parent_group is not None:
            own["parent_group"] = parent_group
        groups.append(own)
    own["values"] = [*own["values"], made]
    return _made(groups)


def rename(taxonomy: Taxonomy, group: str, old: str, new: str) -> Taxonomy:
    """`new` takes the place of `old`, with its names, parent, threshold and children; `old` points to it.

    An earlier name of the value may be used again.
    """
    present, own = _live(taxonomy, group, old), _group(taxonomy, group)
    known = new in own.by_value or new in own.former
    if new == old or (known and own.current(new) != old):
        raise BadSettings(f"{group}={new} is there already: merge {old} into it")
    groups = _dumped(taxonomy)
    one = next(one for one in groups if one["name"] == group)
    kept = present.model_dump(exclude_unset=True) | {"value": new}
    others = [value for value in one["values"] if value["value"] != new]
    one["values"] = [kept if value["value"] == old else value for value in others]
    one["values"].append({"value": old, "replaced_by": new})
    one.get("former", {}).pop(new, None)
    return _made(_with_children_of(groups, group, old, new))


def merge(taxonomy: Taxonomy, group: str, value: str, into: str) -> Taxonomy:
    """`value` is replaced by `into`, which gets its children."""
    _live(taxonomy, group, value)
    _live(taxonomy, group, into)
    if value == into:
        raise BadSettings(f"{group}={value} cannot replace itself")
    groups = _changed(taxonomy, group, value, lambda known: known | {"replaced_by": into})
    return _made(_with_children_of(groups, group, value, into))


def retire(taxonomy: Taxonomy, group: str, value: str) -> Taxonomy:
    """`value`, and what it replaced, is no tag any more. Its children then have no known parent."""
    _live(taxonomy, group, value)
    return _made(_changed(taxonomy, group, value, lambda known: known | {"retired": True}))


def name(taxonomy: Taxonomy, group: str, value: str | None, names: Mapping[str, str]) -> Taxonomy:
    """Display names of a value, or of the group where `value` is None. An empty name removes one."""

    def named(known: dict[str, Any]) -> dict[str, Any]:
        merged = {lang: text for lang, text in {**known.get("names", {}), **names}.items() if text}
        return known | {"names": merged}

    if value is None:
        _group(taxonomy, group)
        return _made(named(one) if one["name"] == group else one for one in _dumped(taxonomy))
    _value(taxonomy, group, value)
    return _made(_changed(taxonomy, group, value, named))


def _group(taxonomy: Taxonomy, group: str) -> Group:
    try:
        return taxonomy.group(group)
    except KeyError:
        known = ", ".join(known.name for known in taxonomy.groups)
        raise BadSettings(f"no group {group!r}; there are: {known}") from None


def _value(taxonomy: Taxonomy, group: str, value: str) -> Value:
    found = _group(taxonomy, group).by_value.get(value)
    if found is None:
        raise BadSettings(f"no value {value!r} in {group}")
    return found


def _live(taxonomy: Taxonomy, group: str, value: str) -> Value:
    found = _value(taxonomy, group, value)
    if not found.is_live:
        how = f"replaced by {found.replaced_by}" if found.replaced_by else "retired"
        raise BadSettings(f"{group}={value} is {how} already")
    return found


def _dumped(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """The groups as plain data, without defaults, so that a file keeps its shape."""
    return [group.model_dump(exclude_unset=True) for group in taxonomy.groups]


def _changed(
    taxonomy: Taxonomy, group: str, value: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    groups = _dumped(taxonomy)
    for one in groups:
        if one["name"] == group:
            one["values"] = [change(known) if known["value"] == value else known for known in one["values"]]
    return groups


def _with_children_of(groups: list[dict[str, Any]], group: str, old: str, new: str) -> list[dict[str, Any]]:
    for one in groups:
        if one.get("parent_group") == group:
            one["values"] = [
                known | {"parent": new} if known.get("parent") == old else known for known in one["values"]
            ]
    return groups


def _made(groups: Iterable[dict[str, Any]]) -> Taxonomy:
    try:
        return versioned(Group.model_validate(group) for group in groups)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{field}: {message}" if field else message) from error
