"""One loss for every head: softmax for single-choice groups, sigmoid for free tags, unknown labels masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tagstream.core.taxonomy import Taxonomy

FloatArray = npt.NDArray[np.float32]


def targets(
    labels: Sequence[Mapping[str, Sequence[str]]],
    taxonomy: Taxonomy,
    unsaid: Sequence[Mapping[str, Sequence[str]]] | None = None,
) -> FloatArray:
    """(rows, taxonomy.size): 1 for a label, 0 for what it rules out, NaN where nothing is known.

    A row without a label in a group, or with labels outside the taxonomy only, knows nothing of that group.
    `unsaid` values of free tags are NaN, while the group's other values are known to be 0.
    """
    matrix = np.full((len(labels), taxonomy.size), np.nan, np.float32)
    for group in taxonomy.groups:
        columns = taxonomy.slices[group.name]
        place = {value.value: columns.start + at for at, value in enumerate(group.values)}
        for row, of_row in enumerate(labels):
            found = [place[value] for value in of_row.get(group.name, ()) if value in place]
            hidden = [place[v] for v in unsaid[row].get(group.name, ()) if v in place] if unsaid else []
            if found or hidden:
                matrix[row, columns] = 0
                matrix[row, hidden] = np.nan
                matrix[row, found if group.kind == "multi" else found[:1]] = 1
    return matrix


def log_priors(target: FloatArray, taxonomy: Taxonomy) -> Tensor:
    """(taxonomy.size,) log share of each value of a single-choice group among known rows; 0 for free tags."""
    log_prior = np.zeros(taxonomy.size, np.float32)
    for group in taxonomy.groups:
        if group.kind == "single":
            columns = taxonomy.slices[group.name]
            counts = np.nan_to_num(target[:, columns]).sum(axis=0) + 1
            log_prior[columns] = np.log(counts / counts.sum())
    return torch.from_numpy(log_prior)


def logit_adjustment(target: FloatArray, taxonomy: Taxonomy, strength: float) -> Tensor:
    """(taxonomy.size,) what is added to the logits in training, so that scarce values are not drowned
    (Menon et al. 2021). Values without a row get nothing: they are to be pushed down."""
    without = torch.from_numpy(np.nan_to_num(target).sum(axis=0) == 0)
    return (strength * log_priors(target, taxonomy)).masked_fill(without, 0.0)


def loss_of(logits: Tensor, target: Tensor, taxonomy: Taxonomy, *, label_smoothing: float = 0.0) -> Tensor:
    """The sum over groups of each group's mean loss over the rows that know it; a scalar.

    Groups that no row of the batch knows add nothing. Free tags are averaged over values as well,
    times the number of values a row has on average, so that they weigh about as much as a choice.
    """
    total = logits.new_zeros(())
    for group in taxonomy.groups:
        columns = taxonomy.slices[group.name]
        known = ~target[:, columns].isnan().all(dim=1)
        if not bool(known.any()):
            continue
        ours, truth = logits[known][:, columns], target[known][:, columns]
        share = known.float().mean()
        if group.kind == "single":
            total = total + share * functional.cross_entropy(ours, truth, label_smoothing=label_smoothing)
        else:
            each = functional.binary_cross_entropy_with_logits(ours, truth.nan_to_num(), reduction="none")
            total = total + share * (each * ~truth.isnan()).sum(dim=1).mean()
    return total
