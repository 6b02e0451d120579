"""Tags written by a language model: a title goes in, the set of its tags comes out, in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from tagstream.core.errors import IncompatibleModel
from tagstream.core.events import ImageUse, Tag
from tagstream.core.language import language_of
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.generation.decode import write, write_freely
from tagstream.model.generation.grammar import Grammar
from tagstream.model.generation.pieces import Pieces, read_tokenizer
from tagstream.model.version import format as folders
from tagstream.model.version.format import Config, Manifest, as_json, read_config, read_weights, reading

#: Further values of groups with several choices that there is room for, all groups together.
FURTHER_VALUES = 8
ROWS_AT_ONCE = 64


class Generator:
    """A model version in memory, which reads texts alone. Several threads may use it at once."""

    #: Of a probability. Machines differ by less than 0.001 in float32.
    tolerance = 0.02

    def __init__(
        self,
        model_version: str,
        taxonomy: Taxonomy,
        pieces: Pieces,
        network: Any,
        title_max_pieces: int,
        beams: int = 1,
    ) -> None:
        """`network`: a causal language model over `pieces`. `title_max_pieces`: more of a text is not read.
        `beams`: hypotheses a title; 1 is greedy. Raises ValueError for two values that are spelled alike."""
        self.model_version, self.taxonomy, self.pieces = model_version, taxonomy, pieces
        self.network = network.eval()
        self.title_max_pieces, self.beams = title_max_pieces, beams
        self._grammar = Grammar(taxonomy, pieces)
        self._max_tokens = tags_max_tokens(taxonomy, pieces)
        self._named = [(group.name, value.value) for group in taxonomy.groups for value in group.values]

    def generate(self, texts: Sequence[TextFields]) -> list[tuple[Tag, ...]]:
        """Tags of each text in taxonomy order, decoded within the taxonomy; none for an empty text. A tag's
        score is the probability of its value given its group and the tags written before it."""
        return [
            tuple(Tag(*self._named[column], score, "model") for column, score in tags)
            for tags in self._written(texts)
        ]

    @torch.inference_mode()
    def generate_freely(self, texts: Sequence[TextFields]) -> list[list[tuple[str, str | None]]]:
        """What is written without the taxonomy's constraint, (group, value) in the order written. A value is
        None where the pieces spell no value of the group, or `<end>` never came."""
        answers: list[list[tuple[str, str | None]]] = [[] for _ in texts]
        for rows, prompts in self._prompts(texts):
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

    @torch.inference_mode()
    def answers(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float16], list[ImageUse]]:
        """What the golden batch compares: (texts, pieces), the probability of each piece as the first one
        written; 0 for an empty text. Not the tags: of two that are nearly as likely, another machine's
        rounding may write the other one."""
        found = np.zeros((len(batch), self.pieces.size), np.float16)
        for rows, prompts in self._prompts(batch.texts):
            for row, prompt in zip(rows, prompts, strict=True):
                [logits] = self.network(input_ids=torch.tensor([prompt])).logits
                found[row] = logits[-1].softmax(dim=-1).numpy()
        return found, ["none"] * len(batch)

    @torch.inference_mode()
    def _written(self, texts: Sequence[TextFields]) -> list[list[tuple[int, float]]]:
        answers: list[list[tuple[int, float]]] = [[] for _ in texts]
        for rows, prompts in self._prompts(texts):
            langs = [language_of(texts[row].title, texts[row].lang) for row in rows]
            written = write(
                self.network, self.pieces, self._grammar, prompts, langs, self._max_tokens, self.beams
            )
            for row, tags in zip(rows, written, strict=True):
                answers[row] = sorted((column, min(1.0, float(np.exp(log)))) for column, log in tags)
        return answers

    def _prompts(self, texts: Sequence[TextFields]) -> list[tuple[list[int], list[list[int]]]]:
        """Rows with any text, batched by length, and what the network reads of each."""
        read = self.pieces.texts(texts, self.title_max_pieces)
        order = sorted((row for row, pieces in enumerate(read) if pieces), key=lambda row: len(read[row]))
        batches = [order[start : start + ROWS_AT_ONCE] for start in range(0, len(order), ROWS_AT_ONCE)]
        return [(rows, [[*read[row], self.pieces.tags] for row in rows]) for rows in batches]

    def _read(self, tokens: Sequence[int]) -> list[tuple[str, str | None]]:
        names = dict(zip(self.pieces.groups, [group.name for group in self.taxonomy.groups], strict=True))
        spelled: list[tuple[str, list[int]]] = []
        for token in tokens:
            if token in names:
                spelled.append((names[token], []))
            elif token != self.pieces.end:
                if not spelled:
                    spelled.append(("", []))  # a value before any group
                spelled[-1][1].append(token)
        unfinished = [("", None)] if list(tokens[-1:]) != [self.pieces.end] else []
        return [*((group, self._value_of(group, pieces)) for group, pieces in spelled), *unfinished]

    def _value_of(self, group: str, pieces: list[int]) -> str | None:
        columns = self.taxonomy.slices.get(group, slice(0, 0))
        spelling = self._grammar.spelling[columns]
        return self._named[columns.start + spelling.index(pieces)][1] if pieces in spelling else None


def tags_max_tokens(taxonomy: Taxonomy, pieces: Pieces) -> int:
    """Room for a tag of every group, `FURTHER_VALUES` more where a group may have several, and `<end>`."""
    longest = {
        group.name: 1 + max(len(pieces.value(value.value)) for value in group.values)
        for group in taxonomy.groups
    }
    several = [longest[group.name] for group in taxonomy.groups if group.kind == "multi"]
    return sum(longest.values()) + FURTHER_VALUES * max(several, default=0) + 1


class GeneratorConfig(Config):
    """`network`: the configuration of a causal language model of transformers."""

    architecture: Literal["generator"] = "generator"
    fields: tuple[str, ...] = ("title", "brand", "attributes", "description")
    title_max_pieces: int = Field(gt=0)
    beams: int = Field(gt=0)
    network: dict[str, Any]


def save(folder: Path, generator: Generator, manifest: Manifest, metrics: Mapping[str, Any]) -> None:
    """Write a generator's folder. Raises as `format.write`."""
    folders.write(
        folder,
        manifest,
        config=GeneratorConfig(
            title_max_pieces=generator.title_max_pieces,
            beams=generator.beams,
            network=generator.network.config.to_dict(),
            library_versions={
                name: library_version(name) for name in ("torch", "transformers", "tokenizers")
            },
        ),
        network=generator.network,
        files={
            "tokenizer.json": generator.pieces.tokenizer.to_str(pretty=True).encode(),
            "taxonomy.json": as_json(generator.taxonomy),
            "metrics.json": as_json(metrics),
        },
        read_back=lambda: read_generator(folder, manifest.model_version),
    )


def read_generator(folder: Path, model_version: str) -> Generator:
    """Unchecked against manifest and golden batch. Raises IncompatibleModel for files that do not fit."""
    from transformers import AutoConfig, AutoModelForCausalLM

    raw = read_config(folder)
    with reading(folder):
        config = GeneratorConfig.model_validate(raw)
        taxonomy = Taxonomy.model_validate_json((folder / "taxonomy.json").read_bytes())
        tokenizer = read_tokenizer(folder)
        tokens = tokenizer.get_vocab_size()
        pieces = Pieces(tokenizer, taxonomy)
        if pieces.size != tokens:
            raise IncompatibleModel(f"{folder}: its tokenizer lacks tokens of its taxonomy's groups")
        network = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config.network))
        read_weights(folder, network)
        return Generator(model_version, taxonomy, pieces, network, config.title_max_pieces, config.beams)
