"""A taxonomy from labelled rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tagstream.core.taxonomy import Group, Taxonomy, Value, versioned
from tagstream.dataset.names import GROUP_NAMES, value_names
from tagstream.dataset.rows import ZH_GROUPS
from tagstream.dataset.split import CLASS_MIN_ROWS, class_lists
from tagstream.text.mentions import longer_names

#: Groups in which a product can have several values.
MULTI_GROUPS = frozenset({"材质", "颜色", "风格", "图案", "版型", "衣样式"})
PARENT_GROUPS = {"subCategory": "masterCategory", "articleType": "subCategory"}


def build_taxonomy(
    classes: Mapping[str, Sequence[str]], labels: Iterable[Mapping[str, Sequence[str]]]
) -> Taxonomy:
    """Groups and values as listed; parents by the majority of the labelled rows.

    Raises:
        ValueError: no group is listed.
    """
    if not classes:
        raise ValueError("no label has two values with enough rows: there is nothing to learn")
    labels = list(labels)
    named: dict[str, set[str]] = defaultdict(set)
    pairs: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in labels:
        for group, values in row.items():
            named[group].update(values)
        for child, parent in PARENT_GROUPS.items():
            if row.get(child) and row.get(parent):
                pairs[child, row[child][0]][row[parent][0]] += 1
    groups = []
    for name, values in classes.items():
        parent_group = PARENT_GROUPS.get(name)
        if parent_group not in classes:
            parent_group = None
        made = []
        for value in values:
            common = pairs[name, value].most_common(1)
            known = parent_group is not None and common and common[0][0] in classes[parent_group]
            made.append(
                Value(value=value, parent=common[0][0] if known else None, names=value_names(name, value))
            )
        groups.append(
            Group(
                name=name,
                kind="multi" if name in MULTI_GROUPS else "single",
                langs=("zh",) if name in ZH_GROUPS else ("en",),
                parent_group=parent_group,
                names=GROUP_NAMES.get(name, {}),
                not_learned=longer_names(values, named[name]),
                values=tuple(made),
            )
        )
    return versioned(groups)


def learnable(
    taxonomy: Taxonomy, labels: Iterable[Mapping[str, Sequence[str]]], min_rows: int = CLASS_MIN_ROWS
) -> tuple[Taxonomy, list[str]]:
    """What of a given taxonomy these labelled rows can teach, and a sentence on each group that they cannot.

    Values with fewer than `min_rows` rows are left out, then groups with fewer than two values. What was
    replaced is a former value of its successor. `labels` are as `read_products` gives them with `taxonomy`.

    Raises:
        ValueError: nothing is left.
    """
    classes = class_lists(labels, min_rows)
    live = {
        group.name: [v for v in group.values if v.is_live and v.value in classes.get(group.name, ())]
        for group in taxonomy.groups
    }
    kept = {name: {value.value for value in values} for name, values in live.items() if len(values) > 1}
    groups = []
    for group in taxonomy.groups:
        if group.name not in kept:
            continue
        above = taxonomy.group(group.parent_group) if group.parent_group in kept else None
        values = []
        for value in live[group.name]:
            parent = above.current(value.parent) if above is not None and value.parent is not None else None
            known = above is not None and parent in kept[above.name]
            values.append(value.model_copy(update={"parent": parent if known else None}))
        old = [*group.former, *(value.value for value in group.values if not value.is_live)]
        former = {one: now for one in old if (now := group.current(one)) in kept[group.name]}
        update = {
            "values": values,
            "former": former,
            "not_learned": longer_names({*kept[group.name], *former}, {*group.not_learned, *group.by_value}),
            "parent_group": above.name if above else None,
        }
        groups.append(Group.model_validate(group.model_dump() | update))
    if not groups:
        raise ValueError(f"no group has two values with {min_rows} labelled rows: there is nothing to learn")
    left_out = [
        f"{name}: {len(values)} of its values have {min_rows} labelled rows, two are needed"
        for name, values in live.items()
        if name not in kept
    ]
    return versioned(groups), left_out


def subset(taxonomy: Taxonomy, groups: Sequence[str]) -> Taxonomy:
    """These groups alone, in this order, without their parents."""
    made = []
    for name in groups:
        group = taxonomy.group(name)
        values = tuple(value.model_copy(update={"parent": None}) for value in group.values)
        made.append(group.model_copy(update={"parent_group": None, "values": values}))
    return versioned(made)


def columns_of(taxonomy: Taxonomy, groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """The taxonomy's columns of these groups, in the order of the groups."""
    slices = [taxonomy.slices[group] for group in groups]
    return np.concatenate([np.arange(s.start, s.stop) for s in slices]) if slices else np.empty(0, np.int64)
