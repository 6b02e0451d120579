"""How the members are joined, group by group, and calibrated by the same weights.

    single-choice group   p = softmax(sum over members of w * log p + b)
    free tags             p = sigmoid(sum over members of w * logit + b), each tag

with one (w, b) for each setting: both modalities, text alone, picture alone; the first two again for texts
that name none of the group's values, and for texts that name no value at all, in which a text member is as
sure as ever and right less often. The weights are fitted on rows that no member was trained on, by
likelihood, and pulled towards the text as it is (towards the picture where there is no text): a picture has
to earn its weight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagstream.core.taxonomy import Group, Taxonomy

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
USED = torch.tensor([_ALL, _TEXT, _IMAGE, _ALL, _TEXT, _ALL, _TEXT])
START = torch.tensor([_TEXT, _TEXT, _IMAGE, _TEXT, _TEXT, [0.5, 0.5, 0.0], _TEXT])
#: A image member that saw fewer rows of a value has no vote on it beside a text that names a value of the
#: group, or that names none.
VOTE_MIN_ROWS, VOTE_MIN_ROWS_UNNAMED = 60, 10


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
    """`weights` (settings, groups, members) and `bias` (settings, taxonomy.size)."""

    weights: Tensor
    bias: Tensor
    #: (taxonomy.size,) how many pictures taught each value
    taught: Tensor

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.register_buffer("weights", START[:, None, :].repeat(1, len(taxonomy.groups), 1))
        self.register_buffer("bias", torch.zeros(len(SETTINGS), taxonomy.size))
        self.register_buffer("taught", torch.full((taxonomy.size,), 1e4))

    def forward(self, said: Opinions) -> Tensor:
        """→ (n, size) probabilities. A row with neither text nor picture gets what the picture setting says
        of an uninformative picture."""
        settings = said.settings()
        members = self.neutral(said)
        out = torch.empty_like(members[0])
        for at, group in enumerate(self.taxonomy.groups):
            columns, setting = self.taxonomy.slices[group.name], setting_of(group, settings[:, at])
            opinions = members[:, :, columns]
            weights = self.weights[setting, at].T[:, :, None]
            logits = (weights * opinions).sum(dim=0) + self.bias[setting, columns]
            out[:, columns] = as_log(group, logits).exp()
        return out

    def neutral(self, said: Opinions) -> Tensor:
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


def setting_of(group: Group, setting: Tensor) -> Tensor:
    """Free tags have no settings of their own for texts that do not name them: rows labelled with a tag that
    nobody names say nothing of the many that have none, and the model would invent tags."""
    return _ANY_NAMING[setting] if group.kind == "multi" else setting


_ANY_NAMING = torch.tensor([BOTH, TEXT_ALONE, IMAGE_ALONE, BOTH, TEXT_ALONE, BOTH, TEXT_ALONE])


def as_log(group: Group, logits: Tensor) -> Tensor:
    return functional.log_softmax(logits, dim=1) if group.kind == "single" else functional.logsigmoid(logits)


def log_probabilities(logits: Tensor, taxonomy: Taxonomy) -> Tensor:
    """Softmax logs within single-choice groups; the logits themselves for free tags."""
    out = logits.clone()
    for group in taxonomy.groups:
        if group.kind == "single":
            columns = taxonomy.slices[group.name]
            out[:, columns] = functional.log_softmax(logits[:, columns], dim=1)
    return out


def named_groups(mentions: npt.NDArray[np.float32], taxonomy: Taxonomy) -> Tensor:
    """(n, groups) bool: whether a text names any value of a group, from (n, size) mentions."""
    found = [mentions[:, taxonomy.slices[group.name]].any(axis=1) for group in taxonomy.groups]
    return torch.from_numpy(np.stack(found, axis=1))
