"""Training an extractor on labelled titles."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tagstream.dataset.split import normalised_title
from tagstream.dataset.titles import Title
from tagstream.evaluation.spans import span_f1
from tagstream.model.extraction import bio
from tagstream.model.extraction.bio import PADDING, negative_log_likelihood
from tagstream.model.extraction.extractor import Extractor
from tagstream.model.extraction.lexicon import Lexicon
from tagstream.model.extraction.network import TEXT_MAX_CHARS, CharacterConfig, Network, Prepared
from tagstream.model.extraction.pretrained import Pretrained

#: The schedule needs a few steps to rise and fall.
_STEPS_MIN = 20


class ExtractionRecipe(BaseModel):
    """How an extractor is trained. `hidden_marks`: share of titles that are read without the lexicon, so
    that the network also learns to do without it. The learning rate rises for a tenth of the steps, then
    falls (one cycle). With `average` the weights are the moving average of those of the last steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    characters: CharacterConfig = CharacterConfig()
    members: int = Field(default=3, ge=1)
    epochs: int = Field(default=12, ge=1)
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0)
    pretrained_learning_rate: float = Field(default=0.0, ge=0)  # 0: frozen
    weight_decay: float = Field(default=1e-2, ge=0)
    hidden_marks: float = Field(default=0.1, ge=0, lt=1)
    average: float = Field(default=0.99, ge=0, lt=1)
    seed: int = 0


def train_extractor(
    titles: Sequence[Title],
    groups: Sequence[str],
    recipe: ExtractionRecipe,
    *,
    langs: Sequence[str] = (),
    pretrained: Pretrained | None = None,
    progress: Callable[[str], None] = print,
) -> Extractor:
    """An extractor of `groups` for titles of `langs` (empty: all), on the CPU.

    Raises:
        ValueError: no title has a span of one of the groups, or the loss is no number.
    """
    titles = [_shortened(title) for title in titles if title.text]
    labelled = {span.group for title in titles for span in title.spans}
    if missing := set(groups) - labelled:
        raise ValueError(f"no title has a span of {', '.join(sorted(missing))}")
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    network = Network(recipe.characters, recipe.members, Lexicon.of(titles, groups), pretrained)
    rows = _rows(network, titles, groups, frozen=not recipe.pretrained_learning_rate)
    moving_average = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=moving_average)
    optimiser = _optimiser(network, recipe)
    steps = recipe.epochs * -(-len(rows) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        total_steps=max(steps, _STEPS_MIN),
        pct_start=0.1,
    )
    started_s = time.monotonic()
    for epoch in range(recipe.epochs):
        network.train()
        total = 0.0
        for batch in _batches(rows, recipe.batch, rng):
            loss = _loss(network, batch, recipe.hidden_marks)
            if not torch.isfinite(loss):
                raise ValueError(f"the loss is {loss.item()} in epoch {epoch + 1}: lower the learning rate")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            averaged.update_parameters(network)
            total += loss.item() * len(batch)
        passed_s = time.monotonic() - started_s
        left_s = passed_s / (epoch + 1) * (recipe.epochs - epoch - 1)
        progress(
            f"epoch {epoch + 1}/{recipe.epochs}  loss {total / len(rows):.4f}  "
            f"{passed_s:.0f} s, {left_s:.0f} s to go"
        )
    network.load_state_dict(averaged.module.state_dict())
    return Extractor(network.eval(), langs=langs)


def measure(extractor: Extractor, titles: Sequence[Title]) -> dict[str, dict[str, float]]:
    """Exact span F1 on labelled titles."""
    return span_f1([title.spans for title in titles], extractor.spans([title.text for title in titles]))


Row = tuple[Prepared, Tensor]


def _shortened(title: Title) -> Title:
    spans = tuple(span for span in title.spans if span.end <= TEXT_MAX_CHARS)
    return Title(title.text[:TEXT_MAX_CHARS], spans)


def _rows(network: Network, titles: Sequence[Title], groups: Sequence[str], *, frozen: bool) -> list[Row]:
    twins: dict[str, list[Title]] = defaultdict(list)
    for title in titles:
        twins[normalised_title(title.text)].append(title)
    rows = []
    for title in titles:
        prepared = network.prepare(title.text, without=twins[normalised_title(title.text)])
        if network.pretrained is not None and frozen:
            prepared = network.eval().with_states(prepared)
        classes = torch.from_numpy(bio.encode(len(title.text), title.spans, groups))
        rows.append((prepared, classes))
    return rows


def _batches(rows: Sequence[Row], size: int, rng: random.Random) -> list[list[Row]]:
    """All rows once, in random batches of titles that are about equally long: padding costs time."""
    rows = sorted(rows, key=lambda row: len(row[1]) * rng.uniform(0.8, 1.2))
    batches = [list(rows[first : first + size]) for first in range(0, len(rows), size)]
    rng.shuffle(batches)
    return batches


def _loss(network: Network, batch: Sequence[Row], hidden_marks: float) -> Tensor:
    keep = (torch.rand(len(batch)) >= hidden_marks).float()
    emissions = network([prepared for prepared, _ in batch], keep)
    classes = nn.utils.rnn.pad_sequence(
        [classes for _, classes in batch], batch_first=True, padding_value=PADDING
    )
    start, step = network.get_buffer("start"), network.step
    return torch.stack([negative_log_likelihood(of, classes, start, step) for of in emissions]).mean()


def _optimiser(network: Network, recipe: ExtractionRecipe) -> torch.optim.Optimizer:
    own = [p for name, p in network.named_parameters() if not name.startswith("pretrained.")]
    groups = [{"params": own, "lr": recipe.learning_rate}]
    if network.pretrained is not None:
        trained = recipe.pretrained_learning_rate > 0
        network.pretrained.requires_grad_(trained)
        if trained:
            # Most of the weights, and a few thousand titles touch few of them.
            network.pretrained.model.get_input_embeddings().requires_grad_(False)
            learning = [p for p in network.pretrained.parameters() if p.requires_grad]
            groups.append({"params": learning, "lr": recipe.pretrained_learning_rate})
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
