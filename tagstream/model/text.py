"""The text half: hashed n-grams, weighted by tf-idf, in a low-rank bag with one linear head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.features import Bags, HashedNgrams, featurise
from tagstream.model.image import TrainingDiverged, one_cycle_steps
from tagstream.model.losses import FloatArray, logit_adjustment, loss_of
from tagstream.model.mentions import Mentions

#: The share of the steps in which the learning rate rises.
WARM_UP = 0.1


def inverse_frequencies(bags: Bags, buckets: int) -> Tensor:
    """(buckets,) smoothed idf: log((1 + texts) / (1 + texts with it)) + 1."""
    texts_with = np.bincount(bags.buckets, minlength=buckets)
    idf = np.log((1 + len(bags.starts)) / (1 + texts_with)) + 1
    return torch.from_numpy(idf.astype(np.float32))


class TextTower(nn.Module):
    """Bags of n texts, and (n, outputs) of which values they name → (n, outputs) logits."""

    idf: Tensor

    def __init__(self, buckets: int, width: int, outputs: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(buckets, width, mode="sum")
        self.heads = nn.Linear(width, outputs)
        self.register_buffer("idf", torch.ones(buckets))
        # Small rows: a bucket that training never meets must say nothing at serving.
        nn.init.normal_(self.bag.weight, std=0.01)
        nn.init.normal_(self.heads.weight, std=width**-0.5)
        nn.init.zeros_(self.heads.bias)
        #: What being named adds to a value's logit.
        self.named = nn.Parameter(torch.full((outputs,), 3.0))

    def weigh(self, bags: Bags) -> Bags:
        """Counts → L2-normalised (1 + log count) * idf."""
        weights = (1 + np.log(bags.counts)) * self.idf.cpu().numpy()[bags.buckets]
        rows = bags.rows
        norms = np.sqrt(np.bincount(rows, weights=weights * weights, minlength=len(bags.starts)))
        return bags._replace(counts=(weights / norms[rows]).astype(np.float32))

    def forward(self, weighed: Bags, mentions: Tensor) -> Tensor:
        device = self.idf.device
        pooled = self.bag(
            torch.from_numpy(weighed.buckets).to(device),
            torch.from_numpy(weighed.starts).to(device),
            torch.from_numpy(weighed.counts).to(device),
        )
        logits: Tensor = self.heads(pooled) + self.named * mentions.to(device)
        return logits


@dataclass(frozen=True)
class TextTraining:
    """The recipe. `feature_dropout`: the share of n-grams that is left out, anew in every step."""

    width: int = 48
    epochs: int = 20
    batch_rows: int = 256
    learning_rate: float = 0.02
    decay: float = 1e-5
    feature_dropout: float = 0.4
    logit_adjustment: float = 0.0
    seed: int = 0


def fit_text(
    texts: Sequence[TextFields],
    target: FloatArray,
    taxonomy: Taxonomy,
    how: HashedNgrams,
    recipe: TextTraining,
) -> TextTower:
    """Train from scratch. `target`: (texts, taxonomy.size) as `losses.targets` makes it.

    Raises:
        TrainingDiverged: the loss became infinite or NaN.
    """
    torch.manual_seed(recipe.seed)
    tower = TextTower(how.buckets, recipe.width, taxonomy.size)
    bags = featurise(texts, how)
    tower.idf.copy_(inverse_frequencies(bags, how.buckets))
    weighed, truth = tower.weigh(bags), torch.from_numpy(target)
    mentions = torch.from_numpy(Mentions(taxonomy, how.max_characters).find(texts))
    adjustment = logit_adjustment(target, taxonomy, recipe.logit_adjustment)
    steps = math.ceil(len(texts) / recipe.batch_rows)
    optimiser = torch.optim.Adam(
        [
            {"params": tower.bag.parameters(), "lr": recipe.learning_rate},
            {"params": tower.heads.parameters(), "lr": recipe.learning_rate / 4},
            {"params": [tower.named], "lr": recipe.learning_rate},
        ]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        total_steps=one_cycle_steps(steps * recipe.epochs, WARM_UP),
        pct_start=WARM_UP,
    )
    rng = np.random.default_rng(recipe.seed)
    tower.train()
    for epoch in range(recipe.epochs):
        for rows in np.array_split(rng.permutation(len(texts)), steps):
            batch = _dropped(weighed.take(rows), recipe.feature_dropout, rng)
            loss = loss_of(tower(batch, mentions[rows]) + adjustment, truth[rows], taxonomy)
            loss = loss + recipe.decay * (tower.bag.weight.square().sum() + tower.heads.weight.square().sum())
            if not math.isfinite(loss.item()):
                raise TrainingDiverged(f"text half: loss {loss.item()} in epoch {epoch}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return tower.eval()


def _dropped(bags: Bags, share: float, rng: np.random.Generator) -> Bags:
    kept = rng.random(len(bags.counts), dtype=np.float32) >= share
    return bags._replace(counts=bags.counts * kept / np.float32(1 - share))


def text_logits(
    tower: TextTower, texts: Sequence[TextFields], how: HashedNgrams, mentions: Mentions
) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """(texts, outputs) float32 logits, and which texts have any feature at all."""
    bags = featurise(texts, how)
    some = np.bincount(bags.rows, minlength=len(texts)) > 0
    with torch.inference_mode():
        logits = tower(tower.weigh(bags), torch.from_numpy(mentions.find(texts)))
    return logits.float().cpu(), some


def log_probabilities(logits: Tensor, taxonomy: Taxonomy) -> Tensor:
    """Softmax logs within single-choice groups; the logits themselves for free tags."""
    out = logits.clone()
    for group in taxonomy.groups:
        if group.kind == "single":
            columns = taxonomy.slices[group.name]
            out[:, columns] = functional.log_softmax(logits[:, columns], dim=1)
    return out
