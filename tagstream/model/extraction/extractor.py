"""An extractor in memory and in its folder.

    config.json          format_version, groups, langs, sizes, library versions
    lexicon.json         term → [times labelled with each group…, times seen]
    aliases.json         group → {spelling: value}, to be edited before `save`
    model.safetensors    weights in fp16
    encoder.json, tokenizer.json    of a pretrained encoder, if there is one
    MANIFEST.json        sha256 of each other file, as of a model version

Never pickle; a changed byte or a newer format is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tagstream.core.errors import IncompatibleModel
from tagstream.core.language import language_of
from tagstream.core.ports import Span, TextFields
from tagstream.core.taxonomy import VALUE_MAX_CHARS
from tagstream.dataset.titles import Labelled
from tagstream.model.extraction import bio
from tagstream.model.extraction.char_encoder import CharacterConfig
from tagstream.model.extraction.crf import certainty
from tagstream.model.extraction.lexicon import Lexicon
from tagstream.model.extraction.network import TEXT_MAX_CHARS, Network
from tagstream.model.extraction.pretrained import Pretrained
from tagstream.model.version.format import MANIFEST, Manifest, read_manifest, sha256, write_json
from tagstream.text.plain import folded

FORMAT_VERSION = 1
#: Titles at once; more gain no speed on a CPU.
_TITLES_AT_ONCE = 64
_EDGES = " \t\r\n,.;:!?/|\\-_·、，。；：！？\"'“”‘’()（）[]【】"


class ExtractorConfig(BaseModel):
    """`langs`: only titles of these languages are read; empty: all. `score_min`: surer spans become tags."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    groups: tuple[str, ...] = Field(min_length=1)
    langs: tuple[str, ...] = ()
    score_min: float = Field(default=0.5, ge=0, le=1)
    characters: CharacterConfig
    members: int = Field(ge=1)
    pretrained: bool = False
    library_versions: dict[str, str] = Field(default_factory=dict)


class Extractor:
    """Finds the spans of titles that name values of its groups. Several threads may use it at once."""

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
        self.langs = tuple(langs)
        self.score_min = score_min
        self.aliases = {
            group: {normalised_value(spelling): value for spelling, value in of.items()}
            for group, of in (aliases or {}).items()
        }

    def extract(self, texts: Sequence[TextFields]) -> list[tuple[Span, ...]]:
        """The spans of each title, in order, that are sure enough and whose value can be a tag.

        Titles of other languages than `langs` have none. Only the first 512 characters are read.
        """
        read = [not self.langs or language_of(text.title, text.lang) in self.langs for text in texts]
        found = self._find([text.title if wanted else "" for text, wanted in zip(texts, read, strict=True)])
        return [
            tuple(
                Span(span.group, value, score, span.start, span.end)
                for span, score in spans
                if score >= self.score_min and (value := self._value(text.title, span))
            )
            for text, spans in zip(texts, found, strict=True)
        ]

    def spans(self, titles: Sequence[str]) -> list[list[Labelled]]:
        """Every span of each title's best path, sure or not: what is measured."""
        return [[span for span, _ in spans] for spans in self._find(titles)]

    def _find(self, titles: Sequence[str]) -> list[list[tuple[Labelled, float]]]:
        titles = [title[:TEXT_MAX_CHARS] for title in titles]
        found: list[list[tuple[Labelled, float]]] = [[] for _ in titles]
        # By length, so that little is padded.
        rows = sorted((row for row, title in enumerate(titles) if title), key=lambda row: len(titles[row]))
        for first in range(0, len(rows), _TITLES_AT_ONCE):
            part = rows[first : first + _TITLES_AT_ONCE]
            with torch.inference_mode():
                emissions = self._network([self._network.prepare(titles[row]) for row in part])
            for row, scores in zip(part, emissions.mean(dim=0).numpy(), strict=True):
                found[row] = self._best(scores[: len(titles[row])])
        return found

    def _best(self, emissions: bio.Floats) -> list[tuple[Labelled, float]]:
        path = bio.best_path(emissions, self._start, self._step)
        if not path.any():
            return []
        sure = certainty(emissions, path, self._start, self._step)
        return [
            (span, min(1.0, float(np.exp(np.log(sure[span.start : span.end]).mean()))))
            for span in bio.decode(path, self.groups)
        ]

    def _value(self, title: str, span: Labelled) -> str:
        """How a span is written as a tag; empty if it cannot be one."""
        value = normalised_value(title[span.start : span.end])
        value = self.aliases.get(span.group, {}).get(value, value)
        return value if len(value) <= VALUE_MAX_CHARS else ""

    # ------------------------------------------------------------------ the folder

    def save(self, folder: Path, *, model_version: str, dataset_id: str) -> None:
        """Write the folder; the manifest last, so that half a folder never loads.

        Raises:
            FileExistsError: the folder is there already.
        """
        folder.mkdir(parents=True)
        network = self._network
        config = ExtractorConfig(
            groups=self.groups,
            langs=self.langs,
            score_min=self.score_min,
            characters=network.config,
            members=len(network.members),
            pretrained=network.pretrained is not None,
            library_versions={"torch": torch.__version__, "numpy": np.__version__},
        )
        lexicon = network.lexicon
        terms = {term: [*counts, lexicon.seen[term]] for term, counts in lexicon.labelled.items()}
        write_json(folder / "config.json", config.model_dump(mode="json"))
        write_json(folder / "lexicon.json", terms)
        write_json(folder / "aliases.json", self.aliases)
        if network.pretrained is not None:
            network.pretrained.save(folder)
        weights = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
        manifest = Manifest(
            model_version=model_version,
            files={path.name: sha256(path) for path in sorted(folder.iterdir())},
            dataset_id=dataset_id,
            training_groups=0,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Extractor:
        """Read and check an extractor.

        Raises:
            IncompatibleModel: a file is missing or changed, or the format is not this code's.
        """
        read_manifest(folder)
        try:
            raw = json.loads((folder / "config.json").read_bytes())
            if raw.get("format_version") != FORMAT_VERSION:
                raise IncompatibleModel(
                    f"{folder}: format_version {raw.get('format_version')}, this code reads "
                    f"{FORMAT_VERSION}; update tagstream on this node"
                )
            config = ExtractorConfig.model_validate(raw)
            terms: dict[str, list[int]] = json.loads((folder / "lexicon.json").read_bytes())
            lexicon = Lexicon(
                config.groups,
                {term: tuple(counts[:-1]) for term, counts in terms.items()},
                {term: counts[-1] for term, counts in terms.items()},
            )
            pretrained = Pretrained.rebuild(folder) if config.pretrained else None
            network = Network(config.characters, config.members, lexicon, pretrained)
            weights = load_file(folder / "model.safetensors")
            network.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
            aliases = json.loads((folder / "aliases.json").read_bytes())
        except (OSError, ValidationError, SafetensorError, RuntimeError, ValueError, AttributeError) as error:
            raise IncompatibleModel(f"{folder}: {error}") from error
        return cls(network, langs=config.langs, score_min=config.score_min, aliases=aliases)


def normalised_value(text: str) -> str:
    """NFKC, casefolded, white space collapsed, without marks at the ends; empty if it is no valid Unicode."""
    value = re.sub(r"\s+", " ", folded(text)).strip(_EDGES)
    return "" if any("\ud800" <= character <= "\udfff" for character in value) else value
