"""One cell of the table: servers, consumers on processes of their own, a known past, one fault, an audit.

committed    what the group has committed on the event topic, seen from outside
cause        what the fault does, from its first harm until `Fault.inject` returns
recovery     from the end of the cause until every partition that had lag then has committed more
standstill   the longest time that a partition with lag has gone without a commit, from before the fault on
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from past import is_poison, past
from pictures import PictureHost

from tagstream.adapters.kafka.lag import GroupWatch
from tagstream.adapters.local.children import spawn
from tagstream.adapters.local.embedded import EmbeddedBroker, EmbeddedStore
from tagstream.core.errors import Unavailable
from tagstream.core.ports import OutRecord
from tagstream.core.records import KeyValue
from tagstream.ops.audit import Findings, examine, expect
from tagstream.ops.topics import create_topics
from tagstream.settings import Settings
from tagstream.wiring import build_publisher

ROOT = Path(__file__).resolve().parents[2]
CONSUMER = Path(__file__).with_name("consumer.py")
SESSION_S = 6.0
POLL_S = 0.1
#: To join, to reach the share at which the fault comes, to settle after it: each.
PATIENCE_S = 150.0
PARTITIONS = 4


class Skipped(Exception):
    """This fault cannot be had here; the message says why."""


@dataclass(frozen=True)
class Options:
    """How a cell is set up. `kafka` and `redis` name servers outside; else each cell has its own."""

    broker: str = "embedded"
    kafka: str = ""
    redis: str = ""
    delivery: str = "at_least_once"
    outage_s: float = 20.0
    products: int = 300
    versions: int = 8
    joins: int = 10
    join_interval_s: float = 6.0


@dataclass(frozen=True, slots=True)
class Fault:
    """`inject` does the harm and returns when the cause has ended."""

    name: str
    inject: Callable[[Any], None]
    consumers: int = 2
    tagger_delay_s: float = 0.3
    pictures: bool = False
    poison: bool = False
    #: this share of the events is published by the fault itself, by `Cell.publish_rest`
    holds_back: float = 0.0
    #: the broker's folder is a disk of its own of this size
    disk_mib: int = 0
    #: at least once, a consumer that lost its partitions unseen may publish an older revision and heal it
    reorders: bool = False


@dataclass(slots=True)
class Outcome:
    fault: str
    seed: int
    delivery: str
    findings: Findings = field(default_factory=Findings)
    #: part of the events published by then that were committed when the fault came
    injected_at: float = 0.0
    #: None: it never recovered
    recovery_s: float | None = None
    #: from the end of the cause until all is committed, nothing is in flight and every zombie has healed
    settled_s: float | None = None
    #: partition → its longest standstill
    stood_still_s: dict[int, float] = field(default_factory=dict)
    wall_s: float = 0.0
    skipped: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


class Consumer:
    """A process of consumer.py and what it said last."""

    def __init__(self, name: str, folder: Path, env: dict[str, str]) -> None:
        self.name = name
        self.folder = folder
        self._said = folder / f"{name}.jsonl"
        self.log_path = folder / f"{name}.log"
        command = [sys.executable, str(CONSUMER), name, str(folder)]
        self.process = spawn(command, log_path=self.log_path, folder=ROOT, env=env)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def stopped(self) -> bool:
        return self.alive and psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED

    def signal(self, number: signal.Signals) -> None:
        """To its whole process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self, timeout_s: float) -> None:
        """SIGKILL after `timeout_s`; then its log says where every thread stood."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            if timeout_s:
                self.process.send_signal(signal.SIGUSR1)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(1.0)
        self.signal(signal.SIGKILL)
        self.process.wait()

    def state(self) -> dict[str, Any]:
        """Its newest complete line; empty before the first."""
        if not self._said.exists():
            return {}
        lines = self._said.read_bytes().split(b"\n")
        return json.loads(lines[-2]) if len(lines) > 1 else {}

    def said_since(self, wall_s: float) -> bool:
        return self._said.exists() and self._said.stat().st_mtime > wall_s


class Standstill:
    """Watches the partitions from outside while it is entered; as fine as the commit interval."""

    def __init__(self, settings: Settings, ends: Callable[[], dict[int, int]]) -> None:
        self.longest_s: dict[int, float] = {}
        self._ends = ends
        self._watch = GroupWatch(
            settings.kafka, settings.consumer_group, settings.topics.events, timeout_s=1.0
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standstill", daemon=True)

    def __enter__(self) -> Standstill:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._watch.close()

    def _run(self) -> None:
        stands_at: dict[int, int] = {}
        since_s: dict[int, float] = {}
        while not self._ended.wait(POLL_S):
            try:
                committed = self._watch.committed()
            except Unavailable:
                continue
            now_s = time.monotonic()
            for partition, end in self._ends().items():
                offset = committed.get(partition, 0)
                still_s = now_s - since_s.get(partition, now_s)
                self.longest_s[partition] = max(still_s, self.longest_s.get(partition, 0.0))
                if offset >= end or offset != stands_at.get(partition):
                    stands_at[partition], since_s[partition] = offset, now_s


class Cell:
    """What a fault has in its hands."""

    def __init__(self, fault: Fault, seed: int, options: Options, folder: Path, stack: ExitStack) -> None:
        self.options = options
        self.folder = folder
        self.rng = random.Random(f"{fault.name}/{seed}")
        self.problems: list[str] = []
        self.consumers: list[Consumer] = []
        self.host = PictureHost()
        stack.callback(self.host.close)
        self._stack = stack
        self.broker = self._start_broker(fault.disk_mib)
        self.store = self._start_store()
        self.settings = Settings(
            kafka_bootstrap_servers=self.broker.address if self.broker else options.kafka,
            redis_url=self.store.url if self.store else options.redis,
            prefix=f"fault-{uuid4().hex[:8]}-",
        )
        self.env = self._environment(fault)
        create_topics(self.settings, partitions=PARTITIONS)
        self.watch = GroupWatch(
            self.settings.kafka,
            self.settings.consumer_group,
            self.settings.topics.events,
            timeout_s=5.0,
        )
        stack.callback(self.watch.close)
        self.ends: dict[int, int] = {}
        self.rest: list[KeyValue] = []
        self._committed: dict[int, int] = {}
        self._unanswered = ""

    # ---------------------------------------------------------------- servers

    def _start_broker(self, disk_mib: int) -> Any:
        if self.options.kafka:
            return None
        if self.options.broker == "embedded":
            return self._stack.enter_context(EmbeddedBroker(self.folder / "broker"))
        try:
            from tagstream.adapters.local.apache import ApacheBroker
        except ImportError as error:
            raise Skipped("tagstream.adapters.apache is not there") from error
        if not (home := os.environ.get("KAFKA_HOME")):
            raise Skipped("KAFKA_HOME names no Apache Kafka")
        if disk_mib:
            self._mount(self.folder / "broker", disk_mib)
        return self._stack.enter_context(ApacheBroker(self.folder / "broker", home=Path(home)))

    def _mount(self, folder: Path, size_mib: int) -> None:
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            raise Skipped("only root may mount a small disk")
        self._stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
        self._stack.callback(self._keep_logs, folder)

    def _keep_logs(self, folder: Path) -> None:
        """They would go with the disk."""
        for log in folder.glob("*.log"):
            shutil.copy(log, self.folder)

    def _start_store(self) -> EmbeddedStore | None:
        if self.options.redis:
            return None
        return self._stack.enter_context(EmbeddedStore(self.folder / "store", durable=True))

    def own_store(self) -> EmbeddedStore:
        if self.store is None:
            raise Skipped("the store is not ours to harm")
        return self.store

    def own_broker(self) -> Any:
        if self.broker is None:
            raise Skipped("the broker is not ours to harm")
        return self.broker

    def _environment(self, fault: Fault) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TAGSTREAM_", "RAY_"))}
        for name in ("KAFKA_CONFIG",):
            if value := os.environ.get(f"TAGSTREAM_{name}"):
                inherited[f"TAGSTREAM_{name}"] = value
        given = {
            "KAFKA_BOOTSTRAP_SERVERS": self.settings.kafka_bootstrap_servers,
            "REDIS_URL": self.settings.redis_url.get_secret_value(),
            "PREFIX": self.settings.prefix,
            "DELIVERY": self.options.delivery,
            "SESSION_TIMEOUT_S": SESSION_S,
            "REVOKE_TIMEOUT_S": 15,
            "COMMIT_INTERVAL_S": 0.5,
            "MICRO_BATCH_MAX_EVENTS": 16,
            "MAX_IN_FLIGHT": 2,
            "MAX_UNCOMMITTED_EVENTS": 200,
            "IMAGE_ALLOW_PRIVATE": "true",
            "IMAGE_TIMEOUT_S": 1,
            "IMAGE_MAX_BYTES": 200_000,
        }
        settings = {f"TAGSTREAM_{name}": str(value) for name, value in given.items()}
        return {
            **inherited,
            **settings,
            "PYTHONPATH": str(ROOT),
            "FAULTS_TAGGER_DELAY_S": str(fault.tagger_delay_s),
        }

    # ---------------------------------------------------------------- consumers

    def start(self, fault: Fault) -> bool:
        """True when every consumer has a partition."""
        for _ in range(fault.consumers):
            self.start_consumer()
        return self.wait_until(self.every_consumer_has_a_partition, "every consumer has a partition")

    def start_consumer(self) -> Consumer:
        consumer = Consumer(f"consumer-{len(self.consumers)}", self.folder, self.env)
        self.consumers.append(consumer)
        self._stack.callback(consumer.end, 0.0)
        return consumer

    def living(self) -> list[Consumer]:
        return [consumer for consumer in self.consumers if consumer.alive]

    def any_consumer(self) -> Consumer:
        return self.rng.choice(self.living())

    def every_consumer_has_a_partition(self) -> bool:
        return all(consumer.state().get("partitions") for consumer in self.living())

    # ---------------------------------------------------------------- events and progress

    def publish(self, records: Sequence[KeyValue]) -> None:
        publisher = build_publisher(self.settings)
        publisher.publish([OutRecord(self.settings.topics.events, r.key, r.value) for r in records])
        publisher.close()
        self.ends = {progress.partition: progress.end for progress in self.watch.progress()}

    def publish_rest(self) -> None:
        rest, self.rest = self.rest, []
        self.publish(rest)

    def committed(self) -> dict[int, int]:
        """Partition → committed offset; what was known last while the broker does not answer."""
        try:
            self._committed, self._unanswered = self.watch.committed(), ""
        except Unavailable as error:
            self._unanswered = f"; its own question: {error}"
        return {partition: self._committed.get(partition, 0) for partition in self.ends}

    def committed_count(self) -> int:
        return sum(self.committed().values())

    def finished(self) -> bool:
        return self.committed_count() >= sum(self.ends.values())

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> bool:
        """False, and a problem, if it does not come true in time."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                states = {c.name: {k: v for k, v in c.state().items() if k != "books"} for c in self.living()}
                self.problems.append(f"waited {timeout_s:g} s in vain: {what}; {states}{self._unanswered}")
                return False
            time.sleep(POLL_S)
        return True

    def last_for(self, seconds: float) -> None:
        """How long a cause lasts is part of the fault."""
        time.sleep(seconds)

    def must(self, condition: bool, what: str) -> None:
        """A fault that did not land proves nothing."""
        if not condition:
            self.problems.append(f"the fault did not land: {what}")

    def settled(self, since_wall_s: float) -> bool:
        """Nothing in flight, nothing to heal, and each partition has one owner: a zombie has noticed."""
        living = self.living()
        states = [consumer.state() for consumer in living]
        owned = sorted(int(partition) for state in states for partition in state.get("partitions", {}))
        return (
            all(consumer.said_since(since_wall_s) for consumer in living)
            and owned == sorted(self.ends)
            and not any(s.get("healing") or s.get("in_flight") or s.get("uncommitted") for s in states)
        )

    def recover(self) -> float | None:
        """Seconds, from now on."""
        began_s, before = time.monotonic(), self.committed()
        lagging = [partition for partition, end in self.ends.items() if before[partition] < end]

        def all_moved() -> bool:
            now = self.committed()
            return all(now[partition] > before[partition] for partition in lagging)

        moved = self.wait_until(all_moved, "every partition that lags moves again")
        return round(time.monotonic() - began_s, 1) if moved else None

    def end_consumers(self) -> None:
        """Cleanly; the books of all that ended so must balance."""
        for consumer in self.living():
            consumer.signal(signal.SIGTERM)
        for consumer in self.consumers:
            ended_by_signal = consumer.process.poll() == -signal.SIGKILL
            consumer.end(timeout_s=40)
            if ended_by_signal:
                continue
            if consumer.process.returncode != 0 or not consumer.state().get("ended"):
                self.problems.append(f"{consumer.name} ended with {consumer.process.returncode}")
                continue
            books = consumer.state()["books"]
            if books.get("consumed", 0) != sum(n for name, n in books.items() if name != "consumed"):
                self.problems.append(f"the books of {consumer.name} do not balance: {books}")


