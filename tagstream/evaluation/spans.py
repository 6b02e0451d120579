"""Exact span F1, as seqeval counts it (Nakayama 2018): a span is right if start, end and group are.

Intervals: 95 % bootstrap over near-duplicate groups of titles; extractors are compared over the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tagstream.dataset.split import near_duplicate_groups
from tagstream.dataset.titles import Labelled, Title
from tagstream.evaluation.measures import Floats, interval, resampled

_DRAWS = 1000


class FindsSpans(Protocol):
    """An extractor, as far as it is measured."""

    def spans(self, titles: Sequence[str]) -> list[list[Labelled]]: ...


def span_f1(
    true: Sequence[Sequence[Labelled]], found: Sequence[Sequence[Labelled]]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and number of true spans, of each group and of `all` (micro).

    `true` and `found` list the spans of each title; a ratio over nothing is 0. Raises ValueError if they
    differ in length.
    """
    pairs = list(zip(true, found, strict=True))
    truth = {(row, span) for row, (spans, _) in enumerate(pairs) for span in spans}
    answer = {(row, span) for row, (_, spans) in enumerate(pairs) for span in spans}
    groups = sorted({span.group for _, span in truth | answer})
    figures = {
        group: _figures(
            {pair for pair in truth if pair[1].group == group},
            {pair for pair in answer if pair[1].group == group},
        )
        for group in groups
    }
    return {**figures, "all": _figures(truth, answer)}


def _figures(truth: set[tuple[int, Labelled]], answer: set[tuple[int, Labelled]]) -> dict[str, float]:
    right = len(truth & answer)
    precision = right / len(answer) if answer else 0.0
    recall = right / len(truth) if truth else 0.0
    f1 = 2 * right / (len(truth) + len(answer)) if truth or answer else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "spans": float(len(truth))}


def compare_extractors(extractors: Mapping[str, FindsSpans], titles: Sequence[Title]) -> dict[str, Any]:
    """`models`: name → group, and `all` → precision, recall, f1 with its interval, number of true spans.
    `differences`: each further extractor's F1 over all groups minus the first one's."""
    texts = [title.text for title in titles]
    truth = [title.spans for title in titles]
    draws = resampled(near_duplicate_groups(texts, [None] * len(texts)), _DRAWS)
    models: dict[str, Any] = {}
    drawn: dict[str, Floats] = {}
    for name, extractor in extractors.items():
        found = extractor.spans(texts)
        models[name] = span_f1(truth, found)
        for group, figures in models[name].items():
            of_group = _f1(truth, found, None if group == "all" else group, draws)
            figures["low"], figures["high"] = interval(figures["f1"], of_group)
        drawn[name] = _f1(truth, found, None, draws)
    first, *others = extractors
    differences = []
    for name in others:
        point = models[name]["all"]["f1"] - models[first]["all"]["f1"]
        low, high = interval(point, drawn[name] - drawn[first])
        differences.append({"model": name, "minus": first, "difference": point, "low": low, "high": high})
    return {"titles": len(titles), "models": models, "differences": differences}


def _f1(
    truth: Sequence[Sequence[Labelled]], found: Sequence[Sequence[Labelled]], group: str | None, draws: Floats
) -> Floats:
    """(draws,) F1 where title i counts draws[:, i] times."""
    counts = np.zeros((2, len(truth)))
    for row, (true, said) in enumerate(zip(truth, found, strict=True)):
        ours, theirs = ({s for s in spans if group in (None, s.group)} for spans in (said, true))
        counts[:, row] = len(ours & theirs), len(ours) + len(theirs)
    hits, all_spans = draws @ counts[0], draws @ counts[1]
    f1: Floats = np.divide(2 * hits, all_spans, out=np.full(len(draws), np.nan), where=all_spans > 0)
    return f1
