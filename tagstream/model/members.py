"""The members of a tagger, each a tower or two with one linear head over all groups.

text     a text tower; reads every permitted title
image    a picture tower; reads every picture
joint    the picture tower again, joined with a text tower of its own; reads pairs
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from tagstream.model.towers import TextTowerConfig
from tagstream.model.towers.base import ImageTower, Parts, Prepared, TextTower
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.towers.sequence import encoder
from tagstream.model.version.format import Strict
from tagstream.text.ngrams import HashedNgrams


class TextMember(nn.Module):
    """n texts, and (n, outputs) mentions, 1 where a text names a value → (n, outputs) logits. Texts that name
    no value tell little; they have a head of their own, so that learning it costs the others nothing."""

    def __init__(self, tower: TextTower, outputs: int) -> None:
        super().__init__()
        self.tower = tower
        self.heads = nn.Linear(tower.width, outputs)
        nn.init.normal_(self.heads.weight, std=tower.width**-0.5)
        nn.init.zeros_(self.heads.bias)
        self.silent_heads = copy.deepcopy(self.heads)
        #: What being named adds to a value's logit.
        self.named = nn.Parameter(torch.full((outputs,), 3.0))

    def forward(self, prepared: Prepared, mentions: Tensor) -> Tensor:
        return self.of_features(self.tower(prepared), mentions.to(self.named.device))

    def of_features(self, features: Tensor, mentions: Tensor) -> Tensor:
        """(n, outputs) logits from the tower's (n, width) features."""
        silent = ~(mentions > 0).any(dim=1, keepdim=True)
        logits = self.heads(features) + self.named * mentions
        return torch.where(silent, self.silent_heads(features), logits)


class ImageMember(nn.Module):
    """(n, …) pictures as the tower prepared them → (n, outputs) logits."""

    def __init__(self, tower: ImageTower, outputs: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.tower = tower
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.Linear(tower.width, outputs)

    def forward(self, prepared: Tensor) -> Tensor:
        return self.of_features(self.tower(prepared))

    def of_features(self, features: Tensor) -> Tensor:
        """(n, outputs) logits from the tower's (n, width) features."""
        logits: Tensor = self.heads(self.dropout(features))
        return logits


class JointConfig(Strict):
    """How both modalities become one vector, from which one head decides.

    concatenation     both vectors side by side, one hidden layer
    gated             a learned share of each, feature by feature (Arevalo et al. 2017)
    cross-attention   a transformer over the parts of both, with a token for each modality

    A learned vector replaces a modality that is missing, or that training drops with probability
    `modality_dropout`.
    """

    kind: Literal["concatenation", "gated", "cross-attention"] = "concatenation"
    text: TextTowerConfig = Field(
        default_factory=lambda: HashedNgramBag(
            ngrams=HashedNgrams(latin_buckets=2**14, han_buckets=2**10), width=32
        )
    )
    width: int = Field(default=128, gt=0)
    layers: int = Field(default=2, gt=0)
    attention_heads: int = Field(default=4, gt=0)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    modality_dropout: float = Field(default=0.15, ge=0, lt=0.5)


class JointMember(nn.Module):
    """Texts, and parts of the picture from the image member's tower → (n, outputs) logits."""

    def __init__(self, config: JointConfig, text: TextTower, image: ImageTower, outputs: int) -> None:
        super().__init__()
        self.config, self.text = config, text
        self.from_text = nn.Linear(text.width, config.width)
        self.from_image = nn.Linear(image.width, config.width)
        self.missing = nn.Parameter(torch.randn(2, config.width) * config.width**-0.5)
        self.mix = _MIXES[config.kind](config)
        self.dropout = nn.Dropout(config.dropout)
        self.heads = nn.Linear(config.width, outputs)
        self.named = nn.Parameter(torch.full((outputs,), 3.0))

    def forward(
        self, prepared: Prepared, mentions: Tensor, image: Parts, has_text: Tensor, has_image: Tensor
    ) -> Tensor:
        """`mentions`: (n, outputs). `image`: (n, parts, image.width). `has_*`: (n,) bool."""
        attends = self.config.kind == "cross-attention"
        text = self.text.sequence(prepared) if attends else Parts.one(self.text(prepared))
        return self.of_parts(text, image, mentions, has_text, has_image)

    def of_parts(
        self, text: Parts, image: Parts, mentions: Tensor, has_text: Tensor, has_image: Tensor
    ) -> Tensor:
        """The same from the parts of both towers."""
        if self.training and self.config.modality_dropout > 0:
            has_text, has_image = _dropped(has_text, has_image, self.config.modality_dropout)
        text = self._or_missing(Parts(self.from_text(text.parts), text.there), has_text, 0)
        image = self._or_missing(Parts(self.from_image(image.parts), image.there), has_image, 1)
        named = self.named * mentions.to(self.named.device) * has_text[:, None]
        logits: Tensor = self.heads(self.dropout(self.mix(text, image))) + named
        return logits

    def _or_missing(self, parts: Parts, there: Tensor, modality: int) -> Parts:
        """A row without this modality has a learned vector as its one part."""
        first = torch.zeros_like(parts.there)
        first[:, 0] = True
        missing = self.missing[modality].expand_as(parts.parts)
        return Parts(
            torch.where(there[:, None, None], parts.parts, missing), first | (parts.there & there[:, None])
        )


class _Concatenation(nn.Module):
    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * config.width, config.width)

    def forward(self, text: Parts, image: Parts) -> Tensor:
        both: Tensor = self.hidden(torch.cat([_mean(text), _mean(image)], dim=1))
        return nn.functional.gelu(both)


