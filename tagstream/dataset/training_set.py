"""What a model learns from: labelled rows, cut by near-duplicate group, and nothing held out among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.split import (
    EvaluationSpec,
    Fold,
    Part,
    class_lists,
    near_duplicate_groups,
    normalised_title,
    part_of,
    permitted,
)
from tagstream.dataset.tags import build_taxonomy, learnable
from tagstream.dataset.targets import targets
from tagstream.text.masking import label_words


@dataclass(frozen=True)
class Parted:
    """Rows by part, cut by near-duplicate group."""

    train: list[Row] = field(default_factory=list)
    validation: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)

    def all_but_test(self) -> Parted:
        """Validation rows to learn from too."""
        return Parted([*self.train, *self.validation], [], self.test)


@dataclass(frozen=True)
class TrainingSet:
    """What a model learns from. `extra`: permitted titles without pictures; `zh`: copy without pictures."""

    products: Parted
    zh: Parted
    extra: list[Row]
    left_out: int
    not_learned: tuple[str, ...]
    spec: EvaluationSpec
    taxonomy: Taxonomy

    @property
    def with_pictures(self) -> list[Row]:
        return [row for row in (*self.products.train, *self.extra) if row.image]

    @property
    def titles_trained_on(self) -> list[Row]:
        return [*self.products.train, *self.extra, *self.zh.train]

    def dataset_id(self) -> str:
        """Sixteen hex digits over ids, titles and labels of all rows of the training part."""
        digest = hashlib.sha256()
        for row in self.titles_trained_on:
            digest.update(repr((row.product_id, row.text.title, sorted(row.labels.items()))).encode())
        return digest.hexdigest()[:16]


def cut(rows: Sequence[Row], seed: int, fold: Fold | None = None) -> Parted:
    """Train, validation and test, no near-duplicate group in two of them."""
    names = near_duplicate_groups(
        [row.text.title or row.text.description or "" for row in rows],
        [row.picture_hash for row in rows],
        [row.product_id for row in rows],
    )
    parts: dict[Part, list[Row]] = {"train": [], "validation": [], "test": []}
    for row, name in zip(rows, names, strict=True):
        parts[part_of(name, seed, fold)].append(row)
    return Parted(parts["train"], parts["validation"], parts["test"])


def training_set(
    products: Sequence[Row],
    extra: Sequence[Row],
    zh: Sequence[Row],
    seed: int,
    taxonomy: Taxonomy | None = None,
    fold: Fold | None = None,
) -> TrainingSet:
    """Cut, leave out what must not be seen, and list the classes.

    `taxonomy`: what the labels were read through; of it, what these rows can teach is learned. Without one,
    every column of labels is a group, with the values that have enough rows.

    Raises:
        ValueError: a part is empty, or no group has two values with enough rows: there are too few rows.
    """
    parted, parted_zh = cut(products, seed, fold), cut(zh, seed, fold)
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
    if taxonomy is not None:
        learned, not_learned = learnable(taxonomy, labels)
    else:
        classes = {group: values for group, values in class_lists(labels).items() if len(values) > 1}
        if not classes:
            raise ValueError("no group has two values with enough labelled rows: there is nothing to learn")
        learned, not_learned = build_taxonomy(classes, labels), []
    return TrainingSet(
        products=parted,
        zh=parted_zh,
        extra=kept,
        left_out=allowed.count(False),
        not_learned=tuple(not_learned),
        spec=EvaluationSpec(
            test_ids=tuple(row.product_id for row in parted.test),
            validation_ids=tuple(row.product_id for row in parted.validation),
            classes=class_lists(row.labels for row in parted.train),
            seed=seed,
            mask_hash=label_words([learned], [row.labels for row in products]).content_hash(),
        ),
        taxonomy=learned,
    )


def image_groups(data: TrainingSet) -> tuple[str, ...]:
    known = {group for row in data.with_pictures for group in row.labels}
    return tuple(group.name for group in data.taxonomy.groups if group.name in known)


def pictures_a_value(data: TrainingSet) -> npt.NDArray[np.float32]:
    """(taxonomy.size,) how many products with a picture have each value."""
    target = targets([row.labels for row in data.with_pictures], data.taxonomy)
    return np.asarray(np.nan_to_num(target).sum(axis=0), np.float32)


def title_hashes(rows: Iterable[Row]) -> npt.NDArray[np.uint32]:
    """Sorted 4-byte hashes of the normalised titles: tells later whether a row was trained on."""
    titles = {normalised_title(row.text.title) for row in rows}
    return np.asarray(sorted({title_hash(title) for title in titles}), np.uint32)


def title_hash(normalised: str) -> int:
    digest = hashlib.blake2b(normalised.encode(errors="replace"), digest_size=4).digest()
    return int.from_bytes(digest, "big")
