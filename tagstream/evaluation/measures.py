"""Arithmetic on counts of one group, over weighted rows: a figure and its bootstrap are one computation.

Most functions take `weights`, (draws, rows): how often each row counts. `np.ones((1, rows))` gives the figure
itself, `resampled(…)` the same figure over rows drawn again by near-duplicate group (Efron 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tagstream.core.taxonomy import Group

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

BINS = 15
#: Enough for a mean simulated error that is right to four digits.
SIMULATIONS = 100
#: Draws of a bootstrap.
ROUNDS = 1000
#: The lowest and the highest; NaN where the figure is undefined.
Interval = tuple[float, float]


@dataclass(frozen=True)
class Judged:
    """Answers and labels of one group, over the n rows that have a label of it.

    `names`: the taxonomy's values, then measured classes that the taxonomy lacks. They are the columns of
    `answers` and `labels`. `measured`: which of them count in macro-F1. `foreign`: how many labels of a row
    are not in `names`. `scores` has the taxonomy's values alone. `places`: the n rows among all rows.
    """

    group: Group
    places: npt.NDArray[np.int64]
    names: tuple[str, ...]
    measured: Bools
    scores: Floats
    answers: Bools
    labels: Bools
    foreign: npt.NDArray[np.int64]

    @property
    def single(self) -> bool:
        return self.group.kind == "single"

    @property
    def confidence(self) -> Floats:
        """(n, 1) highest score of a single-choice group; (n, values) every score of free tags."""
        return self.scores.max(axis=1, keepdims=True) if self.single else self.scores

    @property
    def right(self) -> Bools:
        """Like `confidence`: is the answer right; does the product have the tag."""
        if self.single:
            return np.asarray(self.hits.any(axis=1, keepdims=True), bool)
        return self.labels[:, : self.scores.shape[1]]

    @cached_property
    def hits(self) -> Bools:
        """(n, names) answers that are labels."""
        return self.answers & self.labels

    @cached_property
    def gaps(self) -> Floats:
        """(n, BINS) confidence minus truth, summed by the bin of the confidence."""
        confidence, gaps = self.confidence, np.zeros((len(self.places), BINS))
        rows = np.broadcast_to(np.arange(len(confidence))[:, None], confidence.shape)
        np.add.at(gaps, (rows, bin_of(confidence)), confidence - self.right)
        return gaps


def answers_of(scores: Floats, group: Group) -> Bools:
    """(rows, group's values): the highest score of a choice; free tags that reach their threshold."""
    if group.kind == "single":
        return np.asarray(np.arange(len(group.values)) == scores.argmax(axis=1)[:, None])
    return np.asarray(scores >= np.asarray([value.threshold for value in group.values]))


def judge(
    scores: Floats, labels: Sequence[Sequence[str]], group: Group, classes: Sequence[str] | None
) -> Judged:
    """`scores`: (rows, group's values); `labels`: the row's values of this group, empty where unknown.

    `classes`: what macro-F1 is the mean over; the taxonomy's values where it is None.
    """
    values = [value.value for value in group.values]
    listed = set(values if classes is None else classes)
    names = (*values, *(name for name in classes or () if name not in set(values)))
    column = {name: at for at, name in enumerate(names)}
    places = np.asarray([place for place, of_row in enumerate(labels) if of_row], np.int64)
    scores = scores[places].astype(np.float64)
    answers, true = (np.zeros((len(places), len(names)), bool) for _ in range(2))
    answers[:, : len(values)] = answers_of(scores, group)
    kept = [set(labels[place][:1] if group.kind == "single" else labels[place]) for place in places]
    for row, of_row in enumerate(kept):
        true[row, [column[value] for value in of_row if value in column]] = True
    foreign = np.asarray([len(of_row) for of_row in kept], np.int64) - true.sum(axis=1)
    measured = np.asarray([name in listed for name in names])
    return Judged(group, places, names, measured, scores, answers, true, foreign)


def accuracy_of(judged: Judged, weights: Floats) -> Floats:
    """(draws,) share of rows whose highest score is the label."""
    return ratio(weights @ judged.right[:, 0], weights.sum(axis=1))


def value_f1(judged: Judged, weights: Floats) -> tuple[Floats, Floats]:
    """(draws, names) F1 of each value, and how many rows have it as a label."""
    labels = weights @ judged.labels
    return ratio(2 * (weights @ judged.hits), labels + weights @ judged.answers), labels


def macro_f1_of(judged: Judged, weights: Floats) -> Floats:
    """(draws,) mean F1 over the measured values that a drawn row has; NaN if there are none."""
    f1, labels = value_f1(judged, weights)
    counted = (labels > 0) & judged.measured
    return ratio(np.where(counted, f1, 0).sum(axis=1), counted.sum(axis=1))


def micro_f1_of(judged: Judged, weights: Floats, *, listed_only: bool = False) -> Floats:
    """(draws,) pooled F1 of free tags; a label outside the taxonomy is a miss unless `listed_only`."""
    hits = weights @ judged.hits.sum(axis=1)
    missed = 0 if listed_only else weights @ judged.foreign
    return ratio(2 * hits, weights @ (judged.answers.sum(axis=1) + judged.labels.sum(axis=1)) + missed)


def calibration_of(judged: Judged, weights: Floats) -> Floats:
    """(draws,) expected calibration error over equally wide bins of the confidence."""
    answers = judged.confidence.shape[1]
    return ratio(np.abs(weights @ judged.gaps).sum(axis=1), weights.sum(axis=1) * answers)


def perfect_calibration(confidence: Floats) -> float:
    """The mean calibration error of answers whose confidence is exactly right.

    With few rows a bin's share of right answers differs from its confidence by chance. Simulated: right
    answers are drawn as Bernoulli(confidence) and measured by the same estimator. NaN without a row.
    """
    flat = confidence.ravel()
    if not len(flat):
        return float("nan")
    order = np.argsort(bin_of(flat), kind="stable")
    flat, bins = flat[order], bin_of(flat)[order]
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    rng = np.random.default_rng(0)
    gaps = (flat - (rng.random(len(flat)) < flat) for _ in range(SIMULATIONS))
    return float(np.mean([np.abs(np.add.reduceat(of, starts)).sum() for of in gaps])) / len(flat)


def coverage_of(judged: Judged, weights: Floats, precision: float = 0.9) -> Floats:
    """(draws,) largest share of rows, the most confident first, that can be answered at this precision."""
    order = np.argsort(-judged.confidence[:, 0], kind="stable")
    drawn = weights[:, order]
    answered, right = drawn.cumsum(axis=1), (drawn * judged.right[order, 0]).cumsum(axis=1)
    enough = right >= precision * answered - 1e-9
    return ratio(np.where(enough, answered, 0).max(axis=1, initial=0), weights.sum(axis=1))


def average_precision(score: Floats, truth: Bools) -> float:
    """Area under the precision/recall curve as a sum over hits; NaN without one."""
    precision, recall = precision_recall(score, truth)
    return float(np.sum(np.diff(recall, prepend=0) * precision)) if truth.any() else float("nan")


def precision_recall(score: Floats, truth: Bools) -> tuple[Floats, Floats]:
    """Precision and recall at each distinct score, the highest first."""
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], truth[order].cumsum()
    last = np.flatnonzero(np.diff(score, append=-np.inf))
    return hits[last] / (last + 1), hits[last] / max(int(truth.sum()), 1)


def bin_of(confidence: Floats) -> npt.NDArray[np.int64]:
    return np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)


def resampled(near_duplicates: Sequence[str], rounds: int = ROUNDS) -> Floats:
    """(rounds, rows) how often each row is drawn when near-duplicate groups are drawn with replacement."""
    names, group_of = np.unique(np.asarray(near_duplicates, object).astype(str), return_inverse=True)
    rng = np.random.default_rng(0)
    weights: Floats = np.empty((rounds, len(group_of)), np.float32)
    for drawn in weights:
        drawn[:] = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[group_of]
    return weights


def interval(figure: float, drawn: Floats) -> Interval:
    """The 95 % percentile interval of the draws that have one, shifted so that their mean is the figure.

    Rows that are drawn twice agree too well: unshifted, the draws' calibration error is above the rows'.
    """
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5]) - known.mean() + figure
    return float(low), float(high)


def ratio(above: Floats, below: Floats) -> Floats:
    """NaN where there is nothing to divide by, silently."""
    below = np.broadcast_to(below, np.shape(above))
    shares: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return shares
