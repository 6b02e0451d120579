"""Step 6: scores + taxonomy + rules + the event's own attributes + values named in its title → tags.

Precedence in a group: person > rule > event attribute > extracted > model. A tag that wins its group also
removes the tags of lower sources that contradict it in the groups above and below. It adds none there: the
ancestors of a stated value are given only if the model gives them. Rules and extracted spans may also name
groups that are not in the taxonomy; their tags come last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from tagstream.core.events import Event, ImageUse, ProductTags, Tag, TagSource
from tagstream.core.hierarchy import Hierarchy
from tagstream.core.language import language_of
from tagstream.core.ports import Picture, Scores, Span, Tagger, TextFields, Write
from tagstream.core.rules import NO_RULES, Rules
from tagstream.core.taxonomy import Taxonomy


class Decider:
    """Turns the scores of one model version into tags, by its own taxonomy."""

    def __init__(self, taxonomy: Taxonomy, rules: Rules = NO_RULES) -> None:
        self.taxonomy = taxonomy
        self._rules = rules
        self._multi = {group.name for group in taxonomy.groups if group.kind == "multi"}
        self._hierarchy = Hierarchy(taxonomy)
        self._langs = {lang for group in taxonomy.groups for lang in group.langs}
        self._columns_of: dict[str, list[tuple[str, str] | None]] = {}
        self._rank = {group.name: rank for rank, group in enumerate(taxonomy.groups)}
        self._attributes = {
            name.casefold(): group
            for group in taxonomy.groups
            for name in (group.name, *group.names.values())
        }
        self._spoken = {
            (group.name, spelling): value
            for group in taxonomy.groups
            for spelling, value in group.spoken.items()
        }

    def decide(
        self,
        scores: npt.NDArray[np.float32],
        texts: Sequence[TextFields],
        spans: Sequence[tuple[Span, ...]] = (),
    ) -> list[tuple[Tag, ...]]:
        """`scores` is (events, taxonomy.size), `spans` one tuple an event or empty; the answer has one tuple
        an event, in taxonomy order."""
        settled = self._hierarchy.settled(scores)
        rows, columns_of = np.nonzero(self._hierarchy.given(scores, settled))
        rounded = settled[rows, columns_of].astype(np.float64).round(4).tolist()
        found: list[list[tuple[int, float]]] = [[] for _ in texts]
        for row, column, score in zip(rows.tolist(), columns_of.tolist(), rounded, strict=True):
            found[row].append((column, score))
        extracted = spans or [()] * len(texts)
        return [self._tags(*event) for event in zip(found, texts, extracted, strict=True)]

    def _tags(
        self, found: list[tuple[int, float]], text: TextFields, spans: tuple[Span, ...]
    ) -> tuple[Tag, ...]:
        """`found`: (column, score) of the values above their thresholds, in column order."""
        lang = language_of(text.title, text.lang)
        over: list[Tag] = []
        if self._rules:
            fitting = ((*named, 1.0) for named in self._rules.fitting(text, lang))
            over = self._under(over, self._known(fitting, "rule"))
        if text.attributes:
            stated = ((group, value, 1.0) for group, value in self.stated(text).items())
            over = self._under(over, self._known(stated, "event"))
        if spans:
            best_first = sorted(spans, key=lambda span: -span.score)
            over = self._under(over, self._known((span[:3] for span in best_first), "extracted"))
        columns = self._columns(lang if lang in self._langs else "")
        tags = [Tag(*named, score, "model") for column, score in found if (named := columns[column])]
        if over:
            tags = self._under(over, tags)
            tags.sort(key=lambda tag: self._rank.get(tag.group, len(self._rank)))
        return tuple(tags)

    def _known(self, named: Iterable[tuple[str, str, float]], source: TagSource) -> list[Tag]:
        """Tags of (group, value, score), the first of a single-choice group only. A value of a group of the
        taxonomy is taken as the live value that it spells, and left out if it spells none."""
        tags: dict[tuple[str, str], Tag] = {}
        for group, value, score in named:
            known = self._spoken.get((group, value.casefold())) if group in self._rank else value
            if not known:
                continue
            key = (group, "" if group in self._rank and group not in self._multi else known)
            if key not in tags:
                tags[key] = Tag(group, known, round(score, 4), source)
        return list(tags.values())

    def _under(self, over: list[Tag], tags: list[Tag]) -> list[Tag]:
        """`over`, and of `tags` those whose group it leaves open and which contradict neither it nor, of the
        same source, one that came first."""
        taken = {tag.group for tag in over}
        stated = {tag.group: tag.value for tag in reversed(over)}
        kept = list(over)
        for tag in tags:
            if tag.group not in taken and self._hierarchy.agree(tag.group, tag.value, stated):
                stated.setdefault(tag.group, tag.value)
                kept.append(tag)
        return kept

    def _columns(self, lang: str) -> list[tuple[str, str] | None]:
        """Of each column: (group, value), or None where the group does not apply to the language."""
        if lang not in self._columns_of:
            self._columns_of[lang] = [
                (group.name, value.value) if group.applies_to(lang) else None
                for group in self.taxonomy.groups
                for value in group.values
            ]
        return self._columns_of[lang]

    def stated(self, text: TextFields) -> dict[str, str]:
        """Group → value, for the product's attributes that name a group and one of its values."""
        found: dict[str, str] = {}
        for attribute, spoken in text.attributes.items():
            group = self._attributes.get(attribute.strip().casefold())
            value = self._spoken.get((group.name, spoken.strip().casefold())) if group else None
            if group and value:
                found[group.name] = value
        return found


