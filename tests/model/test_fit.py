"""Training as a process lives it: killed and gone on with, and shared by two."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS_A_HALF = 54


def training(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "tests/model/tiny_training.py"), str(out), *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def finished(process: subprocess.Popen[str]) -> list[float]:
    """The loss of every step, when the training is through."""
    said, _ = process.communicate()
    assert process.returncode == 0
    return [float(line.split()[2]) for line in said.splitlines()]


def killed(process: subprocess.Popen[str], steps: int) -> None:
    """With SIGKILL, when it has said so many steps."""
    assert process.stdout is not None
    for _ in range(steps):
        assert process.stdout.readline(), "it was through before it could be killed"
    process.kill()
    process.communicate()


def test_a_training_that_was_killed_twice_ends_with_the_bytes_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = training(tmp_path / "unbroken")
    first, second = random.randint(1, STEPS_A_HALF - 6), random.randint(STEPS_A_HALF, STEPS_A_HALF + 40)
    storage = ("--storage", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    killed(training(tmp_path / "broken", *storage), first)
    # The second process goes on at the last checkpoint, at most 4 steps before the first one's death.
    killed(training(tmp_path / "broken", *storage), second - first)
    assert not (tmp_path / "broken").exists()
    rest = finished(training(tmp_path / "broken", *storage))

    assert len(finished(unbroken)) == 2 * STEPS_A_HALF
    assert len(rest) <= 2 * STEPS_A_HALF - second + 2 * 4 + 1, "what was done is not done again"
    assert (tmp_path / "broken").read_bytes() == (tmp_path / "unbroken").read_bytes(), (first, second)


def test_two_workers_train_as_one_does(tmp_path: Path) -> None:
    both = [
        training(
            tmp_path / f"rank{rank}",
            "--plain",
            *("--rank", str(rank), "--world", "2", "--rendezvous", str(tmp_path / "meeting")),
        )
        for rank in range(2)
    ]
    alone = finished(training(tmp_path / "alone", "--plain"))
    shared = [sum(losses) / 2 for losses in zip(*map(finished, both), strict=True)]

    assert len(alone) == 2 * STEPS_A_HALF
    assert shared == pytest.approx(alone, abs=1e-3)
    assert alone[STEPS_A_HALF - 1] < alone[0] / 2
