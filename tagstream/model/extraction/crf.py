"""A linear chain over characters (Lafferty et al. 2001): the loss to train it by, and its certainty.

`start` is (classes,) and `step` (classes, classes), the cost of going from the row's class to the column's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tagstream.model.extraction.bio import Floats

#: Stands in the classes of a batch where a shorter title is padded.
PADDING = -100


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
