"""How good written sets of tags are, and how often the writing itself is wrong.

The truth of a row is the set of its labels in the groups that are measured, labels outside the taxonomy
included: nobody can say them, and all are judged alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tagstream.core.events import Tag
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.evaluation.figures import Scorer, score_rows

TagSet = frozenset[tuple[str, str]]


def labelled(rows: Sequence[Row], groups: Sequence[str]) -> list[TagSet]:
    """The labels of each row in these groups."""
    return [
        frozenset((group, value) for group in groups for value in row.labels.get(group, ())) for row in rows
    ]


def as_sets(tags: Sequence[Sequence[Tag]]) -> list[TagSet]:
    return [frozenset((tag.group, tag.value) for tag in of_row) for of_row in tags]


def likeliest(tagger: Scorer, rows: Sequence[Row], groups: Sequence[str]) -> list[TagSet]:
    """What classification heads say of the texts alone, without abstention: in single-choice groups the
    highest score, in others what reaches its threshold."""
    scores = score_rows(tagger, rows, "text")
    sets: list[set[tuple[str, str]]] = [set() for _ in rows]
    for name in groups:
        group = tagger.taxonomy.group(name)
        of_group = scores[:, tagger.taxonomy.slices[name]]
        if group.kind == "single":
            chosen = np.zeros(of_group.shape, np.bool_)
            chosen[np.arange(len(rows)), of_group.argmax(axis=1)] = True
        else:
            chosen = of_group >= [value.threshold for value in group.values]
        for row, place in zip(*np.nonzero(chosen), strict=True):
            sets[row].add((name, group.values[place].value))
    return [frozenset(tags) for tags in sets]


def set_figures(truths: Sequence[TagSet], said: Sequence[TagSet], taxonomy: Taxonomy) -> dict[str, Any]:
    """Micro-averaged F1, precision and recall over all tags; exact sets; edit distance; F1 a group."""
    f1, precision, recall = _micro(truths, said)
    distances = [
        edit_distance(serialised(truth, taxonomy), serialised(ours, taxonomy))
        for truth, ours in zip(truths, said, strict=True)
    ]
    return {
        "rows": len(truths),
        "set_f1": f1,
        "precision": precision,
        "recall": recall,
        "exact": float(np.mean([truth == ours for truth, ours in zip(truths, said, strict=True)])),
        "edit_distance": float(np.mean(distances)),
        "f1_of_group": {
            group.name: _micro(_only(truths, group.name), _only(said, group.name))[0]
            for group in taxonomy.groups
        },
    }


def writing_figures(
    written: Sequence[Sequence[tuple[str, str | None]]], taxonomy: Taxonomy
) -> dict[str, Any]:
    """The share of rows without any fault, and the share with each: `misspelled` (no value of its group, or
    never ended), `duplicate`, `second_value` of a single-choice group, `contradiction` of parents."""
    faults = [faults_of(tags, taxonomy) for tags in written]
    kinds = ("misspelled", "duplicate", "second_value", "contradiction")
    return {
        "valid": float(np.mean([not found for found in faults])),
        **{kind: float(np.mean([kind in found for found in faults])) for kind in kinds},
    }


def faults_of(tags: Sequence[tuple[str, str | None]], taxonomy: Taxonomy) -> set[str]:
    groups = {group.name: group for group in taxonomy.groups}
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for name, value in tags:
        group = groups.get(name)
        if group is None or value is None or value not in {known.value for known in group.values}:
            found.add("misspelled")
        elif (name, value) in seen:
            found.add("duplicate")
        elif group.kind == "single" and any(name == other for other, _ in seen):
            found.add("second_value")
        else:
            seen.add((name, value))
    if _contradict(seen, taxonomy):
        found.add("contradiction")
    return found


def _contradict(tags: Iterable[tuple[str, str]], taxonomy: Taxonomy) -> bool:
    """Whether two tags, or their ancestors, are different values of one single-choice group."""
    parents = {
        (group.name, value.value): (group.parent_group, value.parent)
        for group in taxonomy.groups
        for value in group.values
    }
    single = {group.name for group in taxonomy.groups if group.kind == "single"}
    meant: dict[str, str] = {}
    for tag in tags:
        at: tuple[str | None, str | None] = tag
        while at[0] is not None and at[1] is not None:
            if at[0] in single and meant.setdefault(at[0], at[1]) != at[1]:
                return True
            at = parents[at[0], at[1]]
    return False


def serialised(tags: TagSet, taxonomy: Taxonomy) -> str:
    """`group=value; …` in taxonomy order, then by value: one spelling for one set."""
    rank = {group.name: at for at, group in enumerate(taxonomy.groups)}
    ordered = sorted(tags, key=lambda tag: (rank.get(tag[0], len(rank)), *tag))
    return "; ".join(f"{group}={value}" for group, value in ordered)


def edit_distance(one: str, other: str) -> float:
    """Characters inserted, deleted or replaced (Levenshtein), over the longer length; 0 to 1."""
    if one == other:
        return 0.0
    before = list(range(len(other) + 1))
    for row, left in enumerate(one, start=1):
        now = [row]
        for column, right in enumerate(other, start=1):
            now.append(min(before[column] + 1, now[-1] + 1, before[column - 1] + (left != right)))
        before = now
    return before[-1] / max(len(one), len(other))


def _only(sets: Sequence[TagSet], group: str) -> list[TagSet]:
    return [frozenset(tag for tag in tags if tag[0] == group) for tags in sets]


def _micro(truths: Sequence[TagSet], said: Sequence[TagSet]) -> tuple[float, float, float]:
    hits = sum(len(truth & ours) for truth, ours in zip(truths, said, strict=True))
    of_said, of_truth = sum(map(len, said)), sum(map(len, truths))
    precision = hits / of_said if of_said else 0.0
    recall = hits / of_truth if of_truth else 0.0
    return 2 * hits / (of_said + of_truth) if of_said + of_truth else 1.0, precision, recall
