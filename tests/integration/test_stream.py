"""The worker with its real parts around it: real broker, store and threads. Only the model is a twin."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from tagstream.adapters.kafka.lag import GroupWatch
from tagstream.adapters.kafka.topics import read_all
from tagstream.adapters.local.apache import ApacheBroker
from tagstream.catalogue.built_in import history
from tagstream.catalogue.malformed import malformed
from tagstream.core.errors import BadSettings, Unavailable
from tagstream.core.ports import MicroBatch, OutRecord, Scores
from tagstream.core.records import KeyValue, encode
from tagstream.core.taxonomy import Taxonomy
from tagstream.ops.audit import examine, expect, unbalanced
from tagstream.ops.topics import create_topics
from tagstream.runner import Stream
from tagstream.settings import Settings
from tagstream.wiring import build_publisher, check_delivery
from tests.support.load import events
from tests.support.memory import MemoryMetrics, MemoryTagger

TAXONOMY = Taxonomy.model_validate(
    {
        "taxonomy_version": "t1",
        "groups": [
            {"name": "colour", "values": [{"value": v} for v in ("Red", "Blue", "深蓝 = navy:{x}")]},
            {"name": "kind", "values": [{"value": v} for v in ("Shirt", "Shoe")]},
        ],
    }
)
PATIENCE_S = 60.0


@pytest.fixture
def settings(broker: str, valkey_url: str) -> Settings:
    """An environment of its own on the shared servers."""
    made = Settings(
        kafka_bootstrap_servers=broker,
        redis_url=valkey_url,
        prefix=f"it-{uuid4().hex[:8]}-",
        session_timeout_s=2,
        commit_interval_s=0.1,
    )
    create_topics(made, partitions=4)
    return made


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., Stream]]:
    streams: list[Stream] = []

    def make(tagger: MemoryTagger | None = None, settings: Settings = settings, **changed: object) -> Stream:
        stream = Stream(
            settings.model_copy(update=changed), tagger or MemoryTagger(TAXONOMY), MemoryMetrics()
        )
        streams.append(stream)
        stream.start()
        return stream

    yield make
    for stream in streams:
        assert stream.stop(PATIENCE_S)


def publish(settings: Settings, records: list[KeyValue]) -> None:
    publisher = build_publisher(settings)
    publisher.publish([OutRecord(settings.topics.events, r.key, r.value) for r in records])
    publisher.close()


def wait_for(condition: Callable[[], bool], *streams: Stream) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        for stream in streams:
            stream.check()
        assert time.monotonic() < deadline_s, [stream.status() for stream in streams]
        time.sleep(0.02)


def wait_committed(settings: Settings, count: int, *streams: Stream) -> None:
    watch = GroupWatch(settings.kafka, settings.consumer_group, settings.topics.events)
    wait_for(lambda: sum(watch.committed().values()) >= count, *streams)
    watch.close()


def books(*streams: Stream) -> dict[str, int]:
    total: dict[str, int] = {}
    for stream in streams:
        status = stream.status()
        for name, count in (status.books if status else {}).items():
            total[name] = total.get(name, 0) + count
    return total


def problems_of(settings: Settings, sent: list[KeyValue], books: dict[str, int]) -> list[str]:
    """What the audit finds wrong, a sentence each."""
    expectation = expect(sent)
    return [*examine(settings, expectation).problems(), *unbalanced(expectation, books)]


def test_a_history_with_updates_deletes_and_bad_records_comes_out_right(
    settings: Settings, start: Callable[..., Stream]
) -> None:
    sent = [encode(event) for event in history()]
    sent += [KeyValue(bad.key, bad.value) for bad in malformed(20_000_000)]
    stream = start()
    publish(settings, sent)
    wait_committed(settings, len(sent), stream)
    assert problems_of(settings, sent, books(stream)) == []
    assert books(stream)["dead_lettered"] == len(malformed(1000))


def test_every_bad_record_is_dead_lettered_with_a_reason_that_names_the_fault(
    settings: Settings, start: Callable[..., Stream]
) -> None:
    bad = malformed(20_000_000)
    publish(settings, [KeyValue(record.key, record.value) for record in bad])
    wait_committed(settings, len(bad), start())
    reasons = {
        (letter.key or None, letter.value): dict(letter.headers)["__connect.errors.exception.message"]
        for letter in read_all(settings.kafka, settings.topics.dead_letters)
    }
    assert len(reasons) == len(bad)
    for record in bad:
        reason = (reasons[record.key, record.value] or b"").decode()
        assert record.expected_reason_fragment.lower() in reason.lower()


def test_consumers_that_come_and_go_lose_and_reorder_nothing(
    settings: Settings, start: Callable[..., Stream]
) -> None:
    sent = list(events(3000, distinct_products=400, value_bytes=None))
    streams = [start(max_in_flight=2, micro_batch_max_events=16)]
    publish(settings, sent[:1500])
    streams.append(start(micro_batch_max_events=16))
    wait_for(lambda: all(s.status() and s.status().partitions for s in streams), *streams)
    publish(settings, sent[1500:])
    assert streams[0].stop(PATIENCE_S)
    wait_committed(settings, len(sent), streams[1])
    total = books(*streams)
    problems = problems_of(settings, sent, total)
    assert [p for p in problems if "consumed" not in p] == [], "a hand-over may consume some records twice"
    assert total["consumed"] - total.get("dropped", 0) >= len(sent)


def test_a_worker_that_stops_has_committed_what_it_published(
    settings: Settings, start: Callable[..., Stream]
) -> None:
    sent = list(events(800, distinct_products=800))
    stream = start()
    publish(settings, sent)
    wait_for(lambda: books(stream).get("tagged", 0) > 100, stream)
    assert stream.stop(PATIENCE_S)
    watch = GroupWatch(settings.kafka, settings.consumer_group, settings.topics.events)
    committed = sum(watch.committed().values())
    watch.close()
    published = sum(1 for _ in read_all(settings.kafka, settings.topics.tags))
    assert committed <= published, "never more committed than published"
    assert published == books(stream)["tagged"]


class SlowTagger(MemoryTagger):
    """Answers when told to."""

    def __init__(self) -> None:
        super().__init__(TAXONOMY)
        self.away = True

    def tag(self, batch: MicroBatch) -> Scores:
        if self.away:
            raise Unavailable("no replica")
        return super().tag(batch)


def test_while_the_tagger_is_away_nothing_is_committed_and_the_worker_stays_up(
    settings: Settings, start: Callable[..., Stream]
) -> None:
    tagger = SlowTagger()
    stream = start(tagger)
    sent = list(events(200, distinct_products=200))
    publish(settings, sent)
    wait_for(lambda: "no replica" in (stream.status() or stream).reason, stream)  # type: ignore[union-attr]
    watch = GroupWatch(settings.kafka, settings.consumer_group, settings.topics.events)
    assert watch.committed() == {}
    watch.close()
    tagger.away = False
    wait_committed(settings, len(sent), stream)
    assert problems_of(settings, sent, books(stream)) == []


def test_the_lag_seen_from_outside_falls_to_nothing(settings: Settings, start: Callable[..., Stream]) -> None:
    sent = list(events(150, distinct_products=150))
    publish(settings, sent)
    watch = GroupWatch(settings.kafka, settings.consumer_group, settings.topics.events)
    assert sum(partition.lag for partition in watch.progress()) == len(sent)
    wait_committed(settings, len(sent), start())
    assert sum(partition.lag for partition in watch.progress()) == 0
    watch.close()


def test_a_broker_that_shows_aborted_records_is_refused_for_exactly_once(settings: Settings) -> None:
    with pytest.raises(BadSettings, match="TAGSTREAM_DELIVERY: exactly_once needs a broker"):
        check_delivery(settings.model_copy(update={"delivery": "exactly_once"}))
    check_delivery(settings)


def test_exactly_once_readers_see_each_revision_once(
    apache_kafka: ApacheBroker, valkey_url: str, start: Callable[..., Stream]
) -> None:
    made = Settings(
        kafka_bootstrap_servers=apache_kafka.address,
        redis_url=valkey_url,
        prefix=f"it-{uuid4().hex[:8]}-",
        session_timeout_s=6,
        commit_interval_s=0.1,
        delivery="exactly_once",
    )
    create_topics(made, partitions=4)
    check_delivery(made)
    sent = [encode(event) for event in history()]
    sent += [KeyValue(bad.key, bad.value) for bad in malformed(20_000_000)]
    publish(made, sent)
    stream = start(settings=made)
    wait_committed(made, len(sent), stream)
    assert problems_of(made, sent, books(stream)) == []
    seen = Counter(
        (record.key, dict(record.headers)["revision"]) for record in read_all(made.kafka, made.topics.tags)
    )
    assert max(seen.values()) == 1
