"""The model version: an immutable folder, never pickle.

    config.json          format_version, architecture, the whole preprocessing, library versions
    model.safetensors    weights in fp16: text.* image.* fusion.*
    taxonomy.json        groups, values, parents, applies_to, thresholds, names per language
    golden.npz           encoded inputs, the scores they must give, the tolerance
    metrics.json         quality on the test part, with the evaluation spec's hash; training counts
    evaluation_spec.json test and validation ids, class lists
    training_groups.npy  4-byte hashes of the normalised titles of the training part, sorted
    validation_groups.npy  the same of the validation part: fusion and thresholds are fitted on it
    README.md            the model card
    MANIFEST.json        sha256 of each other file, dataset id, parent, code revision, created

A tower that has files of its own, such as a vocabulary, puts them beside: text.*, image.*, joint.*.
Loading checks the manifest, the format and the golden batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from tagstream.core.errors import IncompatibleModel
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.tags import columns_of
from tagstream.model.fusion import Fusion
from tagstream.model.members import ImageMember, ImageMembers, JointConfig, JointMember, TextMember
from tagstream.model.pictures import Frame
from tagstream.model.tagger import FusedTagger, Members
from tagstream.model.towers import ImageTowerConfig, TextTowerConfig
from tagstream.model.towers.base import ImageTower, TextTower
from tagstream.model.version import golden
from tagstream.text.ngrams import HASH_NAME

FORMAT_VERSION = 3
MANIFEST = "MANIFEST.json"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class TextConfig(_Strict):
    """The text member and what it reads."""

    tower: TextTowerConfig
    normalisation: Literal["NFKC, casefold"] = "NFKC, casefold"
    fields: tuple[str, ...] = ("title", "brand", "attributes", "description")


class ImageConfig(_Strict):
    """The image member and how a picture reaches it."""

    tower: ImageTowerConfig
    decoder: Literal["torchvision.io"] = "torchvision.io"
    width: int
    height: int
    resize: Literal["bilinear, antialiased"] = "bilinear, antialiased"
    aspect: Literal["kept, centred on white"] = "kept, centred on white"
    groups: tuple[str, ...]


class ModelConfig(_Strict):
    """Everything that a model version must agree with the code about. A member that is None is not there."""

    format_version: int = FORMAT_VERSION
    dtype: Literal["float16"] = "float16"
    text: TextConfig | None = None
    image: ImageConfig | None = None
    joint: JointConfig | None = None
    fusion: Literal["weighted"] = "weighted"
    hash_name: str = HASH_NAME
    calibration: Literal["in the fusion's weights"] = "in the fusion's weights"
    library_versions: dict[str, str] = Field(default_factory=dict)


class Manifest(_Strict):
    model_version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    files: dict[str, str]
    dataset_id: str
    parent: str | None = None
    training_groups: int
    code_revision: str | None = None
    created: str


class Stored(_Strict):
    """A tagger taken apart: what a trainer hands over to be saved."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    config: ModelConfig
    taxonomy: Taxonomy
    text: TextMember | None
    image_members: ImageMembers | None
    fusion: Fusion

    def modules(self) -> dict[str, nn.Module]:
        """Prefix of the weights' names → module."""
        found: dict[str, nn.Module | None] = {
            "text": self.text,
            "seeing": self.image_members,
            "fusion": self.fusion,
        }
        return {prefix: module for prefix, module in found.items() if module is not None}

    def carriers(self) -> dict[str, TextTower | ImageTower]:
        """Prefix of the files' names → tower that may have files of its own."""
        towers: dict[str, TextTower | ImageTower] = {}
        if self.text is not None:
            towers["text"] = self.text.tower
        if self.image_members is not None:
            towers["image"] = self.image_members.image.tower
            if self.image_members.joint is not None:
                towers["joint"] = self.image_members.joint.text
        return towers

    def members(self) -> Members:
        image = self.config.image
        return Members(
            self.taxonomy,
            self.text,
            self.image_members,
            columns_of(self.taxonomy, image.groups if image else ()),
            Frame(image.width, image.height) if image else None,
        )


def assemble(stored: Stored, model_version: str, device: torch.device) -> FusedTagger:
    return FusedTagger(model_version, stored.members(), stored.fusion, device)


