"""Model versions side by side on every slice, and their differences.

Intervals: 95 % bootstrap over near-duplicate groups; versions are compared over the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tagstream.dataset.rows import Row
from tagstream.dataset.split import CLASS_MIN_ROWS, EvaluationSpec
from tagstream.evaluation.figures import Classes, Json, ToJson, mean_of
from tagstream.evaluation.measures import Floats, interval
from tagstream.evaluation.slices import (
    SINGLE_MEASURES,
    SLICES,
    Candidate,
    EmptySlice,
    Measured,
    mean_draws,
    measure_slice,
)
from tagstream.text.masking import label_words


@dataclass(frozen=True)
class Gap(ToJson):
    """How much a figure differs between two models, and the interval of that."""

    difference: float
    low: float
    high: float

    @classmethod
    def of(cls, difference: float, drawn: Floats) -> Gap:
        return cls(difference, *interval(difference, drawn))


@dataclass(frozen=True)
class Difference(ToJson):
    """One model minus another, on one slice: of each group that both know, and of the means over these."""

    model: str
    minus: str
    slice: str
    groups: Mapping[str, Mapping[str, Gap]] | None = None
    mean_accuracy: Gap | None = None
    mean_macro_f1: Gap | None = None
    mean_ece: Gap | None = None
    mean_coverage_at_90: Gap | None = None


@dataclass(frozen=True)
class Comparison:
    """Candidates on the same slices. `slices`: of each, the candidates in order; `left_out`: slice → why.

    `trained_on`: of each candidate, rows with a title that it was trained on; None where it lists no titles.
    """

    candidates: Sequence[Candidate]
    classes: Classes
    mask_hash: str
    spec_hash: str | None
    trained_on: Sequence[int | None]
    slices: Mapping[str, Sequence[Measured]]
    left_out: Mapping[str, str]

    @property
    def first(self) -> Sequence[Measured]:
        """The candidates on the first slice."""
        return next(iter(self.slices.values()))

    @cached_property
    def differences(self) -> list[Difference]:
        """Each further candidate minus the first one."""
        return [difference(one, of[0]) for of in self.slices.values() for one in of[1:]]

    @property
    def facts(self) -> dict[str, str | bool | None]:
        """What the figures of the first slice were made with."""
        return {
            **SLICES[self.first[0].slice]._asdict(),
            "mask_hash": self.mask_hash,
            "spec_hash": self.spec_hash,
        }

    def to_json(self) -> dict[str, Json]:
        """The first candidate's first slice at the top; everything in `models` and `differences`."""
        models: list[dict[str, Json]] = [
            {
                "model_version": candidate.name,
                "rows_with_a_title_trained_on": self.trained_on[place],
                "slices": {name: of[place].figures.to_json() for name, of in self.slices.items()},
            }
            for place, candidate in enumerate(self.candidates)
        ]
        return {
            "model_version": self.candidates[0].name,
            **self.facts,
            "abstention": "none: the highest score of a single-choice group is its answer",
            "rows_with_a_title_trained_on": self.trained_on[0],
            **self.first[0].figures.to_json(),
            "slices_left_out": self.left_out,
            "models": models,
            "differences": [of.to_json() for of in self.differences],
        }


def compare(
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    slices: Sequence[str] = (),
    spec: EvaluationSpec | None = None,
) -> Comparison:
    """Every candidate on these slices, or on every one that the rows have.

    `spec`: test rows and class lists. Without it: all rows, and the values that the first candidate learned
    from enough training rows.

    Raises:
        ValueError: two candidates have one name, or no row is in the spec.
        EmptySlice: a slice of `slices` is empty, or each one is.
    """
    names = [one.name for one in candidates]
    if len(set(names)) < len(names):
        raise ValueError(f"a model version is named twice: {', '.join(names)}")
    words = label_words([one.tagger.taxonomy for one in candidates], [row.labels for row in rows])
    if spec is None:
        classes: Classes = {
            group: tuple(value for value, count in of.items() if count >= CLASS_MIN_ROWS)
            for group, of in candidates[0].counts.items()
        }
    else:
        ids, classes = set(spec.test_ids), spec.classes
        rows = [row for row in rows if row.product_id in ids]
        if not rows:
            raise ValueError(f"none of the {len(ids)} test ids of the evaluation spec is in the data")
    measured, left_out = {}, {}
    for name in slices or SLICES:
        try:
            measured[name] = measure_slice(name, candidates, rows, classes, words)
        except EmptySlice as error:
            if slices:
                raise
            left_out[name] = str(error)
    if not measured:
        raise EmptySlice(next(iter(left_out.values())))
    return Comparison(
        candidates=candidates,
        classes=classes,
        mask_hash=words.content_hash(),
        spec_hash=spec.content_hash() if spec else None,
        trained_on=[one.trained_on(rows) for one in candidates],
        slices=measured,
        left_out=left_out,
    )


def difference(one: Measured, other: Measured) -> Difference:
    """`one` minus `other`, over the groups that both know."""
    means: dict[str, Gap] = {}
    groups: dict[str, dict[str, Gap]] = {}
    for measure in (*SINGLE_MEASURES, "micro_f1"):
        ours, theirs = one.drawn.get(measure, {}), other.drawn.get(measure, {})
        drawn = {group: ours[group] - theirs[group] for group in ours if group in theirs}
        for group, of_group in drawn.items():
            groups.setdefault(group, {})[measure] = Gap.of(_minus(one, other, [group], measure), of_group)
        if drawn and measure in SINGLE_MEASURES:
            of_means = mean_draws([*drawn.values()])
            means[f"mean_{measure}"] = Gap.of(_minus(one, other, [*drawn], measure), of_means)
    return Difference(one.candidate.name, other.candidate.name, one.slice, groups or None, **means)


def _minus(one: Measured, other: Measured, groups: Sequence[str], measure: str) -> float:
    ours, theirs = (mean_of([of.figures.groups[name] for name in groups], measure) for of in (one, other))
    return ours - theirs
