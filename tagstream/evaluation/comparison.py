"""Model versions side by side on the same rows: slices, languages, and intervals of what differs.

    both         text and picture                    masked-both  … the words that name labels hidden
    text         every row with a text               masked-text  … text alone, those words hidden
    image        every row whose picture decodes

A text that was nothing but label words is missing text, and its row stays in the masked slices.
Intervals: 95 % bootstrap over near-duplicate groups; versions are compared over the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tagstream.core.events import ImageUse
from tagstream.core.language import language_of
from tagstream.dataset.rows import Row
from tagstream.dataset.split import near_duplicate_groups
from tagstream.dataset.targets import FloatArray
from tagstream.evaluation.figures import (
    Counts,
    Modalities,
    Scorer,
    by_frequency,
    judged_groups,
    report,
    scores_and_uses,
    value_figures,
)
from tagstream.evaluation.measures import (
    Floats,
    Judged,
    accuracy_of,
    calibration_of,
    coverage_of,
    interval,
    macro_f1_of,
    micro_f1_of,
    resampled,
)
from tagstream.evaluation.tag_sets import Writer, likeliest, tag_figures
from tagstream.evaluation.writing import as_sets
from tagstream.text.masking import LabelWords


class Slice(NamedTuple):
    modalities: Modalities
    masked: bool


SLICES = {
    "both": Slice("both", False),
    "text": Slice("text", False),
    "image": Slice("image", False),
    "masked-both": Slice("both", True),
    "masked-text": Slice("text", True),
}
ROUNDS = 1000
#: Bounds the memory of a bootstrap over many rows to some 100 MB.
WEIGHTS_AT_ONCE = 4_000_000
_MEASURES = {
    "accuracy": accuracy_of,
    "macro_f1": macro_f1_of,
    "ece": calibration_of,
    "coverage_at_90": coverage_of,
}


class EmptySlice(ValueError):
    """No row has what the slice looks at, or none has a label of a group that the taggers know."""


@dataclass(frozen=True)
class Candidate:
    """A model version to be measured. `counts`: its training rows by group and value."""

    name: str
    tagger: Scorer
    counts: Counts


@dataclass(frozen=True)
class Measured:
    """One candidate on one slice: the slice's rows, what it said of them, and the figures as JSON."""

    candidate: Candidate
    rows: list[Row]
    scores: FloatArray
    judged: dict[str, Judged]
    drawn: dict[str, dict[str, Floats]]
    figures: dict[str, Any]


def measure_slice(
    name: str,
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    classes: Mapping[str, Sequence[str]],
    words: LabelWords,
    rounds: int = ROUNDS,
) -> list[Measured]:
    """Every candidate on the same rows of this slice.

    Raises:
        EmptySlice: nothing would be measured; says why.
    """
    modalities, masked = SLICES[name]
    rows = [row for row in rows if _takes_part(row, modalities)]
    if not rows:
        raise EmptySlice(f"slice {name}: no row has a {'picture' if modalities == 'image' else 'text'}")
    mask = words if masked else None
    scored = [scores_and_uses(one.tagger, rows, modalities, mask) for one in candidates]
    kept = list(range(len(rows)))
    if modalities == "image":
        kept = [place for place in kept if any(uses[place] == "used" for _, uses in scored)]
        if not kept:
            raise EmptySlice("slice image: no picture decodes, or no model looks at pictures")
    rows = [rows[place] for place in kept]
    near = near_duplicate_groups([row.text.title for row in rows], [row.picture_hash for row in rows])
    weights = resampled(near, rounds)
    return [
        _measured(one, rows, scores[kept], uses, classes, weights, mask, modalities)
        for one, (scores, uses) in zip(candidates, scored, strict=True)
    ]


def difference(one: Measured, other: Measured) -> dict[str, Any]:
    """`one` minus `other`, of the means and of each group that both know, each with its interval."""
    found: dict[str, Any] = {}
    for measure in (*_MEASURES, "micro_f1"):
        ours, theirs = one.drawn.get(measure, {}), other.drawn.get(measure, {})
        common = [group for group in ours if group in theirs]
        of_groups = {group: ours[group] - theirs[group] for group in common}
        for group, drawn in of_groups.items():
            groups = found.setdefault("groups", {}).setdefault(group, {})
            known = [of.figures["groups"][group][measure] for of in (one, other)]
            groups[measure] = _with_interval(known[0] - known[1], drawn)
        if common and measure != "micro_f1":
            points = [groups_of(of, measure, common) for of in (one, other)]
            found[f"mean_{measure}"] = _with_interval(points[0] - points[1], _mean([*of_groups.values()]))
    return found


