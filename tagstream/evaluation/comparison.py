"""Model versions side by side on every slice of the rows, and their differences.

    both         text and picture                    masked-both  … the words that name labels hidden
    text         every row with a text               masked-text  … text alone, those words hidden
    image        every row whose picture decodes

A text of nothing but label words becomes a missing text, and its row stays in the masked slices.
Intervals: 95 % bootstrap over near-duplicate groups, the same draws for every version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tagstream.core.events import ImageUse
from tagstream.core.language import language_of
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.split import (
    CLASS_MIN_ROWS,
    EvaluationSpec,
    near_duplicate_groups,
    normalised_title,
)
from tagstream.dataset.targets import FloatArray
from tagstream.dataset.training_set import title_hash
from tagstream.evaluation import figures, measures, tag_sets
from tagstream.evaluation.figures import (
    SINGLE_MEASURES,
    Classes,
    Figures,
    Json,
    PartFigures,
    ToJson,
    ValueFigures,
    mean_of,
)
from tagstream.evaluation.measures import Floats, Interval, Judged, interval
from tagstream.text.masking import LabelWords, label_words


class Slice(NamedTuple):
    modalities: figures.Modalities
    masked: bool = False


SLICES = {
    "both": Slice("both"),
    "text": Slice("text"),
    "image": Slice("image"),
    "masked-both": Slice("both", True),
    "masked-text": Slice("text", True),
}
#: Bounds the memory of a bootstrap over many rows to some 100 MB.
WEIGHTS_AT_ONCE = 4_000_000
#: Group → (draws,).
Drawn = Mapping[str, Floats]


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
    """One candidate on one slice: the slice's rows, their scores and figures. `drawn`: of each measure."""

    slice: str
    candidate: Candidate
    rows: Sequence[Row]
    scores: FloatArray
    drawn: Mapping[str, Drawn]
    figures: SliceFigures


@dataclass(frozen=True)
class Gap(ToJson):
    """How much a figure differs between two models, and the interval of that."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(ToJson):
    """One model minus another, on one slice: of each group that both know, and of the means over these."""

    model: str
    minus: str
    slice: str
    groups: Mapping[str, Mapping[str, Gap]] | None = None
    mean_accuracy: Gap | None = None
    mean_macro_f1: Gap | None = None
    mean_ece: Gap | None = None
    mean_coverage_at_90: Gap | None = None


@dataclass(frozen=True)
class Comparison:
    """Candidates on the same slices. `slices`: of each, the candidates in order; `left_out`: slice → why.

    `trained_on`: of each candidate, rows with a title that it was trained on; None where it lists no titles.
    """

    classes: Classes
    mask_hash: str
    spec_hash: str | None
    trained_on: Sequence[int | None]
    slices: Mapping[str, Sequence[Measured]]
    left_out: Mapping[str, str]

    @property
    def first(self) -> Sequence[Measured]:
        """The candidates on the first slice."""
        return next(iter(self.slices.values()))

    @cached_property
    def differences(self) -> list[Difference]:
        """Each further candidate minus the first one."""
        return [difference(one, of[0]) for of in self.slices.values() for one in of[1:]]

    @property
    def facts(self) -> dict[str, str | bool | None]:
        """What the figures of the first slice were made with."""
        made_with = SLICES[self.first[0].slice]._asdict()
        return {**made_with, "mask_hash": self.mask_hash, "spec_hash": self.spec_hash}

    def to_json(self) -> dict[str, Json]:
        """The first candidate's first slice at the top; everything in `models` and `differences`."""
        return {
            "model_version": self.first[0].candidate.name,
            **self.facts,
            "abstention": "none: the highest score of a single-choice group is its answer",
            "rows_with_a_title_trained_on": self.trained_on[0],
            **self.first[0].figures.to_json(),
            "slices_left_out": self.left_out,
            "models": [
                {
                    "model_version": one.candidate.name,
                    "rows_with_a_title_trained_on": self.trained_on[place],
                    "slices": {name: of[place].figures.to_json() for name, of in self.slices.items()},
                }
                for place, one in enumerate(self.first)
            ],
            "differences": [of.to_json() for of in self.differences],
        }


