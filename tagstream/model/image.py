"""The picture half: EfficientNet-Lite0 with one linear head over all groups, and how it is fine-tuned."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tagstream.core.taxonomy import Taxonomy
from tagstream.model.efficientnet import FEATURES, EfficientNetLite0
from tagstream.model.losses import FloatArray, logit_adjustment, loss_of
from tagstream.model.pictures import WHITE

MEAN, SCALE = 127.0, 128.0
#: Enough pictures for the statistics of normalisation: more change no digit that matters.
STATISTICS_ROWS = 2048
#: The share of the steps in which the learning rate rises.
WARM_UP = 0.2


class TrainingDiverged(FloatingPointError):
    """The loss is not a number any more. Nothing was written; lower the learning rate or mend the labels."""


class ImageTower(nn.Module):
    """(n, 3, height, width) uint8 → (n, outputs) logits."""

    def __init__(self, outputs: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0()
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.Linear(FEATURES, outputs)

    def forward(self, pictures: Tensor) -> Tensor:
        x = (pictures.float() - MEAN) / SCALE
        x = self.backbone(x.to(memory_format=torch.channels_last))
        logits: Tensor = self.heads(self.dropout(x))
        return logits


def one_cycle_steps(steps: int, warm_up: float) -> int:
    """`total_steps` for OneCycleLR, which divides by zero where the learning rate rises for one step only."""
    return max(steps + 1, math.ceil(2 / warm_up))


def native_bf16(device: torch.device) -> bool:
    """Emulated bf16 is slower than fp32, so it is used only where the processor multiplies in it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


@dataclass(frozen=True)
class ImageTraining:
    """The recipe. `logit_adjustment`: how much of the log class share is added to the logits in training."""

    epochs: int = 8
    batch_rows: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    logit_adjustment: float = 0.5
    shift_px: int = 8
    average_decay: float = 0.99
    seed: int = 0


@dataclass(frozen=True)
class Share:
    """Which part of every epoch this process trains on, and how its model joins the others'."""

    rank: int = 0
    world: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model


def augment(pictures: Tensor, rng: torch.Generator, shift_px: int) -> Tensor:
    """Each picture flipped with probability 1/2 and shifted by up to `shift_px` with white behind; uint8.

    Colours stay as they are: colour is a label.
    """
    n, _, height, width = pictures.shape
    padded = nn.functional.pad(pictures, (shift_px,) * 4, value=WHITE)
    moves = torch.randint(0, 2 * shift_px + 1, (n, 2), generator=rng).tolist()
    flips = torch.rand(n, generator=rng) < 0.5
    out = torch.stack(
        [one[:, y : y + height, x : x + width] for one, (y, x) in zip(padded, moves, strict=True)]
    )
    out[flips] = out[flips].flip(3)
    return out


def fit_image(
    tower: ImageTower,
    pictures: Tensor,
    target: FloatArray,
    taxonomy: Taxonomy,
    recipe: ImageTraining,
    *,
    share: Share | None = None,
    on_epoch: Callable[[int, float, ImageTower], None] | None = None,
) -> ImageTower:
    """Fine-tune, and return the average of the weights along the way (a new tower, in evaluation mode).

    `pictures`: (rows, 3, h, w) uint8; `target`: (rows, taxonomy.size) as `losses.targets` makes it.

    Raises:
        TrainingDiverged: the loss became infinite or NaN.
    """
    share = share or Share()
    device = next(tower.parameters()).device
    truth, adjustment = torch.from_numpy(target), logit_adjustment(target, taxonomy, recipe.logit_adjustment)
    adjustment = adjustment.to(device)
    tower = tower.to(memory_format=torch.channels_last)
    model = share.wrap(tower)
    optimiser = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    rows_a_step = recipe.batch_rows * share.world
    steps = max(1, math.ceil(len(pictures) / rows_a_step))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        recipe.learning_rate,
        total_steps=one_cycle_steps(steps * recipe.epochs, WARM_UP),
        pct_start=WARM_UP,
    )
    average = copy.deepcopy(tower)
    step_number = 0
    for epoch in range(recipe.epochs):
        rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        order = torch.randperm(len(pictures), generator=rng)
        model.train()
        losses = []
        for start in range(0, len(pictures), rows_a_step):
            # Every process needs a row in every step: the last step wraps around.
            rows = order[torch.arange(start + share.rank, start + rows_a_step, share.world) % len(order)]
            batch = augment(pictures[rows], rng, recipe.shift_px).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
                logits = model(batch)
            loss = loss_of(
                logits.float() + adjustment,
                truth[rows].to(device),
                taxonomy,
                label_smoothing=recipe.label_smoothing,
            )
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise TrainingDiverged(f"picture half: loss {losses[-1]} in epoch {epoch}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            step_number += 1
            _follow(average, tower, min(recipe.average_decay, step_number / (step_number + 10)))
        if on_epoch is not None:
            on_epoch(epoch, sum(losses) / len(losses), average)
    rng = torch.Generator().manual_seed(recipe.seed)
    some = pictures[torch.randperm(len(pictures), generator=rng)[:STATISTICS_ROWS]]
    return refresh_statistics(average, some, recipe.batch_rows)


def refresh_statistics(tower: ImageTower, pictures: Tensor, batch_rows: int) -> ImageTower:
    """Measure the batch normalisations' means and variances anew, over these pictures; evaluation mode.

    Averaged weights never saw the statistics that were averaged with them, and a short training hardly
    moves those of ImageNet.
    """
    device = next(tower.parameters()).device
    norms = [module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    tower.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
        for part in torch.split(pictures, batch_rows):
            tower(part.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return tower.eval()


def _follow(average: nn.Module, tower: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for ours, theirs in zip(average.state_dict().values(), tower.state_dict().values(), strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, 1 - decay)
            else:
                ours.copy_(theirs)


def image_logits(tower: ImageTower, pictures: Tensor, batch_rows: int = 64) -> Tensor:
    """(rows, outputs) float32 logits of a tower in evaluation mode."""
    device = next(tower.parameters()).device
    if len(pictures) == 0:
        return torch.empty((0, tower.heads.out_features))
    tower.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
        parts = [tower(part.to(device)).float().cpu() for part in torch.split(pictures, batch_rows)]
    return torch.cat(parts)
