"""Any model version from its folder: a tagger of members, or a generator that writes tags."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tagstream.core.errors import IncompatibleModel
from tagstream.model.generation import folder as generation
from tagstream.model.generation.generator import Generator
from tagstream.model.tagger import FusedTagger
from tagstream.model.version import format as version


def load(folder: Path, *, threads: int | None = None, device: str = "auto") -> FusedTagger | Generator:
    """Read, check and try out. `threads`: torch's, for this process; None leaves them.

    `device`: `cpu`, `cuda`, or `auto` for a GPU where there is one; a generator stays on the CPU.

    Raises:
        IncompatibleModel: the manifest, the format or the golden batch disagree.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise IncompatibleModel(f"{folder}: no valid config.json: {error}") from error
    if isinstance(config, dict) and config.get("architecture") == "generator":
        if threads is not None:
            torch.set_num_threads(threads)
        return generation.load(folder)
    return version.load(folder, threads=threads, device=device)
