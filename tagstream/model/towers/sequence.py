"""Text towers over word embeddings, trained from scratch: pooled by attention, recurrent, transformer.

A text becomes token ids: words, Han characters, and a mark before each field. Unknown words are hashed."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tagstream.core.language import HAN
from tagstream.core.ports import TextFields
from tagstream.model.towers.base import Parts, Prepared, TextTower, Tokens
from tagstream.model.version.format import Strict
from tagstream.text.fields import FIELD_MAX_CHARACTERS, in_order
from tagstream.text.plain import folded

VOCABULARY = "vocabulary.json"
_PIECE = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")
PADDING, MASK, FIRST_FIELD = 0, 1, 2
_FIELDS = 4
#: Words outside the vocabulary share these ids, by hash.
HASHED_IDS = 256
FIRST_HASHED = FIRST_FIELD + _FIELDS
FIRST_WORD = FIRST_HASHED + HASHED_IDS


class WordsConfig(Strict):
    """What the three have in common. A model version states the size of its vocabulary."""

    width: int = Field(default=96, gt=0)
    max_words: int = Field(default=12_000, gt=0)
    max_tokens: int = Field(default=64, gt=0)


class WordEmbeddings(WordsConfig):
    """Word2Vec-style embeddings, pooled by one learned query (Yang et al. 2016)."""

    architecture: Literal["word-embeddings"] = "word-embeddings"

    def build(self) -> TextTower:
        return WordsTower(self, _AttentionPooling(self.width))


class Recurrent(WordsConfig):
    """A bidirectional LSTM or GRU, then attention pooling."""

    architecture: Literal["recurrent"] = "recurrent"
    cell: Literal["lstm", "gru"] = "lstm"
    layers: int = Field(default=1, gt=0)

    def build(self) -> TextTower:
        return WordsTower(self, _Recurrent(self))


class TransformerText(WordsConfig):
    """A pre-norm encoder with learned positions. `pretraining_epochs` of masked words come before the labels
    (Devlin et al. 2019), over all titles that training may see."""

    architecture: Literal["transformer"] = "transformer"
    layers: int = Field(default=2, gt=0)
    heads: int = Field(default=4, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    pretraining_epochs: int = Field(default=0, ge=0)

    def build(self) -> TextTower:
        return TransformerTower(self, _Encoder(self))


class WordsTower(TextTower):
    """Embeddings, what mixes them, and attention pooling."""

    def __init__(self, config: WordsConfig, mixer: nn.Module) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.vocabulary = Vocabulary()
        self.embedding = nn.Embedding(len(self.vocabulary), config.width, padding_idx=PADDING)
        self.mixer = mixer
        self.pooling = _Pooling(config.width)

    def learn(self, texts: Sequence[TextFields], seed: int) -> None:
        self._use(Vocabulary.of(texts, self.config.max_words))

    def _use(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(len(vocabulary), self.width, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=self.width**-0.5)

    def prepare(self, texts: Sequence[TextFields]) -> Tokens:
        return self.vocabulary.tokens(texts, self.config.max_tokens)

    def sequence(self, prepared: Prepared) -> Parts:
        """A part is a word in its text."""
        assert isinstance(prepared, Tokens)
        device = self.embedding.weight.device
        there = prepared.there.to(device)
        return Parts(self.mixer(self.embedding(prepared.ids.to(device)), there), there)

    def forward(self, prepared: Prepared) -> Tensor:
        """(n, width) features; 0 for a text without words."""
        pooled: Tensor = self.pooling(*self.sequence(prepared))
        return pooled

    def assets(self) -> dict[str, bytes]:
        return {VOCABULARY: json.dumps(self.vocabulary.words, ensure_ascii=False).encode()}

    def load_assets(self, files: Mapping[str, bytes]) -> None:
        self._use(Vocabulary(json.loads(files[VOCABULARY])))


class _Pooling(nn.Module):
    """The mean of what is there, weighted by one learned query."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, 1)

    def forward(self, parts: Tensor, there: Tensor) -> Tensor:
        """A text without words is 0."""
        any_there = there.any(dim=1, keepdim=True)
        weights = self.query(parts).squeeze(-1).masked_fill(~there & any_there, -math.inf).softmax(dim=1)
        pooled: Tensor = (weights[..., None] * parts).sum(dim=1)
        return pooled * any_there


