"""How the opinions of the members become one probability for each value.

    opinions   what each member gives: logits, and whether there is a text, a picture, a name in the text
    settings   which of seven situations a row is in, group by group
    weights    (w, b) for each group and setting, which also calibrate:

        single-choice group   p = softmax(sum over members of w * log p + b)
        free tags             p = sigmoid(sum over members of w * logit + b), each tag

The weights are fitted by likelihood, on rows that no member was trained on. They are pulled towards the text
alone (towards the picture where there is no text), so that a picture has to earn its weight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagstream.core.taxonomy import Group, Taxonomy

MEMBERS = ("text", "image", "joint")
TEXT, IMAGE, JOINT = range(3)
#: Unnamed: the text names no value of the group. Nothing named: it names no value at all. A text member is as
#: sure then as ever, and right less often.
SETTINGS = (
    *("both", "text", "image"),
    *("both, unnamed", "text, unnamed"),
    *("both, nothing named", "text, nothing named"),
)
BOTH, TEXT_ALONE, IMAGE_ALONE, BOTH_UNNAMED, TEXT_UNNAMED, BOTH_SILENT, TEXT_SILENT = range(7)
_ALL, _TEXT, _IMAGE = [1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
#: (settings, members) 1 where a member may have a weight, and the weights that fitting begins with.
USED = torch.tensor([_ALL, _TEXT, _IMAGE, _ALL, _TEXT, _ALL, _TEXT])
START = torch.tensor([_TEXT, _TEXT, _IMAGE, _TEXT, _TEXT, [0.5, 0.5, 0.0], _TEXT])
#: Beside a text that names a value of the group, and beside one that names none: fewer pictures of a value
#: give the image member no vote on it.
VOTE_MIN_ROWS, VOTE_MIN_ROWS_UNNAMED = 60, 10
#: Setting → the one that free tags have. Of unnamed tags only rows that have one are labelled, not the many
#: without, and a setting fitted on them would invent tags.
_FREE_TAGS = torch.tensor([BOTH, TEXT_ALONE, IMAGE_ALONE, BOTH, TEXT_ALONE, BOTH, TEXT_ALONE])


class Opinions(NamedTuple):
    """The members' opinions of n rows."""

    logits: Tensor  # (members, n, taxonomy.size)
    has_text: Tensor  # (n,) bool
    has_image: Tensor  # (n,) bool
    named: Tensor  # (n, groups) bool: the text names a value of the group

    def take(self, rows: Tensor) -> Opinions:
        """Those of these rows, in this order."""
        return Opinions(self.logits[:, rows], self.has_text[rows], self.has_image[rows], self.named[rows])

    def settings(self) -> Tensor:
        """(n, groups) the setting of each row, group by group."""
        silent = ~self.named.any(dim=1, keepdim=True)
        both = torch.where(self.named, BOTH, torch.where(silent, BOTH_SILENT, BOTH_UNNAMED))
        text = torch.where(self.named, TEXT_ALONE, torch.where(silent, TEXT_SILENT, TEXT_UNNAMED))
        with_text = torch.where(self.has_image[:, None], both, text)
        return torch.where(self.has_text[:, None], with_text, IMAGE_ALONE)


def named_groups(mentions: Tensor, taxonomy: Taxonomy) -> Tensor:
    """(n, groups) bool: whether a text names any value of a group, from (n, size) mentions."""
    columns = [taxonomy.slices[group.name] for group in taxonomy.groups]
    return torch.stack([(mentions[:, of] > 0).any(dim=1) for of in columns], dim=1)


def setting_of(group: Group, setting: Tensor) -> Tensor:
    """(n,) settings of a group's rows; those of free tags do not depend on what the text names."""
    return _FREE_TAGS[setting] if group.kind == "multi" else setting


def as_log(group: Group, logits: Tensor) -> Tensor:
    """(n, values) log probabilities of one group."""
    return functional.log_softmax(logits, dim=1) if group.kind == "single" else functional.logsigmoid(logits)


def log_probabilities(logits: Tensor, taxonomy: Taxonomy) -> Tensor:
    """(n, size) log probabilities within single-choice groups; the logits themselves for free tags."""
    out = logits.clone()
    for group in taxonomy.groups:
        if group.kind == "single":
            columns = taxonomy.slices[group.name]
            out[:, columns] = as_log(group, logits[:, columns])
    return out


class Fusion(nn.Module):
    """`weights` (settings, groups, members), `bias` (settings, taxonomy.size), and `taught` (taxonomy.size,):
    how many pictures taught each value."""

    weights: Tensor
    bias: Tensor
    taught: Tensor

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.register_buffer("weights", START[:, None, :].repeat(1, len(taxonomy.groups), 1))
        self.register_buffer("bias", torch.zeros(len(SETTINGS), taxonomy.size))
        self.register_buffer("taught", torch.full((taxonomy.size,), 1e4))

    def forward(self, opinions: Opinions) -> Tensor:
        """→ (n, size) probabilities. A row with neither text nor picture counts as a picture of nothing."""
        settings = opinions.settings()
        logs = self.neutral(opinions)
        out = torch.empty_like(logs[0])
        for at, group in enumerate(self.taxonomy.groups):
            columns, setting = self.taxonomy.slices[group.name], setting_of(group, settings[:, at])
            weights = self.weights[setting, at].T[:, :, None]
            logits = (weights * logs[:, :, columns]).sum(dim=0) + self.bias[setting, columns]
            out[:, columns] = as_log(group, logits).exp()
        return out

    def neutral(self, opinions: Opinions) -> Tensor:
        """(members, n, size) log probabilities, neutral for values that hardly any picture taught: every
        picture would otherwise vote against a value known from titles alone. Beside a text such a value gets
        the picture's expected log probability."""
        logs = torch.stack([log_probabilities(logits, self.taxonomy) for logits in opinions.logits])
        pair = opinions.has_text & opinions.has_image
        for at, group in enumerate(self.taxonomy.groups):
            if group.kind == "multi":
                continue
            columns = self.taxonomy.slices[group.name]
            minimum = torch.where(opinions.named[:, at], VOTE_MIN_ROWS, VOTE_MIN_ROWS_UNNAMED)
            untaught = pair[:, None] & (self.taught[columns] < minimum[:, None])
            for member in (IMAGE, JOINT):
                opinion = logs[member][:, columns]
                expected = (opinion.exp() * opinion).sum(dim=1, keepdim=True)
                logs[member][:, columns] = torch.where(untaught, expected, opinion)
        return logs
