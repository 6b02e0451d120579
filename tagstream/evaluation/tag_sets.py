"""The tags that are given, as sets: pooled F1 for every tagger, and the edit distance of one that writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from tagstream.core.events import Tag
from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.targets import FloatArray
from tagstream.evaluation.writing import TagSet, edit_distance, labelled, serialised


@runtime_checkable
class Writer(Protocol):
    """A tagger that writes its tags out."""

    def generate(self, texts: Sequence[TextFields]) -> list[tuple[Tag, ...]]: ...


def likeliest(scores: FloatArray, taxonomy: Taxonomy) -> list[TagSet]:
    """What heads say without abstention: the best of a choice, every free tag above its threshold."""
    said: list[set[tuple[str, str]]] = [set() for _ in scores]
    for group in taxonomy.groups:
        of_group = scores[:, taxonomy.slices[group.name]]
        if group.kind == "single":
            chosen = np.arange(len(group.values)) == of_group.argmax(axis=1)[:, None]
        else:
            chosen = of_group >= np.asarray([value.threshold for value in group.values])
        for row, at in zip(*np.nonzero(chosen), strict=True):
            said[row].add((group.name, group.values[at].value))
    return [frozenset(tags) for tags in said]


def tag_figures(
    said: Sequence[TagSet], rows: Sequence[Row], taxonomy: Taxonomy, *, written: bool
) -> dict[str, float]:
    """`set_f1`, pooled over the groups a row has labels of; `edit_distance` too of what was `written`."""
    truths = labelled(rows, [group.name for group in taxonomy.groups])
    judged = [
        frozenset(tag for tag in tags if tag[0] in row.labels) for tags, row in zip(said, rows, strict=True)
    ]
    pairs = list(zip(judged, truths, strict=True))
    hits = sum(len(ours & truth) for ours, truth in pairs)
    figures = {"set_f1": 2 * hits / max(1, sum(len(ours) + len(truth) for ours, truth in pairs))}
    if written:
        distances = [
            edit_distance(serialised(ours, taxonomy), serialised(truth, taxonomy)) for ours, truth in pairs
        ]
        figures["edit_distance"] = float(np.mean(distances))
    return figures
