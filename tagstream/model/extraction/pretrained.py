"""A Hugging Face encoder under the characters: each takes the state of the token that covers it.

Read from a folder (or by name where a hub can be reached): `AutoModel` and a fast tokenizer, whose offsets
lead from tokens to characters. What is saved needs neither folder nor hub: configuration, tokenizer and
weights go into the extractor's own folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

#: Of one title; tokenizers cut Chinese into one to two characters a token.
TOKENS_MAX = 256
CONFIG, TOKENIZER = "encoder.json", "tokenizer.json"


class Pretrained(nn.Module):
    """The encoder with its tokenizer. `width` numbers come out a character."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """`model`: a transformers model with `last_hidden_state`; `tokenizer`: its fast tokenizer."""
        super().__init__()
        self.model = model
        self._tokenizer = tokenizer

    @classmethod
    def read(cls, name_or_folder: str) -> Pretrained:
        """Raises ValueError if there is no such encoder, or its tokenizer has no offsets."""
        from transformers import AutoModel, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name_or_folder)
            model = AutoModel.from_pretrained(name_or_folder)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"no encoder at {name_or_folder}: {error}") from error
        if not tokenizer.is_fast:
            raise ValueError(f"{name_or_folder}: its tokenizer gives no offsets: a fast one is needed")
        return cls(model, tokenizer)

    @classmethod
    def rebuild(cls, folder: Path) -> Pretrained:
        """The architecture and tokenizer that `save` wrote; weights are to be loaded into it."""
        from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

        raw = json.loads((folder / CONFIG).read_bytes())
        model = AutoModel.from_config(AutoConfig.for_model(**raw))
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER))
        return cls(model, tokenizer)

    def save(self, folder: Path) -> None:
        """Architecture and tokenizer; the weights are the caller's to save."""
        (folder / CONFIG).write_text(self.model.config.to_json_string(use_diff=False), encoding="utf-8")
        self._tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))

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
