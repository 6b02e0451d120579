"""A Hugging Face encoder under the characters: each takes the state of the token that covers it.

The offsets of a fast tokenizer lead from tokens to characters. What is saved needs neither the encoder's
folder nor a hub: configuration, tokenizer and weights go into the extractor's own folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tagstream.model.towers.pretrained import (
    ENCODER_CONFIG,
    TOKENIZER,
    encoder_files,
    encoder_of,
    load_encoder,
)

#: Of one title; tokenizers cut Chinese into one to two characters a token.
TOKENS_MAX = 256
CONFIG = "encoder.json"


class Pretrained(nn.Module):
    """The encoder with its tokenizer. `width` numbers come out a character."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """`model`: a transformers model with `last_hidden_state`; `tokenizer`: its fast tokenizer."""
        super().__init__()
        self.model = model
        self._tokenizer = tokenizer

    @classmethod
    def read(cls, source: str) -> Pretrained:
        """The encoder in a folder, or of a name where a hub can be reached. Raises ValueError for none."""
        return cls(*load_encoder(source))

    @classmethod
    def rebuild(cls, folder: Path) -> Pretrained:
        """From what `files` gave; weights are still to be loaded."""
        return cls(*encoder_of((folder / CONFIG).read_bytes(), (folder / TOKENIZER).read_bytes()))

    def files(self) -> dict[str, bytes]:
        """Name → content: architecture and tokenizer, without the weights."""
        files = encoder_files(self.model, self._tokenizer)
        return {CONFIG: files[ENCODER_CONFIG], TOKENIZER: files[TOKENIZER]}

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size) + 1

    def tokens(self, text: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Token ids, and of each character the place of its token, -1 if none covers it."""
        encoded = self._tokenizer.backend_tokenizer.encode(text.encode("utf-8", "replace").decode())
        ids = np.array(encoded.ids[:TOKENS_MAX], np.int64)
        place_of = np.full(len(text), -1, np.int64)
        for place, (start, end) in enumerate(encoded.offsets[:TOKENS_MAX]):
            place_of[start:end] = place
        return ids, place_of

    def forward(
        self, tokens: list[npt.NDArray[np.int64]], place_of: list[npt.NDArray[np.int64]], length: int
    ) -> Tensor:
        """(titles, length, width): the states, and 1 where a character is its token's first."""
        batch = nn.utils.rnn.pad_sequence([torch.from_numpy(ids) for ids in tokens], batch_first=True)
        mask = torch.zeros_like(batch)
        for row, ids in enumerate(tokens):
            mask[row, : len(ids)] = 1
        states = self.model(input_ids=batch, attention_mask=mask).last_hidden_state
        # One more state, of zeros, for what no token covers.
        states = torch.cat([states, states.new_zeros(len(tokens), 1, states.shape[2])], dim=1)
        places = torch.full((len(tokens), length), -1)
        for row, of in enumerate(place_of):
            places[row, : len(of)] = torch.from_numpy(of)
        before = torch.cat([torch.full((len(tokens), 1), -2), places[:, :-1]], dim=1)
        first = (places != before).to(states.dtype)[..., None]
        rows = torch.arange(len(tokens))[:, None]
        return torch.cat([states[rows, places], first], dim=-1)