class _Gated(nn.Module):
    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * config.width, config.width)

    def forward(self, text: Parts, image: Parts) -> Tensor:
        of_text, of_image = _mean(text), _mean(image)
        gate = torch.sigmoid(self.gate(torch.cat([of_text, of_image], dim=1)))
        return gate * torch.tanh(of_text) + (1 - gate) * torch.tanh(of_image)


class _CrossAttention(nn.Module):
    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.modality = nn.Parameter(torch.randn(2, config.width) * config.width**-0.5)
        self.summary = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
        self.layers = encoder(config.width, config.attention_heads, config.layers, config.dropout)

    def forward(self, text: Parts, image: Parts) -> Tensor:
        summary = self.summary.expand(len(text.parts), 1, -1)
        parts = torch.cat([summary, text.parts + self.modality[0], image.parts + self.modality[1]], dim=1)
        there = torch.cat([torch.ones_like(text.there[:, :1]), text.there, image.there], dim=1)
        out: Tensor = self.layers(parts, src_key_padding_mask=~there)[:, 0]
        return out


_MIXES = {"concatenation": _Concatenation, "gated": _Gated, "cross-attention": _CrossAttention}


def _mean(parts: Parts) -> Tensor:
    there = parts.there[..., None]
    total: Tensor = (parts.parts * there).sum(dim=1)
    return total / there.sum(dim=1)


def _dropped(has_text: Tensor, has_image: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Text or picture, never both, taken from `share` of the rows each."""
    drawn = torch.rand(len(has_text), device=has_text.device)
    lose_text = has_image & (drawn < share)
    lose_image = has_text & (drawn > 1 - share)
    return has_text & ~lose_text, has_image & ~lose_image


class ImageMembers(nn.Module):
    """The image member and the joint member: one tower for both, one forward pass."""

    def __init__(self, image: ImageMember, joint: JointMember | None) -> None:
        super().__init__()
        self.image, self.joint = image, joint

    def forward(
        self, pictures: Tensor, texts: Prepared | None, mentions: Tensor | None, has_text: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(rows, …) → logits of the image member and of the joint member, each (rows, outputs)."""
        if self.joint is None:
            return self.image(pictures), None
        assert has_text is not None
        tower = self.image.tower
        features = tower(pictures)
        attends = self.joint.config.kind == "cross-attention" and tower.has_parts
        parts = tower.sequence(pictures) if attends else Parts.one(features)
        joint = self.joint(texts, mentions, parts, has_text, torch.ones_like(has_text))
        return self.image.of_features(features), joint