def run_cell(fault: Fault, seed: int, options: Options, folder: Path, make: type[Cell] = Cell) -> Outcome:
    """Never raises for what the fault did: what went wrong stands in the outcome."""
    outcome = Outcome(fault.name, seed, options.delivery)
    began_s = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            _run(make(fault, seed, options, folder, stack), fault, seed, outcome)
    except Skipped as reason:
        outcome.skipped = str(reason)
    except Exception as error:
        outcome.problems.append(f"the harness failed: {error!r}")
    outcome.wall_s = round(time.monotonic() - began_s, 1)
    return outcome


def _run(cell: Cell, fault: Fault, seed: int, outcome: Outcome) -> None:
    outcome.problems = cell.problems
    options = cell.options
    url = cell.host.url if fault.pictures else ""
    records = past(seed, options.products, options.versions, picture_url=url, poison=fault.poison)
    if not cell.start(fault):
        return
    at_first = records[: len(records) - int(fault.holds_back * len(records))]
    cell.rest = records[len(at_first) :]
    cell.publish(at_first)
    share = cell.rng.uniform(0.2, 0.6)
    cell.wait_until(lambda: cell.committed_count() >= share * len(at_first), f"{share:.0%} are committed")
    outcome.injected_at = round(cell.committed_count() / len(at_first), 2)
    cell.must(outcome.injected_at < 0.95, "nearly all was committed before it came")
    with Standstill(cell.settings, lambda: cell.ends) as standstill:
        fault.inject(cell)
        ended_wall_s = time.time()
        outcome.recovery_s = cell.recover()
        if cell.wait_until(cell.finished, "everything is committed") and cell.wait_until(
            lambda: cell.settled(ended_wall_s), "every consumer is idle and has healed"
        ):
            outcome.settled_s = round(time.time() - ended_wall_s, 1)
    outcome.stood_still_s = {p: round(s, 1) for p, s in sorted(standstill.longest_s.items())}
    cell.end_consumers()
    outcome.findings = examine(cell.settings, expect(records, is_poison))
    outcome.problems += wrong(outcome.findings, fault, options.delivery)


def wrong(found: Findings, fault: Fault, delivery: str) -> list[str]:
    """What breaks the promise of this delivery, a sentence each."""
    counts = {
        "products are lost": found.lost,
        "products are stale": found.stale,
        "products are not healed": found.not_healed,
        "index entries differ": found.index_differences,
        "dead letters are missing": found.letters_missing,
        "dead letters should not be there": found.letters_extra,
    }
    if delivery == "exactly_once":
        counts["records came twice"] = found.repeated
        counts["dead letters came twice"] = found.letters_repeated
    if delivery == "exactly_once" or not fault.reorders:
        counts["records came after newer ones"] = found.reordered
    problems = [f"{count} {what}" for what, count in counts.items() if count]
    return [*problems, *found.examples[:3]] if problems else []