def save(
    folder: Path,
    stored: Stored,
    *,
    model_version: str,
    dataset_id: str,
    created: str,
    metrics: Mapping[str, Any],
    card: str,
    evaluation_spec: Mapping[str, Any],
    training_titles: npt.NDArray[np.uint32],
    validation_titles: npt.NDArray[np.uint32],
    parent: str | None = None,
    code_revision: str | None = None,
) -> None:
    """Write the folder; the manifest last, so that half a folder never loads.

    Raises:
        FileExistsError: the folder is there already; a model version is never edited.
    """
    folder.mkdir(parents=True)
    weights = {
        f"{prefix}.{name}": tensor.detach()
        .to(torch.float16 if tensor.is_floating_point() else tensor.dtype)
        .contiguous()
        for prefix, module in stored.modules().items()
        for name, tensor in module.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    write_json(folder / "config.json", stored.config.model_dump(mode="json"))
    write_json(folder / "taxonomy.json", stored.taxonomy.model_dump(mode="json"))
    for prefix, tower in stored.carriers().items():
        for name, content in tower.assets().items():
            (folder / f"{prefix}.{name}").write_bytes(content)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "evaluation_spec.json", evaluation_spec)
    for part, titles in (("training", training_titles), ("validation", validation_titles)):
        np.save(folder / f"{part}_groups.npy", titles, allow_pickle=False)
    (folder / "README.md").write_text(card, encoding="utf-8")
    # Expected scores come from the fp16 weights as stored, computed as serving will compute them.
    tagger = assemble(read_stored(folder), model_version, torch.device("cpu"))
    golden.write(folder / "golden.npz", tagger)
    manifest = Manifest(
        model_version=model_version,
        files={path.name: sha256(path) for path in sorted(folder.iterdir())},
        dataset_id=dataset_id,
        parent=parent,
        training_groups=len(training_titles),
        code_revision=code_revision,
        created=created,
    )
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def read_title_hashes(folder: Path, part: Literal["training", "validation"]) -> npt.NDArray[np.uint32]:
    """Hashes of the titles of a part, sorted; none where the version does not say."""
    path = folder / f"{part}_groups.npy"
    titles: npt.NDArray[np.uint32] = (
        np.load(path, allow_pickle=False) if path.is_file() else np.empty(0, np.uint32)
    )
    return titles


def read_manifest(folder: Path) -> Manifest:
    """The manifest, after checking that every file is there as it was written.

    Raises:
        IncompatibleModel: a file is missing, changed, or not in the manifest.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise IncompatibleModel(f"{folder}: no valid {MANIFEST}: {error}") from error
    for name, expected in manifest.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise IncompatibleModel(f"{folder}: {name} is missing")
        if sha256(path) != expected:
            raise IncompatibleModel(f"{folder}: {name} is not what the manifest says: its sha256 differs")
    return manifest


def load(folder: Path, *, threads: int | None = None, device: str = "auto") -> FusedTagger:
    """Read, check and try out a model version. `threads`: torch's, for this process; None leaves them.

    `device`: `cpu`, `cuda`, or `auto` for a GPU where there is one.

    Raises:
        IncompatibleModel: the manifest, the format or the golden batch disagree.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    manifest = read_manifest(folder)
    tagger = assemble(read_stored(folder), manifest.model_version, torch.device(device))
    golden.check(folder / "golden.npz", tagger)
    return tagger


def read_stored(folder: Path) -> Stored:
    """The stored parts, unchecked against manifest and golden batch. Raises IncompatibleModel."""
    raw = json.loads((folder / "config.json").read_bytes())
    found = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(raw, dict) and raw.get("architecture") == "generator":
        raise IncompatibleModel(f"{folder}: a generator has no heads: it cannot be derived from or exported")
    if found != FORMAT_VERSION:
        raise IncompatibleModel(
            f"{folder}: format_version {found}, this code reads {FORMAT_VERSION}: "
            + ("train the model again" if _is_older(found) else "update tagstream on this node")
        )
    try:
        config = ModelConfig.model_validate(raw)
        if config.hash_name != HASH_NAME:
            raise IncompatibleModel(f"{folder}: its preprocessing is not the one of this code")
        taxonomy = Taxonomy.model_validate_json((folder / "taxonomy.json").read_bytes())
        stored = Stored(
            config=config,
            taxonomy=taxonomy,
            text=_text_half(config, taxonomy, folder),
            image_members=_image_members(config, taxonomy, folder),
            fusion=Fusion(taxonomy),
        )
        weights = load_file(folder / "model.safetensors")
        for prefix, module in stored.modules().items():
            own = {
                name.removeprefix(f"{prefix}."): tensor
                for name, tensor in weights.items()
                if name.startswith(f"{prefix}.")
            }
            module.load_state_dict(own)
    except (ValidationError, SafetensorError, RuntimeError, KeyError, ValueError, OSError) as error:
        raise IncompatibleModel(f"{folder}: {error}") from error
    return stored


def _is_older(format_version: object) -> bool:
    return isinstance(format_version, int) and format_version < FORMAT_VERSION


def _text_half(config: ModelConfig, taxonomy: Taxonomy, folder: Path) -> TextMember | None:
    if config.text is None:
        return None
    tower = config.text.tower.build()
    tower.load_assets(_Files(folder, "text"))
    return TextMember(tower, taxonomy.size)


def _image_members(config: ModelConfig, taxonomy: Taxonomy, folder: Path) -> ImageMembers | None:
    if config.image is None:
        return None
    tower = config.image.tower.build()
    tower.load_assets(_Files(folder, "image"))
    outputs, joint = len(columns_of(taxonomy, config.image.groups)), None
    if config.joint is not None:
        text = config.joint.text.build()
        text.load_assets(_Files(folder, "joint"))
        joint = JointMember(config.joint, text, tower, outputs)
    return ImageMembers(ImageMember(tower, outputs), joint)


class _Files(Mapping[str, bytes]):
    """The files that a tower wrote beside the weights, read when asked for."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._paths = {path.name.removeprefix(f"{prefix}."): path for path in folder.glob(f"{prefix}.*")}

    def __getitem__(self, name: str) -> bytes:
        return self._paths[name].read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
