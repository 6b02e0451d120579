"""One training loop for every model: seeded step by step, shared over processes, continued after a kill."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class TrainingDiverged(ValueError):
    """The loss is not a number any more. Nothing was written."""


class Optimisation(BaseModel):
    """How a model is fitted: AdamW, one cycle of the learning rate with a cosine's fall.

    batch_rows      of a step, over all processes
    warm_up         the share of the steps in which the learning rate rises
    average_decay   of the moving average of the weights, which is what is kept; 0: no average
    patience        epochs without a better validation before training stops and the best epoch's weights are
                    kept; 0: never, and the last weights are kept
    gradient_norm   longer gradients are cut to this length; None: they stay as they are
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(gt=0)
    batch_rows: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warm_up: float = Field(default=0.1, gt=0, lt=1)
    average_decay: float = Field(default=0.0, ge=0, lt=1)
    patience: int = Field(default=0, ge=0)
    gradient_norm: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class Share:
    """Which part of every step this process computes, and how its model joins the others'.

    `wrap` must average the gradients over the processes, as DistributedDataParallel does. `agree` returns
    the first process's value in every process.
    """

    rank: int = 0
    world: int = 1
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model
    agree: Callable[[Any], Any] = lambda value: value


@dataclass(frozen=True)
class Step:
    """What an objective needs to compute the loss of one step. `rng` is seeded for this step and process."""

    rows: npt.NDArray[np.int64]
    epoch: int
    number: int
    rng: np.random.Generator


class Objective(Protocol):
    """A model in training. `module` holds everything that learns."""

    module: nn.Module

    def __len__(self) -> int:
        """Training rows."""

    def order(self, rng: np.random.Generator, batch_rows: int) -> npt.NDArray[np.int64]:
        """The rows of one epoch, in the order in which its steps take them, `batch_rows` each."""

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """As for AdamW."""

    def loss(self, model: nn.Module, step: Step) -> Tensor:
        """The mean loss over the step's rows. `model` is `module`, or what wraps it over processes."""