def groups_of(measured: Measured, measure: str, groups: Sequence[str]) -> float:
    """The mean of a figure over these groups."""
    return float(np.mean([measured.figures["groups"][group][measure] for group in groups]))


def _takes_part(row: Row, modalities: Modalities) -> bool:
    text = bool(row.text.title or row.text.description or row.text.brand or row.text.attributes)
    picture = row.has_picture
    return {"both": text or picture, "text": text, "image": picture}[modalities]


def _measured(
    candidate: Candidate,
    rows: list[Row],
    scores: FloatArray,
    uses: Sequence[ImageUse],
    classes: Mapping[str, Sequence[str]],
    weights: Floats,
    mask: LabelWords | None,
    modalities: Modalities,
) -> Measured:
    taxonomy = candidate.tagger.taxonomy
    judged = {one.group.name: one for one in judged_groups(scores, rows, taxonomy, classes)}
    if not judged:
        labelled = ", ".join(sorted({group for row in rows for group in row.labels})) or "none"
        known = ", ".join(group.name for group in taxonomy.groups)
        raise EmptySlice(
            f"{candidate.name} and the rows have no group in common: labelled are {labelled}; known {known}"
        )
    drawn = _drawn(judged, weights)
    figures = report(scores, rows, taxonomy, classes)
    figures["pictures"] = {use: uses.count(use) for use in sorted(set(uses))}
    figures["intervals"] = {
        f"mean_{measure}": interval(figures[f"mean_{measure}"], _mean([*drawn[measure].values()]))
        for measure in _MEASURES
        if measure in drawn
    } | {
        f"{group}.micro_f1": interval(figures["groups"][group]["micro_f1"], of)
        for group, of in drawn.get("micro_f1", {}).items()
    }
    figures["by_frequency"] = by_frequency([*judged.values()], candidate.counts)
    figures["values"] = {
        group: value_figures(one, candidate.counts.get(group, {})) for group, one in judged.items()
    }
    tagger, writes = candidate.tagger, isinstance(candidate.tagger, Writer) and modalities != "image"
    if isinstance(tagger, Writer) and writes:
        said = as_sets(tagger.generate([mask.hide(row.text) if mask else row.text for row in rows]))
    else:
        said = likeliest(scores, taxonomy)
    figures["tags"] = tag_figures(said, rows, taxonomy, written=writes)
    langs = [language_of(row.text.title, row.text.lang) for row in rows]
    if len(set(langs)) > 1:
        figures["languages"] = {
            lang: report(
                scores[[of == lang for of in langs]],
                [row for row, of in zip(rows, langs, strict=True) if of == lang],
                taxonomy,
                classes,
            )
            for lang in sorted(set(langs))
        }
    return Measured(candidate, rows, scores, judged, drawn, figures)


def _drawn(judged: Mapping[str, Judged], weights: Floats) -> dict[str, dict[str, Floats]]:
    """Measure → group → (draws,)."""
    drawn: dict[str, dict[str, Floats]] = {}
    for name, one in judged.items():
        parts = np.array_split(weights, 1 + weights.size // WEIGHTS_AT_ONCE)
        measures = _MEASURES if one.single else {"micro_f1": micro_f1_of}
        for measure, of in measures.items():
            drawn.setdefault(measure, {})[name] = np.concatenate(
                [of(one, part[:, one.places].astype(np.float64)) for part in parts]
            )
    return drawn


def _mean(drawn: Sequence[Floats]) -> Floats:
    """(draws,) mean over the groups that a draw has a row of; NaN where it has of none."""
    stacked = np.stack(drawn)
    groups = (~np.isnan(stacked)).sum(axis=0)
    return np.where(groups > 0, np.nansum(stacked, axis=0) / np.maximum(groups, 1), np.nan)


def _with_interval(point: float, drawn: Floats) -> dict[str, float]:
    low, high = interval(point, drawn)
    return {"difference": point, "low": low, "high": high}
