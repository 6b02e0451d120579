"""How the halves are joined, group by group, and calibrated by the same weights.

    single-choice group   p = softmax(w_text * log p_text + w_image * log p_image + b)
    free tags             p = sigmoid(w_text * logit_text + w_image * logit_image + b), each tag

with one (w_text, w_image, b) for each setting: both halves, text alone, picture alone. The weights are
fitted on rows that neither half was trained on, by likelihood, and pulled towards the text half as it
is (1, 0, 0): a picture has to earn its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagstream.core.taxonomy import Group, Taxonomy
from tagstream.model.losses import FloatArray, log_priors
from tagstream.model.split import CLASS_MIN_ROWS
from tagstream.model.text import log_probabilities

BOTH, TEXT, IMAGE = 0, 1, 2
SETTINGS = ("both", "text", "image")
#: Pull towards the start, in nats per row. Chosen on a validation fold; see infra/notes.
WEIGHT_PULL = 0.02
BIAS_PULL = {BOTH: 0.1, TEXT: 0.02, IMAGE: 0.1}


class Fusion(nn.Module):
    """Weights of all groups: `weights` (3 settings, groups, 2 halves), `bias` (3 settings, taxonomy.size)."""

    weights: Tensor
    bias: Tensor
    #: (taxonomy.size,) 1 where the picture half had enough rows to have an opinion
    seen: Tensor

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        start = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        self.register_buffer("weights", start[:, None, :].repeat(1, len(taxonomy.groups), 1))
        self.register_buffer("bias", torch.zeros(3, taxonomy.size))
        self.register_buffer("seen", torch.ones(taxonomy.size))

    def forward(self, text: Tensor, image: Tensor, has_text: Tensor, has_image: Tensor) -> Tensor:
        """(n, size) logits of the halves and (n,) bool which are there → (n, size) probabilities.

        A row with neither gets what the picture setting says of an uninformative picture.
        """
        setting = torch.where(has_text, torch.where(has_image, BOTH, TEXT), IMAGE)
        text = log_probabilities(text, self.taxonomy)
        image = log_probabilities(image, self.taxonomy)
        image = torch.where(has_image[:, None], image, 0.0)
        out = torch.empty_like(text)
        for at, group in enumerate(self.taxonomy.groups):
            columns = self.taxonomy.slices[group.name]
            weights, bias = self.weights[setting, at], self.bias[setting, columns]
            picture = torch.where(
                (setting == BOTH)[:, None], self.opinion(group, image[:, columns]), image[:, columns]
            )
            out[:, columns] = _joined(
                group, text[:, columns], picture, weights[:, :1], weights[:, 1:], bias
            ).exp()
        return out

    def opinion(self, group: Group, image: Tensor) -> Tensor:
        """(n, values) log probabilities of a picture, neutral for values that it was hardly taught.

        Values known from titles alone would otherwise be voted down by every picture. They get the
        picture's expected log probability: neither for nor against.
        """
        if group.kind == "multi":
            return image
        seen = self.seen[self.taxonomy.slices[group.name]] > 0
        expected = (image.exp() * image).sum(dim=1, keepdim=True)
        return torch.where(seen, image, expected)


def _joined(
    group: Group, text: Tensor, image: Tensor, w_text: Tensor, w_image: Tensor, bias: Tensor
) -> Tensor:
    logits = w_text * text + w_image * image + bias
    return functional.log_softmax(logits, dim=1) if group.kind == "single" else functional.logsigmoid(logits)


def fit_fusion(
    taxonomy: Taxonomy,
    text: Tensor,
    image: Tensor,
    target: FloatArray,
    has_text: npt.NDArray[np.bool_],
    has_image: npt.NDArray[np.bool_],
    image_groups: Sequence[str],
    training_target: FloatArray,
    picture_target: FloatArray,
) -> Fusion:
    """Fit every group and setting on held-out rows: `text`, `image` logits and `target`, each (rows, size).

    Groups outside `image_groups` have no picture head: there a picture alone gets the class shares of
    `training_target`. `picture_target`: the labels that the picture half was taught.
    """
    fusion = Fusion(taxonomy)
    fusion.seen.copy_(torch.from_numpy(np.nan_to_num(picture_target).sum(axis=0) >= CLASS_MIN_ROWS))
    text, image = log_probabilities(text, taxonomy), log_probabilities(image, taxonomy)
    truth = torch.from_numpy(target)
    priors = _prior_logits(training_target, taxonomy)
    for at, group in enumerate(taxonomy.groups):
        columns = taxonomy.slices[group.name]
        known = ~np.isnan(target[:, columns]).all(axis=1)
        for setting in (BOTH, TEXT, IMAGE):
            use_text, use_image = setting != IMAGE, setting != TEXT
            if group.name not in image_groups:
                use_image = False
                if setting == IMAGE:
                    fusion.weights[setting, at] = 0
                    fusion.bias[setting, columns] = priors[columns]
                    continue
            needed = known & (has_text | (not use_text)) & (has_image | (not use_image))
            rows = torch.from_numpy(np.flatnonzero(needed))
            if len(rows) == 0:
                continue
            pictures = image[rows][:, columns]
            weights, bias = _fit(
                group,
                text[rows][:, columns],
                fusion.opinion(group, pictures) if setting == BOTH else pictures,
                truth[rows][:, columns],
                fusion.weights[setting, at],
                torch.tensor([float(use_text), float(use_image)]),
                BIAS_PULL[setting],
            )
            fusion.weights[setting, at], fusion.bias[setting, columns] = weights, bias
    return fusion


def _fit(
    group: Group, text: Tensor, image: Tensor, truth: Tensor, start: Tensor, use: Tensor, bias_pull: float
) -> tuple[Tensor, Tensor]:
    """Maximum a posteriori weights (2,) and bias (values,); an unused half keeps weight 0."""
    weights = start.clone().requires_grad_()
    bias = torch.zeros(text.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")
    known = ~truth.isnan()

    def closure() -> Tensor:
        optimiser.zero_grad()
        w = weights * use
        if group.kind == "single":
            logs = _joined(group, text, image, w[:1], w[1:], bias)
            nats = -(logs * truth.nan_to_num()).sum(dim=1).mean()
        else:
            logits = w[0] * text + w[1] * image + bias
            each = functional.binary_cross_entropy_with_logits(logits, truth.nan_to_num(), reduction="none")
            nats = (each * known).sum(dim=1).mean()
        loss = nats + WEIGHT_PULL * (weights - start).square().sum() + bias_pull * bias.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return (weights * use).detach(), bias.detach()


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
