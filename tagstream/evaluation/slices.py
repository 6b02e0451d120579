"""One slice: which rows it has, and the figures of every candidate on the same rows of it.

    both         text and picture                    masked-both  … the words that name labels hidden
    text         every row with a text               masked-text  … text alone, those words hidden
    image        every row whose picture decodes

A text of nothing but label words becomes a missing text, and its row stays in the masked slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagstream.core.events import ImageUse
from tagstream.core.language import language_of
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.split import near_duplicate_groups, normalised_title
from tagstream.dataset.targets import FloatArray
from tagstream.dataset.training_set import title_hash
from tagstream.evaluation import figures, measures, tag_sets
from tagstream.evaluation.figures import Classes, Figures, PartFigures, ValueFigures
from tagstream.evaluation.measures import Floats, Interval, Judged
from tagstream.text.masking import LabelWords


class Slice(NamedTuple):
    modalities: figures.Modalities
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
#: Figures of single-choice groups whose means have intervals too.
SINGLE_MEASURES = {
    "accuracy": measures.accuracy_of,
    "macro_f1": measures.macro_f1_of,
    "ece": measures.calibration_of,
    "coverage_at_90": measures.coverage_of,
}
#: Measure → group → (draws,).
Drawn = Mapping[str, Mapping[str, Floats]]


class EmptySlice(ValueError):
    """No row has what the slice looks at, or none has a label of a group that the taggers know."""


@dataclass(frozen=True)
class Candidate:
    """A model version to be measured.

    `counts`: its training rows by group and value. `titles`: hashes of the titles that it was trained or
    fitted on; None where the version does not list them.
    """

    name: str
    tagger: figures.Scorer
    counts: figures.Counts
    titles: npt.NDArray[np.uint32] | None = None

    def trained_on(self, rows: Sequence[Row]) -> int | None:
        """How many rows have a title that it was trained or fitted on: figures over them flatter."""
        if self.titles is None:
            return None
        titles = [normalised_title(row.text.title) for row in rows]
        return int(np.isin([title_hash(title) for title in titles if title], self.titles).sum())


@dataclass(frozen=True)
class SliceFigures(Figures):
    """Figures of one candidate on one slice.

    `pictures`: rows by what became of their picture. `values`: group → value → figures. `tags`: F1 over all
    tags, and the edit distance if the tagger writes them. `languages`: None where all rows have the same.
    """

    pictures: Mapping[ImageUse, int]
    intervals: Mapping[str, Interval]
    by_frequency: Mapping[str, PartFigures]
    values: Mapping[str, Mapping[str, ValueFigures]]
    tags: Mapping[str, float]
    languages: Mapping[str, Figures] | None = None


@dataclass(frozen=True)
class Measured:
    """One candidate on one slice: the slice's rows, their scores and figures, and the bootstrap's draws."""

    slice: str
    candidate: Candidate
    rows: Sequence[Row]
    scores: FloatArray
    drawn: Drawn
    figures: SliceFigures


def measure_slice(
    name: str,
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    classes: Classes,
    words: LabelWords,
    rounds: int = ROUNDS,
) -> list[Measured]:
    """Every candidate on the same rows of this slice.

    Raises:
        EmptySlice: nothing would be measured; the message names the reason.
    """
    modalities, masked = SLICES[name]
    rows = [row for row in rows if _takes_part(row, modalities)]
    if not rows:
        raise EmptySlice(f"slice {name}: no row has a {'picture' if modalities == 'image' else 'text'}")
    mask = words if masked else None
    scored = [figures.scores_and_uses(one.tagger, rows, modalities, mask) for one in candidates]
    kept = list(range(len(rows)))
    if modalities == "image":
        kept = [place for place in kept if any(uses[place] == "used" for _, uses in scored)]
        if not kept:
            raise EmptySlice("slice image: no picture decodes, or no model looks at pictures")
    rows = [rows[place] for place in kept]
    near = near_duplicate_groups([row.text.title for row in rows], [row.picture_hash for row in rows])
    common = _Rows(name, rows, classes, measures.resampled(near, rounds), mask)
    return [
        common.measure(one, scores[kept], uses)
        for one, (scores, uses) in zip(candidates, scored, strict=True)
    ]


def mean_draws(drawn: Sequence[Floats]) -> Floats:
    """(draws,) mean over the groups that a draw has a row of; NaN where it has of none."""
    stacked = np.stack(drawn)
    groups = (~np.isnan(stacked)).sum(axis=0)
    return np.where(groups > 0, np.nansum(stacked, axis=0) / np.maximum(groups, 1), np.nan)


def _takes_part(row: Row, modalities: figures.Modalities) -> bool:
    text = bool(row.text.title or row.text.description or row.text.brand or row.text.attributes)
    return {"both": text or row.has_picture, "text": text, "image": row.has_picture}[modalities]


@dataclass(frozen=True)
class _Rows:
    """The rows of a slice, and what is the same for all candidates."""

    name: str
    rows: Sequence[Row]
    classes: Classes
    weights: Floats
    mask: LabelWords | None

    def measure(self, candidate: Candidate, scores: FloatArray, uses: Sequence[ImageUse]) -> Measured:
        taxonomy = candidate.tagger.taxonomy
        judged = figures.judged_groups(scores, self.rows, taxonomy, self.classes)
        if not judged:
            labelled = ", ".join(sorted({group for row in self.rows for group in row.labels})) or "none"
            known = ", ".join(group.name for group in taxonomy.groups)
            raise EmptySlice(
                f"{candidate.name} and the rows have no group in common: "
                f"labelled are {labelled}; known {known}"
            )
        drawn, overall = self._drawn(judged), figures.figures_of(judged, len(self.rows))
        values = figures.values_of(judged, candidate.counts)
        found = SliceFigures(
            **vars(overall),
            pictures={use: uses.count(use) for use in sorted(set(uses))},
            intervals=_intervals(overall, drawn),
            by_frequency=figures.by_frequency(values),
            values=values,
            tags=self._of_sets(candidate.tagger, scores),
            languages=self._by_language(scores, taxonomy),
        )
        return Measured(self.name, candidate, self.rows, scores, drawn, found)

    def _drawn(self, judged: Sequence[Judged]) -> Drawn:
        drawn: dict[str, dict[str, Floats]] = {}
        parts = np.array_split(self.weights, 1 + self.weights.size // WEIGHTS_AT_ONCE)
        for one in judged:
            known = SINGLE_MEASURES if one.single else {"micro_f1": measures.micro_f1_of}
            for measure, of in known.items():
                drawn.setdefault(measure, {})[one.group.name] = np.concatenate(
                    [of(one, part[:, one.places].astype(np.float64)) for part in parts]
                )
        return drawn

    def _of_sets(self, tagger: figures.Scorer, scores: FloatArray) -> dict[str, float]:
        """Over the groups that a row has labels of."""
        writes = isinstance(tagger, tag_sets.Writer) and SLICES[self.name].modalities != "image"
        if isinstance(tagger, tag_sets.Writer) and writes:
            texts = [self.mask.hide(row.text) if self.mask else row.text for row in self.rows]
            given = tag_sets.as_sets(tagger.generate(texts))
        else:
            given = tag_sets.likeliest(scores, tagger.taxonomy)
        given = tag_sets.of_groups(given, [row.labels for row in self.rows])
        truths = tag_sets.labelled(self.rows, [group.name for group in tagger.taxonomy.groups])
        of_sets = {"set_f1": tag_sets.pooled(truths, given)[0]}
        if writes:
            of_sets["edit_distance"] = tag_sets.mean_edit_distance(truths, given, tagger.taxonomy)
        return of_sets

    def _by_language(self, scores: FloatArray, taxonomy: Taxonomy) -> dict[str, Figures] | None:
        places: dict[str, list[int]] = {}
        for place, row in enumerate(self.rows):
            places.setdefault(language_of(row.text.title, row.text.lang), []).append(place)
        if len(places) < 2:
            return None
        return {
            lang: figures.report(scores[of], [self.rows[place] for place in of], taxonomy, self.classes)
            for lang, of in sorted(places.items())
        }


def _intervals(overall: Figures, drawn: Drawn) -> dict[str, Interval]:
    """Of the means over single-choice groups, and of micro-F1 of each group of free tags."""
    found = {}
    for measure in (measure for measure in SINGLE_MEASURES if measure in drawn):
        mean = figures.mean_of([overall.groups[group] for group in drawn[measure]], measure)
        found[f"mean_{measure}"] = measures.interval(mean, mean_draws([*drawn[measure].values()]))
    for group, of_group in drawn.get("micro_f1", {}).items():
        figure = figures.mean_of([overall.groups[group]], "micro_f1")
        found[f"{group}.micro_f1"] = measures.interval(figure, of_group)
    return found
