"""BIO: a class for each character (outside, or beginning or inside of a span of a group), and back.

Class 0 is outside; 1 + 2 g begins a span of group g, 2 + 2 g continues it. Decoding is Viterbi's, and an
"inside" only ever follows the same group's beginning or inside, so that every answer is a set of spans.

The classes of a title are a linear chain (Lafferty et al. 2001), trained by its likelihood. `emissions` are
log scores of the classes of each character. `start` (classes,) and `step` (classes, classes) are the costs of
beginning with a class, and of going from the row's class to the column's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tagstream.dataset.titles import Labelled

Floats = npt.NDArray[np.float32]
#: What a forbidden step costs: more than any title's scores can make up for, and still finite.
FORBIDDEN = -1e4
#: Stands in the classes of a batch where a shorter title is padded.
PADDING = -100


def classes(groups: Sequence[str]) -> int:
    return 1 + 2 * len(groups)


def encode(length: int, spans: Sequence[Labelled], groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """(length,) classes. Raises ValueError for a span of another group."""
    of = np.zeros(length, np.int64)
    for span in spans:
        begin = 1 + 2 * groups.index(span.group)
        of[span.start] = begin
        of[span.start + 1 : span.end] = begin + 1
    return of


def forbidden(groups: Sequence[str]) -> tuple[Floats, Floats]:
    """What each step costs: (classes,) to start with, (classes, classes) from the row to the column."""
    size = classes(groups)
    start, step = np.zeros(size, np.float32), np.zeros((size, size), np.float32)
    for inside in range(2, size, 2):
        start[inside] = FORBIDDEN
        step[:, inside] = FORBIDDEN
        step[[inside - 1, inside], inside] = 0
    return start, step


def best_path(emissions: Floats, start: Floats, step: Floats) -> npt.NDArray[np.int64]:
    """The path with the highest sum. `emissions` is (length, classes) of log scores. (Viterbi 1967.)"""
    length = len(emissions)
    if not length:
        return np.zeros(0, np.int64)
    best = start + emissions[0]
    came_from = np.zeros(emissions.shape, np.int64)
    for place in range(1, length):
        ways = best[:, None] + step
        came_from[place] = ways.argmax(axis=0)
        best = ways.max(axis=0) + emissions[place]
    path = np.empty(length, np.int64)
    path[-1] = best.argmax()
    for place in range(length - 1, 0, -1):
        path[place - 1] = came_from[place, path[place]]
    return path


def decode(path: Sequence[int] | npt.NDArray[np.int64], groups: Sequence[str]) -> list[Labelled]:
    """The spans of a path, in order. An inside that continues nothing begins a span (as seqeval reads it)."""
    spans: list[Labelled] = []
    start, group = 0, -1
    for place, of in enumerate([*map(int, path), 0]):
        here = (of - 1) // 2 if of else -1
        if group >= 0 and (of % 2 == 1 or here != group):
            spans.append(Labelled(start, place, groups[group]))
            group = -1
        if here >= 0 and group < 0:
            start, group = place, here
    return spans


def negative_log_likelihood(emissions: Tensor, classes: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """Mean a character. `emissions` (titles, characters, classes); `classes` (titles, characters)."""
    there = classes != PADDING
    path = classes.clamp(min=0)
    score = (emissions.gather(2, path[..., None])[..., 0] * there).sum()
    score = score + start[path[:, 0]].sum() + (step[path[:, :-1], path[:, 1:]] * there[:, 1:]).sum()
    ahead = start + emissions[:, 0]
    for place in range(1, emissions.shape[1]):
        on = torch.logsumexp(ahead[:, :, None] + step, dim=1) + emissions[:, place]
        ahead = torch.where(there[:, place, None], on, ahead)
    return (torch.logsumexp(ahead, dim=1).sum() - score) / there.sum()


def certainty(emissions: Floats, path: npt.NDArray[np.int64], start: Floats, step: Floats) -> Floats:
    """(length,) the probability of each class of the path, all other paths considered."""
    length = len(emissions)
    ahead, behind = np.empty_like(emissions), np.zeros_like(emissions)
    ahead[0] = start + emissions[0]
    for place in range(1, length):
        ahead[place] = _log_sum(ahead[place - 1][:, None] + step) + emissions[place]
    for place in range(length - 2, -1, -1):
        behind[place] = _log_sum((step + emissions[place + 1] + behind[place + 1]).T)
    both = ahead + behind
    probabilities: Floats = np.exp(both - _log_sum(both.T)[:, None])[np.arange(length), path]
    return probabilities


def _log_sum(values: Floats) -> Floats:
    """Over the first axis."""
    highest = values.max(axis=0)
    total: Floats = highest + np.log(np.exp(values - highest).sum(axis=0))
    return total
