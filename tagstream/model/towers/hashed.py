"""Hashed n-grams, weighted by tf-idf, in a low-rank bag: the default on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tagstream.core.ports import TextFields
from tagstream.model.towers.base import Prepared, TextTower
from tagstream.model.version.format import Strict
from tagstream.text.ngrams import Bags, HashedNgrams, featurise


class HashedNgramBag(Strict):
    """`ngrams` fixes every feature; the weighting is (1 + log count) * idf, L2-normalised."""

    architecture: Literal["hashed-ngram-bag"] = "hashed-ngram-bag"
    ngrams: HashedNgrams = Field(default_factory=HashedNgrams)
    width: int = Field(default=48, gt=0)

    def build(self) -> TextTower:
        return HashedNgramTower(self)


class HashedNgramTower(TextTower):
    idf: Tensor

    def __init__(self, config: HashedNgramBag) -> None:
        super().__init__()
        self.ngrams, self.width = config.ngrams, config.width
        self.bag = nn.EmbeddingBag(config.ngrams.buckets, config.width, mode="sum")
        self.register_buffer("idf", torch.ones(config.ngrams.buckets))
        # Small rows: a bucket that training never meets must not matter at serving.
        nn.init.normal_(self.bag.weight, std=0.01)

    def learn(self, texts: Sequence[TextFields], seed: int) -> None:
        """Smoothed idf: log((1 + texts) / (1 + texts with it)) + 1."""
        bags = featurise(texts, self.ngrams)
        texts_with = np.bincount(bags.buckets, minlength=self.ngrams.buckets)
        idf = np.log((1 + len(bags.starts)) / (1 + texts_with)) + 1
        self.idf.copy_(torch.from_numpy(idf.astype(np.float32)))

    def prepare(self, texts: Sequence[TextFields]) -> Bags:
        """Counts → L2-normalised (1 + log count) * idf."""
        bags = featurise(texts, self.ngrams)
        weights = (1 + np.log(bags.counts)) * self.idf.cpu().numpy()[bags.buckets]
        rows = bags.rows
        norms = np.sqrt(np.bincount(rows, weights=weights * weights, minlength=len(bags.starts)))
        return replace(bags, counts=(weights / norms[rows]).astype(np.float32))

    def forward(self, prepared: Prepared) -> Tensor:
        """(n, width): the sum of each text's n-grams' rows, each times its weight."""
        assert isinstance(prepared, Bags)
        device = self.idf.device
        pooled: Tensor = self.bag(
            torch.from_numpy(prepared.buckets).to(device),
            torch.from_numpy(prepared.starts).to(device),
            torch.from_numpy(prepared.counts).to(device),
        )
        return pooled

    def decayed(self) -> list[Tensor]:
        return [self.bag.weight]
