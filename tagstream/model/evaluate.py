"""How good a tagger is on labelled rows: accuracy, macro-F1 and calibration of each group.

A single-choice group is judged by its highest score, without abstention. Rows whose label is outside
the class list stay in as possible false positives; rows without a label are left out; classes without
a test row are left out of the mean. Free tags are judged by micro-F1 of what is above its threshold, over
the rows in which the group is labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tagstream.core.events import ImageUse
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.losses import FloatArray
from tagstream.model.masking import LabelWords
from tagstream.model.rows import Row

Modalities = Literal["both", "text", "image"]
ROWS_A_BATCH = 64


class Scorer(Protocol):
    taxonomy: Taxonomy

    def score(self, batch: MicroBatch) -> tuple[FloatArray, list[ImageUse]]: ...


def score_rows(
    tagger: Scorer, rows: Sequence[Row], modalities: Modalities = "both", mask: LabelWords | None = None
) -> FloatArray:
    """(rows, taxonomy.size) scores; `image` hides the text, `text` the picture, `mask` the label words."""
    parts = [np.zeros((0, tagger.taxonomy.size), np.float32)]
    for start in range(0, len(rows), ROWS_A_BATCH):
        some = rows[start : start + ROWS_A_BATCH]
        texts = [TextFields("") if modalities == "image" else row.text for row in some]
        if mask is not None:
            texts = [mask.hide(text) for text in texts]
        images = [None if modalities == "text" else row.encoded for row in some]
        parts.append(tagger.score(MicroBatch(texts, images))[0])
    return np.concatenate(parts)


def report(
    scores: FloatArray, rows: Sequence[Row], taxonomy: Taxonomy, classes: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Figures of each group that both the taxonomy and some row know; means over single-choice groups.

    `classes`: the class list of each group; groups without one are measured over the taxonomy's values.
    """
    groups: dict[str, dict[str, Any]] = {}
    for group in taxonomy.groups:
        known = [place for place, row in enumerate(rows) if row.labels.get(group.name)]
        if not known:
            continue
        of_group = scores[known][:, taxonomy.slices[group.name]]
        names = [value.value for value in group.values]
        if group.kind == "multi":
            thresholds = np.asarray([value.threshold for value in group.values])
            truths = [set(rows[place].labels[group.name]) for place in known]
            groups[group.name] = {
                "rows": len(known),
                "micro_f1": _micro_f1(of_group >= thresholds, truths, names),
            }
            continue
        truth = [rows[place].labels[group.name][0] for place in known]
        predicted = [names[place] for place in of_group.argmax(axis=1)]
        right = np.asarray(truth, object) == np.asarray(predicted, object)
        groups[group.name] = {
            "rows": len(known),
            "accuracy": float(right.mean()),
            "macro_f1": macro_f1(truth, predicted, classes.get(group.name, names)),
            "ece": calibration_error(of_group.max(axis=1), right),
        }
    single = [figures for figures in groups.values() if "accuracy" in figures]
    means = {
        f"mean_{name}": float(np.mean([figures[name] for figures in single])) if single else None
        for name in ("accuracy", "macro_f1", "ece")
    }
    return {"rows": len(rows), "groups": groups, **means}


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


def calibration_error(
    confidence: npt.NDArray[np.floating[Any]], correct: npt.NDArray[np.bool_], bins: int = 15
) -> float:
    """Expected calibration error over `bins` equally wide bins of the highest score."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[place == b].mean() - correct[place == b].mean()) * (place == b).mean()
        for b in range(bins)
        if (place == b).any()
    ]
    return float(sum(gaps))


def bootstrap_half_width(
    statistic: Callable[[npt.NDArray[np.int64]], float], near_duplicates: Sequence[str], rounds: int = 200
) -> float:
    """Half of the 95 % interval of a statistic of row places, rows drawn by near-duplicate group."""
    _, group_of = np.unique(np.asarray(near_duplicates), return_inverse=True)
    members = [np.flatnonzero(group_of == group) for group in range(group_of.max() + 1)]
    rng = np.random.default_rng(0)
    drawn = [
        statistic(np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))]))
        for _ in range(rounds)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(high - low) / 2


def _micro_f1(given: npt.NDArray[np.bool_], truths: Sequence[set[str]], names: Sequence[str]) -> float:
    hits = said = real = 0
    for row, truth in zip(given, truths, strict=True):
        tags = {name for name, yes in zip(names, row, strict=True) if yes}
        hits, said, real = hits + len(tags & truth), said + len(tags), real + len(truth)
    return 2 * hits / (said + real) if said + real else float("nan")
