"""The recipe: labelled rows are cut, both halves trained, fused, and thresholds set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tagstream.core.taxonomy import Taxonomy
from tagstream.model.efficientnet import imagenet_weights
from tagstream.model.features import HashedNgrams
from tagstream.model.fields import spread_over_fields
from tagstream.model.fusion import Fusion, fit_fusion
from tagstream.model.image import ImageTower, ImageTraining, Share, fit_image, image_logits
from tagstream.model.losses import targets
from tagstream.model.mentions import Mentions
from tagstream.model.pictures import Frame, decode_all
from tagstream.model.rows import Row
from tagstream.model.shorten import short_titles
from tagstream.model.split import (
    EvaluationSpec,
    Part,
    class_lists,
    near_duplicate_groups,
    normalised_title,
    part_of,
    permitted,
)
from tagstream.model.tags import build_taxonomy, columns_of, subset, with_thresholds
from tagstream.model.text import TextTower, TextTraining, fit_text, text_logits

DEFAULT_FRAME = Frame(112, 144)

log = logging.getLogger("tagstream.train")


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    frame: Frame = DEFAULT_FRAME
    ngrams: HashedNgrams = field(default_factory=HashedNgrams)
    text: TextTraining = field(default_factory=TextTraining)
    image: ImageTraining = field(default_factory=ImageTraining)
    short_titles_per_row: int = 2
    pretrained: bool = True


@dataclass(frozen=True)
class Parted:
    """Rows by part, cut by near-duplicate group."""

    train: list[Row] = field(default_factory=list)
    validation: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingSet:
    """What a model learns from. `extra`: permitted titles without pictures; `zh`: copy without pictures."""

    products: Parted
    zh: Parted
    extra: list[Row]
    left_out: int
    spec: EvaluationSpec
    taxonomy: Taxonomy

    @property
    def titles_trained_on(self) -> list[Row]:
        return [*self.products.train, *self.extra, *self.zh.train]

    def dataset_id(self) -> str:
        """Sixteen hex digits over ids, titles and labels of all training rows."""
        digest = hashlib.sha256()
        for row in self.titles_trained_on:
            digest.update(repr((row.product_id, row.text.title, sorted(row.labels.items()))).encode())
        return digest.hexdigest()[:16]


def cut(rows: Sequence[Row], seed: int) -> Parted:
    """Train, validation and test, no near-duplicate group in two of them."""
    names = near_duplicate_groups([row.text.title for row in rows], [row.picture_hash for row in rows])
    parts: dict[Part, list[Row]] = {"train": [], "validation": [], "test": []}
    for row, name in zip(rows, names, strict=True):
        parts[part_of(name, seed)].append(row)
    return Parted(parts["train"], parts["validation"], parts["test"])


def training_set(products: Sequence[Row], extra: Sequence[Row], zh: Sequence[Row], seed: int) -> TrainingSet:
    """Cut, leave out what must not be seen, and list the classes.

    Raises:
        ValueError: a part is empty: there are too few rows.
    """
    parted, parted_zh = cut(products, seed), cut(zh, seed)
    if not (parted.train and parted.validation and parted.test):
        raise ValueError(f"{len(products)} products are too few to be cut into training, validation and test")
    held = [*parted.validation, *parted.test]
    allowed = permitted(
        [row.product_id for row in extra],
        [row.text.title for row in extra],
        [row.product_id for row in held],
        [row.text.title for row in held],
    )
    known = {row.product_id for row in parted.train}
    kept = [row for row, may in zip(extra, allowed, strict=True) if may and row.product_id not in known]
    labels = [row.labels for row in (*parted.train, *kept, *parted_zh.train)]
    classes = {group: values for group, values in class_lists(labels).items() if len(values) > 1}
    return TrainingSet(
        products=parted,
        zh=parted_zh,
        extra=kept,
        left_out=allowed.count(False),
        spec=EvaluationSpec(
            test_ids=tuple(row.product_id for row in parted.test),
            validation_ids=tuple(row.product_id for row in parted.validation),
            classes=class_lists(row.labels for row in parted.train),
            seed=seed,
        ),
        taxonomy=build_taxonomy(classes, labels),
    )


@dataclass(frozen=True)
class Trained:
    """A model's parts before they become a version; `taxonomy` has its thresholds."""

    taxonomy: Taxonomy
    image_groups: tuple[str, ...]
    text: TextTower
    image: ImageTower
    fusion: Fusion


