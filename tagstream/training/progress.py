"""How a training gets on: what it says after each epoch, how well a member does on the validation part, and
where it is, on disk, so that a run that was killed goes on from there.

    settings.json   what the run was started with
    <member>.pt     the member's last state: weights, optimiser, schedule, progress; read without pickle

Every file is written beside its place and moved there, so that a kill leaves the old one or the new one.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tagstream.core.taxonomy import Taxonomy, subset
from tagstream.dataset.rows import Row
from tagstream.dataset.training_set import TrainingSet, image_groups
from tagstream.evaluation.figures import mean_of, report
from tagstream.model.fusion import log_probabilities
from tagstream.model.members import ImageMembers, TextMember
from tagstream.text.mentions import Mentions
from tagstream.training.loop import Hooks, Optimisation, Share
from tagstream.training.members import Recipe, pictures_of


def timed() -> Callable[[str], None]:
    """Prints lines that begin with the seconds since now."""
    started_s = time.monotonic()
    return lambda text: print(f"{time.monotonic() - started_s:6.0f} s  {text}", flush=True)


@dataclass
class Run:
    """A run while its members train: what it says, keeps and agrees on. `curves`: one point an epoch.

    `report` gets the figures of an epoch, from every process or from none: Ray Train waits for all.
    """

    say: Callable[[str], None] = field(default_factory=timed)
    share: Share = field(default_factory=Share)
    report: Callable[[dict[str, float]], None] = lambda figures: None
    checkpoints: Checkpoints | None = None
    validation: Validation | None = None
    curves: list[dict[str, Any]] = field(default_factory=list)

    def hooks(self, member: str, how: Optimisation) -> Hooks:
        """For `fit`. All processes train the image member; the first one alone trains the others.

        Raises:
            ValueError: the member's checkpoint cannot be read.
        """
        validate = getattr(self.validation, member) if how.patience else None
        together, started_s, epochs_here = member == "image", time.monotonic(), itertools.count(1)

        def on_epoch(epoch: int, loss: float, module: nn.Module) -> float | None:
            left_s = (time.monotonic() - started_s) / next(epochs_here) * (how.epochs - epoch - 1)
            said, figure = "", None
            figures: dict[str, float] = {f"{member}_epoch": epoch, f"{member}_loss": loss}
            if validate is not None:
                ours = validate(module) if self.share.rank == 0 else 0.0
                # All stop at once, by the first one's figure.
                figure = float(self.share.agree(ours) if together else ours)
                said = f", validation macro-F1 {figure:.4f}"
                figures[f"{member}_macro_f1"] = figure
            self._add_point(member, epoch + 1, loss, figure)
            self.say(
                f"{member}: epoch {epoch + 1}/{how.epochs}, loss {loss:.3f}{said}, about {left_s:.0f} s to go"
            )
            if together or self.share.world == 1:
                self.report(figures)
            return figure

        if self.checkpoints is None:
            return Hooks(on_epoch=on_epoch)
        found = self.checkpoints.hooks(member, on_epoch)
        if found.saved is not None:
            self.say(f"{member}: goes on after step {found.saved['progress']['step']}")
            for epoch, (loss, figure) in enumerate(found.saved["progress"]["epochs"], 1):
                self._add_point(member, epoch, loss, figure)
        return found

    def _add_point(self, member: str, epoch: int, loss: float, figure: float | None) -> None:
        point: dict[str, Any] = {"part": member, "epoch": epoch, "loss": loss}
        self.curves.append(point if figure is None else {**point, "macro_f1": figure})


class Validation:
    """Mean macro-F1 over the groups that a member knows; higher is better."""

    def __init__(self, data: TrainingSet, recipe: Recipe) -> None:
        self._data, self._recipe = data, recipe

    def text(self, member: TextMember) -> float:
        """Of the titles of validation products, and of their long copy."""
        rows = [row for row in self._data.products.validation if row.text.title]
        texts, taxonomy = [row.text for row in rows], self._data.taxonomy
        member.eval()
        with torch.inference_mode():
            mentions = torch.from_numpy(Mentions(taxonomy).find(texts))
            return self._macro_f1(member(member.tower.prepare(texts), mentions), rows, taxonomy)

    def image(self, image_members: ImageMembers) -> float:
        """Of the pictures of validation products that decode."""
        pictures, rows = self._pictures
        device = next(image_members.parameters()).device
        batch_rows = self._recipe.image.optimisation.batch_rows if self._recipe.image else len(rows)
        image_members.eval()
        with torch.inference_mode():
            said = [
                image_members.image(image_members.image.tower.prepare(some).rows.to(device)).float().cpu()
                for some in torch.split(pictures, batch_rows)
            ]
        return self._macro_f1(torch.cat(said), rows, subset(self._data.taxonomy, image_groups(self._data)))

    @cached_property
    def _pictures(self) -> tuple[Tensor, list[Row]]:
        assert self._recipe.image is not None
        pictures, rows = pictures_of(self._data.products.validation, self._recipe.image.frame)
        if not rows:
            raise ValueError("patience: no validation product has a picture that decodes")
        return pictures, rows

    def _macro_f1(self, logits: Tensor, rows: Sequence[Row], taxonomy: Taxonomy) -> float:
        scores = log_probabilities(logits.float().cpu(), taxonomy).exp().numpy()
        groups = report(scores, rows, taxonomy, self._data.spec.classes).groups
        if not groups:
            raise ValueError("patience: no validation row has a label of the taxonomy")
        return mean_of([*groups.values()], "macro_f1")


@dataclass(frozen=True)
class Checkpoints:
    """The folder of one named run. Each process of a run reads it; the one that `writes` fills it."""

    folder: Path
    every_steps: int
    writes: bool = True

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Note what the run is, or make sure that it is still the same.

        Raises:
            ValueError: the run was started with other settings; the message names those that differ.
        """
        path, now = self.folder / "settings.json", dict(_flat(settings))
        if path.is_file():
            then = dict(_flat(json.loads(path.read_text(encoding="utf-8"))))
            differing = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
            if differing:
                said = "; ".join(f"{name} was {then.get(name)}, is {now.get(name)}" for name in differing)
                raise ValueError(f"run {self.folder.name} cannot go on with other settings: {said}")
        elif self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(settings, ensure_ascii=False, indent=1) + "\n"
            _replace(path, lambda beside: beside.write_text(text, encoding="utf-8"))

    def hooks(
        self, member: str, on_epoch: Callable[[int, float, nn.Module], float | None] | None = None
    ) -> Hooks:
        """What saves this member every `every_steps` and after each epoch, and goes on from its last state.

        Raises:
            ValueError: the state is there and cannot be read.
        """
        path = self.folder / f"{member}.pt"

        def save(state: dict[str, Any]) -> None:
            _replace(path, lambda beside: torch.save(state, beside))

        return Hooks(
            save=save if self.writes else None,
            save_every_steps=self.every_steps,
            saved=_read(path) if path.is_file() else None,
            on_epoch=on_epoch,
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, LookupError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read, take another run name: {error}") from error
    return state


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    beside = path.with_name(f"{path.name}.new")
    write(beside)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
