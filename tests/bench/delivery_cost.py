"""What the guarantees cost: throughput with them ÷ without, in one process beside a real broker and store.

    python tests/bench/delivery_cost.py [--events 20000] [--rounds 3]

Retries, order per product and dead letters: against a worker that has them cut out. Exactly once: against at
least once, on Apache Kafka, where KAFKA_HOME names one. The model is a stand-in that costs nothing, so these
are the worst of ratios. The runs alternate; prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support

import numpy as np

from tagstream import runner
from tagstream.adapters.local.apache import ApacheBroker
from tagstream.adapters.local.embedded import EmbeddedBroker, EmbeddedStore
from tagstream.core.ports import MicroBatch, OutRecord, Scores
from tagstream.core.records import KeyValue
from tagstream.core.taxonomy import Taxonomy
from tagstream.ops.topics import create_topics
from tagstream.settings import Settings
from tagstream.stream.entry import Entry
from tagstream.stream.worker import Worker
from tests.support.load import events
from tests.support.memory import MemoryMetrics

TAXONOMY = Taxonomy.model_validate(
    {
        "taxonomy_version": "null",
        "groups": [
            {"name": f"group{g}", "values": [{"value": f"value{v}"} for v in range(20)]} for g in range(7)
        ],
    }
)
_VALUE_BYTES = 6000
_WARM_UP = 0.2


class NullTagger:
    def tag(self, batch: MicroBatch) -> Scores:
        values = np.zeros((len(batch), TAXONOMY.size), np.float32)
        values[:, ::20] = 0.9
        return Scores("null", 1, values, ["used" if image else "none" for image in batch.images])

    tag_isolated = tag

    def taxonomy(self, model_version: str) -> Taxonomy:
        return TAXONOMY


class _Unordered:
    """In place of the lanes: every event goes at once."""

    def admit(self, entry: Entry) -> bool:
        return True

    def finish(self, entry: Entry) -> tuple[list[Entry], None]:
        return [], None

    def drop_waiting(self, unwanted: object) -> list[Entry]:
        return []


class _Unguarded:
    def take(self, failed: object) -> None:
        return

    def reset(self) -> None:
        return


class CutWorker(Worker):
    """No retries, no order per product, no watch over the dead letters."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)  # type: ignore[arg-type]
        self._lanes = _Unordered()  # type: ignore[assignment]
        self._halt.guard = self.carrier._guard = _Unguarded()  # type: ignore[assignment]
        self.carrier._retry = lambda step, call, entries: call()  # type: ignore[method-assign]


def rate_per_s(settings: Settings, sent: list[KeyValue], kind: type[Worker]) -> float:
    """Events a second between a fifth and the end, in an environment of its own."""
    settings = settings.model_copy(update={"prefix": f"b-{uuid4().hex[:8]}-"})
    create_topics(settings, partitions=4)
    publisher = runner.build_publisher(settings)
    for start in range(0, len(sent), 500):
        records = sent[start : start + 500]
        publisher.publish([OutRecord(settings.topics.events, r.key, r.value) for r in records])
    publisher.close()
    runner.Worker = kind  # type: ignore[misc]
    stream = runner.Stream(settings, NullTagger(), MemoryMetrics())
    stream.start()
    first = int(len(sent) * _WARM_UP)
    started_s = _when(stream, first)
    ended_s = _when(stream, len(sent))
    if not stream.stop(60):
        raise SystemExit("the stream does not stop")
    return (len(sent) - first) / (ended_s - started_s)


def _when(stream: runner.Stream, count: int) -> float:
    deadline_s = time.monotonic() + 300
    while (status := stream.status()) is None or status.books.get("tagged", 0) < count:
        stream.check()
        if time.monotonic() > deadline_s:
            raise SystemExit(f"the stream stands still: {status}")
        time.sleep(0.02)
    return time.monotonic()


def ratios(run: Callable[[bool], float], rounds: int) -> Iterator[float]:
    run(False)  # the first one warms up broker and store
    for _ in range(rounds):
        without, with_it, again = run(False), run(True), run(False)
        yield with_it / ((without + again) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="not used here")
    arguments = parser.parse_args()
    count = arguments.events
    sent = list(events(count, distinct_products=count, value_bytes=_VALUE_BYTES))
    kafka_home = os.environ.get("KAFKA_HOME")
    figures: dict[str, object] = {"bench": "delivery_cost", "events": count}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = stack.enter_context(EmbeddedStore(Path(folder) / "store"))

        def settings(broker: str, delivery: str = "at_least_once") -> Settings:
            return Settings(
                kafka_bootstrap_servers=broker, redis_url=store.url, session_timeout_s=6, delivery=delivery
            )

        embedded = stack.enter_context(EmbeddedBroker(Path(folder) / "broker"))

        def guarded(whole: bool) -> float:
            return rate_per_s(settings(embedded.address), sent, Worker if whole else CutWorker)

        found = list(ratios(guarded, arguments.rounds))
        figures |= {"guarantees_ratio": round(statistics.median(found), 3), "target_ratio": 0.97}
        figures["guarantees_ratios"] = [round(ratio, 3) for ratio in found]
        if kafka_home:
            kafka = stack.enter_context(ApacheBroker(Path(folder) / "kafka", home=Path(kafka_home)))

            def once(exactly: bool) -> float:
                delivery = "exactly_once" if exactly else "at_least_once"
                return rate_per_s(settings(kafka.address, delivery), sent, Worker)

            found = list(ratios(once, arguments.rounds))
            figures |= {"exactly_once_ratio": round(statistics.median(found), 3), "exactly_once_target": 0.85}
            figures["exactly_once_ratios"] = [round(ratio, 3) for ratio in found]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