def compare(
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    slices: Sequence[str] = (),
    spec: EvaluationSpec | None = None,
) -> Comparison:
    """Every candidate on these slices, or on every one that the rows have.

    `spec`: test rows and class lists. Without it: all rows, and the values that the first candidate learned
    from enough training rows.

    Raises:
        ValueError: two candidates have one name, or no row is in the spec.
        EmptySlice: a slice of `slices` is empty, or each one is.
    """
    names = [one.name for one in candidates]
    if len(set(names)) < len(names):
        raise ValueError(f"a model version is named twice: {', '.join(names)}")
    words = label_words([one.tagger.taxonomy for one in candidates], [row.labels for row in rows])
    if spec is None:
        classes: Classes = {
            group: tuple(value for value, count in of.items() if count >= CLASS_MIN_ROWS)
            for group, of in candidates[0].counts.items()
        }
    else:
        ids, classes = set(spec.test_ids), spec.classes
        rows = [row for row in rows if row.product_id in ids]
        if not rows:
            raise ValueError(f"none of the {len(ids)} test ids of the evaluation spec is in the data")
    measured, left_out = {}, {}
    for name in slices or SLICES:
        try:
            measured[name] = measure_slice(name, candidates, rows, classes, words)
        except EmptySlice as error:
            if slices:
                raise
            left_out[name] = str(error)
    if not measured:
        raise EmptySlice(next(iter(left_out.values())))
    return Comparison(
        classes=classes,
        mask_hash=words.content_hash(),
        spec_hash=spec.content_hash() if spec else None,
        trained_on=[one.trained_on(rows) for one in candidates],
        slices=measured,
        left_out=left_out,
    )


def measure_slice(
    name: str,
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    classes: Classes,
    words: LabelWords,
    rounds: int = measures.ROUNDS,
) -> list[Measured]:
    """Every candidate on the same rows of this slice. Raises EmptySlice where nothing would be measured."""
    modalities, masked = SLICES[name]
    rows = [row for row in rows if _takes_part(row, modalities)]
    if not rows:
        raise EmptySlice(f"slice {name}: no row has a {'picture' if modalities == 'image' else 'text'}")
    mask = words if masked else None
    scored = [figures.score_rows(one.tagger, rows, modalities, mask) for one in candidates]
    kept = list(range(len(rows)))
    if modalities == "image":
        kept = [place for place in kept if any(uses[place] == "used" for _, uses in scored)]
        if not kept:
            raise EmptySlice("slice image: no picture decodes, or no model looks at pictures")
    rows = [rows[place] for place in kept]
    near = near_duplicate_groups([row.text.title for row in rows], [row.picture_hash for row in rows])
    weights, measured = measures.resampled(near, rounds), []
    for one, (of_all, uses) in zip(candidates, scored, strict=True):
        scores, taxonomy = of_all[kept], one.tagger.taxonomy
        judged = figures.judged_groups(scores, rows, taxonomy, classes)
        if not judged:
            labelled = ", ".join(sorted({group for row in rows for group in row.labels})) or "none"
            known = ", ".join(group.name for group in taxonomy.groups)
            why = f"{one.name} and the rows have no group in common: labelled are {labelled}; known {known}"
            raise EmptySlice(why)
        drawn, overall = _drawn(judged, weights), figures.figures_of(judged, len(rows))
        values = figures.values_of(judged, one.counts)
        found = SliceFigures(
            **vars(overall),
            pictures={use: uses.count(use) for use in sorted(set(uses))},
            intervals=_intervals(overall, drawn),
            by_frequency=figures.by_frequency(values),
            values=values,
            tags=_of_sets(one.tagger, scores, rows, modalities, mask),
            languages=_by_language(scores, rows, taxonomy, classes),
        )
        measured.append(Measured(name, one, rows, scores, drawn, found))
    return measured


