"""What is fitted on rows that no member was trained on: the fusion, and each value's threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from tagstream.core.taxonomy import Group, Taxonomy, versioned
from tagstream.dataset.targets import FloatArray, log_priors
from tagstream.model.fusion import (
    BOTH,
    BOTH_SILENT,
    BOTH_UNNAMED,
    IMAGE_ALONE,
    MEMBERS,
    SETTINGS,
    START,
    TEXT_ALONE,
    TEXT_SILENT,
    TEXT_UNNAMED,
    USED,
    Fusion,
    Opinions,
    as_log,
    setting_of,
)

#: Pull towards the start, in nats per row; of a bias, by setting: it is, most of all, the class mix of a few
#: hundred held-out rows, and a text member has learned its own from many more. See infra/notes/model.md.
WEIGHT_PULL = 0.02
BIAS_PULL = (1.0, 1.0, 0.1, 0.3, 1.0, 0.3, 1.0)
#: With fewer held-out rows than this, a setting takes the weights of its named sibling.
MIN_ROWS = 20
_SIBLINGS = {
    BOTH_UNNAMED: BOTH,
    TEXT_UNNAMED: TEXT_ALONE,
    BOTH_SILENT: BOTH_UNNAMED,
    TEXT_SILENT: TEXT_UNNAMED,
}
#: Below 0.5 a tag is more likely wrong than right. Held-out rows may say otherwise, but shops differ.
LOWEST = 0.5
STEP = 0.01


def fit_fusion(
    taxonomy: Taxonomy,
    said: Opinions,
    target: FloatArray,
    members: Sequence[str],
    image_groups: Sequence[str],
    training_target: FloatArray,
    taught: FloatArray,
) -> Fusion:
    """Fit every group and setting on held-out rows; `target` is (rows, size).

    `members`: those that were trained. Groups outside `image_groups` have no picture head: there a picture
    alone gets the class shares of `training_target`. `taught`: (size,) how many pictures taught each value.
    """
    fusion = Fusion(taxonomy)
    fusion.taught.copy_(torch.from_numpy(taught))
    trained = torch.tensor([float(name in members) for name in MEMBERS])
    priors, truth = _prior_logits(training_target, taxonomy), torch.from_numpy(target)
    as_text = said._replace(has_image=torch.zeros_like(said.has_image))
    as_image = said._replace(has_text=torch.zeros_like(said.has_text))
    # A row with both is also an example of text alone and of picture alone.
    views = [said] * len(SETTINGS)
    views[TEXT_ALONE] = views[TEXT_UNNAMED] = views[TEXT_SILENT] = as_text
    views[IMAGE_ALONE] = as_image
    logs = {id(view): fusion.neutral(view) for view in (said, as_text, as_image)}
    for at, group in enumerate(taxonomy.groups):
        columns = taxonomy.slices[group.name]
        known = ~truth[:, columns].isnan().all(dim=1)
        for setting in range(len(SETTINGS)):
            used = USED[setting] * trained
            if group.name not in image_groups:
                used = used * torch.tensor([1.0, 0.0, 0.0])
            start = START[setting] * used
            if start.sum() == 0:
                start = used / used.sum().clamp(min=1)
            if used.sum() == 0:
                fusion.weights[setting, at], fusion.bias[setting, columns] = 0, priors[columns]
                continue
            view = views[setting]
            needed = known & (said.has_image if setting == IMAGE_ALONE else said.has_text)
            rows = (needed & (setting_of(group, view.settings()[:, at]) == setting)).nonzero().squeeze(1)
            if len(rows) < MIN_ROWS:
                _borrow(fusion, setting, at, columns, start)
                continue
            fitted = _fit(
                group, logs[id(view)][:, rows][:, :, columns], truth[rows][:, columns], start, used, setting
            )
            fusion.weights[setting, at], fusion.bias[setting, columns] = fitted[0], fitted[1]
    return fusion


def _borrow(fusion: Fusion, setting: int, at: int, columns: slice, start: Tensor) -> None:
    sibling = _SIBLINGS.get(setting)
    if sibling is None:
        fusion.weights[setting, at] = start
        return
    fusion.weights[setting, at] = fusion.weights[sibling, at]
    fusion.bias[setting, columns] = fusion.bias[sibling, columns]


def _fit(
    group: Group, logs: Tensor, truth: Tensor, start: Tensor, used: Tensor, setting: int
) -> tuple[Tensor, Tensor]:
    """Maximum a posteriori weights (members,), and bias (values,); unused members keep weight 0.

    `logs`: (members, rows, values). Raises nothing: rows without a label are masked.
    """
    values = truth.shape[1]
    weights = start.clone().requires_grad_()
    bias = torch.zeros(values, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")
    known = ~truth.isnan()

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = ((weights * used)[:, None, None] * logs).sum(dim=0) + bias
        if group.kind == "single":
            nats = -(as_log(group, logits) * truth.nan_to_num()).sum(dim=1).mean()
        else:
            each = functional.binary_cross_entropy_with_logits(logits, truth.nan_to_num(), reduction="none")
            nats = (each * known).sum(dim=1).mean()
        pull = WEIGHT_PULL * ((weights - start) * used).square().sum()
        loss = nats + pull + BIAS_PULL[setting] * bias.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return (weights * used).detach(), bias.detach()


def _prior_logits(target: FloatArray, taxonomy: Taxonomy) -> Tensor:
    """(size,) biases that alone give the class shares among known rows."""
    logits = torch.from_numpy(log_priors(target, taxonomy))
    for group in taxonomy.groups:
        if group.kind == "multi":
            columns = taxonomy.slices[group.name]
            known = (~np.isnan(target[:, columns])).sum(axis=0)
            share = (np.nan_to_num(target[:, columns]).sum(axis=0) + 0.5) / (known + 1)
            logits[columns] = torch.from_numpy(np.log(share / (1 - share)).astype(np.float32))
    return logits


class Thresholds(BaseModel):
    """How thresholds are chosen.

    beta        below 1 a wrong tag costs more than a missing one
    precision   in place of the best F-beta: the lowest threshold at which this share of a value's tags is
                right, and `highest` where there is none
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    beta: float = Field(default=1.0, gt=0)
    precision: float | None = Field(default=None, gt=0, lt=1)
    pseudo_rows: float = Field(default=10.0, gt=0)
    highest: float = Field(default=0.9, ge=LOWEST, lt=1)


