"""Tags written by a language model: a title goes in, the set of its tags comes out, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tagstream.core.events import ImageUse, Tag
from tagstream.core.language import language_of
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.generation.decode import Written, write, write_freely
from tagstream.model.generation.grammar import Grammar
from tagstream.model.generation.pieces import Pieces

#: Further values of groups with several choices that there is room for, all groups together.
FURTHER_VALUES = 8
ROWS_AT_ONCE = 64


class Generator:
    """A model version in memory; several threads may ask it at once. Texts alone are read."""

    def __init__(
        self,
        model_version: str,
        taxonomy: Taxonomy,
        pieces: Pieces,
        network: Any,
        title_max_pieces: int,
        beams: int = 1,
    ) -> None:
        """`network`: a causal language model over `pieces`. `beams`: hypotheses a title; 1 is greedy.

        Raises ValueError where two values of a group have the same pieces.
        """
        self.model_version = model_version
        self.taxonomy = taxonomy
        self.pieces = pieces
        self.network = network.eval()
        self.title_max_pieces = title_max_pieces
        self.beams = beams
        self._grammar = Grammar(taxonomy, pieces)
        self._max_tokens = tags_max_tokens(taxonomy, pieces)
        self._named = [(group.name, value.value) for group in taxonomy.groups for value in group.values]

    def generate(self, texts: Sequence[TextFields]) -> list[tuple[Tag, ...]]:
        """Tags of each text in taxonomy order, decoded within the taxonomy; none for an empty text.

        A tag's score is the probability of its value given its group and the tags written before it.
        A text is read up to `title_max_pieces`; the rest is not.
        """
        return [
            tuple(Tag(*self._named[column], score, "model") for column, score in tags)
            for tags in self._written(texts)
        ]

    def generate_freely(self, texts: Sequence[TextFields]) -> list[list[tuple[str, str | None]]]:
        """What is written without the taxonomy's constraint, (group, value) in the order written.

        A value is None where the pieces spell no value of the group, or `<end>` never came.
        """
        answers: list[list[tuple[str, str | None]]] = [[] for _ in texts]
        for rows, prompts in self._prompts(texts):
            with torch.inference_mode():
                tokens = write_freely(self.network, self.pieces, prompts, self._max_tokens)
            for row, of_row in zip(rows, tokens, strict=True):
                answers[row] = self._read(of_row)
        return answers

    def score(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float32], list[ImageUse]]:
        """(events, taxonomy.size): a written tag's probability, 0 for every other; pictures are not used."""
        scores = np.zeros((len(batch), self.taxonomy.size), np.float32)
        for row, tags in enumerate(self._written(batch.texts)):
            for column, score in tags:
                scores[row, column] = score
        return scores, ["none"] * len(batch)

    def first_pieces(self, texts: Sequence[TextFields]) -> npt.NDArray[np.float32]:
        """(texts, pieces): how probable each piece is as the first one written; 0 for an empty text."""
        found = np.zeros((len(texts), self.pieces.size), np.float32)
        for rows, prompts in self._prompts(texts):
            with torch.inference_mode():
                for row, prompt in zip(rows, prompts, strict=True):
                    [logits] = self.network(input_ids=torch.tensor([prompt])).logits
                    found[row] = logits[-1].softmax(dim=-1).numpy()
        return found

    def _written(self, texts: Sequence[TextFields]) -> list[list[tuple[int, float]]]:
        answers: list[list[tuple[int, float]]] = [[] for _ in texts]
        for rows, prompts in self._prompts(texts):
            langs = [language_of(texts[row].title, texts[row].lang) for row in rows]
            with torch.inference_mode():
                written = write(
                    self.network, self.pieces, self._grammar, prompts, langs, self._max_tokens, self.beams
                )
            for row, tags in zip(rows, written, strict=True):
                answers[row] = _scored(tags)
        return answers

    def _prompts(self, texts: Sequence[TextFields]) -> list[tuple[list[int], list[list[int]]]]:
        """Rows with any text, batched by length, and what the network reads of each."""
        read = self.pieces.texts(texts, self.title_max_pieces)
        order = sorted((row for row, pieces in enumerate(read) if pieces), key=lambda row: len(read[row]))
        batches = [order[start : start + ROWS_AT_ONCE] for start in range(0, len(order), ROWS_AT_ONCE)]
        return [(rows, [[*read[row], self.pieces.tags] for row in rows]) for rows in batches]

    def _read(self, tokens: Sequence[int]) -> list[tuple[str, str | None]]:
        said: list[tuple[str, str | None]] = []
        spelled: list[list[int]] = []
        names = dict(zip(self.pieces.groups, [group.name for group in self.taxonomy.groups], strict=True))
        for token in tokens:
            if token in names:
                said.append((names[token], None))
                spelled.append([])
            elif token != self.pieces.end and not said:
                said.append(("", None))  # a value before any group
                spelled.append([])
            elif token != self.pieces.end:
                spelled[-1].append(token)
        for place, ((group, _), pieces) in enumerate(zip(said, spelled, strict=True)):
            said[place] = (group, self._value_of(group, pieces))
        if list(tokens[-1:]) != [self.pieces.end]:
            said.append(("", None))
        return said

    def _value_of(self, group: str, pieces: list[int]) -> str | None:
        columns = self.taxonomy.slices.get(group, slice(0, 0))
        spelling = self._grammar.spelling[columns]
        return self._named[columns.start + spelling.index(pieces)][1] if pieces in spelling else None


def _scored(written: Written) -> list[tuple[int, float]]:
    pairs = zip(written.columns, np.exp(written.log_probabilities).tolist(), strict=True)
    return sorted((column, min(1.0, score)) for column, score in pairs)


def tags_max_tokens(taxonomy: Taxonomy, pieces: Pieces) -> int:
    """Room for a tag of every group, `FURTHER_VALUES` more where a group may have several, and `<end>`."""
    longest = {
        group.name: 1 + max(len(pieces.value(value.value)) for value in group.values)
        for group in taxonomy.groups
    }
    several = [longest[group.name] for group in taxonomy.groups if group.kind == "multi"]
    return sum(longest.values()) + FURTHER_VALUES * max(several, default=0) + 1
