"""Step 6: scores + taxonomy + what the event itself says → tags.

Precedence in a group: person > rule > event attribute > extracted > model.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from tagstream.core.decode import Event
from tagstream.core.events import ImageUse, ProductTags, Tag
from tagstream.core.language import language_of
from tagstream.core.ports import Scores, TextFields, Write
from tagstream.core.taxonomy import Taxonomy


class Decider:
    """Turns the scores of one model version into tags, by its own taxonomy."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self._thresholds = np.array(
            [value.threshold for group in taxonomy.groups for value in group.values], np.float32
        )
        self._langs = {lang for group in taxonomy.groups for lang in group.langs}
        self._columns_of: dict[str, list[tuple[str, str] | None]] = {}
        self._rank = {group.name: rank for rank, group in enumerate(taxonomy.groups)}
        self._single = [taxonomy.slices[g.name] for g in taxonomy.groups if g.kind == "single"]
        self._attributes = {
            name.casefold(): group
            for group in taxonomy.groups
            for name in (group.name, *group.names.values())
        }
        self._spoken = {
            (group.name, name.casefold()): value.value
            for group in taxonomy.groups
            for value in group.values
            for name in (*value.names.values(), value.value)
        }

    def decide(self, scores: npt.NDArray[np.float32], texts: Sequence[TextFields]) -> list[tuple[Tag, ...]]:
        """`scores` is (events, taxonomy.size); the answer has one tuple an event, in taxonomy order."""
        chosen = scores >= self._thresholds
        for columns in self._single:
            best = scores[:, columns].argmax(axis=1)
            chosen[:, columns] &= np.arange(columns.stop - columns.start) == best[:, None]
        rows, columns_of = np.nonzero(chosen)
        rounded = scores[rows, columns_of].astype(np.float64).round(4).tolist()
        found: list[list[tuple[int, float]]] = [[] for _ in texts]
        for row, column, score in zip(rows.tolist(), columns_of.tolist(), rounded, strict=True):
            found[row].append((column, score))
        return [self._tags(pairs, text) for pairs, text in zip(found, texts, strict=True)]

    def _tags(self, found: list[tuple[int, float]], text: TextFields) -> tuple[Tag, ...]:
        """`found`: (column, score) of the values above their thresholds, in column order."""
        lang = language_of(text.title, text.lang)
        stated = self.stated(text) if text.attributes else {}
        columns = self._columns(lang if lang in self._langs else "")
        tags = [Tag(*named, score, "model") for column, score in found if (named := columns[column])]
        if stated:
            tags = [tag for tag in tags if tag.group not in stated]
            tags += [Tag(group=g, value=v, score=1.0, source="event") for g, v in stated.items()]
            tags.sort(key=lambda tag: self._rank[tag.group])
        return tuple(tags)

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
        said: dict[str, str] = {}
        for attribute, spoken in text.attributes.items():
            group = self._attributes.get(attribute.strip().casefold())
            value = self._spoken.get((group.name, spoken.strip().casefold())) if group else None
            if group and value:
                said[group.name] = value
        return said


def tag_write(
    event: Event, tags: tuple[Tag, ...], image: ImageUse, scores: Scores, taxonomy_version: str, now_ms: int
) -> Write:
    """The new state of a tagged product. Where the model had neither text nor picture to go by, its
    tags would be its prior, so they are left out."""
    if image != "used" and not event.product.title.strip():
        tags = tuple(tag for tag in tags if tag.source != "model")
    product = ProductTags(
        product_id=event.product.product_id,
        revision=0,
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
