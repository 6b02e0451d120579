"""The folder of a model version: immutable, never pickle. The same for taggers, generators and extractors.

config.json          format_version, architecture, everything that must agree with the code
model.safetensors    weights
golden.npz           inputs, and the answers that they must get
MANIFEST.json        sha256 of each other file, dataset id, parent, code revision, created

tagger      text.* image.* joint.*   files of the towers, such as a vocabulary
            taxonomy.json            groups, values, parents, thresholds, names in each language
            metrics.json             quality on the test part, training counts
            evaluation_spec.json     test and validation ids, class lists
            training_groups.npy      hashes of the titles trained on; validation_groups.npy likewise
            README.md                the model card
generator   taxonomy.json metrics.json tokenizer.json
extractor   lexicon.json             term → [times labelled with each group…, times seen]
            aliases.json             group → {spelling: value}
            encoder.json tokenizer.json   of a pretrained encoder, if there is one
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tagstream.core.errors import IncompatibleModel
from tagstream.model.version import golden

#: 4 is one number for all architectures. A tagger's weights have new names since then, and an extractor has
#: a golden batch, so code that knows older numbers only must refuse it.
FORMAT_VERSION = 4
#: Which formats are read, by architecture.
_READABLE = {"tagger": (3, 4), "generator": (2, 4), "extractor": (1, 4)}
#: Up to format 3 this preceded the names of the image and joint member's weights.
_OLD_PREFIX = "seeing."
_UNREADABLE = (OSError, SafetensorError, RuntimeError, LookupError, ValueError, TypeError, AttributeError)
MANIFEST, CONFIG, WEIGHTS, GOLDEN = "MANIFEST.json", "config.json", "model.safetensors", "golden.npz"


class Strict(BaseModel):
    """Part of a config.json or a manifest. A name that is no option is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Config(Strict):
    """The fields of every config.json."""

    format_version: int = FORMAT_VERSION
    library_versions: dict[str, str] = Field(default_factory=dict)


class Manifest(Strict):
    """MANIFEST.json. `files`: name → sha256. `training_groups`: different titles trained on."""

    model_version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    files: dict[str, str] = Field(default_factory=dict)
    dataset_id: str
    parent: str | None = None
    training_groups: int = 0
    code_revision: str | None = None
    created: str


def write(
    folder: Path,
    manifest: Manifest,
    *,
    config: Config,
    network: nn.Module,
    files: Mapping[str, bytes],
    read_back: Callable[[], golden.Answering],
    dtype: torch.dtype | None = None,
) -> None:
    """Write the folder; the manifest last, so that an unfinished folder never loads.

    `manifest`: everything but its files. `files`: name → content of those that are not written here.
    `read_back` reads the model from the folder, as serving will: the golden batch holds the answers of the
    weights as stored. `dtype`: of the stored floating-point weights; None keeps each as it is.

    Raises:
        FileExistsError: the folder is there already; a model version is never edited.
        ValueError: the model's answers to the golden batch are not finite.
    """
    folder.mkdir(parents=True)
    for name, content in {CONFIG: as_json(config), **files}.items():
        (folder / name).write_bytes(content)
    save_file(_weights(network, dtype), folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
    golden.write(folder / GOLDEN, read_back())
    written = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_bytes(as_json(manifest.model_copy(update={"files": written})))


def _weights(network: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Name → weight; weights that share memory are stored once."""
    weights = network.state_dict()
    once = {tensor.data_ptr(): name for name, tensor in weights.items()}
    return {
        name: weights[name]
        .to(dtype if weights[name].is_floating_point() and dtype else weights[name].dtype)
        .contiguous()
        for name in once.values()
    }


def read_weights(folder: Path, network: nn.Module) -> None:
    """Put the stored weights into `network`. Raises RuntimeError where names or shapes do not fit."""
    stored = {name.removeprefix(_OLD_PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    own = network.state_dict()
    missing, unexpected = network.load_state_dict(stored, strict=False)
    shared = {own[name].data_ptr() for name in stored if name in own}
    if wrong := [*unexpected, *(name for name in missing if own[name].data_ptr() not in shared)]:
        raise RuntimeError(f"{WEIGHTS}: {wrong[0]} is missing, or more than this model has")


def read_manifest(folder: Path) -> Manifest:
    """The manifest. Raises IncompatibleModel where a file is missing or is not as it was written."""
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


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as this format writes it, with its `architecture`: tagger, generator or extractor. Raises
    IncompatibleModel where it is not valid, or of a format that this code does not read."""
    with reading(folder):
        raw = {**json.loads((folder / CONFIG).read_bytes())}
    # Before format 4 only generators had the field, and only extractors had characters.
    architecture = raw.setdefault("architecture", "extractor" if "characters" in raw else "tagger")
    found = raw.get("format_version")
    if found not in _READABLE.get(str(architecture), ()):
        older = isinstance(found, int) and found < FORMAT_VERSION
        raise IncompatibleModel(
            f"{folder}: {architecture} of format_version {found}, this code reads up to {FORMAT_VERSION}: "
            + ("train the model again" if older else "update tagstream on this node")
        )
    fusion = raw.pop("fusion", "weighted") if found == 3 else "weighted"
    if fusion != "weighted":
        raise IncompatibleModel(f"{folder}: {fusion} fusion is no longer supported: train the model again")
    return {**raw, "format_version": FORMAT_VERSION}


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Whatever makes a file unreadable is raised as IncompatibleModel."""
    try:
        yield
    except _UNREADABLE as error:
        raise IncompatibleModel(f"{folder}: {error}") from error


def read_title_hashes(folder: Path, part: Literal["training", "validation"]) -> npt.NDArray[np.uint32]:
    """Sorted hashes of the titles of a part; none where the version lists none."""
    path = folder / f"{part}_groups.npy"
    return np.load(path, allow_pickle=False) if path.is_file() else np.empty(0, np.uint32)


def sha256(path: Path) -> str:
    """Of the file's content, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def as_json(content: BaseModel | Mapping[str, Any]) -> bytes:
    """As it is stored in a file."""
    plain = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
    return (json.dumps(plain, ensure_ascii=False, indent=1) + "\n").encode()


def as_npy(array: npt.NDArray[Any]) -> bytes:
    """As numpy stores it in a file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()
