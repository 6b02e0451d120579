"""Figures of a tagger on labelled rows, and how they are made of its scores.

A single-choice group is judged by its highest score, without abstention; free tags by micro-F1 of what
reaches its threshold. Rows without a label of a group are left out of it. Rows whose label is outside the
class list stay in as possible false positives. Classes without a test row are left out of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from itertools import zip_longest
from typing import Any, Literal, Protocol

import numpy as np

from tagstream.core.events import ImageUse
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.targets import FloatArray
from tagstream.evaluation import measures
from tagstream.evaluation.measures import Judged
from tagstream.text.masking import LabelWords

Modalities = Literal["both", "text", "image"]
#: Group → value → training rows.
Counts = Mapping[str, Mapping[str, int]]
#: Group → the values that macro-F1 is the mean over. A group without a list is measured over all its values.
Classes = Mapping[str, Sequence[str]]
Json = Mapping[str, "Json"] | Sequence["Json"] | str | float | None

ROWS_A_BATCH = 64
#: Part → fewest and most training rows of its values.
PARTS: Mapping[str, tuple[int, float]] = {
    "scarce": (10, 30),
    "mid": (31, 300),
    "head": (301, math.inf),
    "rest": (31, math.inf),
}
#: (Group, weights) → (draws,).
Measure = Callable[[Judged, measures.Floats], measures.Floats]
#: Figure of a single-choice group → how it is computed.
SINGLE_MEASURES: Mapping[str, Measure] = {
    "accuracy": measures.accuracy_of,
    "macro_f1": measures.macro_f1_of,
    "ece": measures.calibration_of,
    "coverage_at_90": measures.coverage_of,
}
#: The same for free tags.
FREE_MEASURES: Mapping[str, Measure] = {
    "micro_f1": measures.micro_f1_of,
    "micro_f1_listed": partial(measures.micro_f1_of, listed_only=True),
    "macro_f1": measures.macro_f1_of,
    "ece": measures.calibration_of,
}


class Scorer(Protocol):
    """A tagger, as far as it is measured."""

    taxonomy: Taxonomy

    def score(self, batch: MicroBatch) -> tuple[FloatArray, list[ImageUse]]: ...


@dataclass(frozen=True)
class ToJson:
    """Figures whose JSON has a name a field."""

    def to_json(self) -> dict[str, Json]:
        """NaN stays NaN. A field whose default is None is left out while it is None."""
        of_fields = ((field, getattr(self, field.name)) for field in fields(self))
        return {f.name: _json(of) for f, of in of_fields if of is not None or f.default is MISSING}


def _json(of: Any) -> Json:
    if isinstance(of, ToJson):
        return of.to_json()
    if isinstance(of, Mapping):
        return {name: _json(inner) for name, inner in of.items()}
    return [_json(inner) for inner in of] if isinstance(of, list | tuple) else of


@dataclass(frozen=True, kw_only=True)
class GroupFigures(ToJson):
    """Figures of one group; NaN where they are undefined, None where they are of the other kind of group.

    `ece_floor`: the calibration error that perfect confidence shows on as many rows.
    """

    rows: int
    accuracy: float | None = None
    micro_f1: float | None = None
    micro_f1_listed: float | None = None
    macro_f1: float
    ece: float
    ece_floor: float
    ece_excess: float
    coverage_at_90: float | None = None


@dataclass(frozen=True)
class Figures(ToJson):
    """Figures of each group that the taxonomy and some row know, and means over single-choice groups."""

    rows: int
    groups: Mapping[str, GroupFigures]
    mean_accuracy: float | None
    mean_macro_f1: float | None
    mean_ece: float | None
    mean_ece_excess: float | None
    mean_coverage_at_90: float | None


@dataclass(frozen=True)
class ValueFigures(ToJson):
    """Figures of one value: test rows that have it and rows that it was given to (`said`).

    `precision` is None where it was never given; the others where no row has it.
    """

    rows: int
    said: int
    precision: float | None
    recall: float | None
    f1: float | None
    average_precision: float | None
    training_rows: int


@dataclass(frozen=True)
class PartFigures(ToJson):
    """Values with about as many training rows: how many have a test row, and their mean F1."""

    values: int
    macro_f1: float | None


def score_rows(
    tagger: Scorer, rows: Sequence[Row], modalities: Modalities = "both", mask: LabelWords | None = None
) -> tuple[FloatArray, list[ImageUse]]:
    """(rows, taxonomy.size) scores, and what became of each row's picture.

    `image` hides the text, `text` the picture, `mask` the label words.
    """
    parts, uses = [np.zeros((0, tagger.taxonomy.size), np.float32)], list[ImageUse]()
    for start in range(0, len(rows), ROWS_A_BATCH):
        some = rows[start : start + ROWS_A_BATCH]
        texts = [TextFields("") if modalities == "image" else row.text for row in some]
        if mask is not None:
            texts = [mask.hide(text) for text in texts]
        images = [None if modalities == "text" else row.encoded for row in some]
        scores, of_some = tagger.score(MicroBatch(texts, images))
        parts.append(scores)
        uses.extend(of_some)
    return np.concatenate(parts), uses


def judged_groups(
    scores: FloatArray, rows: Sequence[Row], taxonomy: Taxonomy, classes: Classes
) -> list[Judged]:
    """Each group that both the taxonomy and some row know."""
    labelled = ((of, [row.labels.get(of.name, ()) for row in rows]) for of in taxonomy.groups)
    return [
        measures.judge(scores[:, taxonomy.slices[of.name]], labels, of, classes.get(of.name))
        for of, labels in labelled
        if any(labels)
    ]


def report(scores: FloatArray, rows: Sequence[Row], taxonomy: Taxonomy, classes: Classes) -> Figures:
    """The figures of `scores`, (rows, taxonomy.size)."""
    return figures_of(judged_groups(scores, rows, taxonomy, classes), len(rows))


def figures_of(judged: Sequence[Judged], rows: int) -> Figures:
    """`rows`: how many there are, with those that have no label."""
    groups = {one.group.name: _of_group(one) for one in judged}
    single = [of for of in groups.values() if of.accuracy is not None]
    names = ("accuracy", "macro_f1", "ece", "ece_excess", "coverage_at_90")
    return Figures(rows, groups, *(mean_of(single, name) if single else None for name in names))


def mean_of(groups: Sequence[GroupFigures], measure: str) -> float:
    return float(np.mean([getattr(of, measure) for of in groups]))


def _of_group(judged: Judged) -> GroupFigures:
    every_row, known = np.ones((1, len(judged.places))), SINGLE_MEASURES if judged.single else FREE_MEASURES
    found = {name: float(measure(judged, every_row)[0]) for name, measure in known.items()}
    floor = measures.perfect_calibration(judged.confidence)
    excess = found["ece"] - floor
    return GroupFigures(rows=len(judged.places), ece_floor=floor, ece_excess=excess, **found)


def value_figures(judged: Judged, counts: Mapping[str, int]) -> dict[str, ValueFigures]:
    """Value → its figures. `counts`: training rows by value."""
    f1, rows = (of[0] for of in measures.value_f1(judged, np.ones((1, len(judged.places)))))
    hits, given = judged.hits.sum(axis=0), judged.answers.sum(axis=0)
    areas = map(measures.average_precision, judged.scores.T, judged.labels.T)
    return {
        name: ValueFigures(
            rows=int(rows[at]),
            said=int(given[at]),
            precision=float(hits[at] / given[at]) if given[at] else None,
            recall=float(hits[at] / rows[at]) if rows[at] else None,
            f1=float(f1[at]) if rows[at] else None,
            average_precision=area if rows[at] else None,
            training_rows=counts.get(name, 0),
        )
        for at, (name, area) in enumerate(zip_longest(judged.names, areas))
    }


def values_of(judged: Sequence[Judged], counts: Counts) -> dict[str, dict[str, ValueFigures]]:
    """Group → value → its figures."""
    return {one.group.name: value_figures(one, counts.get(one.group.name, {})) for one in judged}


def by_frequency(values: Mapping[str, Mapping[str, ValueFigures]]) -> dict[str, PartFigures]:
    """Scarce, mid and head values of all groups; `rest` is mid and head together.

    Values with fewer than 10 training rows are in none of them.
    """
    every = (value for of in values.values() for value in of.values())
    found = [(value.training_rows, value.f1) for value in every if value.f1 is not None]
    parts = {name: [f1 for rows, f1 in found if low <= rows <= high] for name, (low, high) in PARTS.items()}
    return {name: PartFigures(len(of), float(np.mean(of)) if of else None) for name, of in parts.items()}
