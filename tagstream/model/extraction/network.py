"""What is learned: a few encoders of characters, a pretrained one beneath them if wanted, the chain above.

An encoder of characters is small and trained from scratch: hashed character n-grams and lexicon marks into a
bidirectional LSTM (Lample et al. 2016 read characters so; bigrams as in Zhang & Yang 2018).

The members differ in their random beginnings only, learn each for itself, and answer by their mean (deep
ensembles, Lakshminarayanan et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from tagstream.dataset.titles import Title
from tagstream.model.extraction import bio
from tagstream.model.extraction.lexicon import Lexicon
from tagstream.model.extraction.pretrained import Pretrained
from tagstream.model.version.format import Strict
from tagstream.text.plain import folded_in_place

#: More of a title is not read.
TEXT_MAX_CHARS = 512
#: Of each character: itself, with the one before, with the one after, with both, and its kind.
_GRAMS = 5
_OUTSIDE = 0x110000


class CharacterConfig(Strict):
    """Sizes of the encoder; `seed` salts the hashes."""

    buckets: int = Field(default=1 << 15, ge=64)
    widths: tuple[int, int, int, int, int] = (64, 48, 48, 32, 8)
    hidden: int = 128
    layers: int = 2
    dropout: float = Field(default=0.5, ge=0, lt=1)
    seed: int = 0


def gram_buckets(text: str, config: CharacterConfig) -> npt.NDArray[np.int64]:
    """(characters, 5) buckets of the n-grams around each character, of which there is at least one."""
    encoded = folded_in_place(text).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(encoded, np.uint32).astype(np.uint64)
    edge = np.array([_OUTSIDE], np.uint64)
    before, after = np.concatenate([edge, codes[:-1]]), np.concatenate([codes[1:], edge])
    base = np.uint64(0x1000193)
    with_before = before * base + codes
    keys = (codes, with_before, codes * base + after, with_before * base + after, _kinds(text))
    salted = [
        _mixed(key + np.uint64((config.seed * _GRAMS + kind + 1) * 0x9E3779B97F4A7C15 % 2**64))
        for kind, key in enumerate(keys)
    ]
    return (np.stack(salted, axis=1) % np.uint64(config.buckets)).astype(np.int64)


def _kinds(text: str) -> npt.NDArray[np.uint64]:
    tests = (str.isspace, str.isdigit, str.isascii, str.isalpha)
    return np.array([sum(test(c) << place for place, test in enumerate(tests)) for c in text], np.uint64)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of MurmurHash3 (Appleby 2011)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


class CharacterEncoder(nn.Module):
    """Log scores of the classes of every character."""

    def __init__(
        self, config: CharacterConfig, lexicon_width: int, classes: int, states_width: int = 0
    ) -> None:
        """`states_width`: of a pretrained encoder's state of a character; 0 without an encoder."""
        super().__init__()
        self.grams = nn.ModuleList(nn.Embedding(config.buckets, width) for width in config.widths)
        width = sum(config.widths) + lexicon_width + states_width
        self.read = nn.LSTM(
            width,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Linear(2 * config.hidden + lexicon_width, classes)

    def forward(
        self, grams: Tensor, lexicon: Tensor, lengths: Sequence[int], states: Tensor | None = None
    ) -> Tensor:
        """(titles, characters, classes), unnormalised; those of padding, at the end, mean nothing. `grams`:
        (titles, characters, 5); `lexicon` and `states`: (titles, characters, width)."""
        embedded = [embed(grams[..., kind]) for kind, embed in enumerate(self.grams)]
        if states is not None:
            embedded.append(states)
        x = torch.cat([self.dropout(torch.cat(embedded, dim=-1)), lexicon], dim=-1)
        packed = nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
        read, _ = nn.utils.rnn.pad_packed_sequence(
            self.read(packed)[0], batch_first=True, total_length=grams.shape[1]
        )
        scores: Tensor = self.classes(torch.cat([self.dropout(read), lexicon], dim=-1))
        return scores


class Prepared(NamedTuple):
    """A title as the network reads it, one row a character. `states`: of a frozen pretrained encoder."""

    grams: Tensor
    marks: Tensor
    tokens: Tensor | None = None
    place_of: Tensor | None = None
    states: Tensor | None = None


class Network(nn.Module):
    """Log scores of the classes of every character, and of the steps between classes."""

    def __init__(
        self, config: CharacterConfig, members: int, lexicon: Lexicon, pretrained: Pretrained | None
    ) -> None:
        super().__init__()
        self.config, self.lexicon, self.pretrained = config, lexicon, pretrained
        size = bio.classes(lexicon.groups)
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
        """(classes, classes) what each step costs, forbidden ones most."""
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
            states = self._states([title])
        return title._replace(states=None if states is None else states[0].clone())

    def forward(self, titles: Sequence[Prepared], keep_marks: Tensor | None = None) -> Tensor:
        """(members, titles, characters, classes), padded at the end. `keep_marks`: 0 for titles whose lexicon
        marks are hidden."""
        lengths = [len(title.grams) for title in titles]
        marks = _padded([title.marks for title in titles])
        if keep_marks is not None:
            marks = marks * keep_marks[:, None, None]
        states, grams = self._states(titles), _padded([title.grams for title in titles])
        return torch.stack([member(grams, marks, lengths, states) for member in self.members])

    def _states(self, titles: Sequence[Prepared]) -> Tensor | None:
        """(titles, characters, width) of the pretrained encoder, if there is one."""
        if self.pretrained is None:
            return None
        known = [title.states for title in titles if title.states is not None]
        if len(known) == len(titles):
            return _padded(known)
        tokens = [title.tokens for title in titles if title.tokens is not None]
        places = [title.place_of for title in titles if title.place_of is not None]
        states: Tensor = self.pretrained(tokens, places)
        return states


def _padded(rows: list[Tensor]) -> Tensor:
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)
