"""Extractors side by side on the same labelled titles: exact span F1 with its intervals.

Intervals: 95 % bootstrap over near-duplicate groups of titles; extractors are compared over the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tagstream.model.extraction.extractor import Extractor
from tagstream.model.extraction.f1 import span_f1
from tagstream.model.extraction.titles import Labelled, Title
from tagstream.model.measures import Floats, interval, resampled
from tagstream.model.split import near_duplicate_groups

_DRAWS = 1000


def compare_extractors(extractors: Mapping[str, Extractor], titles: Sequence[Title]) -> dict[str, Any]:
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