class Deciders:
    """One decider a model version, made when that version first answers. Any thread may ask."""

    def __init__(self, tagger: Tagger, rules: Rules = NO_RULES) -> None:
        self._tagger = tagger
        self._rules = rules
        self._deciders: dict[str, Decider] = {}

    def __contains__(self, model_version: str) -> bool:
        return model_version in self._deciders

    def of(self, model_version: str) -> Decider:
        """Raises what asking for the taxonomy raises."""
        decider = self._deciders.get(model_version)
        if decider is None:
            decider = Decider(self._tagger.taxonomy(model_version), self._rules)
            self._deciders[model_version] = decider
        return decider


def decide(
    decider: Decider, texts: Sequence[TextFields], pictures: Sequence[Picture], scores: Scores
) -> tuple[list[tuple[Tag, ...]], list[ImageUse]]:
    """Steps 5 to 6, for the stream and the API alike: each event's tags, and what became of its picture.

    Where the model had neither a text nor a picture to go by, its tags would be its prior: they are left out.
    """
    uses = [
        seen if picture.encoded is not None else picture.use
        for seen, picture in zip(scores.image, pictures, strict=True)
    ]
    decided = decider.decide(scores.values, texts, scores.spans)
    for row, (text, use) in enumerate(zip(texts, uses, strict=True)):
        if use != "used" and not text.title.strip():
            decided[row] = tuple(tag for tag in decided[row] if tag.source != "model")
    return decided, uses


def tag_write(
    event: Event, tags: tuple[Tag, ...], image: ImageUse, scores: Scores, taxonomy_version: str, now_ms: int
) -> Write:
    """The new state of a tagged product."""
    product = ProductTags(
        product_id=event.product.product_id,
        revision=0,  # the store counts
        event_version=event.event_version,
        model_version=scores.model_version,
        model_generation=scores.model_generation,
        taxonomy_version=taxonomy_version,
        tagged_at=datetime.fromtimestamp(now_ms / 1000, UTC),
        image=image,
        tags=tags,
    )
    return Write(product, event.source_offset)


def delete_write(event: Event, now_ms: int) -> Write:
    """The new state of a deleted product."""
    product = ProductTags(
        product_id=event.product.product_id,
        revision=0,
        event_version=event.event_version,
        model_version="",
        model_generation=0,
        taxonomy_version="",
        tagged_at=datetime.fromtimestamp(now_ms / 1000, UTC),
        image="none",
        tags=(),
    )
    return Write(product, event.source_offset, deleted=True)
