"""How a model version is made, from top to bottom in `make_version`: read and split, train the image member,
train the text member, fuse, set thresholds, release."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tagstream.core.ports import MicroBatch
from tagstream.core.taxonomy import columns_of
from tagstream.dataset.columns import Columns
from tagstream.dataset.description import read_dataset
from tagstream.dataset.rows import unknown_labels
from tagstream.dataset.targets import targets
from tagstream.dataset.training_set import TrainingSet, image_groups, pictures_a_value, read_training_set
from tagstream.dataset.variants import masked_rows, short_titles
from tagstream.model.members import ImageMembers, TextMember
from tagstream.model.tagger import Members
from tagstream.taxonomy.files import read_taxonomy
from tagstream.training.fusion import fit_fusion, with_thresholds
from tagstream.training.loop import Hooks, Optimisation
from tagstream.training.members import (
    KeptPictures,
    Recipe,
    batch_that_fits,
    kept_pictures,
    train_image,
    train_text,
)
from tagstream.training.progress import Checkpoints, Run, Validation
from tagstream.training.release import Trained, release, write_training_report

#: Settings that may change when a named run goes on.
_NOT_OF_THE_RUN: dict[str, bool | set[str]] = {
    "checkpoint_steps": True,
    "provenance": True,
    "image": {"gpu_memory_gib"},
}


@dataclass(frozen=True)
class Sources:
    """`data`: a dataset.toml, a products file, or a folder with one. `extra`: further ones, whose products
    are trained on only. `taxonomy`: a file that goes before the one of the data set. `columns`: of products.
    """

    data: str
    extra: tuple[str, ...] = ()
    taxonomy: str | None = None
    columns: Columns | None = None

    def read(self, seed: int, limit: int | None = None) -> tuple[TrainingSet, list[str]]:
        """As `read_training_set`, and what it raises."""
        dataset = read_dataset(Path(self.data), self.columns)
        extra = [read_dataset(Path(source), self.columns) for source in self.extra]
        file = Path(self.taxonomy) if self.taxonomy else dataset.taxonomy
        return read_training_set(dataset, seed, read_taxonomy(file) if file else None, extra, limit)


@dataclass(frozen=True)
class Order:
    """What a run is to make, as plain values that travel to the workers.

    `report`: a folder for the training report. `run_folder`: where the checkpoints of a named run are kept.
    """

    sources: Sources
    out: str
    recipe: Recipe
    report: str | None = None
    run_folder: str | None = None
    code_revision: str | None = None


def make_version(order: Order, run: Run, device: torch.device) -> Path | None:
    """Every process of a run calls this. The first one writes the model version and returns its folder.

    Raises:
        ValueError: the data, the recipe or the run's name cannot be used.
        TrainingDiverged: the loss is not a number any more.
    """
    data = read_and_split(order, run)
    recipe, kept = prepared(order, data, run, device)
    image = kept.image_members if kept else None
    if recipe.image is not None and kept is None:
        hooks = run.hooks("image", recipe.image.optimisation)
        image = train_image(data, recipe, share=run.share, hooks=hooks, device=device).cpu()
    if run.share.rank != 0:
        return None  # The rest is the work of the first process.
    text = None
    if recipe.text is not None:
        hooks = run.hooks("text", recipe.text.optimisation)
        text = train_text(data, recipe, hooks=hooks, device=device).cpu()
    run.say("members ready: " + " and ".join(n for n, of in (("text", text), ("image", image)) if of))
    fused = fuse(data, recipe, text, image, kept.taught if kept else None)
    trained = retaught(threshold(fused), data, hooks=partial(run.hooks, "text_again"), device=device)
    return measure_and_release(order, data, trained, kept, run)


def read_and_split(order: Order, run: Run) -> TrainingSet:
    """The labelled rows, cut into training, validation and test by near-duplicate group."""
    data, found = order.sources.read(order.recipe.seed, order.recipe.limit)
    for line in (*described(data), *found):
        run.say(line)
    return data


def prepared(
    order: Order, data: TrainingSet, run: Run, device: torch.device
) -> tuple[Recipe, KeptPictures | None]:
    """The recipe as this data and this machine allow it, and the image member where it is taken over.

    Raises:
        ValueError: there is nothing to train, the kept member does not fit, or the run's name belongs to
            another run.
    """
    if order.recipe.provenance is not None:
        order.recipe.provenance.read_text(encoding="utf-8")  # a card that cannot be written costs no training
    recipe, left_out = suited(order.recipe, data)
    for line in left_out:
        run.say(line)
    kept, image = None, recipe.image
    if image is not None and image.kept_from is not None:
        kept = kept_pictures(image.kept_from, data, recipe)
        run.say(f"image: kept from {kept.model_version}")
    elif image is not None and image.gpu_memory_gib is not None:
        rows = batch_that_fits(data, recipe, device, image.gpu_memory_gib, run.share.world)
        recipe = recipe.changed({"image.optimisation.batch_rows": run.share.agree(rows)})
        run.say(f"image: {rows} rows a step")
    run.validation = Validation(data, recipe)
    if order.run_folder is not None:
        run.checkpoints = Checkpoints(Path(order.run_folder), recipe.checkpoint_steps, run.share.rank == 0)
        run.checkpoints.claim(
            {
                "recipe": recipe.model_dump(mode="json", exclude=_NOT_OF_THE_RUN),
                "data": identity(data),
                "short_titles": data.short_titles and data.short_titles.model_dump(mode="json"),
                "taxonomy": data.taxonomy.content_hash(),
                "workers": run.share.world,
                "threads": torch.get_num_threads(),
                "device": device.type,
                "torch": torch.__version__,
            }
        )
    return recipe, kept


def fuse(
    data: TrainingSet,
    recipe: Recipe,
    text: TextMember | None,
    image_members: ImageMembers | None,
    taught: npt.NDArray[np.float32] | None = None,
) -> Trained:
    """Fit the fusion on the validation rows, which no member has seen. `taught`: how many pictures have
    taught each value, where that was not `data`."""
    groups = image_groups(data) if image_members is not None else ()
    members = Members(
        data.taxonomy,
        text,
        image_members,
        columns_of(data.taxonomy, groups),
        recipe.image.frame if recipe.image is not None else None,
    )
    titles, copies = data.titles.validation, data.copies.validation
    short = short_titles(copies, data.short_titles, data.taxonomy, 1, recipe.seed + 1)
    plain = [*titles, *copies, *short]
    rows = [*plain, *masked_rows(titles, data.taxonomy, 1.0, recipe.seed)]
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
    return Trained(recipe, data.taxonomy, groups, members, fusion, (scores, target[: len(plain)]))


def threshold(trained: Trained) -> Trained:
    """With each value's threshold, from the fusion's scores of the validation rows."""
    scores, target = trained.held_out
    how = trained.recipe.thresholds
    return replace(trained, taxonomy=with_thresholds(trained.taxonomy, scores, target, how))


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
    more = replace(data, products=data.products.all_but_test())
    text = train_text(more, trained.recipe, hooks=hooks(how.optimisation) if hooks else None, device=device)
    return replace(trained, members=replace(trained.members, text=text.cpu()), is_retaught=True)


def measure_and_release(
    order: Order, data: TrainingSet, trained: Trained, kept: KeptPictures | None, run: Run
) -> Path:
    """Measure on the test part, write the version's folder and the report; returns the folder."""
    created = datetime.now(UTC).replace(microsecond=0)
    folder, metrics = release(Path(order.out), data, trained, created, order.code_revision, kept)
    if order.report is not None:
        page = write_training_report(Path(order.report), folder.name, data, trained, run.curves)
        run.say(f"report: {page}")
    for modalities, figures in metrics["test"].items():
        accuracy, f1 = figures["mean_accuracy"], figures["mean_macro_f1"]
        if accuracy is not None:
            run.say(f"test, {modalities}: accuracy {accuracy:.4f}, macro-F1 {f1:.4f}")
    run.say(f"written: {folder}")
    return folder


