"""What every tower is: texts or pictures in, features out, the same code in training and serving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from tagstream.core.ports import TextFields

Places = npt.NDArray[np.int64]


class TowerConfig(BaseModel):
    """What a model version's config.json says about one tower. A name that is no option is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@runtime_checkable
class Prepared(Protocol):
    """Inputs of n rows, ready for the forward pass and cheap to cut."""

    def __len__(self) -> int: ...

    def take(self, rows: Places) -> Prepared:
        """The inputs of these rows, in this order."""

    def noised(self, share: float, rng: np.random.Generator) -> Prepared:
        """For training: about `share` of each text's pieces left out. Inputs without pieces stay."""


@dataclass(frozen=True, slots=True)
class Features:
    """Frozen features, or pictures: (n, …) rows of one tensor."""

    rows: Tensor

    def __len__(self) -> int:
        return self.rows.shape[0]

    def take(self, rows: Places) -> Features:
        return Features(self.rows[torch.from_numpy(rows)])

    def noised(self, share: float, rng: np.random.Generator) -> Features:
        return self


@dataclass(frozen=True, slots=True)
class Tokens:
    """(n, length) token ids and (n, length) bool: which are there."""

    ids: Tensor
    there: Tensor

    def __len__(self) -> int:
        return self.ids.shape[0]

    def take(self, rows: Places) -> Tokens:
        places = torch.from_numpy(rows)
        there = self.there[places]
        longest = max(1, int(there.sum(dim=1).max())) if len(rows) else 1
        return Tokens(self.ids[places, :longest], there[:, :longest])

    def noised(self, share: float, rng: np.random.Generator) -> Tokens:
        kept = torch.from_numpy(rng.random(self.ids.shape, dtype=np.float32) >= share)
        kept[:, :1] = True  # a text never loses everything
        return Tokens(self.ids, self.there & kept)


class Parts(NamedTuple):
    """(n, length, width) features of the parts of an input, and (n, length) bool: which are there."""

    parts: Tensor
    there: Tensor


class TextTower(nn.Module, ABC):
    """n texts → (n, width)."""

    width: int

    def learn(self, texts: Sequence[TextFields], seed: int) -> None:
        """What is counted and not trained: vocabularies, inverse frequencies. Before the first step."""
        return

    @abstractmethod
    def prepare(self, texts: Sequence[TextFields]) -> Prepared: ...

    @abstractmethod
    def forward(self, prepared: Prepared) -> Tensor: ...

    def sequence(self, prepared: Prepared) -> Parts:
        """The parts that attention can look at; a tower without parts is one part."""
        pooled = self(prepared)
        return Parts(pooled[:, None], torch.ones(len(pooled), 1, dtype=torch.bool, device=pooled.device))

    @staticmethod
    @abstractmethod
    def has_text(prepared: Prepared) -> npt.NDArray[np.bool_]:
        """(n,) whether a text has anything that the tower can read."""

    def assets(self) -> dict[str, bytes]:
        """Files beside the weights that a model version must carry: a vocabulary, a tokenizer."""
        return {}

    def load_assets(self, files: Mapping[str, bytes]) -> None:
        return

    def parameter_groups(self, learning_rate: float) -> list[dict[str, object]]:
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": learning_rate}]

    def decayed(self) -> list[Tensor]:
        """Weights that the plain L2 term of training holds small."""
        return []


class ImageTower(nn.Module, ABC):
    """(n, 3, height, width) uint8 → (n, width) features."""

    width: int
    #: whether `sequence` gives more than the pooled features, at the price of another pass
    has_parts = False

    def prepare(self, pictures: Tensor) -> Features:
        """Frozen towers compute their features here, once; others take the pictures as they are."""
        return Features(pictures)

    @abstractmethod
    def forward(self, prepared: Tensor) -> Tensor: ...

    def sequence(self, prepared: Tensor) -> Parts:
        pooled = self(prepared)
        return Parts(pooled[:, None], torch.ones(len(pooled), 1, dtype=torch.bool, device=pooled.device))

    def load_pretrained(self) -> None:
        """Before training: the weights that the config names. Raises ValueError where they cannot be had."""
        return

    def assets(self) -> dict[str, bytes]:
        return {}

    def load_assets(self, files: Mapping[str, bytes]) -> None:
        return

    def for_serving(self, device: torch.device) -> ImageTower:
        """A tower in evaluation mode that answers the same, faster."""
        return self.eval().to(device)
