"""Scores and choices that never contradict the tree of values. By construction, not by repair.

`settled` makes scores of raw ones, in this order:
1. A replaced value's score goes to its successor, which keeps the higher of the two; replaced and retired
   values score 0.
2. A parent scores at least as much as each of its children (the max constraint of C-HMCNN, Giunchiglia and
   Lukasiewicz 2020).

`given` decides which values are tags:
1. In a tree of single-choice groups the *path* with the highest product of scores is chosen, top down, so
   a sure articleType may correct a doubtful masterCategory and the other way round. A path counts the scores
   before the max constraint, which would count a child twice. Where a value has no children, their place
   counts as likely as the value itself, so that short paths are not favoured.
2. A value whose parent is unknown fits under any parent. A `multi` group gives values under a chosen parent
   only.
3. What reaches its threshold is given, and with it all its ancestors: they score no less.

Measured on the test part of fashion_products (masterCategory, subCategory, articleType; 993 rows): the mean
accuracy of independent choices, with 1 contradiction with titles and 24 from pictures alone, goes from 99.30
to 99.33 and from 93.22 to 93.39; choosing strictly top down goes to 99.26 and 93.05.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tagstream.core.taxonomy import Group, Taxonomy

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Branch:
    """A group and where its values hang. `parent_of`: place within the parent group, -1 where unknown."""

    name: str
    columns: slice
    single: bool
    parent: str | None
    parent_of: Places
    free: Places  # places of the live values without a known parent
    linked: Places  # places of the live values with one, sorted by parent
    starts: Places  # where in `linked` each parent's children begin
    parents: Places  # those parents' places
    childless: Places  # the parent group's places without children here

    def best_child(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(rows, parents): the highest score among each parent's children."""
        best: npt.NDArray[Any] = np.maximum.reduceat(scores[:, self.linked], self.starts, axis=1)
        return best


