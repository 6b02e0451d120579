"""Any model version from its folder: checked, put together, and tried out on its golden batch."""

from __future__ import annotations

from pathlib import Path

import torch

from tagstream.core.errors import IncompatibleModel
from tagstream.model.extraction.extractor import Extractor, read_extractor
from tagstream.model.generation.generator import Generator, read_generator
from tagstream.model.tagger import FusedTagger, read_stored
from tagstream.model.version import golden
from tagstream.model.version.format import GOLDEN, read_config, read_manifest


def load(folder: Path, *, threads: int | None = None, device: str = "auto") -> FusedTagger | Generator:
    """A model version that scores micro-batches: a tagger of members, or a generator that writes tags.

    `threads`: torch's, for this process; None leaves them. `device`: `cpu`, `cuda`, or `auto` for a GPU where
    there is one; a generator stays on the CPU. Raises IncompatibleModel as `load_any`, or for an extractor.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    model = load_any(folder, device)
    if isinstance(model, Extractor):
        raise IncompatibleModel(f"{folder}: an extractor finds spans of titles, it gives no scores")
    return model


def load_extractor(folder: Path) -> Extractor:
    """Raises IncompatibleModel as `load_any` does, or if the folder holds no extractor."""
    model = load_any(folder)
    if not isinstance(model, Extractor):
        raise IncompatibleModel(f"{folder}: no extractor, but a tagger or generator")
    return model


def load_any(folder: Path, device: str = "auto") -> FusedTagger | Generator | Extractor:
    """Whatever the folder holds. Raises IncompatibleModel where manifest, format or golden batch disagree."""
    model_version = read_manifest(folder).model_version
    model: FusedTagger | Generator | Extractor
    match read_config(folder)["architecture"]:
        case "extractor":
            model = read_extractor(folder)
        case "generator":
            model = read_generator(folder, model_version)
        case _:
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            model = FusedTagger(model_version, read_stored(folder), torch.device(device))
    if not isinstance(model, Extractor) or (folder / GOLDEN).is_file():  # extractors of format 1 have none
        golden.check(folder / GOLDEN, model)
    return model
