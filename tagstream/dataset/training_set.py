"""What a model learns from: labelled rows, cut by near-duplicate group, and nothing held out among them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.description import DataFile, Dataset
from tagstream.dataset.documents import read_document
from tagstream.dataset.induce import apart, induce_rows, learnable, respelt
from tagstream.dataset.names import named
from tagstream.dataset.rows import Places, Row, read_rows, unknown_labels
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
from tagstream.dataset.targets import targets
from tagstream.dataset.variants import ShortTitles
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

    def each(self, change: Callable[[list[Row]], list[Row]]) -> Parted:
        """The parts as `change` makes them."""
        return Parted(change(self.train), change(self.validation), change(self.test))


@dataclass(frozen=True)
class TrainingSet:
    """What a model learns from. `extra`: permitted rows that are trained on only.

    `short_titles`: how short titles are made of the products in its language, which are long copy then.
    """

    products: Parted
    extra: list[Row]
    left_out: int
    not_learned: tuple[str, ...]
    spec: EvaluationSpec
    taxonomy: Taxonomy
    short_titles: ShortTitles | None = None

    @property
    def titles(self) -> Parted:
        """The products that are no long copy."""
        return self.products.each(lambda rows: [row for row in rows if not self._is_copy(row)])

    @property
    def copies(self) -> Parted:
        """The products that are long copy."""
        return self.products.each(lambda rows: [row for row in rows if self._is_copy(row)])

    @property
    def with_pictures(self) -> list[Row]:
        return [row for row in (*self.products.train, *self.extra) if row.image]

    @property
    def titles_trained_on(self) -> list[Row]:
        return [*self.titles.train, *self.extra, *self.copies.train]

    def dataset_id(self) -> str:
        """Sixteen hex digits over ids, titles and labels of all rows of the training part."""
        digest = hashlib.sha256()
        for row in self.titles_trained_on:
            digest.update(repr((row.product_id, row.text.title, sorted(row.labels.items()))).encode())
        return digest.hexdigest()[:16]

    def _is_copy(self, row: Row) -> bool:
        return self.short_titles is not None and row.lang == self.short_titles.lang


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
    seed: int,
    taxonomy: Taxonomy | None = None,
    fold: Fold | None = None,
    *,
    told: Collection[str] = (),
    names: Path | None = None,
    short_titles: ShortTitles | None = None,
) -> TrainingSet:
    """Cut, leave out what must not be seen, and list the classes.

    `taxonomy`: what the labels were read through; of it, what these rows can teach is learned. Without one it
    is induced from the training part: `told` are groups whatever they look like, `names` is a file of display
    names.

    Raises:
        ValueError: a part is empty, or no group has two values with enough rows: there are too few rows.
    """
    parted = cut(products, seed, fold)
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
    not_learned: list[str] = []
    if taxonomy is None:
        induced, findings = induce_rows([*parted.train, *kept], told)
        taxonomy = named(induced, names) if names else induced
        parted, kept = parted.each(lambda rows: respelt(rows, induced)), respelt(kept, induced)
        not_learned = [f"{of.column} is not learned: {of.why}" for of in findings if of.role != "label"]
    learned, left_out = learnable(taxonomy, [row.labels for row in (*parted.train, *kept)])
    found = TrainingSet(
        products=parted,
        extra=kept,
        left_out=allowed.count(False),
        not_learned=(*not_learned, *left_out),
        spec=EvaluationSpec(test_ids=(), classes={}, seed=seed),
        taxonomy=learned,
        short_titles=short_titles,
    )
    return replace(found, spec=_spec_of(found, seed))


def _spec_of(data: TrainingSet, seed: int) -> EvaluationSpec:
    """Of the titles: long copy is measured apart, see `training.release`."""
    titles = data.titles
    if not (titles.train and titles.validation and titles.test):
        raise ValueError("too few products are titles: the others are long copy, as `short_titles` has it")
    labels = [row.labels for part in (titles.train, titles.validation, titles.test) for row in part]
    return EvaluationSpec(
        test_ids=tuple(row.product_id for row in titles.test),
        validation_ids=tuple(row.product_id for row in titles.validation),
        classes=class_lists(row.labels for row in titles.train),
        seed=seed,
        mask_hash=label_words([data.taxonomy], labels).content_hash(),
    )


def read_training_set(
    dataset: Dataset,
    seed: int,
    taxonomy: Taxonomy | None = None,
    extra: Sequence[Dataset] = (),
    limit: int | None = None,
) -> tuple[TrainingSet, list[str]]:
    """A data set to learn from, and sentences on what was found, and what of it is not used.

    Args:
        taxonomy: labels are read through it, whatever their spelling; those outside it are unknown.
        extra: the products of these data sets are trained on only. They go before titles of the same ids.
        limit: at most so many rows of each file.

    Raises:
        ValueError: a file or a column is missing, an id is there twice, or there is too little to learn.
        BadSettings: a file that the description names is wrong.
    """

    def rows_of(file: DataFile, places: Places | None = None) -> list[Row]:
        rows = read_rows(file, limit, taxonomy, "keep", places)
        return apart(rows, file.columns.separators) if taxonomy is None else rows

    places: Places = {}
    products = [row for file in dataset.products for row in rows_of(file, places)]
    groups = {group for row in products for group in row.labels}
    groups |= {group.name for group in taxonomy.groups} if taxonomy else set()
    further = [row for more in extra for file in more.products for row in rows_of(file)]
    for row in (row for file in dataset.titles for row in rows_of(file)):
        # Another column of a titles file is no group.
        further.append(replace(row, labels={name: row.labels[name] for name in row.labels if name in groups}))
    unique: dict[str, Row] = {}
    for row in further:
        if row.product_id not in unique or (row.image and not unique[row.product_id].image):
            unique[row.product_id] = row
    data = training_set(
        products,
        list(unique.values()),
        seed,
        taxonomy,
        told={label for file in dataset.files for label in file.columns.labels or ()},
        names=dataset.names,
        short_titles=read_document(short, ShortTitles, "lang") if (short := dataset.short_titles) else None,
    )
    notes = [f"further titles found beside the products: {file.path}" for file in dataset.titles]
    if taxonomy is not None and (outside := unknown_labels(products, taxonomy)):
        (group, label), times = outside.most_common(1)[0]
        notes.append(
            f"{len(outside)} labels are outside the taxonomy and taken as unknown, "
            f"most often {group}={label} ({times} rows)"
        )
    if data.left_out:
        notes.append(f"{data.left_out} extra rows share an id or title with a held-out one: left out")
    return data, notes


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