def difference(one: Measured, other: Measured) -> Difference:
    """`one` minus `other`, over the groups that both know."""

    def gap(measure: str, drawn: Drawn) -> Gap:
        """Of the mean over these groups."""
        ours, theirs = (mean_of([of.figures.groups[name] for name in drawn], measure) for of in (one, other))
        return Gap(ours - theirs, *interval(ours - theirs, mean_draws(drawn)))

    means: dict[str, Gap] = {}
    groups: dict[str, dict[str, Gap]] = {}
    for measure in (*SINGLE_MEASURES, "micro_f1"):
        ours, theirs = one.drawn.get(measure, {}), other.drawn.get(measure, {})
        drawn = {group: ours[group] - theirs[group] for group in ours if group in theirs}
        for group, of_group in drawn.items():
            groups.setdefault(group, {})[measure] = gap(measure, {group: of_group})
        if drawn and measure in SINGLE_MEASURES:
            means[f"mean_{measure}"] = gap(measure, drawn)
    return Difference(one.candidate.name, other.candidate.name, one.slice, groups or None, **means)


def mean_draws(drawn: Drawn) -> Floats:
    """(draws,) mean over the groups that a draw has a row of; NaN where it has of none."""
    stacked = np.stack([*drawn.values()])
    return measures.ratio(np.nansum(stacked, axis=0), (~np.isnan(stacked)).sum(axis=0))


def _takes_part(row: Row, modalities: figures.Modalities) -> bool:
    text = bool(row.text.title or row.text.description or row.text.brand or row.text.attributes)
    return {"both": text or row.has_picture, "text": text, "image": row.has_picture}[modalities]


def _drawn(judged: Sequence[Judged], weights: Floats) -> dict[str, dict[str, Floats]]:
    drawn: dict[str, dict[str, Floats]] = {}
    parts = np.array_split(weights, 1 + weights.size // WEIGHTS_AT_ONCE)
    for one in judged:
        for measure, of in (SINGLE_MEASURES if one.single else {"micro_f1": measures.micro_f1_of}).items():
            draws = [of(one, part[:, one.places].astype(np.float64)) for part in parts]
            drawn.setdefault(measure, {})[one.group.name] = np.concatenate(draws)
    return drawn


def _of_sets(
    tagger: figures.Scorer,
    scores: FloatArray,
    rows: Sequence[Row],
    modalities: figures.Modalities,
    mask: LabelWords | None,
) -> dict[str, float]:
    """Over the groups that a row has labels of."""
    taxonomy, groups = tagger.taxonomy, [row.labels for row in rows]
    truths = tag_sets.labelled(rows, taxonomy)
    if isinstance(tagger, tag_sets.Writer) and modalities != "image":
        texts = [mask.hide(row.text) if mask else row.text for row in rows]
        given = tag_sets.of_groups(tag_sets.as_sets(tagger.generate(texts)), groups)
        distance = tag_sets.mean_edit_distance(truths, given, taxonomy)
        return {"set_f1": tag_sets.pooled(truths, given)[0], "edit_distance": distance}
    given = tag_sets.of_groups(tag_sets.likeliest(scores, taxonomy), groups)
    return {"set_f1": tag_sets.pooled(truths, given)[0]}


def _by_language(
    scores: FloatArray, rows: Sequence[Row], taxonomy: Taxonomy, classes: Classes
) -> dict[str, Figures] | None:
    langs = [language_of(row.text.title, row.text.lang) for row in rows]
    if len(set(langs)) < 2:
        return None
    found = {}
    for lang in sorted(set(langs)):
        places = [place for place, of in enumerate(langs) if of == lang]
        found[lang] = figures.report(scores[places], [rows[at] for at in places], taxonomy, classes)
    return found


def _intervals(overall: Figures, drawn: Mapping[str, Drawn]) -> dict[str, Interval]:
    """Of the means over single-choice groups, and of micro-F1 of each group of free tags."""
    parts = {f"mean_{name}": (name, drawn[name]) for name in SINGLE_MEASURES if name in drawn}
    for group, of_group in drawn.get("micro_f1", {}).items():
        parts[f"{group}.micro_f1"] = "micro_f1", {group: of_group}
    return {
        name: interval(mean_of([overall.groups[group] for group in of], measure), mean_draws(of))
        for name, (measure, of) in parts.items()
    }
