"""How well a member does alone on the validation part while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.tags import subset
from tagstream.dataset.training_set import TrainingSet, image_groups
from tagstream.evaluation.figures import report
from tagstream.model.fusion import log_probabilities
from tagstream.model.members import ImageMembers, TextMember
from tagstream.text.mentions import Mentions
from tagstream.training.recipe import Recipe, pictures_of


class Validation:
    """Mean macro-F1 over the groups that a member knows; higher is better."""

    def __init__(self, data: TrainingSet, recipe: Recipe) -> None:
        self._data, self._recipe = data, recipe

    def text(self, member: TextMember) -> float:
        """Of the titles of validation products and of the validation copy in Chinese."""
        rows = [row for row in (*self._data.products.validation, *self._data.zh.validation) if row.text.title]
        texts, taxonomy = [row.text for row in rows], self._data.taxonomy
        member.eval()
        with torch.inference_mode():
            mentions = torch.from_numpy(Mentions(taxonomy).find(texts))
            return self._macro_f1(member(member.tower.prepare(texts), mentions), rows, taxonomy)

    def image(self, image_members: ImageMembers) -> float:
        """Of the pictures of validation products that decode."""
        pictures, rows = self._pictures
        device = next(image_members.parameters()).device
        batch_rows = self._recipe.image.optimisation.batch_rows if self._recipe.image else len(rows)
        image_members.eval()
        with torch.inference_mode():
            said = [
                image_members.image(image_members.image.tower.prepare(some).rows.to(device)).float().cpu()
                for some in torch.split(pictures, batch_rows)
            ]
        return self._macro_f1(torch.cat(said), rows, subset(self._data.taxonomy, image_groups(self._data)))

    @cached_property
    def _pictures(self) -> tuple[Tensor, list[Row]]:
        assert self._recipe.image is not None
        pictures, rows = pictures_of(self._data.products.validation, self._recipe.image.frame)
        if not rows:
            raise ValueError("patience: no validation product has a picture that decodes")
        return pictures, rows

    def _macro_f1(self, logits: Tensor, rows: Sequence[Row], taxonomy: Taxonomy) -> float:
        scores = log_probabilities(logits.float().cpu(), taxonomy).exp().numpy()
        groups: dict[str, dict[str, Any]] = report(scores, rows, taxonomy, self._data.spec.classes)["groups"]
        if not groups:
            raise ValueError("patience: no validation row has a label of the taxonomy")
        return float(np.mean([figures["macro_f1"] for figures in groups.values()]))
