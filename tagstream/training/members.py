"""What a recipe chooses, and how the text member and the image member are made as it says."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import AfterValidator, Field, FilePath, ValidationError, model_validator
from torch import Tensor

from tagstream.core.taxonomy import Taxonomy, columns_of, subset
from tagstream.dataset.rows import Row
from tagstream.dataset.split import EvaluationSpec, normalised_title
from tagstream.dataset.targets import targets
from tagstream.dataset.training_set import Parted, TrainingSet, image_groups, title_hash
from tagstream.dataset.variants import (
    changed_harmlessly,
    masked_rows,
    short_titles,
    spread_over_fields,
    swapped,
)
from tagstream.model.members import ImageMember, ImageMembers, JointConfig, JointMember, TextMember
from tagstream.model.pictures import Frame, decode_all
from tagstream.model.tagger import read_stored
from tagstream.model.towers import ImageTowerConfig, TextTowerConfig
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.towers.image import EfficientNet
from tagstream.model.version.format import Strict, read_manifest, read_title_hashes
from tagstream.training.fusion import Thresholds
from tagstream.training.loop import Hooks, Optimisation, Share, fit
from tagstream.training.objectives import (
    ImageObjective,
    LossConfig,
    TextObjective,
    pretrain,
    refresh_statistics,
)

log = logging.getLogger("tagstream.train")

#: Makes a path mean the same on every worker.
RESOLVED = AfterValidator(lambda path: path.resolve())


class TextTraining(Strict):
    """The text member.

    feature_dropout   the share of a text's pieces that is left out, anew in every step
    decay             the plain L2 term
    masked_share      of the rows that come again without the words that name labels
    swapped_share     of long copy that comes again with one value's name exchanged for another's
    """

    tower: TextTowerConfig = Field(default_factory=HashedNgramBag)
    optimisation: Optimisation = Optimisation(epochs=20, batch_rows=256, learning_rate=0.02)
    loss: LossConfig = LossConfig()
    feature_dropout: float = Field(default=0.4, ge=0, lt=1)
    decay: float = Field(default=1e-5, ge=0)
    masked_share: float = Field(default=0.3, ge=0, le=1)
    short_titles_per_row: int = Field(default=2, ge=0)
    swapped_share: float = Field(default=0.3, ge=0, le=1)


class ImageTraining(Strict):
    """The image member, and with it the joint member.

    shift_px          how far augmentation moves a picture
    kept_from         the folder of a model version whose image member is taken over, in place of training
    gpu_memory_gib    `batch_rows` is made smaller until a step takes no more of a GPU
    """

    tower: ImageTowerConfig = Field(default_factory=EfficientNet)
    frame: Frame = Frame(112, 144)
    optimisation: Optimisation = Optimisation(
        epochs=8, batch_rows=64, learning_rate=1.5e-3, weight_decay=0.02, warm_up=0.2, average_decay=0.99
    )
    loss: LossConfig = LossConfig(label_smoothing=0.05, logit_adjustment=0.5)
    shift_px: int = Field(default=8, ge=0)
    feature_dropout: float = Field(default=0.4, ge=0, lt=1)
    kept_from: Annotated[Path, RESOLVED] | None = None
    gpu_memory_gib: float | None = Field(default=None, gt=0)


class Recipe(Strict):
    """Everything that a training run chooses. A member that is None is left out: text only, image only.

    limit             at most so many rows of each file are read
    checkpoint_steps  steps between the checkpoints of a named run; 0: one after each epoch
    provenance        a Markdown file for the model card: the licences and limits of what is learned from
    """

    seed: int = 0
    limit: int | None = Field(default=None, gt=0)
    text: TextTraining | None = TextTraining()
    image: ImageTraining | None = ImageTraining()
    joint: JointConfig | None = None
    thresholds: Thresholds = Thresholds()
    checkpoint_steps: int = Field(default=0, ge=0)
    provenance: Annotated[FilePath, RESOLVED] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_version(cls, content: Any) -> Any:
        """Recipes of before named the only kind of fusion that is left."""
        if isinstance(content, dict) and content.get("fusion") == "weighted":
            return {key: value for key, value in content.items() if key != "fusion"}
        return content

    @model_validator(mode="after")
    def _has_a_member(self) -> Recipe:
        if self.text is None and self.image is None:
            raise ValueError("a tagger needs a text member or an image member")
        if self.joint is not None and (self.text is None or self.image is None):
            raise ValueError("the joint member needs a text member and an image member beside it")
        return self

    @classmethod
    def read(cls, file: Path | None = None, settings: Iterable[str] = (), seed: int | None = None) -> Recipe:
        """The recipe of a JSON file, or the default one, with `key=value` settings: keys are dotted, values
        JSON, and what is no JSON is text.

        Raises:
            ValueError: the file or a setting is not one; the message has one line.
        """
        try:
            recipe = cls.model_validate_json(file.read_bytes()) if file else cls()
        except ValidationError as error:
            raise ValueError(f"{file}: {_first_of(error)}") from None
        recipe = recipe if seed is None else recipe.changed({"seed": seed})
        for setting in settings:
            key, equals, value = setting.partition("=")
            try:
                if not (key and equals):
                    raise ValueError("it is not of the form key=value")
                recipe = recipe.changed({key: _json_or_text(value)})
            except ValueError as error:
                raise ValueError(f"--set {setting}: {error}") from None
        return recipe

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """With other values of these dotted keys. Raises ValueError for one that is not there or not so."""
        content = self.model_dump(mode="json")
        for key, value in changes.items():
            part, (*above, last) = content, key.split(".")
            for name in above:
                if part.get(name) is not None and not isinstance(part[name], dict):
                    raise ValueError(f"{name!r} is set as a whole")
                if name not in part or part[name] is None:
                    raise ValueError(f"the recipe has no {name!r} to set it in")
                part = part[name]
            part[last] = value
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            raise ValueError(_first_of(error)) from None


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _first_of(error: ValidationError) -> str:
    """The first complaint, in one line."""
    first = error.errors(include_url=False)[0]
    said = "there is no such setting" if first["type"] == "extra_forbidden" else str(first["msg"])
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), said)))


def train_image(
    data: TrainingSet,
    recipe: Recipe,
    *,
    share: Share | None = None,
    hooks: Hooks | None = None,
    device: torch.device | None = None,
) -> ImageMembers:
    """The image member, over the groups that products with pictures have, and the joint member.

    Raises:
        ValueError: there is no product with a picture that decodes.
        TrainingDiverged: the loss is not a number any more.
    """
    how = recipe.image
    assert how is not None
    pictures, rows = pictures_of(data.with_pictures, how.frame)
    if not rows:
        raise ValueError("no training product has a picture that decodes: leave the image member out")
    every = len(data.with_pictures)
    if broken := every - len(rows):
        log.warning(
            "%d of %d training pictures are missing or do not decode: they teach nothing", broken, every
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
        freeze_statistics=share is not None and share.world > 1,
    )
    trained = fit(objective, how.optimisation, recipe.seed, share=share, hooks=hooks)
    assert isinstance(trained, ImageMembers)
    refresh_statistics(trained.image, pictures, how.optimisation.batch_rows, recipe.seed)
    return trained.eval()


def train_text(
    data: TrainingSet, recipe: Recipe, *, hooks: Hooks | None = None, device: torch.device | None = None
) -> TextMember:
    """The text member: permitted titles, long copy, and variants of both.

    Raises:
        ValueError: the tower's pretrained encoder cannot be loaded.
        TrainingDiverged: the loss is not a number any more.
    """
    how, seed, taxonomy = recipe.text, recipe.seed, data.taxonomy
    assert how is not None
    titles, copies = [*data.titles.train, *data.extra], data.copies.train
    spread = spread_over_fields(titles, seed)
    short = short_titles(copies, data.short_titles, taxonomy, how.short_titles_per_row, seed)
    rows = [
        *spread,
        *masked_rows(spread, taxonomy, how.masked_share, seed),
        *changed_harmlessly([*titles, *short], seed),
        *copies,
        *short,
        *swapped([*copies, *short], taxonomy, how.swapped_share, seed),
    ]
    texts = [row.text for row in rows]
    target = targets([row.labels for row in rows], taxonomy, [row.unsaid for row in rows])
    torch.manual_seed(seed)
    tower = how.tower.build()
    tower.learn(texts, seed)
    tower.to(device)
    pretrain(tower, [row.text for row in data.titles_trained_on], seed)
    member = TextMember(tower, taxonomy.size).to(device)
    objective = TextObjective(
        member, texts, target, taxonomy, how.loss, feature_dropout=how.feature_dropout, decay=how.decay
    )
    trained = fit(objective, how.optimisation, seed, hooks=hooks)
    assert isinstance(trained, TextMember)
    return trained.eval()


def pictures_of(rows: Sequence[Row], frame: Frame) -> tuple[Tensor, list[Row]]:
    """(rows with a picture, 3, height, width) uint8 and those rows."""
    pictures, uses = decode_all([row.encoded for row in rows], frame)
    return pictures, [row for row, use in zip(rows, uses, strict=True) if use == "used"]


def largest_power_of_two(fits: Callable[[int], bool], at_most: int) -> int:
    """The largest power of two up to `at_most` that fits.

    Raises:
        ValueError: not even 1 fits.
    """
    rows = 1 << (at_most.bit_length() - 1)
    while rows and not fits(rows):
        rows //= 2
    if not rows:
        raise ValueError("not even one picture fits the GPU memory that a step may take")
    return rows


def batch_that_fits(
    data: TrainingSet, recipe: Recipe, device: torch.device, cap_gib: float, world: int
) -> int:
    """Rows of a step over `world` processes: a power of two for each, never more than the recipe has.

    Tried by training on the first pictures for one step; the cap stays on this process.

    Raises:
        ValueError: the device is no GPU, or not even one picture a process fits.
    """
    if device.type != "cuda":
        raise ValueError(f"a batch is fitted to a GPU's memory, and the device is {device.type}")
    assert recipe.image is not None
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gib * 2**30 / total), device)

    def fits(rows: int) -> bool:
        some = replace(data, products=Parted(train=data.with_pictures[:rows]), extra=[])
        once = {"image.optimisation.epochs": 1, "image.optimisation.batch_rows": rows}
        try:
            train_image(some, recipe.changed(once), device=device)
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            torch.cuda.empty_cache()
        return True

    at_most = max(1, min(recipe.image.optimisation.batch_rows // world, len(data.with_pictures)))
    return world * largest_power_of_two(fits, at_most)


@dataclass(frozen=True)
class KeptPictures:
    """`training_titles`: sorted hashes of the titles that the version was trained on. `taught`: how many
    pictures have taught each value of the present taxonomy."""

    model_version: str
    image_members: ImageMembers
    training_titles: npt.NDArray[np.uint32]
    taught: npt.NDArray[np.float32]


def kept_pictures(folder: Path, data: TrainingSet, recipe: Recipe) -> KeptPictures:
    """The image member of the model version in `folder`.

    Raises:
        IncompatibleModel: the folder is no model version, or a damaged one.
        ValueError: it has no image member or one of another kind, it knows other values, or it has learned
            what is held out here, judged by its titles.
    """
    manifest, stored = read_manifest(folder), read_stored(folder)
    image, wanted, members = stored.config.image, recipe.image, stored.members
    if image is None or members.image_members is None or wanted is None:
        raise ValueError(f"{folder} and the recipe must both have an image member, if its is to be kept")
    if (stored.config.joint, image.tower, Frame(image.width, image.height)) != (
        recipe.joint,
        wanted.tower,
        wanted.frame,
    ):
        raise ValueError(f"the image member of {folder} is not of the recipe's tower, frame and joint member")
    if _values(members.taxonomy, image.groups) != _values(data.taxonomy, image_groups(data)):
        raise ValueError(
            f"the image member of {folder} knows other groups or values than this data has: train it anew"
        )
    titles = read_title_hashes(folder, "training")
    spec = EvaluationSpec.model_validate_json((folder / "evaluation_spec.json").read_bytes())
    if seen := _seen(data, titles, spec):
        raise ValueError(
            f"{folder} has learned {seen} of the products that are held out here, so that what it reaches on "
            "them says nothing: use the products and the seed that it was trained with"
        )
    taught = np.zeros(data.taxonomy.size, np.float32)
    taught[columns_of(data.taxonomy, image.groups)] = stored.fusion.taught.float().numpy()[
        members.image_columns
    ]
    return KeptPictures(manifest.model_version, members.image_members.float().eval(), titles, taught)


def _values(taxonomy: Taxonomy, groups: tuple[str, ...]) -> list[tuple[str, str, list[str]]]:
    known = subset(taxonomy, groups).groups
    return [(group.name, group.kind, [value.value for value in group.values]) for group in known]


def _seen(data: TrainingSet, training_titles: npt.NDArray[np.uint32], spec: EvaluationSpec) -> int:
    """Held-out products that the version was trained on, or, where they have no title, may have been. Those
    that it held out itself are none: two titles may share a hash."""
    held_out = {*spec.test_ids, *spec.validation_ids}
    rows = (*data.products.validation, *data.products.test)
    titles = [normalised_title(row.text.title) for row in rows if row.product_id not in held_out]
    hashes = np.asarray([title_hash(title) for title in titles if title], np.uint32)
    return titles.count("") + int(np.isin(hashes, training_titles).sum())
