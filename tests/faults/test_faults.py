"""The short form of `python tests/faults/run.py`: some faults, one seed, the embedded broker, all at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cell import Options, Outcome
from faults import FAULTS
from run import run_all

SHORT = (
    "consumer-killed",
    "consumer-zombie",
    "consumer-joins-and-another-leaves",
    "store-down",
    "store-refuses-writes",
    "picture-host-drips",
    "crash-poison",
)
OPTIONS = Options(outage_s=8, products=120, versions=6)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Most of a cell's time is waiting, so that they fit beside each other."""
    folder = tmp_path_factory.mktemp("faults")
    done = run_all([FAULTS[name] for name in SHORT], [1], OPTIONS, folder, parallel=4)
    return {outcome.fault: outcome for outcome in done}


@pytest.mark.parametrize("name", SHORT)
def test_after_the_fault_nothing_is_lost_or_stale_and_the_topic_agrees(
    outcomes: dict[str, Outcome], name: str
) -> None:
    assert outcomes[name].skipped == ""
    assert outcomes[name].problems == []
    assert 0.2 <= outcomes[name].injected_at < 0.95
