"""Each value's own threshold, from held-out scores.

It is the one with the best F-beta over the held-out rows. The counts are smoothed: each value gets
`pseudo_rows` more rows, with the average outcome of its group. A value with many rows so gets the threshold
that is best for itself, one with none gets its group's. Tuned on its own few rows alone, a scarce value's
threshold would be luck (Lin & Lin 2023).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from tagstream.core.taxonomy import Group, Taxonomy, versioned
from tagstream.dataset.targets import FloatArray

#: Below 0.5 a tag is more likely wrong than right. Held-out rows may say otherwise, but shops differ.
LOWEST = 0.5
STEP = 0.01
Floats = npt.NDArray[np.float64]


class Thresholds(BaseModel):
    """How thresholds are chosen.

    beta        below 1 a wrong tag costs more than a missing one
    precision   in place of the best F-beta: the lowest threshold at which this share of a value's tags is
                right, and `highest` where there is none
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    beta: float = Field(default=1.0, gt=0)
    precision: float | None = Field(default=None, gt=0, lt=1)
    pseudo_rows: float = Field(default=10.0, gt=0)
    highest: float = Field(default=0.9, ge=LOWEST, lt=1)


def with_thresholds(
    taxonomy: Taxonomy, scores: FloatArray, target: FloatArray, how: Thresholds | None = None
) -> Taxonomy:
    """The taxonomy with a threshold for every value. `scores`, `target`: (rows, taxonomy.size), the target
    NaN where a label is not known. A group without a label in any row gets 0.5."""
    how = how or Thresholds()
    groups = []
    for group in taxonomy.groups:
        columns = taxonomy.slices[group.name]
        chosen = _thresholds(group, scores[:, columns], target[:, columns], how)
        values = tuple(
            value.model_copy(update={"threshold": threshold})
            for value, threshold in zip(group.values, chosen, strict=True)
        )
        groups.append(group.model_copy(update={"values": values}))
    return versioned(groups)


def _thresholds(group: Group, scores: FloatArray, target: FloatArray, how: Thresholds) -> list[float]:
    known = ~np.isnan(target)
    if not known.any():
        return [LOWEST] * len(group.values)
    candidates = np.arange(LOWEST, how.highest + STEP / 2, STEP)
    true = known & (target == 1)
    may_say = known
    if group.kind == "single":
        may_say = known & (scores.argmax(axis=1)[:, None] == np.arange(len(group.values)))
    counts = [
        ((may_say & (scores >= at)).sum(axis=0), (true & may_say & (scores >= at)).sum(axis=0))
        for at in candidates
    ]
    said, hits = (np.asarray(of, float) for of in zip(*counts, strict=True))
    real = true.sum(axis=0).astype(float)
    share = how.pseudo_rows / max(real.sum(), 1)
    said, hits, real = (
        of + share * of.sum(axis=-1, keepdims=True) for of in (said, hits, real)
    )  # (candidates, values), (candidates, values), (values,)
    if how.precision is not None:
        enough = (said > 0) & (hits >= how.precision * said)
        places = np.where(enough.any(axis=0), enough.argmax(axis=0), len(candidates) - 1)
    else:
        weight = how.beta**2
        below = weight * real + said
        f = np.divide((1 + weight) * hits, below, out=np.zeros_like(hits), where=below > 0)
        places = f.argmax(axis=0)
    return [round(float(candidates[place]), 2) for place in places]