class _AttentionPooling(nn.Module):
    """Nothing between the embeddings and their pooling but their norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, parts: Tensor, there: Tensor) -> Tensor:
        normed: Tensor = self.norm(parts) * there[..., None]
        return normed


class _Recurrent(nn.Module):
    def __init__(self, config: Recurrent) -> None:
        super().__init__()
        kind = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.cell = kind(
            config.width, (config.width + 1) // 2, config.layers, batch_first=True, bidirectional=True
        )
        self.out = nn.Linear(2 * ((config.width + 1) // 2), config.width)

    def forward(self, parts: Tensor, there: Tensor) -> Tensor:
        # Noise may have silenced a word in the middle: the cell reads up to the last one that is there.
        places = torch.arange(1, there.shape[1] + 1, device=there.device)
        lengths = (places * there).amax(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(
            parts * there[..., None], lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(self.cell(packed)[0], batch_first=True, total_length=parts.shape[1])
        out: Tensor = self.out(states)
        return out


class TransformerTower(WordsTower):
    config: TransformerText


def encoder(width: int, heads: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    """Pre-norm layers, four times as wide inside (Vaswani et al. 2017; Xiong et al. 2020)."""
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class _Encoder(nn.Module):
    def __init__(self, config: TransformerText) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(config.max_tokens, config.width) * config.width**-0.5)
        self.layers = encoder(config.width, config.heads, config.layers, config.dropout)

    def forward(self, parts: Tensor, there: Tensor) -> Tensor:
        visible = there | ~there.any(dim=1, keepdim=True)
        out: Tensor = self.layers(parts + self.positions[: parts.shape[1]], src_key_padding_mask=~visible)
        return out


class Vocabulary:
    """Words with their own id: those that training texts have at least twice, the most frequent first."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.words = tuple(words)
        self._ids = {word: FIRST_WORD + place for place, word in enumerate(self.words)}

    def __len__(self) -> int:
        return FIRST_WORD + len(self.words)

    @classmethod
    def of(cls, texts: Sequence[TextFields], max_words: int) -> Vocabulary:
        """The most frequent words of the texts; of equally frequent ones the first of the alphabet."""
        counts = Counter(piece for text in texts for _, pieces in _pieces(text) for piece in pieces)
        frequent = sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
        return cls([word for word, count in frequent[:max_words] if count > 1])

    def ids(self, text: TextFields, max_tokens: int) -> list[int]:
        """At most `max_tokens`; [] for a text without a letter or digit."""
        found: list[int] = []
        for field, pieces in _pieces(text):
            if pieces:
                found.append(FIRST_FIELD + field)
                found += [self._ids.get(piece) or _hashed(piece) for piece in pieces]
        return found[:max_tokens]

    def tokens(self, texts: Sequence[TextFields], max_tokens: int) -> Tokens:
        """Padded to the longest; a text without words has one padding token that is not there."""
        rows = [self.ids(text, max_tokens) for text in texts]
        longest = max([1, *map(len, rows)])
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        return Tokens(ids, ids != PADDING)


def _pieces(text: TextFields) -> list[tuple[int, list[str]]]:
    """The words of each field that has any text: at most 512 of a field."""
    return [
        (place, _PIECE.findall(folded(content[:FIELD_MAX_CHARACTERS]))[:512])
        for place, content in enumerate(in_order(text))
        if content
    ]


def _hashed(piece: str) -> int:
    return FIRST_HASHED + zlib.crc32(piece.encode(errors="replace")) % HASHED_IDS
