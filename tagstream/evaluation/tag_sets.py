"""Tags of a product as one set: F1 over all tags, edit distance of what is written, and faults of writing.

The truth of a row is the set of its labels in the groups that are measured. Labels outside the taxonomy
count too: no tagger can give them, and all are judged alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from tagstream.core.events import Tag
from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.targets import FloatArray
from tagstream.evaluation.figures import ToJson
from tagstream.evaluation.measures import answers_of

TagSet = frozenset[tuple[str, str]]
#: No value of its group; twice the same; two values of a single-choice group; parents that contradict.
FAULTS = ("misspelled", "duplicate", "second_value", "contradiction")


@runtime_checkable
class Writer(Protocol):
    """A tagger that writes its tags out."""

    def generate(self, texts: Sequence[TextFields]) -> list[tuple[Tag, ...]]: ...


@dataclass(frozen=True)
class SetFigures(ToJson):
    """F1, precision and recall over all tags; the share of exact sets; mean edit distance; F1 by group."""

    rows: int
    set_f1: float
    precision: float
    recall: float
    exact: float
    edit_distance: float
    f1_of_group: Mapping[str, float]


def labelled(rows: Sequence[Row], taxonomy: Taxonomy) -> list[TagSet]:
    """The labels of each row in the taxonomy's groups."""
    names = [group.name for group in taxonomy.groups]
    return [frozenset((name, value) for name in names for value in row.labels.get(name, ())) for row in rows]


def as_sets(tags: Sequence[Sequence[Tag]]) -> list[TagSet]:
    return [frozenset((tag.group, tag.value) for tag in of_row) for of_row in tags]


def likeliest(scores: FloatArray, taxonomy: Taxonomy) -> list[TagSet]:
    """The answers of heads, without abstention, of each row of (rows, taxonomy.size) scores."""
    sets: list[set[tuple[str, str]]] = [set() for _ in scores]
    for group in taxonomy.groups:
        answers = answers_of(scores[:, taxonomy.slices[group.name]], group)
        for row, at in zip(*np.nonzero(answers), strict=True):
            sets[row].add((group.name, group.values[at].value))
    return [frozenset(tags) for tags in sets]


def of_groups(sets: Sequence[TagSet], groups: Sequence[Iterable[str]]) -> list[TagSet]:
    """Each set without the tags of other groups than the row's."""
    return [
        frozenset(tag for tag in tags if tag[0] in names) for tags, names in zip(sets, groups, strict=True)
    ]


def set_figures(truths: Sequence[TagSet], given: Sequence[TagSet], taxonomy: Taxonomy) -> SetFigures:
    of_group = {}
    for group in taxonomy.groups:
        only = [(group.name,)] * len(truths)
        of_group[group.name] = pooled(of_groups(truths, only), of_groups(given, only))[0]
    exact = float(np.mean([truth == ours for truth, ours in zip(truths, given, strict=True)]))
    distance = mean_edit_distance(truths, given, taxonomy)
    return SetFigures(len(truths), *pooled(truths, given), exact, distance, of_group)


def pooled(truths: Sequence[TagSet], given: Sequence[TagSet]) -> tuple[float, float, float]:
    """F1, precision and recall over all tags of all rows."""
    hits = sum(len(truth & ours) for truth, ours in zip(truths, given, strict=True))
    of_given, of_truth = sum(map(len, given)), sum(map(len, truths))
    precision = hits / of_given if of_given else 0.0
    recall = hits / of_truth if of_truth else 0.0
    return 2 * hits / (of_given + of_truth) if of_given + of_truth else 1.0, precision, recall


def mean_edit_distance(truths: Sequence[TagSet], given: Sequence[TagSet], taxonomy: Taxonomy) -> float:
    """Between the spelled sets, from 0 to 1."""
    spelled = ([serialised(tags, taxonomy) for tags in sets] for sets in (truths, given))
    return float(np.mean([*map(edit_distance, *spelled)]))


def writing_figures(
    written: Sequence[Sequence[tuple[str, str | None]]], taxonomy: Taxonomy
) -> dict[str, float]:
    """The share of rows without any fault, `valid`, and the share with each.

    `written`: of each row, (group, value), None for a value that never ended.
    """
    faults = [faults_of(tags, taxonomy) for tags in written]
    shares = {fault: float(np.mean([fault in found for found in faults])) for fault in FAULTS}
    return {"valid": float(np.mean([not found for found in faults])), **shares}


def faults_of(tags: Sequence[tuple[str, str | None]], taxonomy: Taxonomy) -> set[str]:
    groups = {group.name: group for group in taxonomy.groups}
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for name, value in tags:
        group = groups.get(name)
        if group is None or value is None or value not in group.by_value:
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
    meant: dict[str, str] = {}
    for name, value in tags:
        group, at = taxonomy.group(name), taxonomy.group(name).by_value[value]
        while True:
            if group.kind == "single" and meant.setdefault(group.name, at.value) != at.value:
                return True
            if group.parent_group is None or at.parent is None:
                break
            group = taxonomy.group(group.parent_group)
            at = group.by_value[at.parent]
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
