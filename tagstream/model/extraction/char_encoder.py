"""A small tagger of characters, trained from scratch: hashed character n-grams and lexicon marks into a
bidirectional LSTM (Lample et al. 2016 read characters so; bigrams as in Zhang & Yang 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tagstream.text.plain import folded_in_place

#: Of each character: itself, with the one before, with the one after, with both, and its kind.
_GRAMS = 5
_OUTSIDE = 0x110000


class CharacterConfig(BaseModel):
    """Sizes of the encoder; `seed` salts the hashes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    buckets: int = Field(default=1 << 15, ge=64)
    widths: tuple[int, int, int, int, int] = (64, 48, 48, 32, 8)
    hidden: int = 128
    layers: int = 2
    dropout: float = Field(default=0.5, ge=0, lt=1)
    seed: int = 0


def gram_buckets(text: str, config: CharacterConfig) -> npt.NDArray[np.int64]:
    """(characters, 5) buckets of the n-grams around each character."""
    codes = np.frombuffer(folded_in_place(text).encode("utf-32-le", "surrogatepass"), np.uint32).astype(
        np.uint64
    )
    edge = np.array([_OUTSIDE], np.uint64)
    before, after = np.concatenate([edge, codes[:-1]]), np.concatenate([codes[1:], edge])
    if not len(codes):
        before = after = codes
    base = np.uint64(0x1000193)
    keys = (
        codes,
        before * base + codes,
        codes * base + after,
        (before * base + codes) * base + after,
        _kinds(text),
    )
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
        """`states_width`: of what a pretrained encoder says about each character, if there is one."""
        super().__init__()
        self.config = config
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
        """`grams` (titles, characters, 5), `lexicon` and `states` (titles, characters, width), padded at the
        end.

        (titles, characters, classes), unnormalised; what stands for padding means nothing.
        """
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
