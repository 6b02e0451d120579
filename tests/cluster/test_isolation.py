"""Deaths on a real Ray: of a replica, and of a process that serves nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_what_kills_a_process_of_its_own_is_told_and_the_next_event_has_a_new_one(cluster: Any) -> None:
    assert "isolated and alive" in job(cluster, "isolated_job.py")


def test_a_replica_killed_in_mid_call_is_told_and_serve_does_not_give_its_batch_to_the_next(
    cluster: Any,
) -> None:
    assert "each death is told once" in job(cluster, "killed_replica_job.py")


def test_through_the_real_consumer_an_event_that_kills_or_blocks_costs_two_replicas_and_nobody_else(
    cluster: Any,
) -> None:
    assert "everybody else is tagged" in job(cluster, "poison_job.py")


def job(cluster: Any, script: str) -> str:
    here = str(Path(__file__).parent)
    output: str = cluster.run("ray", "job", "submit", "--working-dir", here, "--", "python", script)
    return output
