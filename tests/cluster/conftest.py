"""One Ray head for the session, as `ray start --head` makes it, and the application on it, as `serve deploy`
puts it there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tagstream.adapters.local.embedded import EmbeddedBroker, EmbeddedStore, free_port
from tagstream.adapters.ray.head import Dashboard, RayHead
from tagstream.ops.topics import create_topics
from tagstream.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """A head, broker and store; settings as the nodes' environment has them."""

    ray: RayHead
    dashboard: Dashboard
    settings: Settings
    env: dict[str, str]
    api_url: str

    def run(self, *command: str, timeout_s: float = 300) -> str:
        """A command of the venv, in the repository, against this cluster. Returns its output."""
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=ROOT,
            env={
                **self.env,
                "RAY_ADDRESS": self.ray.dashboard_url,  # for `ray job`
                "RAY_DASHBOARD_ADDRESS": self.ray.dashboard_url,  # for `serve`
            },
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout


def clean_environment(**changes: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TAGSTREAM_", "RAY_"))}
    return {**env, **changes}


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """Ray's sockets lie below it, and their paths may have 107 bytes only."""
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def cluster(short_folder: Path) -> Iterator[Cluster]:
    # Servers of its own: the shared ones hold other tests' topics, and a killed consumer's delays.
    with EmbeddedBroker(short_folder / "broker") as broker, EmbeddedStore(short_folder / "store") as store:
        changes = {
            "TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS": broker.address,
            "TAGSTREAM_REDIS_URL": store.url,
            "TAGSTREAM_SESSION_TIMEOUT_S": "6",
            "PYTHONPATH": str(ROOT),  # a test's job uses tests.support
        }
        settings = Settings(kafka_bootstrap_servers=broker.address, redis_url=store.url, session_timeout_s=6)
        create_topics(settings, partitions=4)
        env = clean_environment(**changes)
        ray = RayHead(short_folder, env, num_cpus=3)
        try:
            port = free_port()
            made = Cluster(
                ray,
                Dashboard(ray.dashboard_url, ray.token_path.read_text()),
                settings,
                {**env, **ray.env},
                f"http://127.0.0.1:{port}",
            )
            made.run("serve", "deploy", str(_with_port(short_folder, port)))
            made.dashboard.wait_until_running("tagstream", 120)
            yield made
            made.dashboard.shut_down_serve()
        finally:
            ray.stop()


def _with_port(folder: Path, port: int) -> Path:
    config = yaml.safe_load((ROOT / "serve/config.yaml").read_text())
    config["http_options"]["port"] = port
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def processes_of(pids: Sequence[int]) -> list[int]:
    """Those that still run."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]
