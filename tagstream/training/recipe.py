"""The recipe: labelled rows are cut, both members trained, fused, and thresholds set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from tagstream.core.ports import MicroBatch
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.shorten import short_titles
from tagstream.dataset.swapped import swapped
from tagstream.dataset.tags import columns_of, subset
from tagstream.dataset.targets import targets
from tagstream.dataset.training_set import TrainingSet, image_groups, pictures_a_value
from tagstream.dataset.variants import changed_harmlessly, masked_rows, spread_over_fields
from tagstream.model.fusion import Fusion
from tagstream.model.members import ImageMember, ImageMembers, JointConfig, JointMember, TextMember
from tagstream.model.pictures import Frame, decode_all
from tagstream.model.tagger import Members
from tagstream.model.towers import ImageTowerConfig, TextTowerConfig
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.towers.image import EfficientNet
from tagstream.training.fusion import fit_fusion
from tagstream.training.loop import Hooks, Optimisation, Share, fit
from tagstream.training.losses import LossConfig
from tagstream.training.objectives import ImageObjective, TextObjective, refresh_statistics
from tagstream.training.pretraining import pretrain
from tagstream.training.thresholds import Thresholds, with_thresholds

log = logging.getLogger("tagstream.train")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextTraining(_Strict):
    """The text member.

    `feature_dropout`: the share of a text's pieces that is left out, anew in every step; `decay`: the plain
    L2 term; `masked_share`: of the rows that come again without the words that name labels; `swapped_share`:
    of the Chinese rows that come again with one value's name exchanged for another's.
    """

    tower: TextTowerConfig = Field(default_factory=HashedNgramBag)
    optimisation: Optimisation = Optimisation(epochs=20, batch_rows=256, learning_rate=0.02)
    loss: LossConfig = LossConfig()
    feature_dropout: float = Field(default=0.4, ge=0, lt=1)
    decay: float = Field(default=1e-5, ge=0)
    masked_share: float = Field(default=0.3, ge=0, le=1)
    short_titles_per_row: int = Field(default=2, ge=0)
    swapped_share: float = Field(default=0.3, ge=0, le=1)


class ImageTraining(_Strict):
    """The image member, and with it the joint member."""

    tower: ImageTowerConfig = Field(default_factory=EfficientNet)
    frame: Frame = Frame(112, 144)
    optimisation: Optimisation = Optimisation(
        epochs=8, batch_rows=64, learning_rate=1.5e-3, weight_decay=0.02, warm_up=0.2, average_decay=0.99
    )
    loss: LossConfig = LossConfig(label_smoothing=0.05, logit_adjustment=0.5)
    shift_px: int = Field(default=8, ge=0)
    feature_dropout: float = Field(default=0.4, ge=0, lt=1)


class Recipe(_Strict):
    """Everything that a training run chooses. A member that is None is left out: text only, image only."""

    seed: int = 0
    text: TextTraining | None = TextTraining()
    image: ImageTraining | None = ImageTraining()
    joint: JointConfig | None = None
    thresholds: Thresholds = Thresholds()

    @model_validator(mode="after")
    def _has_halves(self) -> Recipe:
        if self.text is None and self.image is None:
            raise ValueError("a tagger needs a text member or an image member")
        if self.joint is not None and (self.text is None or self.image is None):
            raise ValueError("the joint member needs a text member and an image member beside it")
        return self


@dataclass(frozen=True)
class Trained:
    """A model's parts before they become a version; `taxonomy` has its thresholds. `is_retaught`: the text
    member has learned the validation rows too."""

    recipe: Recipe
    taxonomy: Taxonomy
    image_groups: tuple[str, ...]
    members: Members
    fusion: Fusion
    is_retaught: bool = False


def train_image(
    data: TrainingSet,
    recipe: Recipe,
    *,
    share: Share | None = None,
    hooks: Hooks | None = None,
    device: torch.device | None = None,
    freeze_statistics: bool | None = None,
) -> ImageMembers:
    """The image member, over the groups that products with pictures have, and the joint member.

    `freeze_statistics`: of batch normalisation; by default where several processes train.

    Raises:
        ValueError: there is no product with a picture that decodes.
        TrainingDiverged: the loss is not a number any more.
    """
    how = recipe.image
    assert how is not None
    pictures, rows = pictures_of(data.with_pictures, how.frame)
    if not rows:
        raise ValueError("no training product has a picture that decodes: leave the image member out")
    if broken := len(data.with_pictures) - len(rows):
        log.warning(
            "%d of %d training pictures are missing or do not decode: they teach nothing",
            broken,
            len(data.with_pictures),
        )
    own, texts = subset(data.taxonomy, image_groups(data)), [row.text for row in rows]
    torch.manual_seed(recipe.seed)
    tower = how.tower.build()
    tower.load_pretrained()
    joint = None
    if recipe.joint is not None:
        text = recipe.joint.text.build()
        text.learn(texts, recipe.seed)
        pretrain(text, texts, recipe.seed)
        joint = JointMember(recipe.joint, text, tower, own.size)
    image_members = ImageMembers(ImageMember(tower, own.size), joint)
    image_members = image_members.to(device).to(memory_format=torch.channels_last)
    objective = ImageObjective(
        image_members,
        pictures,
        texts,
        targets([row.labels for row in rows], own),
        own,
        how.loss,
        shift_px=how.shift_px,
        feature_dropout=how.feature_dropout,
        seed=recipe.seed,
        freeze_statistics=share is not None and share.world > 1
        if freeze_statistics is None
        else freeze_statistics,
    )
    trained = fit(objective, how.optimisation, recipe.seed, share=share, hooks=hooks)
    assert isinstance(trained, ImageMembers)
    refresh_statistics(trained.image, pictures, how.optimisation.batch_rows, recipe.seed)
    return trained.eval()


def train_text(
    data: TrainingSet, recipe: Recipe, *, hooks: Hooks | None = None, device: torch.device | None = None
) -> TextMember:
    """The text member: permitted titles, variants of some, the Chinese copy and short titles made of it.

    Raises:
        ValueError: the tower's pretrained encoder cannot be loaded.
        TrainingDiverged: the loss is not a number any more.
    """
    how = recipe.text
    assert how is not None
    english = spread_over_fields([*data.products.train, *data.extra], recipe.seed)
    short = short_titles(data.zh.train, how.short_titles_per_row, recipe.seed)
    rows = [
        *english,
        *masked_rows(english, data.taxonomy, how.masked_share, recipe.seed),
        *changed_harmlessly([*data.products.train, *data.extra, *short], recipe.seed),
        *data.zh.train,
        *short,
        *swapped([*data.zh.train, *short], how.swapped_share, recipe.seed),
    ]
    texts, target = (
        [row.text for row in rows],
        targets([row.labels for row in rows], data.taxonomy, [row.unsaid for row in rows]),
    )
    torch.manual_seed(recipe.seed)
    tower = how.tower.build()
    tower.learn(texts, recipe.seed)
    tower.to(device)
    pretrain(tower, [row.text for row in data.titles_trained_on], recipe.seed)
    member = TextMember(tower, data.taxonomy.size).to(device)
    objective = TextObjective(
        member, texts, target, data.taxonomy, how.loss, feature_dropout=how.feature_dropout, decay=how.decay
    )
    trained = fit(objective, how.optimisation, recipe.seed, hooks=hooks)
    assert isinstance(trained, TextMember)
    return trained.eval()


def retaught(
    trained: Trained,
    data: TrainingSet,
    *,
    hooks: Callable[[Optimisation], Hooks] | None = None,
    device: torch.device | None = None,
) -> Trained:
    """With a text member that has learned from the validation rows too.

    They had to be unseen while fusion and thresholds were fitted on them. The image member stays: it would
    take as long again. A text member that stops early stays too: it is the validation rows that stop it.
    """
    how = trained.recipe.text
    if how is None or how.optimisation.patience:
        return trained
    more = replace(data, products=data.products.all_but_test(), zh=data.zh.all_but_test())
    text = train_text(more, trained.recipe, hooks=hooks(how.optimisation) if hooks else None, device=device)
    return replace(trained, members=trained.members.with_text(text.cpu()), is_retaught=True)


def join(
    data: TrainingSet,
    recipe: Recipe,
    text: TextMember | None,
    image_members: ImageMembers | None,
    taught: npt.NDArray[np.float32] | None = None,
) -> Trained:
    """Fit fusion and thresholds on the validation rows, which no member has seen. `taught`: how many pictures
    have taught each value, where that was not `data`."""
    groups = image_groups(data) if image_members is not None else ()
    members = Members(
        data.taxonomy,
        text,
        image_members,
        columns_of(data.taxonomy, groups),
        recipe.image.frame if recipe.image is not None else None,
    )
    plain = [*data.products.validation, *data.zh.validation]
    plain += short_titles(data.zh.validation, 1, recipe.seed + 1)
    rows = [*plain, *masked_rows(data.products.validation, data.taxonomy, 1.0, recipe.seed)]
    said = members.opinions(MicroBatch([row.text for row in rows], [row.encoded for row in rows]))[0]
    target = targets([row.labels for row in rows], data.taxonomy, [row.unsaid for row in rows])
    fusion = fit_fusion(
        data.taxonomy,
        said,
        target,
        members.names,
        groups,
        training_target=targets([row.labels for row in data.titles_trained_on], data.taxonomy),
        taught=pictures_a_value(data) if taught is None else taught,
    )
    with torch.inference_mode():
        scores = fusion(said.take(torch.arange(len(plain)))).numpy()
    taxonomy = with_thresholds(data.taxonomy, scores, target[: len(plain)], recipe.thresholds)
    return Trained(recipe, taxonomy, groups, members, fusion)


def pictures_of(rows: Sequence[Row], frame: Frame) -> tuple[Tensor, list[Row]]:
    """(rows with a picture, 3, height, width) uint8 and those rows."""
    pictures, uses = decode_all([row.encoded for row in rows], frame)
    return pictures, [row for row, use in zip(rows, uses, strict=True) if use == "used"]