class Hierarchy:
    """The rules of one taxonomy, compiled; every method takes (events, taxonomy.size)."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._thresholds = np.array(
            [value.threshold for group in taxonomy.groups for value in group.values], np.float32
        )
        self._live = np.array([value.is_live for group in taxonomy.groups for value in group.values])
        self._gone = np.flatnonzero(~self._live)
        self._folds = _folds(taxonomy)
        by_name = {group.name: group for group in taxonomy.groups}
        ordered = sorted(taxonomy.groups, key=lambda group: _depth(group, by_name))
        self._branches = [_branch(group, by_name, taxonomy.slices[group.name]) for group in ordered]
        self._slices = taxonomy.slices
        self._lineages = lineages(taxonomy)

    def settled(self, scores: Floats) -> Floats:
        """Scores in which successors have what was replaced, and no parent is below its child."""
        scores = self._without_gone(scores)
        if not any(len(branch.linked) for branch in self._branches):
            return scores
        lifted = scores.copy()
        for branch in reversed(self._branches):
            if branch.parent is not None and len(branch.linked):
                columns = self._slices[branch.parent].start + branch.parents
                best = branch.best_child(lifted[:, branch.columns])
                lifted[:, columns] = np.maximum(lifted[:, columns], best)
        return lifted

    def given(self, scores: Floats, settled: Floats) -> Bools:
        """Which values are tags. `scores` are the raw ones, `settled` what `settled(scores)` made of them."""
        given = self.chosen(scores)
        given &= settled >= self._thresholds
        for branch in reversed(self._branches):
            if branch.parent is not None and len(branch.linked):
                columns = self._slices[branch.parent].start + branch.parents
                given[:, columns] |= branch.best_child(given[:, branch.columns])
        return given

    def chosen(self, scores: Floats) -> Bools:
        """The same without thresholds: of each single-choice group one value at most, of the others all
        values that a chosen parent allows."""
        scores = self._without_gone(scores)
        paths = self._path_scores(scores)
        chosen = np.zeros(scores.shape, np.bool_)
        rows = np.arange(len(scores))
        for branch in self._branches:
            allowed = self._live[branch.columns]
            if branch.parent is not None:
                of_parent = chosen[:, self._slices[branch.parent]]
                # Place -1 of the parent group means an unknown parent, under which all is allowed.
                under = np.concatenate([of_parent, np.ones((len(scores), 1), np.bool_)], axis=1)
                allowed = under[:, branch.parent_of] & allowed
            if branch.single:
                path = np.where(allowed, paths[branch.name], np.float32(-1))
                best = path.argmax(axis=1)
                chosen[rows, branch.columns.start + best] = path[rows, best] >= 0
            else:
                chosen[:, branch.columns] = allowed
        return chosen

    def agree(self, group: str, value: str, stated: Mapping[str, str]) -> bool:
        """Whether this tag agrees with what was stated (group → value): their ancestors do not differ."""
        own = self._lineages.get((group, value), {})
        return all(
            own.get(above, at) == at
            for other in stated.items()
            for above, at in self._lineages.get(other, {}).items()
        )

    def _without_gone(self, scores: Floats) -> Floats:
        if not len(self._gone):
            return scores
        scores = scores.copy()
        for old, now, single in self._folds:
            if single:  # one choice: what spoke for either speaks for the one that is left
                scores[:, now] += scores[:, old]
            else:
                np.maximum(scores[:, now], scores[:, old], out=scores[:, now])
        scores[:, self._gone] = 0
        return scores

    def _path_scores(self, scores: Floats) -> dict[str, Floats]:
        """Of each single-choice group: the highest product of scores of a path that goes on from a value."""
        paths = {branch.name: scores[:, branch.columns] for branch in self._branches if branch.single}
        for branch in reversed(self._branches):
            if branch.parent not in paths or not branch.single:
                continue
            below, above = paths[branch.name], paths[branch.parent]
            best = np.empty_like(above)
            if len(branch.linked):
                best[:, branch.parents] = branch.best_child(below)
            best[:, branch.childless] = scores[:, self._slices[branch.parent]][:, branch.childless]
            if len(branch.free):
                best = np.maximum(best, below[:, branch.free].max(axis=1, keepdims=True))
            paths[branch.parent] = above * best
        return paths


def _depth(group: Group, by_name: Mapping[str, Group]) -> int:
    depth = 0
    while group.parent_group is not None:
        group, depth = by_name[group.parent_group], depth + 1
    return depth


def _parent_of(group: Group, value: str, by_name: Mapping[str, Group]) -> str | None:
    """The live parent of a value, through successors."""
    parent = group.by_value[value].parent
    if parent is None or group.parent_group is None:
        return None
    return by_name[group.parent_group].current(parent)


def _branch(group: Group, by_name: Mapping[str, Group], columns: slice) -> _Branch:
    above = by_name[group.parent_group] if group.parent_group is not None else None
    place = {value.value: at for at, value in enumerate(above.values)} if above else {}
    parents = [_parent_of(group, value.value, by_name) for value in group.values]
    parent_of = np.array([-1 if parent is None else place[parent] for parent in parents], np.int64)
    live = np.array([value.is_live for value in group.values])
    linked = np.flatnonzero(live & (parent_of >= 0))
    linked = linked[np.argsort(parent_of[linked], kind="stable")]
    unique, starts = np.unique(parent_of[linked], return_index=True)
    return _Branch(
        name=group.name,
        columns=columns,
        single=group.kind == "single",
        parent=group.parent_group,
        parent_of=parent_of,
        free=np.flatnonzero(live & (parent_of < 0)),
        linked=linked,
        starts=starts.astype(np.int64),
        parents=unique,
        childless=np.setdiff1d(np.arange(len(place)), unique),
    )


def _folds(taxonomy: Taxonomy) -> list[tuple[int, int, bool]]:
    """(column of a replaced value, column of its live successor, whether the group is single-choice)."""
    folds = []
    for group in taxonomy.groups:
        start = taxonomy.slices[group.name].start
        place = {value.value: start + at for at, value in enumerate(group.values)}
        for value in group.values:
            now = group.current(value.value)
            if value.replaced_by is not None and now is not None:
                folds.append((place[value.value], place[now], group.kind == "single"))
    return folds


def lineages(taxonomy: Taxonomy) -> dict[tuple[str, str], dict[str, str]]:
    """(group, live value) → it and its ancestors in single-choice groups, group → value."""
    by_name = {group.name: group for group in taxonomy.groups}
    found: dict[tuple[str, str], dict[str, str]] = {}
    for group in taxonomy.groups:
        for value in group.values:
            lineage: dict[str, str] = {}
            at_group, at = group, value.value if value.is_live else None
            while at is not None:
                if at_group.kind == "single":
                    lineage[at_group.name] = at
                parent = _parent_of(at_group, at, by_name)
                if at_group.parent_group is None:
                    break
                at_group, at = by_name[at_group.parent_group], parent
            found[group.name, value.value] = lineage
    return found
