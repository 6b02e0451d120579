"""How an extractor is made from labelled titles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tagstream.dataset.split import normalised_title
from tagstream.dataset.titles import Title
from tagstream.evaluation.spans import SpanFigures, span_f1
from tagstream.model.extraction import bio
from tagstream.model.extraction.bio import PADDING, negative_log_likelihood
from tagstream.model.extraction.extractor import Extractor
from tagstream.model.extraction.lexicon import Lexicon
from tagstream.model.extraction.network import TEXT_MAX_CHARS, CharacterConfig, Network
from tagstream.model.extraction.pretrained import Pretrained
from tagstream.training.loop import Hooks, Optimisation, Step, by_length, fit


class ExtractionRecipe(BaseModel):
    """How an extractor is trained.

    members                  networks that differ in their first weights, and answer by their mean
    pretrained_learning_rate of the encoder below them; 0: it stays as it is
    hidden_marks             the share of titles that are read without the lexicon, so that the network also
                             learns to do without it
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    characters: CharacterConfig = CharacterConfig()
    members: int = Field(default=3, ge=1)
    optimisation: Optimisation = Optimisation(
        epochs=12, batch_rows=32, learning_rate=3e-3, weight_decay=1e-2, average_decay=0.99, gradient_norm=1.0
    )
    pretrained_learning_rate: float = Field(default=0.0, ge=0)
    hidden_marks: float = Field(default=0.1, ge=0, lt=1)
    seed: int = 0


def train_extractor(
    titles: Sequence[Title],
    groups: Sequence[str],
    recipe: ExtractionRecipe,
    *,
    langs: Sequence[str] = (),
    pretrained: Pretrained | None = None,
    hooks: Hooks | None = None,
) -> Extractor:
    """An extractor of `groups` for titles of `langs` (empty: all), on the CPU.

    Raises:
        ValueError: no title has a span of one of the groups.
        TrainingDiverged: the loss is not a number any more.
    """
    titles = [_shortened(title) for title in titles if title.text]
    labelled = {span.group for title in titles for span in title.spans}
    if missing := set(groups) - labelled:
        raise ValueError(f"no title has a span of {', '.join(sorted(missing))}")
    torch.manual_seed(recipe.seed)
    network = Network(recipe.characters, recipe.members, Lexicon.of(titles, groups), pretrained)
    trained = fit(
        SpanObjective(network, titles, groups, recipe), recipe.optimisation, recipe.seed, hooks=hooks
    )
    assert isinstance(trained, Network)
    return Extractor(trained.eval(), langs=langs)


class SpanObjective:
    """Titles with labelled spans: the class of every character, by the likelihood of the whole chain."""

    def __init__(
        self, network: Network, titles: Sequence[Title], groups: Sequence[str], recipe: ExtractionRecipe
    ) -> None:
        self.module: nn.Module = network
        self._network, self._recipe = network, recipe
        frozen = network.pretrained is not None and not recipe.pretrained_learning_rate
        twins: dict[str, list[Title]] = defaultdict(list)
        for title in titles:
            twins[normalised_title(title.text)].append(title)
        # What a title's own labels put into the lexicon would give them away.
        self._titles = [network.prepare(t.text, without=twins[normalised_title(t.text)]) for t in titles]
        if frozen:
            network.eval()
            self._titles = [network.with_states(prepared) for prepared in self._titles]
        self._classes = [torch.from_numpy(bio.encode(len(t.text), t.spans, groups)) for t in titles]
        self._lengths = np.asarray([len(title.text) for title in titles])

    def __len__(self) -> int:
        return len(self._titles)

    def order(self, rng: np.random.Generator, batch_rows: int) -> npt.NDArray[np.int64]:
        return by_length(self._lengths, rng, batch_rows)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The encoder below has a learning rate of its own, or none at all."""
        own = [p for name, p in self._network.named_parameters() if not name.startswith("pretrained.")]
        groups = [{"params": own, "lr": learning_rate}]
        encoder, rate = self._network.pretrained, self._recipe.pretrained_learning_rate
        if encoder is not None:
            encoder.requires_grad_(rate > 0)
            # Most of the encoder's weights, and a few thousand titles touch few of them.
            encoder.model.get_input_embeddings().requires_grad_(False)
            if learning := [p for p in encoder.parameters() if p.requires_grad]:
                groups.append({"params": learning, "lr": rate})
        return groups

    def loss(self, model: nn.Module, step: Step) -> Tensor:
        """Nats a character, the mean over networks and titles."""
        keep = (torch.rand(len(step.rows)) >= self._recipe.hidden_marks).float()
        emissions = model([self._titles[row] for row in step.rows], keep)
        classes = nn.utils.rnn.pad_sequence(
            [self._classes[row] for row in step.rows], batch_first=True, padding_value=PADDING
        )
        start, steps = self._network.get_buffer("start"), self._network.step
        return torch.stack([negative_log_likelihood(of, classes, start, steps) for of in emissions]).mean()


def measure(extractor: Extractor, titles: Sequence[Title]) -> dict[str, SpanFigures]:
    """Exact span F1 on labelled titles."""
    return span_f1([title.spans for title in titles], extractor.spans([title.text for title in titles]))


def _shortened(title: Title) -> Title:
    spans = tuple(span for span in title.spans if span.end <= TEXT_MAX_CHARS)
    return Title(title.text[:TEXT_MAX_CHARS], spans)