@dataclass
class Progress:
    """How far a training is. Part of a checkpoint."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    #: mean loss of each epoch, and what it reached on the validation part
    epochs: list[tuple[float, float | None]] = field(default_factory=list)
    best: float = -math.inf
    worse_epochs: int = 0
    ended: bool = False


@dataclass(frozen=True)
class Hooks:
    """What a training calls, and the state it continues from.

    `save(state)` is called every `save_every_steps` and after each epoch; `saved` is what an earlier process
    gave it last. `on_epoch(epoch, mean loss, module)` may return a validation figure, higher is better, the
    same in every process. `on_step(step, loss)` sees this process's part of the loss: the mean over the
    processes is the loss of the step.
    """

    save: Callable[[dict[str, Any]], None] | None = None
    save_every_steps: int = 0
    saved: dict[str, Any] | None = None
    on_epoch: Callable[[int, float, nn.Module], float | None] | None = None
    on_step: Callable[[int, float], None] | None = None


def fit(
    objective: Objective,
    how: Optimisation,
    seed: int,
    *,
    share: Share | None = None,
    hooks: Hooks | None = None,
) -> nn.Module:
    """Train `objective.module` in place and return it, or the average of its weights along the way.

    Everything random in a step is drawn from (seed, step, rank), so that a training that was cut off and
    goes on from `hooks.saved` ends with the same bytes on the same machine.

    Raises:
        ValueError: a step has fewer rows than there are processes, or there are no rows at all.
        TrainingDiverged: the loss became infinite or NaN.
    """
    share, hooks = share or Share(), hooks or Hooks()
    rows_a_step = min(how.batch_rows, len(objective))
    if rows_a_step < share.world:
        raise ValueError(
            f"{len(objective)} training rows in steps of {how.batch_rows} are too few "
            f"for {share.world} workers"
        )
    module = objective.module
    model = share.wrap(module)
    optimiser = torch.optim.AdamW(
        objective.parameter_groups(how.learning_rate), how.learning_rate, weight_decay=how.weight_decay
    )
    steps = max(1, math.ceil(len(objective) / how.batch_rows))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        [group["lr"] for group in optimiser.param_groups],
        # At least two steps up: OneCycleLR divides by their number less one.
        total_steps=max(steps * how.epochs + 1, math.ceil(2 / how.warm_up)),
        pct_start=how.warm_up,
    )
    average = copy.deepcopy(module) if how.average_decay else None
    run = _Run(module, average, optimiser, schedule, Progress())
    if hooks.saved is not None:
        run.load(hooks.saved)
    while run.progress.step < steps * how.epochs and not run.progress.ended:
        epoch, place = divmod(run.progress.step, steps)
        if place == 0:
            run.progress.losses = []
        _one_step(objective, model, run, how, seed, share, epoch, place)
        if hooks.on_step is not None:
            hooks.on_step(run.progress.step, run.progress.losses[-1])
        if place == steps - 1:
            _end_epoch(run, how, hooks, epoch)
        if hooks.save is not None and (
            place == steps - 1 or (hooks.save_every_steps and run.progress.step % hooks.save_every_steps == 0)
        ):
            hooks.save(run.state())
    if run.best is not None:
        run.trained.load_state_dict(run.best)
    return run.trained


@dataclass
class _Run:
    module: nn.Module
    average: nn.Module | None
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    progress: Progress
    best: dict[str, Any] | None = None

    @property
    def trained(self) -> nn.Module:
        return self.average if self.average is not None else self.module

    def state(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "progress": vars(self.progress).copy(),
            "best": self.best,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.progress = Progress(**state["progress"])
        self.best = state["best"]


def _one_step(
    objective: Objective,
    model: nn.Module,
    run: _Run,
    how: Optimisation,
    seed: int,
    share: Share,
    epoch: int,
    place: int,
) -> None:
    order = objective.order(np.random.default_rng((seed, epoch)), how.batch_rows)
    start = place * how.batch_rows
    rows_a_step = min(how.batch_rows, len(objective))
    # Every process needs as many rows in every step: the last step wraps around.
    rows = order[np.arange(start, start + rows_a_step) % len(order)]
    mine = rows[share.rank :: share.world]
    # Gradients are averaged over processes: one that has a row more than another weighs more.
    weight = share.world * len(mine) / len(rows)
    number = run.progress.step
    drawn = int(np.random.SeedSequence((seed, number, share.rank)).generate_state(1)[0])
    torch.manual_seed(drawn)
    model.train()
    loss = weight * objective.loss(model, Step(mine, epoch, number, np.random.default_rng(drawn)))
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingDiverged(
            f"loss {value} in epoch {epoch}, step {number}: lower the learning rate, or check the labels"
        )
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if how.gradient_norm is not None:
        nn.utils.clip_grad_norm_(run.module.parameters(), how.gradient_norm)
    run.optimiser.step()
    run.schedule.step()
    run.progress.step += 1
    run.progress.losses.append(value)
    if run.average is not None:
        _follow(run.average, run.module, min(how.average_decay, run.progress.step / (run.progress.step + 10)))


def _end_epoch(run: _Run, how: Optimisation, hooks: Hooks, epoch: int) -> None:
    loss = sum(run.progress.losses) / len(run.progress.losses)
    figure = hooks.on_epoch(epoch, loss, run.trained) if hooks.on_epoch is not None else None
    run.progress.epochs.append((loss, figure))
    if figure is None or not how.patience:
        return
    if figure > run.progress.best:
        run.progress.best, run.progress.worse_epochs = figure, 0
        run.best = copy.deepcopy(run.trained.state_dict())
    else:
        run.progress.worse_epochs += 1
    run.progress.ended = run.progress.worse_epochs >= how.patience


def drawn(
    rows: int, rng: np.random.Generator, weights: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.int64]:
    """An `order` of each row once, or with `weights`, of as many rows drawn by them."""
    return rng.permutation(rows) if weights is None else rng.choice(rows, rows, p=weights)


def by_length(
    lengths: npt.NDArray[np.int64], rng: np.random.Generator, batch_rows: int
) -> npt.NDArray[np.int64]:
    """An `order` whose steps have rows of about the same length each: padding costs time."""
    near = np.argsort(lengths * rng.uniform(0.8, 1.2, len(lengths)))
    whole = len(near) // batch_rows * batch_rows
    steps = rng.permutation(near[:whole].reshape(-1, batch_rows))
    return np.concatenate([steps.ravel(), near[whole:]])


def _follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for ours, theirs in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, 1 - decay)
            else:
                ours.copy_(theirs)
