"""A Ray head on this machine, and Serve through the dashboard's REST API. No ray import: the same
commands and requests that an operator uses."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import httpx

from tagstream.adapters.local.children import spawn
from tagstream.core.errors import Unavailable

_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 20.0


class RayHead:
    """`ray start --head --block` on free loopback ports, with token authentication."""

    def __init__(self, folder: Path, env: Mapping[str, str], *, num_cpus: int | None = None) -> None:
        """Returns when the dashboard answers. Raises Unavailable, which names the log.

        Args:
            folder: for the token, the log and Ray's own files; a short path, since Ray's sockets are in it.
            env: the environment of every process that this Ray starts.
        """
        self.token_path = folder / "ray-token"
        self.token_path.write_text(secrets.token_hex(32))
        self.token_path.chmod(0o600)
        self._log_path = folder / "ray.log"
        gcs_port, dashboard_port, *others = _free_ports(5)
        self.address = f"127.0.0.1:{gcs_port}"
        self.dashboard_url = f"http://127.0.0.1:{dashboard_port}"
        self.metrics_url = f"http://127.0.0.1:{others[2]}/metrics"
        self.env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_path)}
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *("--node-ip-address=127.0.0.1", f"--port={gcs_port}", f"--temp-dir={folder / 'ray'}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"),
            f"--ray-client-server-port={others[0]}",
            f"--dashboard-agent-listen-port={others[1]}",
            f"--metrics-export-port={others[2]}",
            *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
            *([f"--num-cpus={num_cpus}"] if num_cpus else []),
        ]
        path = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"  # jobs say `python`
        # On SIGTERM `ray start --block` ends its own children; on SIGKILL it would leave them. It need not
        # drain: Serve is shut down first.
        self._process = spawn(
            command,
            log_path=self._log_path,
            folder=Path.cwd(),  # for relative paths in the settings
            env={**env, **self.env, "PATH": path, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"},
            death_signal=signal.SIGTERM,
        )
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End every process of this Ray."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _wait_until_up(self) -> None:
        dashboard = Dashboard(self.dashboard_url, self.token_path.read_text())
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not dashboard.answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                tail = self._log_path.read_text(errors="replace")[-500:]
                raise Unavailable(f"Ray did not start; see {self._log_path}: …{tail}")
            time.sleep(0.1)


class Dashboard:
    """The REST API of a Ray head: deploys and watches Serve applications."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
        )

    def answers(self) -> bool:
        """Whether Ray is up."""
        try:
            return self._client.get("/api/version").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def deploy(self, config: Mapping[str, Any]) -> None:
        """What `serve deploy` does."""
        self._request("PUT", json=config)

    def wait_until_running(self, app: str, timeout_s: float) -> None:
        """Raises Unavailable if the application fails to deploy, or is not up in time."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            state = self.applications().get(app, {})
            if state.get("status") == "RUNNING":
                return
            if state.get("status") == "DEPLOY_FAILED" or time.monotonic() > deadline_s:
                raise Unavailable(f"Serve application {app}: {state.get('status')}: {state.get('message')}")
            time.sleep(0.2)

    def applications(self) -> dict[str, dict[str, Any]]:
        return cast("dict[str, dict[str, Any]]", self._request("GET").json()["applications"])

    def gpus(self) -> int:
        """How many GPUs Ray has found. Waits for the first node: the dashboard answers before it is there.

        Raises Unavailable if none comes in time.
        """
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            nodes = self._request("GET", "/api/v0/nodes").json()["data"]["result"]["result"]
            alive = [node for node in nodes if node["state"] == "ALIVE"]
            if alive:
                return sum(int(node["resources_total"].get("GPU", 0)) for node in alive)
            if time.monotonic() > deadline_s:
                raise Unavailable("Ray's dashboard knows no node")
            time.sleep(0.1)

    def shut_down_serve(self) -> None:
        """Returns when all replicas have drained."""
        self._request("DELETE", timeout=120)

    def _request(
        self, method: str, path: str = "/api/serve/applications/", timeout: float = 30, **body: Any
    ) -> httpx.Response:
        try:
            response = self._client.request(method, path, timeout=timeout, **body)
        except httpx.HTTPError as error:
            raise Unavailable(f"Ray's dashboard does not answer: {error}") from error
        if response.is_error:
            raise Unavailable(f"Ray's dashboard: {response.status_code}: {response.text[-500:]}")
        return response


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
