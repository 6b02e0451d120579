"""A generator as an immutable folder, never pickle.

config.json        format_version, the network's configuration, how much of a title is read, beams
model.safetensors  weights
tokenizer.json     pieces and the tokens of the groups
taxonomy.json      groups, values, parents, thresholds
golden.npz         titles, and how probable each piece is as the first one written
metrics.json       quality on the test part, with the evaluation spec's hash
MANIFEST.json      sha256 of each other file, dataset id, created
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from tagstream.core.errors import IncompatibleModel
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.generation import golden
from tagstream.model.generation.generator import Generator
from tagstream.model.generation.network import rebuilt
from tagstream.model.generation.pieces import Pieces, read
from tagstream.model.version.format import MANIFEST, Manifest, read_manifest, sha256, write_json

FORMAT_VERSION = 2


class GeneratorConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    architecture: Literal["generator"] = "generator"
    fields: tuple[str, ...] = ("title", "brand", "attributes", "description")
    title_max_pieces: int = Field(gt=0)
    beams: int = Field(gt=0)
    network: dict[str, Any]
    library_versions: dict[str, str] = Field(default_factory=dict)


def save(
    folder: Path,
    generator: Generator,
    *,
    model_version: str,
    dataset_id: str,
    created: str,
    training_groups: int,
    metrics: Mapping[str, Any],
    code_revision: str | None = None,
) -> None:
    """Write the folder; the manifest last, so that half a folder never loads.

    `training_groups`: how many different normalised titles were trained on.

    Raises:
        FileExistsError: the folder is there already; a model version is never edited.
        ValueError: it gives probabilities that are no numbers.
    """
    folder.mkdir(parents=True)
    config = GeneratorConfig(
        title_max_pieces=generator.title_max_pieces,
        beams=generator.beams,
        network=generator.network.config.to_dict(),
        library_versions={name: library_version(name) for name in ("torch", "transformers", "tokenizers")},
    )
    save_model(generator.network, str(folder / "model.safetensors"))
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    generator.pieces.tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", config.model_dump(mode="json"))
    write_json(folder / "taxonomy.json", generator.taxonomy.model_dump(mode="json"))
    write_json(folder / "metrics.json", metrics)
    golden.write(folder, generator)
    manifest = Manifest(
        model_version=model_version,
        files={path.name: sha256(path) for path in sorted(folder.iterdir())},
        dataset_id=dataset_id,
        training_groups=training_groups,
        code_revision=code_revision,
        created=created,
    )
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def load(folder: Path) -> Generator:
    """Read and check a generator.

    Raises:
        IncompatibleModel: a file is missing or changed, the format is another one, the files disagree, or
            the golden titles come out differently.
    """
    manifest = read_manifest(folder)
    try:
        raw = json.loads((folder / "config.json").read_bytes())
        found = raw.get("format_version") if isinstance(raw, dict) else None
        if found != FORMAT_VERSION:
            raise IncompatibleModel(
                f"{folder}: format_version {found}, this code reads {FORMAT_VERSION}; "
                "update tagstream on this node"
            )
        config = GeneratorConfig.model_validate(raw)
        taxonomy = Taxonomy.model_validate_json((folder / "taxonomy.json").read_bytes())
        tokenizer = read(folder / "tokenizer.json")
        tokens = tokenizer.get_vocab_size()
        pieces = Pieces(tokenizer, taxonomy)
        if pieces.size != tokens:
            raise IncompatibleModel(f"{folder}: its tokenizer lacks tokens of its taxonomy's groups")
        network = rebuilt(config.network)
        load_model(network, str(folder / "model.safetensors"))
        generator = Generator(
            manifest.model_version, taxonomy, pieces, network, config.title_max_pieces, config.beams
        )
    except (OSError, ValidationError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise IncompatibleModel(f"{folder}: {error}") from error
    golden.check(folder, generator)
    return generator