def train_image_half(
    data: TrainingSet,
    recipe: Recipe,
    *,
    share: Share | None = None,
    on_epoch: Callable[[int, float, ImageTower], None] | None = None,
    device: torch.device | None = None,
) -> ImageTower:
    """The picture half, over the groups that products with pictures have (`image_groups`)."""
    pictures, rows = pictures_of(data.products.train, recipe.frame)
    own = subset(data.taxonomy, image_groups(data))
    torch.manual_seed(recipe.seed)
    tower = ImageTower(own.size)
    if recipe.pretrained:
        tower.backbone.load_imagenet(imagenet_weights())
    if device is not None:
        tower = tower.to(device)
    target = targets([row.labels for row in rows], own)
    return fit_image(tower, pictures, target, own, recipe.image, share=share, on_epoch=on_epoch)


def image_groups(data: TrainingSet) -> tuple[str, ...]:
    known = {group for row in data.products.train if row.image for group in row.labels}
    return tuple(group.name for group in data.taxonomy.groups if group.name in known)


def train_text_half(data: TrainingSet, recipe: Recipe) -> TextTower:
    """The text half, from every permitted title, the Chinese copy, and short titles made of it."""
    english = spread_over_fields([*data.products.train, *data.extra], recipe.seed)
    short = short_titles(data.zh.train, recipe.short_titles_per_row, recipe.seed)
    rows = [*english, *data.zh.train, *short]
    target = targets([row.labels for row in rows], data.taxonomy, [row.unsaid for row in rows])
    return fit_text([row.text for row in rows], target, data.taxonomy, recipe.ngrams, recipe.text)


def join_halves(data: TrainingSet, recipe: Recipe, text: TextTower, image: ImageTower) -> Trained:
    """Fit fusion and thresholds on the validation rows, which neither half has seen."""
    groups = image_groups(data)
    rows = [
        *data.products.validation,
        *data.zh.validation,
        *short_titles(data.zh.validation, 1, recipe.seed + 1),
    ]
    texts, has_text, pictures, has_image = half_logits(rows, data.taxonomy, groups, text, image, recipe)
    target = targets([row.labels for row in rows], data.taxonomy, [row.unsaid for row in rows])
    fusion = fit_fusion(
        data.taxonomy,
        texts,
        pictures,
        target,
        has_text,
        has_image,
        groups,
        training_target=targets([row.labels for row in data.titles_trained_on], data.taxonomy),
        picture_target=targets([row.labels for row in data.products.train if row.image], data.taxonomy),
    )
    with torch.inference_mode():
        scores = fusion(texts, pictures, torch.from_numpy(has_text), torch.from_numpy(has_image)).numpy()
    return Trained(with_thresholds(data.taxonomy, scores, target), groups, text, image, fusion)


def half_logits(
    rows: Sequence[Row],
    taxonomy: Taxonomy,
    groups: tuple[str, ...],
    text: TextTower,
    image: ImageTower,
    recipe: Recipe,
) -> tuple[Tensor, npt.NDArray[np.bool_], Tensor, npt.NDArray[np.bool_]]:
    """(text logits, has text, picture logits, has picture), logits as (rows, taxonomy.size)."""
    texts, has_text = text_logits(
        text, [row.text for row in rows], recipe.ngrams, Mentions(taxonomy, recipe.ngrams.max_characters)
    )
    pictures, uses = decode_all([row.encoded for row in rows], recipe.frame)
    has_image = np.asarray([use == "used" for use in uses])
    spread = torch.zeros(len(rows), taxonomy.size)
    columns = torch.from_numpy(columns_of(taxonomy, groups))
    spread[torch.from_numpy(has_image).nonzero(), columns] = image_logits(image, pictures)
    return texts, has_text, spread, has_image


def pictures_of(rows: Sequence[Row], frame: Frame) -> tuple[Tensor, list[Row]]:
    """(rows with a picture, 3, height, width) uint8 and those rows."""
    pictures, uses = decode_all([row.encoded for row in rows], frame)
    return pictures, [row for row, use in zip(rows, uses, strict=True) if use == "used"]


def title_hashes(rows: Iterable[Row]) -> npt.NDArray[np.uint32]:
    """Sorted 4-byte hashes of the normalised titles: tells later whether a row was trained on."""
    titles = {normalised_title(row.text.title) for row in rows}
    return np.asarray(sorted({title_hash(title) for title in titles}), np.uint32)


def title_hash(normalised: str) -> int:
    digest = hashlib.blake2b(normalised.encode(errors="replace"), digest_size=4).digest()
    return int.from_bytes(digest, "big")
