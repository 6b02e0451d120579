"""Values without training rows, scored by the likeness of a title to their names.

One text tower reads titles and names alike; both are projected by the same matrix, and a value's score is
the cosine between them over a temperature, as in CLIP (Radford et al. 2021). It is trained on the values
that have rows; a name that it never met is then a point in the same space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagstream.core.ports import TextFields
from tagstream.model.towers import TextTowerConfig
from tagstream.model.towers.base import Prepared, TextTower
from tagstream.model.towers.hashed import HashedNgramTower
from tagstream.training.loop import Optimisation, Step, drawn, fit

FloatArray = npt.NDArray[np.float32]
_START_TEMPERATURE = 0.1


class OpenVocabulary(nn.Module):
    """n titles and m names → (n, m) logits."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self.tower = tower
        if isinstance(tower, HashedNgramTower):
            # Rows of length 1: n-grams that training never meets are what a new name is known by.
            nn.init.normal_(tower.bag.weight, std=tower.width**-0.5)
        # It starts as the likeness of the features themselves, which needs no training row at all.
        self.project = nn.Linear(tower.width, tower.width, bias=False)
        nn.init.eye_(self.project.weight)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(_START_TEMPERATURE)))

    def forward(self, titles: Prepared, names: Prepared) -> Tensor:
        said, meant = self._points(titles), self._points(names)
        return self.log_scale.exp() * said @ meant.T

    def _points(self, prepared: Prepared) -> Tensor:
        return functional.normalize(self.project(self.tower(prepared)), dim=1, eps=1e-6)

    def score(self, titles: Sequence[TextFields], names: Sequence[str]) -> FloatArray:
        """(titles, names) probabilities over these names, trained on or not; rows sum to 1."""
        with torch.inference_mode():
            logits = self.eval()(self.tower.prepare(titles), self.tower.prepare(_as_texts(names)))
            scores: FloatArray = logits.softmax(dim=1).cpu().numpy()
        return scores


def train_open_vocabulary(
    tower: TextTowerConfig,
    titles: Sequence[TextFields],
    values: Sequence[str],
    how: Optimisation,
    seed: int,
    *,
    feature_dropout: float = 0.2,
) -> OpenVocabulary:
    """`values`: of each title, the name of its value.

    Raises:
        ValueError: titles and values are not equally many, or there are fewer than two values.
        TrainingDiverged: the loss is not a number any more.
    """
    if len(titles) != len(values) or len(set(values)) < 2:
        raise ValueError(
            f"{len(titles)} titles with {len(values)} labels of {len(set(values))} values teach nothing"
        )
    torch.manual_seed(seed)
    built = tower.build()
    names = sorted(set(values))
    built.learn([*titles, *_as_texts(names)], seed)
    member = _NameObjective(OpenVocabulary(built), titles, values, names, feature_dropout)
    trained = fit(member, how, seed)
    assert isinstance(trained, OpenVocabulary)
    return trained.eval()


class _NameObjective:
    """A `fit.Objective`: cross-entropy over the names of the known values."""

    def __init__(
        self,
        module: OpenVocabulary,
        titles: Sequence[TextFields],
        values: Sequence[str],
        names: Sequence[str],
        feature_dropout: float,
    ) -> None:
        self.module: nn.Module = module
        self._model, self._feature_dropout = module, feature_dropout
        self._titles = module.tower.prepare(titles)
        self._names = module.tower.prepare(_as_texts(names))
        place = {name: at for at, name in enumerate(names)}
        self._truth = torch.tensor([place[value] for value in values])

    def __len__(self) -> int:
        return len(self._truth)

    def order(self, rng: np.random.Generator, batch_rows: int) -> npt.NDArray[np.int64]:
        return drawn(len(self), rng)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The projection starts where it is right for names never met: it learns a tenth as fast."""
        slow = [self._model.project.weight, self._model.log_scale]
        return [
            *self._model.tower.parameter_groups(learning_rate),
            {"params": slow, "lr": learning_rate / 10},
        ]

    def loss(self, model: nn.Module, step: Step) -> Tensor:
        titles = self._titles.take(step.rows).noised(self._feature_dropout, step.rng)
        logits = model(titles, self._names)
        return functional.cross_entropy(logits, self._truth[step.rows].to(logits.device))


def _as_texts(names: Sequence[str]) -> list[TextFields]:
    return [TextFields(name) for name in names]
