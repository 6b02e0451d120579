"""Training: the tags of each title in another order every epoch, since a set has none."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.model.generation.generator import Generator, tags_max_tokens
from tagstream.model.generation.network import Size, from_folder, from_scratch
from tagstream.model.generation.pieces import Pieces, adopt, learn
from tagstream.model.towers.image import native_bf16
from tagstream.training.loop import TrainingDiverged, one_cycle_steps

#: The share of the steps in which the learning rate rises.
WARM_UP = 0.1
#: Of the tokens between tags in the loss: which group comes next is chance, and chance teaches nothing.
ORDER_WEIGHT = 0.1
_IGNORED = -100
#: Batches whose rows are sorted by length together, so that little is padding.
_SORTED_BATCHES = 32


@dataclass(frozen=True)
class GeneratorTraining:
    """The recipe. `pretrained`: a causal language model's folder, in place of `size` and `vocabulary`.

    `title_dropout`: the share of a title's pieces that is left out, anew in every epoch.
    """

    size: Size = field(default_factory=Size)
    vocabulary: int = 4096
    pretrained: Path | None = None
    title_max_pieces: int = 48
    epochs: int = 3
    batch_rows: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    title_dropout: float = 0.1
    beams: int = 1
    seed: int = 0


@dataclass(frozen=True)
class _Example:
    product_id: str
    title: list[int]
    tags: list[list[int]]


def fit_generator(
    rows: Sequence[Row],
    taxonomy: Taxonomy,
    recipe: GeneratorTraining,
    *,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Generator:
    """Learn pieces and network from these rows, and nothing else.

    Rows without text or without a label of the taxonomy are left out, and so are labels outside it and
    tags beyond what `tags_max_tokens` has room for. Texts are cut to `title_max_pieces`.

    Raises:
        ValueError: no row is left, two values are spelled alike, or a pretrained folder does not fit.
        TrainingDiverged: the loss became infinite or NaN.
    """
    torch.manual_seed(recipe.seed)
    texts = [row.text for row in rows]
    if recipe.pretrained is None:
        pieces = learn(texts, taxonomy, recipe.vocabulary)
    else:
        pieces = adopt(recipe.pretrained, taxonomy)
    examples = _examples(rows, taxonomy, pieces, recipe.title_max_pieces)
    if not examples:
        raise ValueError("no row has both a text and a label of the taxonomy")
    context = recipe.title_max_pieces + 1 + tags_max_tokens(taxonomy, pieces)
    if recipe.pretrained is None:
        network = from_scratch(recipe.size, pieces, context)
    else:
        network = from_folder(recipe.pretrained, pieces, context)
    generator = Generator("untitled", taxonomy, pieces, network, recipe.title_max_pieces, recipe.beams)
    _train(network, examples, pieces, context, recipe, on_epoch)
    network.eval()
    return generator


def _train(
    network: Any,
    examples: Sequence[_Example],
    pieces: Pieces,
    context: int,
    recipe: GeneratorTraining,
    on_epoch: Callable[[int, float], None] | None,
) -> None:
    steps = math.ceil(len(examples) / recipe.batch_rows)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        recipe.learning_rate,
        total_steps=one_cycle_steps(steps * recipe.epochs, WARM_UP),
        pct_start=WARM_UP,
    )
    weights = torch.ones(pieces.size)
    weights[[*pieces.groups, pieces.end]] = ORDER_WEIGHT
    network.train()
    for epoch in range(recipe.epochs):
        losses = []
        for batch in _batches(examples, pieces, context, recipe, epoch):
            loss = _loss(network, *batch, weights)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise TrainingDiverged(f"generator: loss {losses[-1]} in epoch {epoch}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        if on_epoch is not None:
            on_epoch(epoch, float(np.mean(losses)))


def _loss(network: Any, tokens: Tensor, mask: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean over the tokens of the tags; those of the title are given, not learned."""
    device = tokens.device
    with torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
        hidden = network.base_model(input_ids=tokens, attention_mask=mask, use_cache=False)[0]
        wanted = target != _IGNORED
        logits = network.get_output_embeddings()(hidden[wanted])
    return functional.cross_entropy(logits.float(), target[wanted], weights)


def _batches(
    examples: Sequence[_Example], pieces: Pieces, context: int, recipe: GeneratorTraining, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(tokens, mask, target), each (rows, length); `target` is the next token of the tags, or ignored."""
    rng = np.random.default_rng([recipe.seed, epoch])
    written = [_sequence(example, pieces, context, recipe, epoch) for example in examples]
    order = rng.permutation(len(written))
    chunk = recipe.batch_rows * _SORTED_BATCHES
    batches = []
    for start in range(0, len(order), chunk):
        near = sorted(order[start : start + chunk], key=lambda place: len(written[place][0]))
        batches += [near[at : at + recipe.batch_rows] for at in range(0, len(near), recipe.batch_rows)]
    for number in rng.permutation(len(batches)):
        rows = [written[place] for place in batches[number]]
        shape = len(rows), max(len(tokens) for tokens, _ in rows)
        tokens, mask = torch.full(shape, pieces.pad), torch.zeros(shape, dtype=torch.long)
        target = torch.full(shape, _IGNORED)
        for row, (line, title_length) in enumerate(rows):
            tokens[row, : len(line)] = torch.tensor(line)
            mask[row, : len(line)] = 1
            target[row, title_length : len(line) - 1] = tokens[row, title_length + 1 : len(line)]
        yield tokens, mask, target


def _sequence(
    example: _Example, pieces: Pieces, context: int, recipe: GeneratorTraining, epoch: int
) -> tuple[list[int], int]:
    """(title, `<tags>`, tags in this epoch's order, `<end>`) and the length of the title."""
    rng = random.Random(f"{recipe.seed} {epoch} {example.product_id}")
    tags = shuffled(example.tags, recipe.seed, epoch, example.product_id)
    kept = [piece for piece in example.title if rng.random() >= recipe.title_dropout]
    title = kept or example.title
    line = [*title, pieces.tags]
    for tag in tags:
        if len(line) + len(tag) < context:
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
