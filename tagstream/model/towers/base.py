"""What every tower is: texts or pictures in, features out, the same code in training and serving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tagstream.core.ports import TextFields

Places = npt.NDArray[np.int64]
#: Frozen features are computed for so many pictures at once.
_AT_ONCE = 64


@runtime_checkable
class Prepared(Protocol):
    """Inputs of n rows, ready for the forward pass and cheap to cut."""

    def __len__(self) -> int: ...

    def take(self, rows: Places) -> Prepared:
        """The inputs of these rows, in this order."""

    def has_text(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a text has anything that its tower can read."""

    def noised(self, share: float, rng: np.random.Generator) -> Prepared:
        """For training: about `share` of each text's pieces left out. Inputs without pieces stay."""


@dataclass(frozen=True, slots=True)
class Features:
    """Frozen features, or pictures: (n, …) rows of one tensor."""

    rows: Tensor

    def __len__(self) -> int:
        return self.rows.shape[0]

    def take(self, rows: Places) -> Features:
        """These rows, in this order."""
        return Features(self.rows[torch.from_numpy(rows)])

    def has_text(self) -> npt.NDArray[np.bool_]:
        """(n,) whether any feature is not 0."""
        return np.asarray(self.rows.abs().sum(dim=1) > 0)

    def noised(self, share: float, rng: np.random.Generator) -> Features:
        """The same: there are no pieces to leave out."""
        return self


@dataclass(frozen=True, slots=True)
class Tokens:
    """(n, length) token ids and (n, length) bool: which are there."""

    ids: Tensor
    there: Tensor

    def __len__(self) -> int:
        return self.ids.shape[0]

    def take(self, rows: Places) -> Tokens:
        """These rows, in this order, cut to the longest of them."""
        places = torch.from_numpy(rows)
        there = self.there[places]
        longest = max(1, int(there.sum(dim=1).max())) if len(rows) else 1
        return Tokens(self.ids[places, :longest], there[:, :longest])

    def has_text(self) -> npt.NDArray[np.bool_]:
        """(n,) whether any token is there."""
        return np.asarray(self.there.any(dim=1))

    def noised(self, share: float, rng: np.random.Generator) -> Tokens:
        """About `share` of the tokens left out, never the first."""
        kept = torch.from_numpy(rng.random(self.ids.shape, dtype=np.float32) >= share)
        kept[:, :1] = True  # a text never loses everything
        return Tokens(self.ids, self.there & kept)


class Parts(NamedTuple):
    """(n, length, width) features of the parts of an input, and (n, length) bool: which are there."""

    parts: Tensor
    there: Tensor

    @staticmethod
    def one(features: Tensor) -> Parts:
        """(n, width) → one part a row."""
        return Parts(features[:, None], torch.ones_like(features[:, :1], dtype=torch.bool))


class _Tower(nn.Module, ABC):
    """What text and image towers have in common: `width` features a row, and files beside the weights."""

    width: int

    def sequence(self, prepared: Any) -> Parts:
        """The parts that attention can look at; a tower without parts is one part."""
        return Parts.one(self(prepared))

    def assets(self) -> dict[str, bytes]:
        """Name → content of what a model version must have beside the weights: a vocabulary, a tokenizer."""
        return {}

    def with_files(self, folder: Path, prefix: str) -> Self:
        """Itself, with what `assets` gave as the folder's files `prefix.*`."""
        paths = folder.glob(f"{prefix}.*")
        self.load_assets({path.name.removeprefix(f"{prefix}."): path.read_bytes() for path in paths})
        return self

    def load_assets(self, files: Mapping[str, bytes]) -> None:
        """Take back what `assets` gave, before the weights are loaded."""
        return


class TextTower(_Tower):
    """n texts → (n, width) features."""

    def learn(self, texts: Sequence[TextFields], seed: int) -> None:
        """What is counted and not trained: vocabularies, inverse frequencies. Before the first step."""
        return

    @abstractmethod
    def prepare(self, texts: Sequence[TextFields]) -> Prepared:
        """What `forward` reads of each text: hashes, token ids, or the features of a frozen encoder."""

    @abstractmethod
    def forward(self, prepared: Prepared) -> Tensor:
        """(n, width) features."""

    def parameter_groups(self, learning_rate: float) -> list[dict[str, object]]:
        """For the optimiser: what is trained, and how fast."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": learning_rate}]

    def decayed(self) -> list[Tensor]:
        """Weights that the plain L2 term of training holds small."""
        return []


class ImageTower(_Tower):
    """(n, 3, height, width) uint8 → (n, width) features."""

    #: Frozen towers compute their features in `prepare`, so that training computes them once.
    frozen = False
    #: whether `sequence` gives more than the pooled features, at the price of another pass
    has_parts = False

    @abstractmethod
    def features(self, pictures: Tensor) -> Tensor:
        """(n, 3, height, width) uint8 → (n, width)."""

    def prepare(self, pictures: Tensor) -> Features:
        """The pictures; of a frozen tower their (n, width) features."""
        if not self.frozen:
            return Features(pictures)
        self.eval()
        device = next(self.parameters()).device
        with torch.no_grad():
            parts = [self.features(part.to(device)).cpu() for part in torch.split(pictures, _AT_ONCE)]
        return Features(torch.cat(parts) if parts else torch.zeros(0, self.width))

    def forward(self, prepared: Tensor) -> Tensor:
        """(n, width) features."""
        return prepared.float() if self.frozen else self.features(prepared)

    def load_pretrained(self) -> None:
        """Before training: the weights that the config names. Raises ValueError where they are missing."""
        return

    def for_serving(self, device: torch.device) -> ImageTower:
        """A tower in evaluation mode that answers the same, faster."""
        return self.eval().to(device)
