"""How a generator is made: the tags of each title in another order every epoch, since a set has none."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.split import EvaluationSpec
from tagstream.dataset.targets import targets
from tagstream.dataset.training_set import TrainingSet, title_hashes
from tagstream.evaluation.figures import score_rows
from tagstream.evaluation.tag_sets import (
    TagSet,
    as_sets,
    labelled,
    likeliest,
    of_groups,
    set_figures,
    writing_figures,
)
from tagstream.model.generation.generator import Generator, save, tags_max_tokens
from tagstream.model.generation.network import Size, from_folder, from_scratch
from tagstream.model.generation.pieces import Pieces, learn, read_tokenizer
from tagstream.model.towers.image import native_bf16
from tagstream.model.version.format import Manifest
from tagstream.model.version.load import load
from tagstream.training.fusion import with_thresholds
from tagstream.training.loop import Hooks, Optimisation, Step, by_length, fit
from tagstream.training.progress import Run

#: Of the tokens between tags in the loss: which group comes next is chance, and chance teaches nothing.
ORDER_WEIGHT = 0.1
_IGNORED = -100


class GenerationRecipe(BaseModel):
    """How a generator is trained. `pretrained`: a causal language model's folder, in place of `size` and
    `vocabulary`. `title_dropout`: the share of a title's pieces that is left out, anew in every epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Size = Size()
    vocabulary: int = Field(default=4096, gt=0)
    pretrained: Path | None = None
    title_max_pieces: int = Field(default=48, gt=0)
    optimisation: Optimisation = Optimisation(
        epochs=3, batch_rows=64, learning_rate=3e-3, weight_decay=0.01, gradient_norm=1.0
    )
    title_dropout: float = Field(default=0.1, ge=0, lt=1)
    beams: int = Field(default=1, gt=0)
    seed: int = 0


class _Example(NamedTuple):
    product_id: str
    title: list[int]
    tags: list[list[int]]


def train_generator(
    rows: Sequence[Row], taxonomy: Taxonomy, recipe: GenerationRecipe, *, hooks: Hooks | None = None
) -> Generator:
    """Learn pieces and network from these rows, and nothing else.

    Rows without text or without a label of the taxonomy are left out, and so are labels outside it and
    tags beyond what `tags_max_tokens` has room for. Texts are cut to `title_max_pieces`.

    Raises:
        ValueError: no row is left, two values are spelled alike, or a pretrained folder does not fit.
        TrainingDiverged: the loss is not a number any more.
    """
    torch.manual_seed(recipe.seed)
    folder = recipe.pretrained
    texts = [row.text for row in rows]
    if folder is None:
        pieces = learn(texts, taxonomy, recipe.vocabulary)
    else:
        pieces = Pieces(read_tokenizer(folder), taxonomy)
    examples = _examples(rows, taxonomy, pieces, recipe.title_max_pieces)
    if not examples:
        raise ValueError("no row has both a text and a label of the taxonomy")
    context = recipe.title_max_pieces + 1 + tags_max_tokens(taxonomy, pieces)
    network = from_folder(folder, pieces, context) if folder else from_scratch(recipe.size, pieces, context)
    generator = Generator("untitled", taxonomy, pieces, network, recipe.title_max_pieces, recipe.beams)
    fit(
        WritingObjective(network, examples, pieces, context, recipe),
        recipe.optimisation,
        recipe.seed,
        hooks=hooks,
    )
    network.eval()
    return generator


