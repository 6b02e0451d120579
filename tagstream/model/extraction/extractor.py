"""The extractor: spans of a title that name values of its groups, and how its folder holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence

from tagstream.core.events import ImageUse
from tagstream.core.language import language_of
from tagstream.core.ports import MicroBatch, Span, TextFields
from tagstream.core.taxonomy import VALUE_MAX_CHARS
from tagstream.dataset.titles import Labelled
from tagstream.model.extraction import bio
from tagstream.model.extraction.lexicon import Lexicon
from tagstream.model.extraction.network import TEXT_MAX_CHARS, CharacterConfig, Network
from tagstream.model.extraction.pretrained import Pretrained
from tagstream.model.version.format import (
    Config,
    Manifest,
    as_json,
    read_config,
    read_weights,
    reading,
    write,
)
from tagstream.text.plain import folded

#: Titles at once; more gain no speed on a CPU.
_TITLES_AT_ONCE = 64
_EDGES = " \t\r\n,.;:!?/|\\-_·、，。；：！？\"'“”‘’()（）[]【】"


class ExtractorConfig(Config):
    """`langs`: only titles of these languages are read; empty: all. `score_min`: surer spans become tags."""

    architecture: Literal["extractor"] = "extractor"
    groups: tuple[str, ...] = Field(min_length=1)
    langs: tuple[str, ...] = ()
    score_min: float = Field(default=0.5, ge=0, le=1)
    characters: CharacterConfig
    members: int = Field(ge=1)
    pretrained: bool = False


class Extractor:
    """Finds the spans of titles that name values of its groups. Several threads may use it at once."""

    #: Of a probability. Machines differ by less than 0.001 in float32.
    tolerance = 0.02

    def __init__(
        self,
        network: Network,
        *,
        langs: Sequence[str] = (),
        score_min: float = 0.5,
        aliases: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """`aliases`: group → spelling → the value that it means."""
        self._network = network.eval()
        self._start = network.get_buffer("start").numpy()
        self._step = network.step.detach().numpy()
        self.groups = network.lexicon.groups
        self.langs, self.score_min = tuple(langs), score_min
        self.aliases = {
            group: {normalised_value(spelling): value for spelling, value in of.items()}
            for group, of in (aliases or {}).items()
        }

    def extract(self, texts: Sequence[TextFields]) -> list[tuple[Span, ...]]:
        """The spans of each title, in order, that are sure enough and whose value can be a tag. Titles of
        other languages than `langs` have none. Only the first 512 characters are read."""
        read = [not self.langs or language_of(text.title, text.lang) in self.langs for text in texts]
        titles = [text.title if wanted else "" for text, wanted in zip(texts, read, strict=True)]
        return [
            tuple(
                Span(span.group, value, score, span.start, span.end)
                for span, score in self._best(emissions)
                if score >= self.score_min and (value := self._value(title, span))
            )
            for title, emissions in zip(titles, self._emissions(titles), strict=True)
        ]

    def spans(self, titles: Sequence[str]) -> list[list[Labelled]]:
        """Every span of each title's best path, sure or not: what is measured."""
        return [[span for span, _ in self._best(scores)] for scores in self._emissions(titles)]

    def answers(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float16], list[ImageUse]]:
        """What the golden batch compares: (titles, longest, classes), the probability of each class of each
        character before the chain is solved; 0 behind a title's end."""
        emissions = self._emissions([text.title for text in batch.texts])
        found = [torch.from_numpy(scores).softmax(dim=-1) for scores in emissions]
        return pad_sequence(found, batch_first=True).numpy().astype(np.float16), ["none"] * len(batch)

    @torch.inference_mode()
    def _emissions(self, titles: Sequence[str]) -> list[bio.Floats]:
        """(characters, classes) log scores of each title, of as much of it as is read."""
        titles = [title[:TEXT_MAX_CHARS] for title in titles]
        found = [np.zeros((0, bio.classes(self.groups)), np.float32) for _ in titles]
        # By length, so that little is padded.
        rows = sorted((row for row, title in enumerate(titles) if title), key=lambda row: len(titles[row]))
        for first in range(0, len(rows), _TITLES_AT_ONCE):
            part = rows[first : first + _TITLES_AT_ONCE]
            emissions = self._network([self._network.prepare(titles[row]) for row in part])
            for row, scores in zip(part, emissions.mean(dim=0).numpy(), strict=True):
                found[row] = scores[: len(titles[row])]
        return found

    def _best(self, emissions: bio.Floats) -> list[tuple[Labelled, float]]:
        path = bio.best_path(emissions, self._start, self._step)
        if not path.any():
            return []
        sure = bio.certainty(emissions, path, self._start, self._step)
        return [
            (span, min(1.0, float(np.exp(np.log(sure[span.start : span.end]).mean()))))
            for span in bio.decode(path, self.groups)
        ]

    def _value(self, title: str, span: Labelled) -> str:
        """How a span is written as a tag; empty if it cannot be one."""
        value = normalised_value(title[span.start : span.end])
        value = self.aliases.get(span.group, {}).get(value, value)
        return value if len(value) <= VALUE_MAX_CHARS else ""

    def save(self, folder: Path, *, model_version: str, dataset_id: str) -> None:
        """Write the extractor's folder. Raises as `format.write`."""
        network, lexicon = self._network, self._network.lexicon
        terms = {term: [*counts, lexicon.seen[term]] for term, counts in lexicon.labelled.items()}
        encoder = network.pretrained.files() if network.pretrained is not None else {}
        write(
            folder,
            Manifest(
                model_version=model_version,
                dataset_id=dataset_id,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
            config=ExtractorConfig(
                groups=self.groups,
                langs=self.langs,
                score_min=self.score_min,
                characters=network.config,
                members=len(network.members),
                pretrained=network.pretrained is not None,
                library_versions={"torch": torch.__version__, "numpy": np.__version__},
            ),
            network=network,
            files={"lexicon.json": as_json(terms), "aliases.json": as_json(self.aliases), **encoder},
            read_back=lambda: read_extractor(folder),
            dtype=torch.float16,
        )


def read_extractor(folder: Path) -> Extractor:
    """Unchecked against manifest and golden batch. Raises IncompatibleModel for files that do not fit."""
    raw = read_config(folder)
    with reading(folder):
        config = ExtractorConfig.model_validate(raw)
        terms: dict[str, list[int]] = json.loads((folder / "lexicon.json").read_bytes())
        lexicon = Lexicon(
            config.groups,
            {term: tuple(counts[:-1]) for term, counts in terms.items()},
            {term: counts[-1] for term, counts in terms.items()},
        )
        pretrained = Pretrained.rebuild(folder) if config.pretrained else None
        network = Network(config.characters, config.members, lexicon, pretrained)
        read_weights(folder, network)
        aliases = json.loads((folder / "aliases.json").read_bytes())
        return Extractor(network, langs=config.langs, score_min=config.score_min, aliases=aliases)


def normalised_value(text: str) -> str:
    """NFKC, casefolded, white space collapsed, without marks at the ends; empty if it is no valid Unicode."""
    value = re.sub(r"\s+", " ", folded(text)).strip(_EDGES)
    return "" if any("\ud800" <= character <= "\udfff" for character in value) else value
