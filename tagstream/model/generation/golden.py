"""Titles for which a loaded generator must be about to write what it was when saved, or it is refused.

The probabilities of the first piece are compared, not the tags: of two that are nearly as likely, another
machine's rounding may write the other one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tagstream.core.errors import IncompatibleModel
from tagstream.model.generation.generator import Generator
from tagstream.model.version import golden

GOLDEN = "golden.npz"
#: Of a probability. Machines differ by less than 0.001 in float32.
TOLERANCE = 0.02


def write(folder: Path, generator: Generator) -> None:
    """Raises ValueError for probabilities that are not finite."""
    expected = generator.first_pieces(golden.TEXTS)
    if not np.isfinite(expected).all():
        raise ValueError("this generator gives probabilities that are no numbers")
    np.savez_compressed(
        folder / GOLDEN, texts=golden.packed(golden.TEXTS), expected=expected.astype(np.float16)
    )


def check(folder: Path, generator: Generator) -> None:
    """Raises IncompatibleModel where the generator, or this machine, does not do what was done at saving."""
    try:
        with np.load(folder / GOLDEN, allow_pickle=False) as stored:
            texts = golden.unpacked(stored["texts"])
            expected = stored["expected"].astype(np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IncompatibleModel(f"{folder}: the golden titles cannot be read: {error}") from error
    found = generator.first_pieces(texts)
    if found.shape != expected.shape:
        raise IncompatibleModel(f"{folder}: {found.shape[1]} pieces, expected {expected.shape[1]}")
    gap = float(np.abs(found - expected).max())
    if not gap <= TOLERANCE:
        raise IncompatibleModel(
            f"{folder}: probabilities of the golden titles differ by up to {gap:.3f} from those at saving "
            f"(tolerance {TOLERANCE}): this node computes or reads titles differently"
        )
