"""A process that serves nobody else, on a real Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_what_kills_a_process_of_its_own_is_told_and_the_next_event_has_a_new_one(cluster: Any) -> None:
    here = str(Path(__file__).parent)
    output = cluster.run("ray", "job", "submit", "--working-dir", here, "--", "python", "isolated_job.py")
    assert "isolated and alive" in output