def with_thresholds(
    taxonomy: Taxonomy, scores: FloatArray, target: FloatArray, how: Thresholds | None = None
) -> Taxonomy:
    """The taxonomy with a threshold for every value: the one with the best F-beta over the held-out rows.

    The counts are smoothed: each value gets `pseudo_rows` more rows, with the average outcome of its group. A
    value with many rows so gets the threshold that is best for itself, one with none gets its group's. Tuned
    on its own few rows alone, a scarce value's threshold would be luck (Lin & Lin 2023).

    `scores`, `target`: (rows, taxonomy.size), the target NaN where a label is not known. A group without a
    label in any row gets 0.5.
    """
    how = how or Thresholds()
    groups = []
    for group in taxonomy.groups:
        columns = taxonomy.slices[group.name]
        chosen = _thresholds(group, scores[:, columns], target[:, columns], how)
        values = tuple(
            value.model_copy(update={"threshold": threshold})
            for value, threshold in zip(group.values, chosen, strict=True)
        )
        groups.append(group.model_copy(update={"values": values}))
    return versioned(groups)


def _thresholds(group: Group, scores: FloatArray, target: FloatArray, how: Thresholds) -> list[float]:
    known = ~np.isnan(target)
    if not known.any():
        return [LOWEST] * len(group.values)
    candidates = np.arange(LOWEST, how.highest + STEP / 2, STEP)
    true = known & (target == 1)
    may_say = known
    if group.kind == "single":
        may_say = known & (scores.argmax(axis=1)[:, None] == np.arange(len(group.values)))
    counts = [
        ((may_say & (scores >= at)).sum(axis=0), (true & may_say & (scores >= at)).sum(axis=0))
        for at in candidates
    ]
    said, hits = (np.asarray(of, float) for of in zip(*counts, strict=True))
    real = true.sum(axis=0).astype(float)
    share = how.pseudo_rows / max(real.sum(), 1)
    said, hits, real = (
        of + share * of.sum(axis=-1, keepdims=True) for of in (said, hits, real)
    )  # (candidates, values), (candidates, values), (values,)
    if how.precision is not None:
        enough = (said > 0) & (hits >= how.precision * said)
        places = np.where(enough.any(axis=0), enough.argmax(axis=0), len(candidates) - 1)
    else:
        weight = how.beta**2
        below = weight * real + said
        f = np.divide((1 + weight) * hits, below, out=np.zeros_like(hits), where=below > 0)
        places = f.argmax(axis=0)
    return [round(float(candidates[place]), 2) for place in places]
