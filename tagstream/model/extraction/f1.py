"""Exact span F1, as seqeval counts it (Nakayama 2018): a span is right if start, end and group are."""

from __future__ import annotations

from collections.abc import Sequence

from tagstream.model.extraction.titles import Labelled


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
