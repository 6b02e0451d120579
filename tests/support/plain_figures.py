"""Figures computed the plain way, row by row, to compare those of `evaluation.measures` with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15


def macro_f1(truth: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> float:
    """Mean F1 over the classes that have a row in `truth`; NaN if none has."""
    t, p = np.asarray(truth, object), np.asarray(predicted, object)
    scores = []
    for name in classes:
        real, given = t == name, p == name
        if real.any():
            scores.append(2 * int((real & given).sum()) / int(real.sum() + given.sum()))
    return float(np.mean(scores)) if scores else float("nan")


def accuracy(truth: Sequence[str], predicted: Sequence[str]) -> float:
    return float(np.mean(np.asarray(truth, object) == np.asarray(predicted, object)))


def calibration_error(confidence: npt.NDArray[np.floating[Any]], correct: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 equally wide bins of the highest score (Guo et al. 2017)."""
    bins = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
    gaps = np.bincount(bins, confidence - correct)
    return float(np.abs(gaps).sum()) / len(confidence)
