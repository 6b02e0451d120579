"""What is learned: a few encoders of characters, a pretrained one beneath them if wanted, the chain above.

The members differ in their random beginnings only, learn each for itself, and answer by their mean (deep
ensembles, Lakshminarayanan et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tagstream.dataset.titles import Title
from tagstream.model.extraction import bio
from tagstream.model.extraction.char_encoder import CharacterConfig, CharacterEncoder, gram_buckets
from tagstream.model.extraction.lexicon import Lexicon
from tagstream.model.extraction.pretrained import Pretrained

#: More of a title is not read.
TEXT_MAX_CHARS = 512


class Prepared(NamedTuple):
    """A title as the network reads it, one row a character. `states`: of a frozen pretrained encoder."""

    grams: Tensor
    marks: Tensor
    tokens: npt.NDArray[np.int64] | None = None
    place_of: npt.NDArray[np.int64] | None = None
    states: Tensor | None = None


class Network(nn.Module):
    """Log scores of the classes of every character, and of the steps between classes."""

    def __init__(
        self, config: CharacterConfig, members: int, lexicon: Lexicon, pretrained: Pretrained | None
    ) -> None:
        super().__init__()
        self.lexicon = lexicon
        self.pretrained = pretrained
        size = bio.classes(lexicon.groups)
        self.config = config
        states_width = pretrained.width if pretrained else 0
        self.members = nn.ModuleList(
            CharacterEncoder(config, lexicon.width, size, states_width) for _ in range(members)
        )
        start, step = bio.forbidden(lexicon.groups)
        self.register_buffer("start", torch.from_numpy(start), persistent=False)
        self.register_buffer("allowed", torch.from_numpy(step), persistent=False)
        self.steps = nn.Parameter(torch.zeros(size, size))

    @property
    def step(self) -> Tensor:
        allowed: Tensor = self.get_buffer("allowed")
        return self.steps + allowed

    def prepare(self, text: str, without: Sequence[Title] = ()) -> Prepared:
        """`text` has at least one character. `without`: titles whose labels it must not see."""
        grams = torch.from_numpy(gram_buckets(text, self.config))
        marks = torch.from_numpy(self.lexicon.features(text, without))
        tokens = self.pretrained.tokens(text) if self.pretrained is not None else (None, None)
        return Prepared(grams, marks, *tokens)

    def with_states(self, title: Prepared) -> Prepared:
        """With the states of a pretrained encoder that is not trained: computed once for all epochs."""
        with torch.inference_mode():
            [states] = self._states([title], len(title.grams))
        return title._replace(states=states.clone())

    def forward(self, titles: Sequence[Prepared], keep_marks: Tensor | None = None) -> Tensor:
        """(members, titles, characters, classes), padded at the end. `keep_marks`: 0 for titles whose lexicon
        marks are hidden."""
        lengths = [len(title.grams) for title in titles]
        marks = _padded([title.marks for title in titles])
        if keep_marks is not None:
            marks = marks * keep_marks[:, None, None]
        states = self._states(titles, max(lengths)) if self.pretrained is not None else None
        grams = _padded([title.grams for title in titles])
        return torch.stack([member(grams, marks, lengths, states) for member in self.members])

    def _states(self, titles: Sequence[Prepared], length: int) -> Tensor:
        known = [title.states for title in titles if title.states is not None]
        if len(known) == len(titles):
            return _padded(known)
        assert self.pretrained is not None
        tokens = [title.tokens for title in titles if title.tokens is not None]
        place_of = [title.place_of for title in titles if title.place_of is not None]
        states: Tensor = self.pretrained(tokens, place_of, length)
        return states


def _padded(rows: list[Tensor]) -> Tensor:
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)