def described(data: TrainingSet) -> Iterator[str]:
    """What was read, and what of it teaches nothing, line by line."""
    parts = data.products
    yield f"products: {len(parts.train)} train, {len(parts.validation)} validate, {len(parts.test)} test"
    yield f"extra rows: {len(data.extra)}; pictures to learn from: {len(data.with_pictures)}"
    yield f"long copies: {len(data.copies.train)} to train; taxonomy: {data.taxonomy.size} values"
    yield from data.not_learned
    if scarce := unknown_labels(data.titles_trained_on, data.taxonomy):
        yield f"{len(scarce)} values are not learned: too few rows, {sum(scarce.values())} together"


def suited(recipe: Recipe, data: TrainingSet) -> tuple[Recipe, list[str]]:
    """The recipe without the members that the data cannot teach, and a sentence on each of them.

    Raises:
        ValueError: there is nothing to train.
    """
    parts, said = recipe.model_dump(), []
    if recipe.image is not None and not any(row.has_picture for row in data.with_pictures):
        parts |= {"image": None, "joint": None}
        said.append("no training row has a picture: the image member is left out")
    if recipe.text is not None and not any(
        row.text.title or row.text.description for row in data.titles_trained_on
    ):
        parts |= {"text": None, "joint": None}
        said.append("no training row has a title: the text member is left out")
    if parts["text"] is None and parts["image"] is None:
        raise ValueError(f"there is nothing to train: {'; '.join(said)}")
    return Recipe.model_validate(parts), said


def identity(data: TrainingSet) -> str:
    """Sixteen hex digits over every row of every part: texts, labels and pictures."""
    digest = hashlib.sha256()
    for row in (*data.titles_trained_on, *data.products.validation, *data.products.test):
        fields = (row.product_id, row.text, sorted(row.labels.items()), row.picture_hash)
        digest.update(repr(fields).encode(errors="replace"))
    return digest.hexdigest()[:16]
