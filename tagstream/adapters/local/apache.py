"""Apache Kafka (4.0 or newer) as a child process: one broker that is its own controller, on loopback ports.

    with ApacheBroker(folder, home=Path("/opt/kafka")) as broker:
        broker.address   "127.0.0.1:40123"

The log lies in `folder`: the same folder again is the same Kafka. Its timeouts are those of a single machine.
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tagstream.adapters.local.embedded import Server, free_port
from tagstream.core.errors import BadSettings, Unavailable

_HEAP = "-Xms128m -Xmx512m"
_TOOL_TIMEOUT_S = 60.0
#: Before the request's own words: its length, then api Metadata, version 1, correlation id 1, no client id.
_NO_TOPICS = struct.pack(">i hhih i", 14, 3, 1, 1, -1, 0)
#: Length and correlation id, then the number of brokers that take requests.
_BROKERS = struct.Struct(">ii i")

_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(26 * 2**20),
    # one broker holds the only copy
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # who dies or comes is noticed in seconds
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "2000",
    "group.consumer.min.session.timeout.ms": "2000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "1000",
    # after a crash the broker waits for this: until then it seems to be there still
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # the default buffer alone is a quarter of this heap
    "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
    "num.io.threads": "4",
    "num.network.threads": "2",
}


class ApacheBroker(Server):
    """A broker from the distribution's folder `home`. See `Server`."""

    name = "kafka"
    # It hands over its leadership and closes its logs, so that the next start need not recover them.
    stop_timeout_s = 30.0
    greeting = _NO_TOPICS

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        home: Path,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        protocol: str = "PLAINTEXT",
        scram_users: Mapping[str, str] | None = None,
        start_timeout_s: float = 60.0,
    ) -> None:
        """Formats `folder` if it is new, and starts the broker; returns when it takes requests.

        Raises BadSettings: nothing in `home` that runs: no scripts, no Java, or one that is too old;
        Unavailable: it ended or did not answer in time. The message names the log file.

        Args:
            home: known elsewhere as KAFKA_HOME.
            properties: server.properties of yours; they win over ours.
            protocol: of the clients' listener. With PLAINTEXT this returns when requests are answered; with
                SASL_SSL, which cannot be asked from outside, when connections are.
            scram_users: name → password, made when `folder` is formatted.
        """
        self.folder = Path(folder).expanduser().resolve()
        self._data = self.folder / "log"
        self._properties_path = self.folder / "server.properties"
        self._home = home.expanduser().resolve()
        self._given = dict(properties or {})
        self._protocol = protocol
        self._users = dict(scram_users or {})
        for name in ("kafka-storage.sh", "kafka-server-start.sh"):
            if not self._script(name).is_file():
                raise BadSettings(f"{self._home} is not the folder of an Apache Kafka: bin/{name} is missing")
        self._tool("random-uuid")  # runs only with its jars and a Java new enough
        super().__init__(self.folder, port=port, start_timeout_s=start_timeout_s)

    def command(self) -> list[str]:
        """Formats the folder if that was not done. Raises BadSettings, Unavailable."""
        self._write_properties()
        if not (self._data / "meta.properties").is_file():  # written last, when all the rest is there
            users = [f"--add-scram=SCRAM-SHA-512=[name={n},password={p}]" for n, p in self._users.items()]
            self._tool(
                "format", f"--cluster-id={_new_cluster_id()}", "-c", str(self._properties_path), *users
            )
        return [*self._environment(), str(self._script("kafka-server-start.sh")), str(self._properties_path)]

    def is_ready(self, answer: bytes) -> bool:
        return len(answer) >= _BROKERS.size and _BROKERS.unpack_from(answer)[2] > 0

    def _answers(self) -> bool:
        if self._protocol == "PLAINTEXT":
            return super()._answers()
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True

    def _write_properties(self) -> None:
        controller_port = next(port for port in iter(free_port, 0) if port != self.port)
        ours, controller = f"{self._protocol}://{self.address}", f"127.0.0.1:{controller_port}"
        addresses = {
            "listeners": f"{ours},CONTROLLER://{controller}",
            "advertised.listeners": ours,
            "inter.broker.listener.name": self._protocol,
            # Named here rather than kept in the log, so that the next start may take another port.
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self._data),
        }
        lines = [f"{name}={value}\n" for name, value in {**_PROPERTIES, **addresses, **self._given}.items()]
        self._properties_path.touch(mode=0o600)  # there may be passwords in it
        self._properties_path.write_text("".join(lines))

    def _tool(self, *arguments: str) -> None:
        """Run kafka-storage.sh. Raises BadSettings with the line that says why it failed."""
        command = [*self._environment(), str(self._script("kafka-storage.sh")), *arguments]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TOOL_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            # Without the cause: it quotes the command, and the users' passwords.
            raise Unavailable(
                f"kafka-storage.sh {arguments[0]} has not ended in {_TOOL_TIMEOUT_S:g} s"
            ) from None
        if done.returncode != 0:
            said = (done.stderr + done.stdout).decode(errors="replace")
            raise BadSettings(
                f"the Apache Kafka in {self._home} does not run (it needs Java 17 or newer): {_reason(said)}"
            )

    def _script(self, name: str) -> Path:
        return self._home / "bin" / name

    def _environment(self) -> Sequence[str]:
        """`env`, with what the scripts read. The distribution's own folder need not be writable."""
        return [shutil.which("env") or "/usr/bin/env", f"KAFKA_HEAP_OPTS={_HEAP}", f"LOG_DIR={self.folder}"]


def _reason(said: str) -> str:
    """The most telling line of a failed Java program, or of the shell that did not find one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "Exception" in line or "java" in line]
    return (telling or lines or ["it says nothing"])[0]


def _new_cluster_id() -> str:
    """128 random bits in the form that Kafka wants, and none that begins with a dash."""
    return base64.urlsafe_b64encode(b"\x01" + os.urandom(15)).decode().rstrip("=")
