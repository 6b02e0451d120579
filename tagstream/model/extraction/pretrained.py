"""A Hugging Face encoder under the characters: each takes the state of the token that covers it.

The offsets of a fast tokenizer lead from tokens to characters. What is saved needs neither the encoder's
folder nor a hub: configuration, tokenizer and weights go into the extractor's own folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from tagstream.model.towers.pretrained import TOKENIZER, encoder_files, encoder_of, load_encoder

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
        return encoder_files(self.model, self._tokenizer, CONFIG)

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size) + 1

    def tokens(self, text: str) -> tuple[Tensor, Tensor]:
        """Token ids, and of each character the place of its token, -1 if none covers it."""
        encoded = self._tokenizer.backend_tokenizer.encode(text.encode("utf-8", "replace").decode())
        place_of = torch.full((len(text),), -1)
        for place, (start, end) in enumerate(encoded.offsets[:TOKENS_MAX]):
            place_of[start:end] = place
        return torch.tensor(encoded.ids[:TOKENS_MAX], dtype=torch.long), place_of

    def forward(self, tokens: list[Tensor], place_of: list[Tensor]) -> Tensor:
        """(titles, characters, width): the states, and 1 where a character is its token's first."""
        batch = pad_sequence(tokens, batch_first=True)
        mask = pad_sequence([torch.ones_like(ids) for ids in tokens], batch_first=True)
        states = self.model(input_ids=batch, attention_mask=mask).last_hidden_state
        # One more state, of zeros, for what no token covers.
        states = torch.cat([states, states.new_zeros(len(tokens), 1, states.shape[2])], dim=1)
        places = pad_sequence(place_of, batch_first=True, padding_value=-1)
        first = (places != pad(places[:, :-1], (1, 0), value=-2)).to(states.dtype)[..., None]
        return torch.cat([states[torch.arange(len(tokens))[:, None], places], first], dim=-1)
