"""Masked words: a transformer learns from unlabelled titles to fill in what is hidden.

Source: BERT (Devlin et al. 2019), with the embeddings tied to the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagstream.core.ports import TextFields
from tagstream.model.towers.base import TextTower, Tokens
from tagstream.model.towers.sequence import FIRST_HASHED, MASK, TransformerTower
from tagstream.training.loop import Optimisation, Step, fit

#: Of all words so many are to be predicted; of these 8 in 10 are masked, 1 in 10 is another word, 1 stays.
MASKED_SHARE, SHOWN_SHARE, REPLACED_SHARE = 0.15, 0.1, 0.1
BATCH_ROWS, LEARNING_RATE, WEIGHT_DECAY = 256, 2e-3, 0.01


def pretrain(tower: TextTower, texts: Sequence[TextFields], seed: int) -> None:
    """Train a transformer in place; towers that ask for no such epochs stay as they are.

    Raises TrainingDiverged.
    """
    if not isinstance(tower, TransformerTower) or not tower.config.pretraining_epochs:
        return
    how = Optimisation(
        epochs=tower.config.pretraining_epochs,
        batch_rows=BATCH_ROWS,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
    )
    fit(MaskedWords(tower, texts), how, seed)


class MaskedWords:
    """A `fit.Member` whose labels are the words themselves."""

    weights: npt.NDArray[np.float64] | None = None

    def __init__(self, tower: TransformerTower, texts: Sequence[TextFields]) -> None:
        self.module: nn.Module = _FillIn(tower).to(tower.embedding.weight.device)
        tokens = tower.prepare(texts)
        # A text of one word has nothing to be guessed from.
        self._tokens = tokens.take(np.flatnonzero((tokens.ids >= FIRST_HASHED).sum(dim=1).numpy() > 1))
        self._vocabulary = len(tower.vocabulary)

    def __len__(self) -> int:
        return len(self._tokens)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "lr": learning_rate}]

    def loss(self, model: nn.Module, step: Step) -> Tensor:
        """Mean cross-entropy in nats over the words that are to be predicted."""
        tokens = self._tokens.take(step.rows)
        hidden, wanted = masked(tokens, self._vocabulary, step.rng)
        logits = model(hidden, wanted)
        truth = tokens.ids[wanted].to(logits.device)
        return functional.cross_entropy(logits, truth, reduction="sum") / max(1, len(truth))


def masked(tokens: Tokens, vocabulary: int, rng: np.random.Generator) -> tuple[Tokens, Tensor]:
    """The tokens with some words hidden, and (n, length) bool: which words are to be predicted."""
    drawn = torch.from_numpy(rng.random(tokens.ids.shape, dtype=np.float32))
    fate = torch.from_numpy(rng.random(tokens.ids.shape, dtype=np.float32))
    other = torch.from_numpy(rng.integers(FIRST_HASHED, vocabulary, tokens.ids.shape))
    wanted = (tokens.ids >= FIRST_HASHED) & (drawn < MASKED_SHARE)
    ids = torch.where(wanted & (fate >= SHOWN_SHARE), MASK, tokens.ids)
    ids = torch.where(wanted & (fate >= 1 - REPLACED_SHARE), other, ids)
    return Tokens(ids, tokens.there), wanted


class _FillIn(nn.Module):
    """Tokens → (words to be predicted, vocabulary) logits, by the likeness to each word's embedding."""

    def __init__(self, tower: TransformerTower) -> None:
        super().__init__()
        self.tower = tower
        self.norm = nn.LayerNorm(tower.width)
        self.bias = nn.Parameter(torch.zeros(len(tower.vocabulary)))

    def forward(self, hidden: Tokens, wanted: Tensor) -> Tensor:
        states = self.tower.sequence(hidden).parts
        found = self.norm(states[wanted.to(states.device)])
        return functional.linear(found, self.tower.embedding.weight, self.bias)
