"""How the members are joined, group by group, and calibrated by the same weights.

    single-choice group   p = softmax(sum over members of w * log p + b)
    free tags             p = sigmoid(sum over members of w * logit + b), each tag

with one (w, b) for each setting: both modalities, text alone, picture alone; the first two again for texts
that name none of the group's values, and for texts that name no value at all, in which a text half is as
sure as ever and right less often. The weights are fitted on rows that no member was trained on, by
likelihood, and pulled towards the text as it is (towards the picture where there is no text): a picture has
to earn its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagstream.core.taxonomy import Group, Taxonomy
from tagstream.model.losses import FloatArray, log_priors

MEMBERS = ("text", "image", "joint")
TEXT, IMAGE, JOINT = range(3)
SETTINGS = (
    *("both", "text", "image"),
    *("both, unnamed", "text, unnamed"),
    *("both, nothing named", "text, nothing named"),
)
BOTH, TEXT_ALONE, IMAGE_ALONE, BOTH_UNNAMED, TEXT_UNNAMED, BOTH_SILENT, TEXT_SILENT = range(7)
#: Which members may speak in each setting.
_ALL, _TEXT, _IMAGE = [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
_USED = torch.tensor([_ALL, _TEXT, _IMAGE, _ALL, _TEXT, _ALL, _TEXT])
_START = torch.tensor([_TEXT, _TEXT, _IMAGE, _TEXT, _TEXT, [0.5, 0.5, 0.0], _TEXT])
#: Pull towards the start, in nats per row; of a bias, by setting: it is, most of all, the class mix of a few
#: hundred held-out rows, and a text half has learned its own from many more. See infra/notes/0004.
WEIGHT_PULL = 0.02
BIAS_PULL = (1.0, 1.0, 0.1, 0.3, 1.0, 0.3, 1.0)
#: A picture half that saw fewer rows of a value has no vote on it beside a text that names a value of the
#: group, or that names none.
VOTE_MIN_ROWS, VOTE_MIN_ROWS_UNNAMED = 60, 10

Kind = Literal["weighted", "stacked"]


class Opinions(NamedTuple):
    """What the members say of n rows."""

    logits: Tensor  # (members, n, taxonomy.size)
    has_text: Tensor  # (n,) bool
    has_image: Tensor  # (n,) bool
    named: Tensor  # (n, groups) bool: the text names a value of the group

    def take(self, rows: Tensor) -> Opinions:
        return Opinions(self.logits[:, rows], self.has_text[rows], self.has_image[rows], self.named[rows])

    def settings(self) -> Tensor:
        """(n, groups) which setting each row is in, group by group."""
        silent = ~self.named.any(dim=1, keepdim=True)
        both = torch.where(self.named, BOTH, torch.where(silent, BOTH_SILENT, BOTH_UNNAMED))
        text = torch.where(self.named, TEXT_ALONE, torch.where(silent, TEXT_SILENT, TEXT_UNNAMED))
        with_text = torch.where(self.has_image[:, None], both, text)
        return torch.where(self.has_text[:, None], with_text, IMAGE_ALONE)


class Fusion(nn.Module):
    """`weights` (settings, groups, members) and `bias` (settings, taxonomy.size).

    `stacked` fusion has a matrix of values by members' values for each setting and group besides: late
    stacking, a logistic regression over all log probabilities.
    """

    weights: Tensor
    bias: Tensor
    #: (taxonomy.size,) how many pictures taught each value
    taught: Tensor

    def __init__(self, taxonomy: Taxonomy, kind: Kind = "weighted") -> None:
        super().__init__()
        self.taxonomy, self.kind = taxonomy, kind
        self.register_buffer("weights", _START[:, None, :].repeat(1, len(taxonomy.groups), 1))
        self.register_buffer("bias", torch.zeros(len(SETTINGS), taxonomy.size))
        self.register_buffer("taught", torch.full((taxonomy.size,), 1e4))
        if kind == "stacked":
            for at, group in enumerate(taxonomy.groups):
                values = len(group.values)
                self.register_buffer(f"mix{at}", torch.zeros(len(SETTINGS), len(MEMBERS) * values, values))

    def forward(self, said: Opinions) -> Tensor:
        """→ (n, size) probabilities. A row with neither text nor picture gets what the picture setting says
        of an uninformative picture."""
        settings = said.settings()
        members = self._neutral(said)
        out = torch.empty_like(members[0])
        for at, group in enumerate(self.taxonomy.groups):
            columns, setting = self.taxonomy.slices[group.name], _setting(group, settings[:, at])
            opinions = members[:, :, columns]
            weights = self.weights[setting, at].T[:, :, None]
            logits = (weights * opinions).sum(dim=0) + self.bias[setting, columns]
            if self.kind == "stacked":
                flat = opinions.permute(1, 0, 2).flatten(1) * _used_columns(setting, len(group.values))
                logits = logits + torch.einsum("nk,nkv->nv", flat, getattr(self, f"mix{at}")[setting])
            out[:, columns] = _log(group, logits).exp()
        return out

    def _neutral(self, said: Opinions) -> Tensor:
        """(members, n, size) log probabilities, neutral for values that pictures hardly taught.

        Values known from titles alone would otherwise be voted down by every picture. Where there is a text
        to say them, they get the picture's expected log probability: neither for nor against.
        """
        logs = torch.stack([log_probabilities(logits, self.taxonomy) for logits in said.logits])
        pair = said.has_text & said.has_image
        for at, group in enumerate(self.taxonomy.groups):
            if group.kind == "multi":
                continue
            columns = self.taxonomy.slices[group.name]
            minimum = torch.where(said.named[:, at], VOTE_MIN_ROWS, VOTE_MIN_ROWS_UNNAMED)
            unheard = pair[:, None] & (self.taught[columns] < minimum[:, None])
            for member in (IMAGE, JOINT):
                opinion = logs[member][:, columns]
                expected = (opinion.exp() * opinion).sum(dim=1, keepdim=True)
                logs[member][:, columns] = torch.where(unheard, expected, opinion)
        return logs


def _setting(group: Group, setting: Tensor) -> Tensor:
    """Free tags have no settings of their own for texts that do not name them: rows labelled with a tag that
    nobody names say nothing of the many that have none, and the model would invent tags."""
    return _ANY_NAMING[setting] if group.kind == "multi" else setting


_ANY_NAMING = torch.tensor([BOTH, TEXT_ALONE, IMAGE_ALONE, BOTH, TEXT_ALONE, BOTH, TEXT_ALONE])


def _log(group: Group, logits: Tensor) -> Tensor:
    return functional.log_softmax(logits, dim=1) if group.kind == "single" else functional.logsigmoid(logits)


def _used_columns(setting: Tensor, values: int) -> Tensor:
    """(n, members * values) 1 where a member may speak."""
    return _USED[setting].repeat_interleave(values, dim=1)


def fit_fusion(
    taxonomy: Taxonomy,
    said: Opinions,
    target: FloatArray,
    members: Sequence[str],
    image_groups: Sequence[str],
    training_target: FloatArray,
    taught: FloatArray,
    kind: Kind = "weighted",
) -> Fusion:
    """Fit every group and setting on held-out rows; `target` is (rows, size).

    `members`: those that were trained. Groups outside `image_groups` have no picture head: there a picture
    alone gets the class shares of `training_target`. `taught`: (size,) how many pictures taught each value.
    """
    fusion = Fusion(taxonomy, kind)
    fusion.taught.copy_(torch.from_numpy(taught))
    trained = torch.tensor([float(name in members) for name in MEMBERS])
    priors, truth = _prior_logits(training_target, taxonomy), torch.from_numpy(target)
    as_pair, as_text = said, said._replace(has_image=torch.zeros_like(said.has_image))
    as_image = said._replace(has_text=torch.zeros_like(said.has_text))
    logs = {id(view): fusion._neutral(view) for view in (as_pair, as_text, as_image)}
    for at, group in enumerate(taxonomy.groups):
        columns = taxonomy.slices[group.name]
        known = ~truth[:, columns].isnan().all(dim=1)
        for setting in range(len(SETTINGS)):
            used = _USED[setting] * trained
            if group.name not in image_groups:
                used = used * torch.tensor([1.0, 0.0, 0.0])
            start = _START[setting] * used
            if start.sum() == 0:
                start = used / used.sum().clamp(min=1)
            if used.sum() == 0:
                fusion.weights[setting, at], fusion.bias[setting, columns] = 0, priors[columns]
                continue
            # A row with both tells about text alone and picture alone as well.
            view = as_image if setting == IMAGE_ALONE else as_pair
            if setting in (TEXT_ALONE, TEXT_UNNAMED, TEXT_SILENT):
                view = as_text
            needed = known & (said.has_image if setting == IMAGE_ALONE else said.has_text)
            rows = (needed & (_setting(group, view.settings()[:, at]) == setting)).nonzero().squeeze(1)
            if len(rows) < MIN_ROWS:
                _borrow(fusion, setting, at, columns, start)
                continue
            fitted = _fit(
                group,
                logs[id(view)][:, rows][:, :, columns],
                truth[rows][:, columns],
                start,
                used,
                setting,
                kind,
            )
            fusion.weights[setting, at], fusion.bias[setting, columns] = fitted[0], fitted[1]
            if kind == "stacked":
                getattr(fusion, f"mix{at}")[setting] = fitted[2]
    return fusion


#: Fewer held-out rows than this tell nothing of a setting: it takes what its named sibling has.
MIN_ROWS = 20
_SIBLINGS = {
    BOTH_UNNAMED: BOTH,
    TEXT_UNNAMED: TEXT_ALONE,
    BOTH_SILENT: BOTH_UNNAMED,
    TEXT_SILENT: TEXT_UNNAMED,
}


def _borrow(fusion: Fusion, setting: int, at: int, columns: slice, start: Tensor) -> None:
    sibling = _SIBLINGS.get(setting)
    if sibling is None:
        fusion.weights[setting, at] = start
        return
    fusion.weights[setting, at] = fusion.weights[sibling, at]
    fusion.bias[setting, columns] = fusion.bias[sibling, columns]
    if fusion.kind == "stacked":
        mix = getattr(fusion, f"mix{at}")
        mix[setting] = mix[sibling]


def _fit(
    group: Group, logs: Tensor, truth: Tensor, start: Tensor, used: Tensor, setting: int, kind: Kind
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum a posteriori weights (members,), bias (values,) and mix; unused members keep weight 0.

    `logs`: (members, rows, values). Raises nothing: rows without a label are masked.
    """
    values = truth.shape[1]
    weights = start.clone().requires_grad_()
    bias = torch.zeros(values, requires_grad=True)
    mix = torch.zeros(len(MEMBERS) * values, values, requires_grad=kind == "stacked")
    learnt = [weights, bias, *([mix] if kind == "stacked" else [])]
    optimiser = torch.optim.LBFGS(learnt, max_iter=100, line_search_fn="strong_wolfe")
    known = ~truth.isnan()
    flat = logs.permute(1, 0, 2).flatten(1) * used.repeat_interleave(values)

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = ((weights * used)[:, None, None] * logs).sum(dim=0) + bias
        if kind == "stacked":
            logits = logits + flat @ mix
        if group.kind == "single":
            nats = -(_log(group, logits) * truth.nan_to_num()).sum(dim=1).mean()
        else:
            each = functional.binary_cross_entropy_with_logits(logits, truth.nan_to_num(), reduction="none")
            nats = (each * known).sum(dim=1).mean()
        pull = WEIGHT_PULL * ((weights - start) * used).square().sum()
        loss = nats + pull + BIAS_PULL[setting] * bias.square().sum() + MIX_PULL * mix.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return (weights * used).detach(), bias.detach(), mix.detach()


