"""Faults of the stream on a real Ray head, as `ray start` and `serve deploy` make it, with the real model.

    python tests/faults/ray_faults.py [--broker embedded|apache] [--faults a,b] [--seeds 1,2] [--events N]
                                     [--json FILE]

The same past, the same audit and the same table as run.py; one cell after the other: each is a whole Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from cell import ROOT, Cell, Fault, Options, Outcome, run_cell
from run import table

from tagstream.adapters.local.embedded import free_port
from tagstream.adapters.ray.head import Dashboard, RayHead
from tagstream.core.errors import Unavailable

BIN = Path(sys.executable).parent
VERSIONS = 8
DEPLOY_S = 120.0
FAULTS: dict[str, Fault] = {}


class RayCell(Cell):
    """A cell whose consumers are replicas."""

    def start(self, fault: Fault) -> bool:
        self.api_port = free_port()
        del self.env["TAGSTREAM_REVOKE_TIMEOUT_S"]  # the default is what `serve/config.yaml` leaves time for
        self.heads = 0
        self.consumer_replicas = fault.consumers
        self.start_head()
        self.deploy()
        return self.wait_until(lambda: bool(self.readiness().get("ready")), "the stream is ready")

    def start_head(self) -> None:
        self.heads += 1
        folder = self.folder / f"h{self.heads}"
        folder.mkdir()
        self.head = RayHead(folder, self.env, num_cpus=3)
        self._stack.callback(self.head.stop)
        self.dashboard = Dashboard(self.head.dashboard_url, self.head.token_path.read_text())

    def deploy(self, **env_vars: str) -> None:
        """`serve deploy`; changed `env_vars` make every replica a new one, in turn. Raises Unavailable."""
        config = yaml.safe_load((ROOT / "serve/config.yaml").read_text())
        config["http_options"]["port"] = self.api_port
        deployments = {one["name"]: one for one in config["applications"][0]["deployments"]}
        deployments["StreamConsumer"]["autoscaling_config"]["min_replicas"] = self.consumer_replicas
        config["applications"][0]["runtime_env"]["env_vars"].update(env_vars)
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        env = {**self.env, **self.head.env, "RAY_DASHBOARD_ADDRESS": self.head.dashboard_url}
        command = [str(BIN / "serve"), "deploy", str(path)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"serve deploy: {done.stderr[-500:]}")
        self.dashboard.wait_until_running("tagstream", DEPLOY_S)

    def readiness(self) -> dict[str, Any]:
        """What /readyz says; empty while nobody answers."""
        with suppress(httpx.HTTPError, ValueError):
            url = f"http://127.0.0.1:{self.api_port}/readyz"
            answer: dict[str, Any] = httpx.get(url, timeout=5, trust_env=False).json()
            return answer
        return {}

    def processes_of(self, name: str) -> list[psutil.Process]:
        """Ray's processes whose command line contains `name`."""
        found = []
        for process in psutil.Process(self.head.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if name in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def settled(self, since_wall_s: float) -> bool:
        answer = self.readiness()
        stream = answer.get("stream", {})
        return bool(answer.get("ready")) and not stream.get("in_flight") and not stream.get("uncommitted")

    def end_consumers(self) -> None:
        """Replicas drain; then nobody is left who could change what the audit sees."""
        self.dashboard.shut_down_serve()


def fault(name: str, **how: Any) -> Callable[[Callable[[RayCell], None]], Callable[[RayCell], None]]:
    def register(inject: Callable[[RayCell], None]) -> Callable[[RayCell], None]:
        FAULTS[name] = Fault(name, inject, **{"consumers": 1, **how})
        return inject

    return register


@fault("ray-tagger-killed")
def tagger_killed(cell: RayCell) -> None:
    _kill_one(cell, ":Tagger")


@fault("ray-consumer-killed")
def consumer_killed(cell: RayCell) -> None:
    _kill_one(cell, ":StreamConsumer")


@fault("ray-controller-killed")
def controller_killed(cell: RayCell) -> None:
    """Replicas go on without it; Ray starts it again, and it finds them."""
    _kill_one(cell, "ServeController")


@fault("ray-rolling-redeploy", consumers=2)
def rolling_redeploy(cell: RayCell) -> None:
    """Every replica is replaced in mid-stream; the cause has ended when the new ones run alone."""
    before = {process.pid for process in cell.processes_of("ServeReplica:")}
    cell.deploy(FAULTS_DEPLOYMENT="2")

    def replaced() -> bool:
        now = {process.pid for process in cell.processes_of("ServeReplica:")}
        return bool(now) and not now & before

    cell.wait_until(replaced, "the old replicas are gone")


@fault("ray-head-killed")
def head_killed(cell: RayCell) -> None:
    """The whole machine, kill -9; a new head, and the application deployed on it again."""
    doomed = [*psutil.Process(cell.head.pid).children(recursive=True), psutil.Process(cell.head.pid)]
    for process in doomed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(doomed, timeout=20)
    cell.start_head()
    cell.deploy()


def _kill_one(cell: RayCell, name: str) -> None:
    found = cell.processes_of(name)
    cell.must(bool(found), f"no process of {name}")
    for process in found[:1]:
        process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--broker", choices=("embedded", "apache"), default="embedded")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--events", type=int, default=6000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    names = given.faults.split(",")
    if unknown := set(names) - FAULTS.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    options = Options(given.broker, products=given.events // VERSIONS, versions=VERSIONS)
    outcomes: list[Outcome] = []
    for seed in map(int, given.seeds.split(",")):
        for name in names:
            # Ray's sockets lie below it, and their paths may have 107 bytes only.
            with tempfile.TemporaryDirectory(prefix="rf-", dir="/tmp", ignore_cleanup_errors=True) as folder:
                outcome = run_cell(FAULTS[name], seed, options, Path(folder), RayCell)
            print(f"{name} seed {seed}: {'ok' if outcome.ok else 'FAILED'}", file=sys.stderr, flush=True)
            outcomes.append(outcome)
    print(table(outcomes))
    for outcome in outcomes:
        print(f"{outcome.fault} seed {outcome.seed}: stood still, partition: s: {outcome.stood_still_s}")
    if given.json:
        given.json.write_text(json.dumps([outcome.as_json() for outcome in outcomes], indent=1) + "\n")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    os.chdir(ROOT)  # Ray's workers find `serve` there
    sys.exit(main())
