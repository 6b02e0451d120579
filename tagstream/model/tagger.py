"""The tagger: its members and their fusion over a micro-batch, and how its folder holds them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tagstream.core.errors import IncompatibleModel
from tagstream.core.events import ImageUse
from tagstream.core.ports import MicroBatch
from tagstream.core.taxonomy import Taxonomy, columns_of
from tagstream.model.fusion import IMAGE, JOINT, MEMBERS, TEXT, Fusion, Opinions, named_groups
from tagstream.model.members import ImageMember, ImageMembers, JointConfig, JointMember, TextMember
from tagstream.model.pictures import Frame, decode_all
from tagstream.model.towers import ImageTowerConfig, TextTowerConfig
from tagstream.model.towers.base import ImageTower, TextTower
from tagstream.model.version.format import (
    Config,
    Manifest,
    Strict,
    as_json,
    as_npy,
    read_config,
    read_weights,
    reading,
    write,
)
from tagstream.text.mentions import Mentions
from tagstream.text.ngrams import HASH_NAME

#: More pictures at once gain no speed on a CPU and cost memory: 64 need about 250 MB of activations.
PICTURES_AT_ONCE = 64


@dataclass(eq=False)
class Members:
    """The trained members, and their opinions of a micro-batch. The same code in training and at serving.
    `image_columns`: the taxonomy's columns that image and joint member score, in their order."""

    taxonomy: Taxonomy
    text: TextMember | None
    image_members: ImageMembers | None
    image_columns: npt.NDArray[np.int64]
    frame: Frame | None
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it never changes

    def __post_init__(self) -> None:
        self._mentions = Mentions(self.taxonomy)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `fusion.MEMBERS` that were trained."""
        joint = self.image_members is not None and self.image_members.joint is not None
        there = (self.text is not None, self.image_members is not None, joint)
        return tuple(name for name, yes in zip(MEMBERS, there, strict=True) if yes)

    def opinions(self, batch: MicroBatch) -> tuple[Opinions, list[ImageUse]]:
        """The members' logits, and what became of each picture: without an image member none is decoded."""
        logits = torch.zeros(len(MEMBERS), len(batch), self.taxonomy.size)
        mentions = torch.from_numpy(self._mentions.find(batch.texts))
        has_text = torch.zeros(len(batch), dtype=torch.bool)
        uses: list[ImageUse] = ["none" if image is None else "unusable" for image in batch.images]
        with torch.inference_mode():
            if self.text is not None:
                prepared = self.text.tower.prepare(batch.texts)
                has_text = torch.from_numpy(prepared.has_text())
                logits[TEXT] = self.text(prepared, mentions).float().cpu()
            if self.image_members is not None and self.frame is not None:
                pictures, uses = decode_all(batch.images, self.frame, self.device)
                used = torch.tensor([row for row, use in enumerate(uses) if use == "used"], dtype=torch.long)
                chunks = -(-len(used) // PICTURES_AT_ONCE) or 1
                for some, rows in zip(pictures.tensor_split(chunks), used.tensor_split(chunks), strict=True):
                    if len(rows):  # not every encoder takes an empty batch
                        self._score_pictures(some, rows, batch, mentions, has_text, logits)
        has_image = torch.tensor([use == "used" for use in uses], dtype=torch.bool)
        return Opinions(logits, has_text, has_image, named_groups(mentions, self.taxonomy)), uses

    def _score_pictures(
        self,
        pictures: Tensor,
        rows: Tensor,
        batch: MicroBatch,
        mentions: Tensor,
        has_text: Tensor,
        logits: Tensor,
    ) -> None:
        """Fill the image and joint member's `logits` of the events `rows`, which have these pictures."""
        members, columns = self.image_members, torch.from_numpy(self.image_columns)
        assert members is not None
        texts = [batch.texts[row] for row in rows.tolist()]
        scores = members(
            members.image.tower.prepare(pictures).rows.to(self.device),
            members.joint.text.prepare(texts) if members.joint else None,
            mentions[rows[:, None], columns],
            has_text[rows].to(self.device),
        )
        for member, of_member in zip((IMAGE, JOINT), scores, strict=True):
            if of_member is not None:
                logits[member][rows[:, None], columns] = of_member.float().cpu()

    def for_serving(self, device: torch.device) -> Members:
        """A copy that answers the same, faster, on this device."""
        text, image_members = copy.deepcopy(self.text), copy.deepcopy(self.image_members)
        if text is not None:
            text = text.eval().to(device)
        if image_members is not None:
            image_members = image_members.eval().to(device)
            image_members.image.tower = image_members.image.tower.for_serving(device)
        return replace(self, text=text, image_members=image_members, device=device)


class FusedTagger:
    """A model version in memory, with its own copies of the weights. Threads may call it at once."""

    #: Between bf16 and fp32 scores differ by up to 0.03, between two JPEG decoders by less. Reversed colour
    #: channels or a wrong mean move them by more than 0.2 (a test holds both).
    tolerance = 0.08

    def __init__(self, model_version: str, stored: Stored, device: torch.device) -> None:
        self.model_version = model_version
        self.taxonomy = stored.members.taxonomy
        self.device = device
        self._members = stored.members.for_serving(device)
        self._fusion = copy.deepcopy(stored.fusion).eval()

    @property
    def frame(self) -> Frame | None:
        """The size that pictures are fitted into; None without an image member."""
        return self._members.frame

    def score(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float32], list[ImageUse]]:
        """Calibrated probabilities (events, taxonomy.size), and per event what became of its picture. One
        that does not decode, or has more than `pictures.IMAGE_MAX_PIXELS`, is `unusable`. An event without
        text is scored by its picture alone, one without a usable picture by its text alone."""
        opinions, uses = self._members.opinions(batch)
        with torch.inference_mode():
            scores: npt.NDArray[np.float32] = self._fusion(opinions).numpy()
        return scores, uses

    #: What the golden batch compares.
    answers = score


