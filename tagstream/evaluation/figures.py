"""How good a tagger is on labelled rows: right, sure of it for good reason, and how far that can be trusted.

A single-choice group is judged by its highest score, without abstention. Rows whose label is outside
the class list stay in as possible false positives; rows without a label are left out; classes without
a test row are left out of the mean. Free tags are judged by micro-F1 of what is above its threshold, over
the rows in which the group is labelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tagstream.core.events import ImageUse
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.targets import FloatArray
from tagstream.evaluation.measures import (
    Judged,
    accuracy_of,
    average_precision,
    bin_of,
    calibration_of,
    coverage_of,
    judge,
    macro_f1_of,
    micro_f1_of,
    perfect_calibration,
    value_f1,
)
from tagstream.text.masking import LabelWords

Modalities = Literal["both", "text", "image"]
Counts = Mapping[str, Mapping[str, int]]
ROWS_A_BATCH = 64
#: A value with up to so many training rows is scarce; with more than `MID_MAX_ROWS` it is a head value.
SCARCE_MIN_ROWS, SCARCE_MAX_ROWS, MID_MAX_ROWS = 10, 30, 300


class Scorer(Protocol):
    taxonomy: Taxonomy

    def score(self, batch: MicroBatch) -> tuple[FloatArray, list[ImageUse]]: ...


def score_rows(
    tagger: Scorer, rows: Sequence[Row], modalities: Modalities = "both", mask: LabelWords | None = None
) -> FloatArray:
    """(rows, taxonomy.size) scores; `image` hides the text, `text` the picture, `mask` the label words."""
    return scores_and_uses(tagger, rows, modalities, mask)[0]


def scores_and_uses(
    tagger: Scorer, rows: Sequence[Row], modalities: Modalities, mask: LabelWords | None
) -> tuple[FloatArray, list[ImageUse]]:
    """As `score_rows`, and what became of each row's picture."""
    parts, uses = [np.zeros((0, tagger.taxonomy.size), np.float32)], list[ImageUse]()
    for start in range(0, len(rows), ROWS_A_BATCH):
        some = rows[start : start + ROWS_A_BATCH]
        texts = [TextFields("") if modalities == "image" else row.text for row in some]
        if mask is not None:
            texts = [mask.hide(text) for text in texts]
        images = [None if modalities == "text" else row.encoded for row in some]
        scores, of_some = tagger.score(MicroBatch(texts, images))
        parts.append(scores)
        uses.extend(of_some)
    return np.concatenate(parts), uses


def judged_groups(
    scores: FloatArray, rows: Sequence[Row], taxonomy: Taxonomy, classes: Mapping[str, Sequence[str]]
) -> list[Judged]:
    """Each group that both the taxonomy and some row know. `classes`: as for `report`."""
    found = (
        judge(
            scores[:, taxonomy.slices[group.name]],
            [row.labels.get(group.name, ()) for row in rows],
            group,
            classes.get(group.name),
        )
        for group in taxonomy.groups
    )
    return [judged for judged in found if len(judged.places)]


