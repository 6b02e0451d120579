"""Where a training stands, on disk: a run that was killed goes on from here.

    settings.json   what the run was started with
    <member>.pt     the member's last state: weights, optimiser, schedule, progress; read without pickle

Every file is written beside its place and moved there, so that a kill leaves the old one or the new one.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tagstream.training.loop import Hooks


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