class TextConfig(Strict):
    """The text member and what it reads."""

    tower: TextTowerConfig
    normalisation: Literal["NFKC, casefold"] = "NFKC, casefold"
    fields: tuple[str, ...] = ("title", "brand", "attributes", "description")


class ImageConfig(Strict):
    """The image member and how a picture reaches it. `width` and `height` of the frame, in pixels."""

    tower: ImageTowerConfig
    decoder: Literal["torchvision.io"] = "torchvision.io"
    width: int
    height: int
    resize: Literal["bilinear, antialiased"] = "bilinear, antialiased"
    aspect: Literal["kept, centred on white"] = "kept, centred on white"
    groups: tuple[str, ...]


class TaggerConfig(Config):
    """All that a tagger's folder must agree with the code about. A member that is None is not there."""

    architecture: Literal["tagger"] = "tagger"
    dtype: Literal["float16"] = "float16"
    text: TextConfig | None = None
    image: ImageConfig | None = None
    joint: JointConfig | None = None
    hash_name: str = HASH_NAME
    calibration: Literal["in the fusion's weights"] = "in the fusion's weights"


@dataclass(frozen=True)
class Stored:
    """A tagger taken apart: what a trainer hands over to be saved, and what a folder holds."""

    config: TaggerConfig
    members: Members
    fusion: Fusion

    def network(self) -> nn.ModuleDict:
        """The parts that have weights, under the names that these begin with: text, image, joint, fusion."""
        image_members = self.members.image_members
        parts = {
            "text": self.members.text,
            "image": image_members.image if image_members else None,
            "joint": image_members.joint if image_members else None,
            "fusion": self.fusion,
        }
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def towers(self) -> dict[str, TextTower | ImageTower]:
        """Towers by the prefix of their files' names: text, image, joint."""
        text, image_members = self.members.text, self.members.image_members
        towers: dict[str, TextTower | ImageTower] = {"text": text.tower} if text else {}
        if image_members is not None:
            towers["image"] = image_members.image.tower
            if image_members.joint is not None:
                towers["joint"] = image_members.joint.text
        return towers


def save(
    folder: Path,
    stored: Stored,
    manifest: Manifest,
    *,
    metrics: Mapping[str, Any],
    card: str,
    evaluation_spec: Mapping[str, Any],
    training_titles: npt.NDArray[np.uint32],
    validation_titles: npt.NDArray[np.uint32],
) -> None:
    """Write a tagger's folder. `card`: its README.md. `*_titles`: sorted 4-byte hashes of the normalised
    titles of a part; fusion and thresholds are fitted on the validation part. Raises as `format.write`."""
    towers = stored.towers().items()
    assets = {f"{prefix}.{name}": file for prefix, of in towers for name, file in of.assets().items()}
    write(
        folder,
        manifest.model_copy(update={"training_groups": len(training_titles)}),
        config=stored.config,
        network=stored.network(),
        files={
            "taxonomy.json": as_json(stored.members.taxonomy),
            "metrics.json": as_json(metrics),
            "evaluation_spec.json": as_json(evaluation_spec),
            "README.md": card.encode(),
            "training_groups.npy": as_npy(training_titles),
            "validation_groups.npy": as_npy(validation_titles),
            **assets,
        },
        read_back=lambda: FusedTagger(manifest.model_version, read_stored(folder), torch.device("cpu")),
        dtype=torch.float16,
    )


def read_stored(folder: Path) -> Stored:
    """A tagger's parts on the CPU, unchecked against manifest and golden batch. Raises IncompatibleModel for
    files that do not fit, or that hold no tagger."""
    raw = read_config(folder)
    if raw["architecture"] != "tagger":
        raise IncompatibleModel(f"{folder}: only a tagger has members, this is: {raw['architecture']}")
    with reading(folder):
        config = TaggerConfig.model_validate(raw)
        if config.hash_name != HASH_NAME:
            raise IncompatibleModel(f"{folder}: its preprocessing is not the one of this code")
        taxonomy = Taxonomy.model_validate_json((folder / "taxonomy.json").read_bytes())
        text, image_members, image, frame = None, None, config.image, None
        columns = columns_of(taxonomy, image.groups if image else ())
        if config.text is not None:
            text = TextMember(config.text.tower.build().with_files(folder, "text"), taxonomy.size)
        if image is not None:
            tower, joint = image.tower.build().with_files(folder, "image"), None
            if config.joint is not None:
                reads = config.joint.text.build().with_files(folder, "joint")
                joint = JointMember(config.joint, reads, tower, len(columns))
            image_members = ImageMembers(ImageMember(tower, len(columns)), joint)
            frame = Frame(image.width, image.height)
        members = Members(taxonomy, text, image_members, columns, frame)
        stored = Stored(config, members, Fusion(taxonomy))
        read_weights(folder, stored.network())
    return stored