def report(
    scores: FloatArray, rows: Sequence[Row], taxonomy: Taxonomy, classes: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Figures of each group that both the taxonomy and some row know; means over single-choice groups.

    `classes`: the class list of each group; groups without one are measured over the taxonomy's values.
    """
    groups = {
        judged.group.name: group_figures(judged) for judged in judged_groups(scores, rows, taxonomy, classes)
    }
    return {"rows": len(rows), "groups": groups, **means_of(groups)}


def group_figures(judged: Judged) -> dict[str, Any]:
    """`ece_floor`: what perfect calibration would show on that many rows; `ece_excess`: what is above it."""
    all_rows = np.ones((1, len(judged.places)))
    ece, floor = float(calibration_of(judged, all_rows)[0]), perfect_calibration(judged.confidence)
    calibration = {"ece": ece, "ece_floor": floor, "ece_excess": ece - floor}
    if not judged.single:
        return {
            "rows": len(judged.places),
            "micro_f1": float(micro_f1_of(judged, all_rows)[0]),
            "micro_f1_listed": float(micro_f1_of(judged, all_rows, listed_only=True)[0]),
            "macro_f1": float(macro_f1_of(judged, all_rows)[0]),
            **calibration,
        }
    return {
        "rows": len(judged.places),
        "accuracy": float(accuracy_of(judged, all_rows)[0]),
        "macro_f1": float(macro_f1_of(judged, all_rows)[0]),
        **calibration,
        "coverage_at_90": float(coverage_of(judged, all_rows)[0]),
    }


def means_of(groups: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Means over single-choice groups; None where there is none."""
    single = [figures for figures in groups.values() if "accuracy" in figures]
    return {
        f"mean_{name}": float(np.mean([figures[name] for figures in single])) if single else None
        for name in ("accuracy", "macro_f1", "ece", "ece_excess", "coverage_at_90")
    }


def value_figures(judged: Judged, counts: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Value → rows that have it, rows it was said of, precision, recall, F1, average precision, training
    rows. Precision is None where nobody said it, the others where no row has it.
    """
    f1, real = (of[0] for of in value_f1(judged, np.ones((1, len(judged.places)))))
    hits, said = (judged.said & judged.real).sum(axis=0), judged.said.sum(axis=0)
    return {
        name: {
            "rows": int(real[at]),
            "said": int(said[at]),
            "precision": float(hits[at] / said[at]) if said[at] else None,
            "recall": float(hits[at] / real[at]) if real[at] else None,
            "f1": float(f1[at]) if real[at] else None,
            "average_precision": average_precision(judged.scores[:, at], judged.real[:, at])
            if real[at] and at < judged.scores.shape[1]
            else None,
            "training_rows": counts.get(name, 0),
        }
        for at, name in enumerate(judged.names)
    }


def by_frequency(judged: Sequence[Judged], counts: Counts) -> dict[str, dict[str, float | int | None]]:
    """Scarce, mid and head values of all groups: how many a test row has, and their mean F1.

    `rest` is mid and head together. Values with fewer than 10 training rows are in none of them.
    """
    found: list[tuple[int, float]] = []
    for one in judged:
        f1, real = (of[0] for of in value_f1(one, np.ones((1, len(one.places)))))
        training = counts.get(one.group.name, {})
        found += [(training.get(one.names[at], 0), f1[at]) for at in np.flatnonzero(real > 0)]
    bounds = {
        "scarce": (SCARCE_MIN_ROWS, SCARCE_MAX_ROWS),
        "mid": (SCARCE_MAX_ROWS + 1, MID_MAX_ROWS),
        "head": (MID_MAX_ROWS + 1, None),
        "rest": (SCARCE_MAX_ROWS + 1, None),
    }
    parts = {
        name: [f1 for rows, f1 in found if rows >= low and (high is None or rows <= high)]
        for name, (low, high) in bounds.items()
    }
    return {
        name: {"values": len(of), "macro_f1": float(np.mean(of)) if of else None}
        for name, of in parts.items()
    }


def macro_f1(truth: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> float:
    """Mean F1 over the classes that have a row in `truth`; NaN if none has."""
    t, p = np.asarray(truth, object), np.asarray(predicted, object)
    scores = []
    for name in classes:
        real, said = t == name, p == name
        if real.any():
            scores.append(2 * int((real & said).sum()) / int(real.sum() + said.sum()))
    return float(np.mean(scores)) if scores else float("nan")


def accuracy(truth: Sequence[str], predicted: Sequence[str]) -> float:
    return float(np.mean(np.asarray(truth, object) == np.asarray(predicted, object)))


def calibration_error(confidence: npt.NDArray[np.floating[Any]], correct: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error over 15 equally wide bins of the highest score (Guo et al. 2017)."""
    gaps = np.bincount(bin_of(confidence), confidence - correct)
    return float(np.abs(gaps).sum()) / len(confidence)