class WritingObjective:
    """Titles followed by their tags: each token of the tags from those before it. The title is given."""

    def __init__(
        self,
        network: Any,
        examples: Sequence[_Example],
        pieces: Pieces,
        context: int,
        recipe: GenerationRecipe,
    ) -> None:
        """`context`: the most tokens that the network reads."""
        self.module: nn.Module = network
        self._examples, self._pieces, self._context, self._recipe = examples, pieces, context, recipe
        self._lengths = np.asarray([len(of.title) + sum(map(len, of.tags)) for of in examples])
        self._weights = torch.ones(pieces.size)
        self._weights[[*pieces.groups, pieces.end]] = ORDER_WEIGHT

    def __len__(self) -> int:
        return len(self._examples)

    def order(self, rng: np.random.Generator, batch_rows: int) -> npt.NDArray[np.int64]:
        return by_length(self._lengths, rng, batch_rows)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "lr": learning_rate, "betas": (0.9, 0.98)}]

    def loss(self, model: nn.Module, step: Step) -> Tensor:
        """Weighted mean cross-entropy in nats over the tokens of the tags."""
        tokens, mask, target = self._batch(step)
        wanted, device = target != _IGNORED, tokens.device
        with torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
            logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[wanted]
        return functional.cross_entropy(logits.float(), target[wanted], self._weights)

    def _batch(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """(tokens, mask, target), each (rows, length); `target` is the next token of the tags, or ignored."""
        lines, titles = zip(*(self._line(self._examples[row], step.epoch) for row in step.rows), strict=True)
        tokens = nn.utils.rnn.pad_sequence([*map(torch.tensor, lines)], True, self._pieces.pad)
        place, lengths = torch.arange(tokens.shape[1]), torch.tensor([*map(len, lines)])[:, None]
        answered = (place >= torch.tensor(titles)[:, None]) & (place < lengths - 1)
        target = torch.where(answered, tokens.roll(-1, dims=1), _IGNORED)
        return tokens, (place < lengths).long(), target

    def _line(self, example: _Example, epoch: int) -> tuple[list[int], int]:
        """(title, `<tags>`, tags in this epoch's order, `<end>`) and the length of the title."""
        recipe, pieces = self._recipe, self._pieces
        rng = random.Random(f"{recipe.seed} {epoch} {example.product_id}")
        title = [piece for piece in example.title if rng.random() >= recipe.title_dropout] or example.title
        line = [*title, pieces.tags]
        for tag in shuffled(example.tags, recipe.seed, epoch, example.product_id):
            if len(line) + len(tag) < self._context:
                line += tag
        return [*line, pieces.end], len(title)


def shuffled(tags: Sequence[list[int]], seed: int, epoch: int, product_id: str) -> list[list[int]]:
    """The same order for the same (seed, epoch, product), on every platform."""
    digest = hashlib.blake2b(f"{seed} {epoch} {product_id}".encode(errors="replace"), digest_size=8)
    order = list(tags)
    random.Random(int.from_bytes(digest.digest(), "big")).shuffle(order)
    return order


def _examples(
    rows: Sequence[Row], taxonomy: Taxonomy, pieces: Pieces, title_max_pieces: int
) -> list[_Example]:
    written: Mapping[tuple[str, str], list[int]] = {
        (group.name, value.value): [token, *pieces.value(value.value)]
        for token, group in zip(pieces.groups, taxonomy.groups, strict=True)
        for value in group.values
    }
    titles = pieces.texts([row.text for row in rows], title_max_pieces)
    examples = []
    for row, title in zip(rows, titles, strict=True):
        known = [
            (group.name, value)
            for group in taxonomy.groups
            for value in row.labels.get(group.name, ())[: None if group.kind == "multi" else 1]
        ]
        tags = [written[tag] for tag in known if tag in written]
        if title and tags:
            examples.append(_Example(row.product_id, title, tags))
    return examples


def make_generator(
    data: TrainingSet,
    recipe: GenerationRecipe,
    out: Path,
    run: Run,
    *,
    heads: Path | None = None,
    rows_max: int | None = None,
) -> Path:
    """Train, set thresholds, measure and write a generator; returns its folder below `out`.

    `heads`: the folder of a model version that is measured beside it. `rows_max`: so many titles are drawn.

    Raises:
        ValueError: nothing can be learned from the data, or the heads were tested on other rows.
        TrainingDiverged: the loss is not a number any more.
    """
    test = data.titles.test
    truths = labelled(test, data.taxonomy)
    metrics: dict[str, Any] = {"spec_hash": data.spec.content_hash(), "seed": recipe.seed}
    if heads is not None:  # first, so that heads that do not fit cost no training
        said = _said_by_heads(heads, data.spec, test, data.taxonomy)
        metrics["heads"] = set_figures(truths, said, data.taxonomy).to_json()
        run.say(f"heads, titles alone: {_shown(metrics['heads'])}")
    rows = data.titles_trained_on
    rows = random.Random(recipe.seed).sample(rows, min(rows_max or len(rows), len(rows)))
    run.say(f"{len(rows)} titles to train, {len(test)} to test; taxonomy: {data.taxonomy.size} values")
    cpu_started_s = time.process_time()
    hooks = run.hooks("generator", recipe.optimisation)
    generator = train_generator(rows, data.taxonomy, recipe, hooks=hooks)
    metrics |= {"training_rows": len(rows), "training_cpu_s": round(time.process_time() - cpu_started_s)}
    validation = data.titles.validation
    target = targets([row.labels for row in validation], data.taxonomy)
    scores = score_rows(generator, validation, "text")[0]
    generator.taxonomy = with_thresholds(generator.taxonomy, scores, target)
    metrics |= _measured(generator, test, truths)
    for name in ("constrained", "unconstrained"):
        run.say(f"{name}: {_shown(metrics[name])}, {metrics[name]['writing']}")
    now = datetime.now(UTC).replace(microsecond=0)
    model_version = f"generator-{now:%Y%m%d-%H%M%S}-{data.dataset_id()[:6]}"
    save(
        out / model_version,
        generator,
        Manifest(
            model_version=model_version,
            dataset_id=data.dataset_id(),
            created=now.isoformat(),
            training_groups=len(title_hashes(rows)),
        ),
        metrics,
    )
    load(out / model_version)
    return out / model_version


def _said_by_heads(
    folder: Path, spec: EvaluationSpec, test: Sequence[Row], taxonomy: Taxonomy
) -> list[TagSet]:
    """Raises ValueError where the heads were tested on other rows, and so may have learned from ours."""
    theirs = EvaluationSpec.model_validate_json((folder / "evaluation_spec.json").read_bytes())
    if set(theirs.test_ids) != set(spec.test_ids):
        raise ValueError(f"{folder}: its test part is another one; cut the same products with its split seed")
    tagger = load(folder)
    sets = likeliest(score_rows(tagger, test, "text")[0], tagger.taxonomy)
    return of_groups(sets, [[group.name for group in taxonomy.groups]] * len(test))


def _measured(generator: Generator, test: Sequence[Row], truths: Sequence[TagSet]) -> dict[str, Any]:
    """Figures of what is written within the taxonomy and without its constraint."""
    taxonomy, texts = generator.taxonomy, [row.text for row in test]
    cpu_started_s = time.process_time()
    tags = generator.generate(texts)
    cpu_ms = (time.process_time() - cpu_started_s) / len(test) * 1000
    freely = generator.generate_freely(texts)
    free_sets = [frozenset((group, value) for group, value in row if value is not None) for row in freely]
    return {
        "cpu_ms_a_title": round(cpu_ms, 2),
        "constrained": {
            **set_figures(truths, as_sets(tags), taxonomy).to_json(),
            "writing": writing_figures([[(tag.group, tag.value) for tag in row] for row in tags], taxonomy),
        },
        "unconstrained": {
            **set_figures(truths, free_sets, taxonomy).to_json(),
            "writing": writing_figures(freely, taxonomy),
        },
    }


def _shown(figures: dict[str, Any]) -> str:
    names = ("set_f1", "exact", "edit_distance")
    groups = " ".join(f"{group} {f1:.3f}" for group, f1 in figures["f1_of_group"].items())
    return f"{' '.join(f'{name} {figures[name]:.4f}' for name in names)} ({groups})"
