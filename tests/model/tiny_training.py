"""Trains a tiny text member and a tiny image member, one process of a run. Prints every step.

    python tests/model/tiny_training.py OUT [--storage DIR] [--rank 0 --world 1 --rendezvous FILE] [--plain]

`--plain`: no dropout, no augmentation, statistics of normalisation frozen, so that the number of processes
does not matter. Otherwise everything random is on, and the weights are averaged.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value
from tagstream.dataset.targets import targets
from tagstream.model.members import ImageMember, ImageMembers, JointConfig, JointMember, TextMember
from tagstream.model.towers.base import ImageTower
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.text.ngrams import HashedNgrams
from tagstream.training.loop import Hooks, Objective, Optimisation, Share, fit
from tagstream.training.objectives import ImageObjective, LossConfig, TextObjective
from tagstream.training.progress import Checkpoints

COLOURS = ("Red", "Blue", "Green")
COLOUR = Taxonomy(
    taxonomy_version="1",
    groups=(Group(name="colour", values=tuple(Value(value=name) for name in COLOURS)),),
)
#: Odd, so that the last step wraps around, and two processes never have the same number of rows.
ROWS, BATCH_ROWS = 47, 9
LABELS = [COLOURS[row % 3] for row in range(ROWS)]
TEXTS = [TextFields(f"{colour} thing {row % 7}") for row, colour in enumerate(LABELS)]


class TinyTower(ImageTower):
    """One convolution with batch normalisation."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, self.width, 3), nn.BatchNorm2d(self.width), nn.ReLU())

    def features(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.network(pictures.float() / 255).mean(dim=(2, 3))
        return features


def text_objective(noise: float) -> Objective:
    torch.manual_seed(0)
    tower = _bag().build()
    tower.learn(TEXTS, 0)
    return TextObjective(
        TextMember(tower, COLOUR.size),
        TEXTS,
        _target(),
        COLOUR,
        LossConfig(),
        feature_dropout=noise,
        decay=1e-4,
    )


def image_objective(noise: float) -> Objective:
    torch.manual_seed(0)
    tower = TinyTower()
    how = JointConfig(text=_bag(), width=8, dropout=noise, modality_dropout=noise)
    joint = JointMember(how, how.text.build(), tower, COLOUR.size)
    drawn = torch.randint(0, 256, (ROWS, 3, 12, 10), generator=torch.Generator().manual_seed(0))
    return ImageObjective(
        ImageMembers(ImageMember(tower, COLOUR.size, dropout=noise), joint),
        drawn.to(torch.uint8),
        TEXTS,
        _target(),
        COLOUR,
        LossConfig(label_smoothing=0.05),
        shift_px=2 if noise else 0,
        feature_dropout=noise,
        seed=0,
        freeze_statistics=not noise,
    )


def _bag() -> HashedNgramBag:
    return HashedNgramBag(ngrams=HashedNgrams(latin_buckets=2**8, han_buckets=2**6), width=8)


def _target() -> torch.Tensor:
    return targets([{"colour": (label,)} for label in LABELS], COLOUR)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--storage", type=Path)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--rendezvous", type=Path)
    parser.add_argument("--plain", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    share = Share()
    if arguments.world > 1:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{arguments.rendezvous}",
            rank=arguments.rank,
            world_size=arguments.world,
        )
        wrap = partial(DistributedDataParallel, find_unused_parameters=True)
        share = Share(arguments.rank, arguments.world, wrap)
    noise = 0.0 if arguments.plain else 0.3
    how = Optimisation(
        epochs=9, batch_rows=BATCH_ROWS, learning_rate=0.01, average_decay=0.0 if arguments.plain else 0.9
    )
    weights = {}
    for name, objective in (("text", text_objective(noise)), ("image", image_objective(noise))):
        hooks = Hooks()
        if arguments.storage:
            hooks = Checkpoints(arguments.storage, every_steps=4).hooks(name)
        trained = fit(objective, how, 0, share=share, hooks=_spoken(hooks, name))
        weights |= {f"{name}.{key}": tensor.contiguous() for key, tensor in trained.state_dict().items()}
    save_file(weights, arguments.out)


def _spoken(hooks: Hooks, member: str) -> Hooks:
    def say(step: int, loss: float) -> None:
        print(member, step, loss, flush=True)

    return Hooks(hooks.save, hooks.save_every_steps, hooks.saved, on_step=say)


if __name__ == "__main__":
    main()