#: Pull of stacking's matrix towards nothing, in nats per row.
MIX_PULL = 0.02


def log_probabilities(logits: Tensor, taxonomy: Taxonomy) -> Tensor:
    """Softmax logs within single-choice groups; the logits themselves for free tags."""
    out = logits.clone()
    for group in taxonomy.groups:
        if group.kind == "single":
            columns = taxonomy.slices[group.name]
            out[:, columns] = functional.log_softmax(logits[:, columns], dim=1)
    return out


def _prior_logits(target: FloatArray, taxonomy: Taxonomy) -> Tensor:
    """(size,) biases that alone give the class shares among known rows."""
    logits = log_priors(target, taxonomy)
    for group in taxonomy.groups:
        if group.kind == "multi":
            columns = taxonomy.slices[group.name]
            known = (~np.isnan(target[:, columns])).sum(axis=0)
            share = (np.nan_to_num(target[:, columns]).sum(axis=0) + 0.5) / (known + 1)
            logits[columns] = torch.from_numpy(np.log(share / (1 - share)).astype(np.float32))
    return logits


def named_groups(mentions: npt.NDArray[np.float32], taxonomy: Taxonomy) -> Tensor:
    """(n, groups) bool: whether a text names any value of a group, from (n, size) mentions."""
    found = [mentions[:, taxonomy.slices[group.name]].any(axis=1) for group in taxonomy.groups]
    return torch.from_numpy(np.stack(found, axis=1))
