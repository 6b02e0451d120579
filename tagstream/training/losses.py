"""One loss for every head: softmax for single-choice groups, sigmoid for free tags, unknown labels masked."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from tagstream.core.taxonomy import Group, Taxonomy
from tagstream.dataset.targets import FloatArray, log_priors


def logit_adjustment(target: FloatArray, taxonomy: Taxonomy, strength: float) -> Tensor:
    """(taxonomy.size,) what is added to the logits in training, so that scarce values are not drowned
    (Menon et al. 2021). Values without a row get nothing: they are to be pushed down."""
    without = torch.from_numpy(np.nan_to_num(target).sum(axis=0) == 0)
    return (strength * torch.from_numpy(log_priors(target, taxonomy))).masked_fill(without, 0.0)


class LossConfig(BaseModel):
    """How the heads are taught; every switch is one of the remedies for scarce values.

    logit_adjustment  the share of the log class frequencies that is added to the logits in training, so that
                      scarce values are not drowned (Menon et al. 2021)
    class_weights     `balanced`: rows weigh (1 / effective number of their class) (Cui et al. 2019)
    resampling        0 draws rows as they are, 1 draws the scarcest label of a row as often as any other
    free_tags         `asymmetric`: easy negatives count less (Ridnik et al. 2021), as labels may be missing
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    logit_adjustment: float = Field(default=0.0, ge=0)
    class_weights: Literal["none", "balanced"] = "none"
    resampling: float = Field(default=0.0, ge=0, le=1)
    free_tags: Literal["binary", "asymmetric"] = "binary"


class HeadLoss:
    """The loss over all heads for one set of training labels."""

    def __init__(self, config: LossConfig, target: FloatArray, taxonomy: Taxonomy) -> None:
        self.config, self.taxonomy = config, taxonomy
        self._adjustment = logit_adjustment(target, taxonomy, config.logit_adjustment)
        self._weights = class_weights(target, taxonomy) if config.class_weights == "balanced" else None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """(rows, size) logits and labels → the sum over groups of each group's mean loss over the rows that
        know it, weighted by the share of rows that do.

        Groups that no row knows add nothing. Free tags are averaged over values as well, times the number of
        values a row has on average, so that they weigh about as much as a choice.
        """
        logits = logits.float() + self._adjustment.to(logits.device)
        total = logits.new_zeros(())
        for group in self.taxonomy.groups:
            columns = self.taxonomy.slices[group.name]
            known = ~target[:, columns].isnan().all(dim=1)
            if not bool(known.any()):
                continue
            ours, truth = logits[known][:, columns], target[known][:, columns]
            total = total + known.float().mean() * self._of_group(group, columns, ours, truth)
        # Every head takes part in every step: processes that share a step must agree on what has a gradient.
        return total + 0.0 * logits.sum()

    def _of_group(self, group: Group, columns: slice, ours: Tensor, truth: Tensor) -> Tensor:
        if group.kind == "single":
            weights = None if self._weights is None else self._weights[columns].to(ours.device)
            if weights is None:
                return functional.cross_entropy(ours, truth, label_smoothing=self.config.label_smoothing)
            each = functional.cross_entropy(
                ours, truth, label_smoothing=self.config.label_smoothing, reduction="none"
            )
            return (each * (truth * weights).sum(dim=1)).mean()
        known = ~truth.isnan()
        if self.config.free_tags == "asymmetric":
            each = asymmetric(ours, truth.nan_to_num())
        else:
            each = functional.binary_cross_entropy_with_logits(ours, truth.nan_to_num(), reduction="none")
        return (each * known).sum(dim=1).mean()


def asymmetric(
    logits: Tensor,
    truth: Tensor,
    gamma_negative: float = 4.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
) -> Tensor:
    """Asymmetric loss of each element, not reduced (Ridnik et al. 2021, equations 4 to 6).

    Negatives below `clip` cost nothing, others are focused by `gamma_negative`.
    """
    positive = torch.sigmoid(logits)
    negative = (1 - positive + clip).clamp(max=1)
    likelihood = truth * positive.clamp(min=1e-8).log() + (1 - truth) * negative.clamp(min=1e-8).log()
    certainty = truth * positive + (1 - truth) * negative
    gamma = truth * gamma_positive + (1 - truth) * gamma_negative
    return -likelihood * (1 - certainty) ** gamma


def class_weights(target: FloatArray, taxonomy: Taxonomy, beta: float = 0.99) -> Tensor:
    """(taxonomy.size,) (1 - beta) / (1 - beta^n) of each value, mean 1 over a group's training rows."""
    weights = np.ones(taxonomy.size, np.float32)
    for group in taxonomy.groups:
        columns = taxonomy.slices[group.name]
        counts = np.nan_to_num(target[:, columns]).sum(axis=0)
        raw = (1 - beta) / (1 - beta ** np.maximum(counts, 1))
        weights[columns] = raw * counts.sum() / max(float((raw * counts).sum()), 1e-9)
    return torch.from_numpy(weights)


def row_weights(target: FloatArray, resampling: float) -> npt.NDArray[np.float64] | None:
    """(rows,) how likely each row is drawn: (1 / rows of its scarcest label) ** resampling; None for 0."""
    if resampling == 0:
        return None
    counts = np.nan_to_num(target).sum(axis=0, dtype=np.float64)  # probabilities have to add up exactly
    scarcest = np.where(target == 1, counts[None, :], np.inf).min(axis=1)
    weights = np.where(np.isfinite(scarcest), np.maximum(scarcest, 1), len(target)) ** -resampling
    result: npt.NDArray[np.float64] = weights / weights.sum()
    return result
