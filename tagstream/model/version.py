"""The model version: an immutable folder, never pickle.

    config.json          format_version, architecture, the whole preprocessing, library versions
    model.safetensors    weights in fp16: text.* image.* fusion.*
    taxonomy.json        groups, values, parents, applies_to, thresholds, names per language
    golden.npz           encoded inputs, the scores they must give, the tolerance
    metrics.json         quality on the test part, with the evaluation spec's hash; training counts
    evaluation_spec.json test and validation ids, class lists
    training_groups.npy  4-byte hashes of the normalised titles trained on, sorted
    README.md            the model card
    MANIFEST.json        sha256 of each other file, dataset id, parent, code revision, created

Hashed n-grams need no tokenizer files. Loading checks the manifest, the format and the golden batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tagstream.core.errors import IncompatibleModel
from tagstream.core.taxonomy import Taxonomy
from tagstream.model import golden
from tagstream.model.features import HASH_NAME, HashedNgrams
from tagstream.model.fusion import Fusion
from tagstream.model.image import MEAN, SCALE, ImageTower
from tagstream.model.pictures import Frame
from tagstream.model.tagger import FusedTagger
from tagstream.model.tags import columns_of
from tagstream.model.text import TextTower

FORMAT_VERSION = 1
MANIFEST = "MANIFEST.json"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class TextConfig(_Strict):
    """The text half. `ngrams` fixes every feature; weighting is (1 + log count) * idf, L2-normalised."""

    architecture: Literal["hashed-ngram-bag"] = "hashed-ngram-bag"
    normalisation: Literal["NFKC, casefold"] = "NFKC, casefold"
    fields: tuple[str, ...] = ("title", "brand", "attributes", "description")
    tokenizer: Literal["none: hashed n-grams need no vocabulary"] = "none: hashed n-grams need no vocabulary"
    ngrams: HashedNgrams
    width: int


class ImageConfig(_Strict):
    """The picture half and how a picture reaches it."""

    architecture: Literal["efficientnet-lite0"] = "efficientnet-lite0"
    decoder: Literal["torchvision.io"] = "torchvision.io"
    width: int
    height: int
    resize: Literal["bilinear, antialiased"] = "bilinear, antialiased"
    aspect: Literal["kept, centred on white"] = "kept, centred on white"
    mean: float = MEAN
    scale: float = SCALE
    groups: tuple[str, ...]


class ModelConfig(_Strict):
    format_version: int = FORMAT_VERSION
    dtype: Literal["float16"] = "float16"
    text: TextConfig
    image: ImageConfig
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


class Parts(_Strict):
    """A tagger taken apart: what a trainer hands over to be saved."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    config: ModelConfig
    taxonomy: Taxonomy
    text: TextTower
    image: ImageTower
    fusion: Fusion


def assemble(parts: Parts, model_version: str, device: torch.device) -> FusedTagger:
    config = parts.config
    return FusedTagger(
        model_version,
        parts.taxonomy,
        config.text.ngrams,
        Frame(config.image.width, config.image.height),
        parts.text,
        parts.image,
        columns_of(parts.taxonomy, config.image.groups),
        parts.fusion,
        device,
    )


def save(
    folder: Path,
    parts: Parts,
    *,
    model_version: str,
    dataset_id: str,
    created: str,
    metrics: Mapping[str, Any],
    card: str,
    evaluation_spec: Mapping[str, Any],
    training_titles: npt.NDArray[np.uint32],
    parent: str | None = None,
    code_revision: str | None = None,
) -> None:
    """Write the folder; the manifest last, so that half a folder never loads.

    Raises:
        FileExistsError: the folder is there already; a model version is never edited.
    """
    folder.mkdir(parents=True)
    weights = {
        f"{half}.{name}": tensor.detach()
        .to(torch.float16 if tensor.is_floating_point() else tensor.dtype)
        .contiguous()
        for half, module in (("text", parts.text), ("image", parts.image), ("fusion", parts.fusion))
        for name, tensor in module.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    _write_json(folder / "config.json", parts.config.model_dump(mode="json"))
    _write_json(folder / "taxonomy.json", parts.taxonomy.model_dump(mode="json"))
    _write_json(folder / "metrics.json", metrics)
    _write_json(folder / "evaluation_spec.json", evaluation_spec)
    np.save(folder / "training_groups.npy", training_titles, allow_pickle=False)
    (folder / "README.md").write_text(card, encoding="utf-8")
    # Expected scores come from the fp16 weights as stored, computed as serving will compute them.
    tagger = assemble(read_parts(folder), model_version, torch.device("cpu"))
    golden.write(folder / "golden.npz", tagger)
    manifest = Manifest(
        model_version=model_version,
        files={path.name: _sha256(path) for path in sorted(folder.iterdir())},
        dataset_id=dataset_id,
        parent=parent,
        training_groups=len(training_titles),
        code_revision=code_revision,
        created=created,
    )
    _write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


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
        if _sha256(path) != expected:
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
    tagger = assemble(read_parts(folder), manifest.model_version, torch.device(device))
    golden.check(folder / "golden.npz", tagger)
    return tagger


def read_parts(folder: Path) -> Parts:
    """The stored parts, unchecked against manifest and golden batch. Raises IncompatibleModel."""
    raw = json.loads((folder / "config.json").read_bytes())
    found = raw.get("format_version") if isinstance(raw, dict) else None
    if found != FORMAT_VERSION:
        raise IncompatibleModel(
            f"{folder}: format_version {found}, this code reads {FORMAT_VERSION}; "
            "update tagstream on this node"
        )
    try:
        config = ModelConfig.model_validate(raw)
        taxonomy = Taxonomy.model_validate_json((folder / "taxonomy.json").read_bytes())
        if config.text.ngrams.hash_name != HASH_NAME or (config.image.mean, config.image.scale) != (
            MEAN,
            SCALE,
        ):
            raise IncompatibleModel(f"{folder}: its preprocessing is not the one of this code")
        weights = load_file(folder / "model.safetensors")
        text = TextTower(config.text.ngrams.buckets, config.text.width, taxonomy.size)
        image = ImageTower(len(columns_of(taxonomy, config.image.groups)))
        fusion = Fusion(taxonomy)
        for half, module in (("text", text), ("image", image), ("fusion", fusion)):
            prefix = f"{half}."
            module.load_state_dict(
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in weights.items()
                    if name.startswith(prefix)
                }
            )
    except (ValidationError, SafetensorError, RuntimeError, KeyError) as error:
        raise IncompatibleModel(f"{folder}: {error}") from error
    return Parts(config=config, taxonomy=taxonomy, text=text, image=image, fusion=fusion)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
