"""Run as a Ray job by test_isolation.py: the real consumer, and a tagger that some titles kill or block."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["RAY_SERVE_USE_GRPC_BY_DEFAULT"] = "1"  # as in serve/config.yaml; read when Serve is imported

import ray
from ray import serve

import serve.stream as stream_deployment
from tagstream.adapters.kafka.topics import read_all
from tagstream.core.ports import MicroBatch, OutRecord, Record, Scores
from tagstream.core.taxonomy import Taxonomy
from tagstream.ops.audit import read_store, read_tags
from tagstream.ops.topics import create_topics
from tagstream.settings import Settings, load_settings
from tagstream.wiring import build_publisher
from tests.support.memory import MemoryTagger

PREFIX = "poison-"
NEIGHBOURS = 40
ENV = {
    "TAGSTREAM_PREFIX": PREFIX,
    "TAGSTREAM_TAG_TIMEOUT_S": "4",
    # A consumer that a busy machine holds up past its session loses its partition, and the deaths it counted.
    "TAGSTREAM_SESSION_TIMEOUT_S": "45",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
}


def tagger() -> MemoryTagger:
    values = [{"value": "Red"}, {"value": "Blue"}]
    groups = [{"name": "colour", "values": values}]
    return MemoryTagger(Taxonomy.model_validate({"taxonomy_version": "t", "groups": groups}))


class Mortal:
    """In a process of its own too. Each death and each silence is a line of the diary."""

    def __init__(self, diary: str) -> None:
        self._diary, self._tagger = Path(diary), tagger()

    def tag(self, batch: MicroBatch) -> Scores:
        for text in batch.texts:
            if text.title in ("KILLS", "BLOCKS"):
                with self._diary.open("a") as diary:
                    diary.write(f"{text.title}\n")
                if text.title == "KILLS":
                    time.sleep(
                        0.5
                    )  # Serve gives a batch to the next replica if one dies before it has accepted
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(1000)
        return self._tagger.tag(batch)


class MortalReplica:
    def __init__(self, diary: str) -> None:
        self._mortal, self._tagger = Mortal(diary), tagger()

    async def tag(self, batch: MicroBatch) -> Scores:
        return await asyncio.to_thread(self._mortal.tag, batch)

    async def taxonomy(self, model_version: str) -> str:
        return self._tagger.taxonomy(model_version).model_dump_json()


def publish(settings: Settings, *events: tuple[str, str]) -> None:
    publisher = build_publisher(settings)
    publisher.publish([OutRecord(settings.topics.events, p.encode(), event(p, title)) for p, title in events])
    publisher.close()


def event(product_id: str, title: str) -> bytes:
    fields = {"schema_version": "1.0", "event_id": product_id, "type": "upsert", "product_id": product_id}
    fields |= {"event_version": 1, "occurred_at": "2026-01-01T00:00:00Z", "title": title}
    return json.dumps(fields).encode()


def letters(settings: Settings) -> list[Record]:
    return list(read_all(settings.kafka, settings.topics.dead_letters))


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 150) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.5)


def told(diary: Path, own_diary: Path) -> tuple[list[str], list[str]]:
    return diary.read_text().split(), own_diary.read_text().split()


def main() -> None:
    ray.init()
    settings = load_settings(prefix=PREFIX)
    create_topics(settings, partitions=1)
    with tempfile.TemporaryDirectory() as folder:
        diary, own_diary = Path(folder) / "replicas", Path(folder) / "isolated"
        diary.touch()
        own_diary.touch()
        own = str(own_diary)
        stream_deployment.build_isolated_tagger = lambda: Mortal(own)  # type: ignore[assignment,return-value]
        replicas = serve.deployment(MortalReplica).options(
            num_replicas=2, ray_actor_options={"num_cpus": 0.1, "runtime_env": {"env_vars": ENV}}
        )
        consumer = stream_deployment.StreamConsumer.options(
            ray_actor_options={"num_cpus": 0.1, "runtime_env": {"env_vars": ENV}}
        )
        innocent = [(f"p{n}", "fine") for n in range(NEIGHBOURS)]
        publish(settings, *innocent[:20], ("killer", "KILLS"), *innocent[20:])
        serve.run(consumer.bind(replicas.bind(str(diary))), name="poison", route_prefix=None)
        try:
            wait_until(lambda: len(letters(settings)) == 1, "the event that kills is a dead letter")
            wait_until(lambda: len(read_tags(settings).last) == NEIGHBOURS, "its neighbours are tagged")
            assert told(diary, own_diary) == (["KILLS"] * 2, ["KILLS"] * 2), told(diary, own_diary)
            publish(settings, ("blocker", "BLOCKS"), ("after", "fine"))
            wait_until(lambda: len(letters(settings)) == 2, "the event that blocks is a dead letter")
            wait_until(lambda: "after" in read_tags(settings).last, "what came after it is tagged")
            assert told(diary, own_diary) == (["KILLS"] * 2 + ["BLOCKS"] * 2,) * 2, told(diary, own_diary)
            assert [letter.key for letter in letters(settings)] == [b"killer", b"blocker"]
            assert read_store(settings).products.keys() == {p for p, _ in innocent} | {"after"}
        finally:
            serve.delete("poison")
    print("two deaths, two silences, and everybody else is tagged")


if __name__ == "__main__":
    main()
