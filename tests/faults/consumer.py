"""One consumer on a process of its own: the real stream, with a tagger that needs no model.

    python tests/faults/consumer.py NAME FOLDER     settings from TAGSTREAM_*; SIGTERM drains and ends it

What the harness asks of it, as files in FOLDER:
    freeze-NAME     stop (SIGSTOP) between a store and its publish; removed when that happens
    generation      the model_generation that the tagger answers with
NAME.jsonl there says, line by line, how the worker is; the last one after a clean end has "ended": true.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support

from tagstream import runner
from tagstream.core.errors import ReplicaDied
from tagstream.core.ports import MicroBatch, OutRecord, Publisher, Scores, TopicPartition, Transactions
from tagstream.core.taxonomy import Taxonomy
from tagstream.logs import set_up_logs
from tagstream.settings import Settings, load_settings
from tests.support.memory import MemoryMetrics, MemoryTagger

POISON = "POISON"
STATUS_INTERVAL_S = 0.2
DRAIN_S = 30.0
TAXONOMY = Taxonomy.model_validate(
    {
        "taxonomy_version": "t1",
        "groups": [
            {"name": "colour", "values": [{"value": v} for v in ("Red", "Blue", "Green")]},
            {"name": "kind", "values": [{"value": v} for v in ("Shirt", "Shoe", "Belt", "Cap")]},
        ],
    }
)


class StandIn(MemoryTagger):
    """Deterministic and slow, so that a fault lands in mid-stream; dies of poison, swaps its model."""

    def __init__(self, folder: Path, delay_s: float) -> None:
        super().__init__(TAXONOMY)
        self._generation_path = folder / "generation"
        self._delay_s = delay_s

    def tag(self, batch: MicroBatch) -> Scores:
        time.sleep(self._delay_s)
        return self._answer(batch)

    def tag_isolated(self, batch: MicroBatch) -> Scores:
        return self._answer(batch)

    def _answer(self, batch: MicroBatch) -> Scores:
        if any(POISON in text.title for text in batch.texts):
            raise ReplicaDied("the process that had it is gone")
        if self._generation_path.exists():
            self.model_generation = int(self._generation_path.read_text())
        return super().tag(batch)


class Freezer:
    """Stops this process at the moment at which a zombie does harm: after a store, before its publish."""

    def __init__(self, folder: Path, name: str, tags_topic: str) -> None:
        self._flag = folder / f"freeze-{name}"
        self._tags_topic = tags_topic

    def pass_or_freeze(self, records: Sequence[OutRecord]) -> None:
        if self._flag.exists() and any(record.topic == self._tags_topic for record in records):
            self._flag.unlink(missing_ok=True)
            os.kill(os.getpid(), signal.SIGSTOP)


class FreezingPublisher:
    def __init__(self, publisher: Publisher, freezer: Freezer) -> None:
        self._publisher = publisher
        self._freezer = freezer

    def publish(self, records: Sequence[OutRecord]) -> None:
        self._freezer.pass_or_freeze(records)
        self._publisher.publish(records)

    def close(self) -> None:
        self._publisher.close()


class FreezingTransactions:
    def __init__(self, transactions: Transactions, freezer: Freezer) -> None:
        self._transactions = transactions
        self._freezer = freezer

    def commit(self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int]) -> None:
        self._freezer.pass_or_freeze(records)
        self._transactions.commit(records, next_offsets)

    def settle(self) -> None:
        self._transactions.settle()

    def close(self) -> None:
        self._transactions.close()


def let_freeze(freezer: Freezer) -> None:
    """What the runner builds next stops when it is told to."""
    build_publisher, build_transactions = runner.build_publisher, runner.build_transactions

    def freezing_transactions(settings: Settings, source: Any) -> Transactions | None:
        built = build_transactions(settings, source)
        return None if built is None else FreezingTransactions(built, freezer)

    runner.build_publisher = lambda settings: FreezingPublisher(build_publisher(settings), freezer)
    runner.build_transactions = freezing_transactions


def state(stream: runner.Stream) -> dict[str, Any]:
    status = stream.status()
    if status is None:
        return {"ready": False, "reason": "not built yet", "healing": False, "books": {}}
    assert stream._worker is not None
    return {**asdict(status), "healing": stream._worker.is_healing}


def main(name: str, folder: Path) -> int:
    settings = load_settings()
    set_up_logs(as_json=False)
    let_freeze(Freezer(folder, name, settings.topics.tags))
    tagger = StandIn(folder, float(os.environ.get("FAULTS_TAGGER_DELAY_S", "0.2")))
    stream = runner.Stream(settings, tagger, MemoryMetrics())
    stopping = threading.Event()
    faulthandler.register(signal.SIGUSR1)  # where every thread stands, into the log
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    stream.start()
    with (folder / f"{name}.jsonl").open("a", buffering=1) as said:
        while not stopping.wait(STATUS_INTERVAL_S):
            stream.check()
            said.write(json.dumps(state(stream)) + "\n")
        ended = stream.stop(DRAIN_S)
        stream.check()
        said.write(json.dumps({**state(stream), "ended": ended}) + "\n")
    return 0 if ended else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
