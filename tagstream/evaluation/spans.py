"""Exact span F1, as seqeval counts it (Nakayama 2018): a span is right if start, end and group are.

Intervals: 95 % bootstrap over near-duplicate groups of titles; extractors are compared over the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tagstream.dataset.split import near_duplicate_groups
from tagstream.dataset.titles import Labelled, Title
from tagstream.evaluation.figures import ToJson
from tagstream.evaluation.measures import Floats, interval, ratio, resampled

Spans = Sequence[Sequence[Labelled]]


class FindsSpans(Protocol):
    """An extractor, as far as it is measured."""

    def spans(self, titles: Sequence[str]) -> list[list[Labelled]]: ...


@dataclass(frozen=True)
class SpanFigures(ToJson):
    """Figures of one group; a ratio over nothing is 0. `spans`: how many are true. `low`, `high`: of F1."""

    precision: float
    recall: float
    f1: float
    spans: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class SpanDifference(ToJson):
    """An extractor's F1 over all groups minus another's."""

    model: str
    minus: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class SpanComparison(ToJson):
    """Extractors on the same titles: `models`: name → group, and `all` → figures."""

    titles: int
    models: Mapping[str, Mapping[str, SpanFigures]]
    differences: Sequence[SpanDifference]


def span_f1(true: Spans, found: Spans) -> dict[str, SpanFigures]:
    """The figures of each group, and of `all` (micro). `true` and `found` list the spans of each title.

    Raises ValueError if they differ in length.
    """
    return {group: SpanFigures(*_ratios(counts)) for group, counts in _counts(true, found).items()}


def compare_extractors(extractors: Mapping[str, FindsSpans], titles: Sequence[Title]) -> SpanComparison:
    """The first extractor is the one that the others are compared with."""
    texts = [title.text for title in titles]
    draws = resampled(near_duplicate_groups(texts, [None] * len(texts)))
    models: dict[str, dict[str, SpanFigures]] = {}
    drawn: dict[str, Floats] = {}
    for name, extractor in extractors.items():
        models[name] = {}
        for group, counts in _counts([title.spans for title in titles], extractor.spans(texts)).items():
            ratios = _ratios(counts)
            drawn[name] = ratio(2 * (draws @ counts[0]), draws @ (counts[1] + counts[2]))  # `all` is last
            models[name][group] = SpanFigures(*ratios, *interval(ratios[2], drawn[name]))
    first, *others = extractors
    differences = []
    for name in others:
        point = models[name]["all"].f1 - models[first]["all"].f1
        bounds = interval(point, drawn[name] - drawn[first])
        differences.append(SpanDifference(name, first, point, *bounds))
    return SpanComparison(len(titles), models, differences)


def _counts(true: Spans, found: Spans) -> dict[str, Floats]:
    """Group, and as the last one `all` → (3, titles) how many spans are right, found and true."""
    pairs = [(set(spans), set(answer)) for spans, answer in zip(true, found, strict=True)]
    groups = sorted({span.group for pair in pairs for spans in pair for span in spans})
    counts: dict[str, Floats] = {group: np.zeros((3, len(pairs))) for group in (*groups, "all")}
    for place, (truth, answer) in enumerate(pairs):
        for row, spans in enumerate((truth & answer, answer, truth)):
            for span in spans:
                counts[span.group][row, place] += 1
                counts["all"][row, place] += 1
    return counts


def _ratios(counts: Floats) -> tuple[float, float, float, float]:
    """Precision, recall, F1, and the number of true spans."""
    right, found, true = map(float, counts.sum(axis=1))
    f1 = 2 * right / (found + true) if found or true else 0.0
    return right / found if found else 0.0, right / true if true else 0.0, f1, true
