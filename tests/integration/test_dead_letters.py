"""`tagstream dead-letters` against a real broker and store, with the worker beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from tagstream.adapters.kafka.topics import read_all
from tagstream.cli.main import app
from tagstream.core.errors import BadSettings, TaggingFailed, Unavailable
from tagstream.core.ports import MicroBatch, OutRecord, Record, Scores
from tagstream.core.taxonomy import Taxonomy
from tagstream.ops.dead_letters import DeadLetters, Filter
from tagstream.ops.topics import create_topics
from tagstream.runner import Stream
from tagstream.settings import Settings
from tagstream.wiring import build_publisher, build_store
from tests.support.memory import MemoryMetrics, MemoryTagger

TAXONOMY = Taxonomy.model_validate(
    {"taxonomy_version": "t1", "groups": [{"name": "colour", "values": [{"value": "Red"}]}]}
)
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def settings(broker: str, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An environment of its own on the shared servers, which the commands see too."""
    return environment(broker, valkey_url, monkeypatch)


def environment(broker: str, valkey_url: str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Settings:
    prefix = f"dl-{uuid4().hex[:8]}-"
    made = Settings(
        kafka_bootstrap_servers=broker,
        redis_url=valkey_url,  # type: ignore[arg-type]
        prefix=prefix,
        session_timeout_s=2,
        commit_interval_s=0.1,
        **more,
    )
    monkeypatch.delenv("TAGSTREAM_SETTINGS_FILE", raising=False)
    monkeypatch.setenv("TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS", broker)
    monkeypatch.setenv("TAGSTREAM_REDIS_URL", valkey_url)
    monkeypatch.setenv("TAGSTREAM_PREFIX", prefix)
    monkeypatch.setenv("TAGSTREAM_EVENT_VERSION_FROM", made.event_version_from)
    monkeypatch.setenv("COLUMNS", "240")
    create_topics(made, partitions=2)
    return made


class Choosy(MemoryTagger):
    """Raises on titles that hold `fails_on`, until it is mended."""

    def __init__(self, fails_on: str = "cursed") -> None:
        super().__init__(TAXONOMY)
        self.fails_on = fails_on

    def tag(self, batch: MicroBatch) -> Scores:
        if self.fails_on and any(self.fails_on in text.title for text in batch.texts):
            raise TaggingFailed("a title that the model cannot read")
        return super().tag(batch)


@pytest.fixture
def start() -> Iterator[Callable[..., Stream]]:
    streams: list[Stream] = []

    def make(settings: Settings, tagger: MemoryTagger) -> Stream:
        stream = Stream(settings, tagger, MemoryMetrics())
        streams.append(stream)
        stream.start()
        return stream

    yield make
    for stream in streams:
        assert stream.stop(PATIENCE_S)


def event(product_id: str, event_version: int | None, title: str) -> tuple[bytes, bytes]:
    fields = {
        "schema_version": "1.0",
        "event_id": f"{product_id}-{event_version}",
        "type": "upsert",
        "product_id": product_id,
        "event_version": event_version,
        "occurred_at": "2026-01-05T08:00:00Z",
        "title": title,
    }
    return product_id.encode(), json.dumps(fields).encode()


def publish(settings: Settings, *records: tuple[bytes, bytes], timestamp_ms: int | None = None) -> None:
    publisher = build_publisher(settings)
    headers = (("traceparent", b"00-abc"),)
    publisher.publish([OutRecord(settings.topics.events, k, v, headers, timestamp_ms) for k, v in records])
    publisher.close()


def bury(settings: Settings, *letters: OutRecord) -> None:
    """Dead letters without a worker."""
    publisher = build_publisher(settings)
    publisher.publish(letters)
    publisher.close()


def buried(settings: Settings, product_id: str, first_seen_ms: int, **headers: bytes) -> OutRecord:
    own = {
        "__connect.errors.topic": settings.topics.events.encode(),
        "__connect.errors.partition": b"0",
        "__connect.errors.offset": b"3",
        "__connect.errors.stage": b"decode",
        "__connect.errors.exception.message": b"no title",
        "tagstream.attempts": b"1",
        "tagstream.first_seen_ms": b"%d" % first_seen_ms,
    } | {f"tagstream.{name}": value for name, value in headers.items()}
    value = None if "value_omitted_bytes" in headers else b"{}"
    return OutRecord(settings.topics.dead_letters, product_id.encode(), value, tuple(own.items()))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["dead-letters", *arguments])


def listed(*arguments: str) -> list[dict[str, Any]]:
    result = run("list", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


def events_of(settings: Settings) -> list[Record]:
    return list(read_all(settings.kafka, settings.topics.events))


def wait_until(stream: Stream, **counts: int) -> None:
    """The stream has so many of each in its books."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        stream.check()
        status = stream.status()
        books = status.books if status else {}
        if all(books.get(name, 0) >= count for name, count in counts.items()):
            return
        assert time.monotonic() < deadline_s, status
        time.sleep(0.02)


def title_version(settings: Settings, product_id: str) -> int | None:
    """The event_version that stands in the store."""
    store = build_store(settings)
    standing = store.get([product_id])[0]
    store.close()
    return standing.product.event_version if standing and standing.product else None


def test_a_letter_is_listed_shown_replayed_and_tagged_once_the_cause_is_mended(
    settings: Settings, start: Callable[..., Stream]
) -> None:
    tagger = Choosy()
    stream = start(settings, tagger)
    publish(settings, event("p1", 1, "cursed \x1b[2J shirt"), event("p2", 1, "shirt"), (b"p3", b"\xff\x00"))
    wait_until(stream, tagged=1, dead_lettered=2)
    by_product = {row["product"]: row for row in listed()}
    assert by_product.keys() == {"p1", "p3"}
    assert (by_product["p1"]["stage"], by_product["p3"]["stage"]) == ("tag", "decode")
    assert [row["product"] for row in listed("--reason", "cannot read")] == ["p1"]
    assert [row["product"] for row in listed("--stage", "decode", "--since", "1h")] == ["p3"]
    assert listed("--until", "1h") == []
    table = run("list").output
    assert by_product["p1"]["address"] in table
    assert "cannot read" in table

    shown = run("show", by_product["p1"]["address"]).output
    assert "traceparent: 00-abc" in shown
    assert "\x1b" not in shown
    whole = json.loads(run("show", "--json", by_product["p3"]["address"]).output)
    assert whole["value_base64"] == "/wA="

    tagger.fails_on = ""
    dry = run("replay", "--stage", "tag", "--dry-run")
    assert "1 would be replayed" in dry.output
    assert len(events_of(settings)) == 3
    result = run("replay", "--stage", "tag")
    assert result.exit_code == 0, result.output
    wait_until(stream, tagged=2)
    assert title_version(settings, "p1") == 1
    assert [row["product"] for row in listed()] == ["p3"]
    assert {row["product"]: row["handled"] for row in listed("--all")} == {"p1": True, "p3": False}
    assert "replayed at" in run("show", by_product["p1"]["address"]).output

    original, again = (record for record in events_of(settings) if record.key == b"p1")
    assert (again.value, again.timestamp_ms) == (original.value, original.timestamp_ms)
    assert again.partition == original.partition
    headers = dict(again.headers)
    assert headers["traceparent"] == b"00-abc"
    assert headers["tagstream.replay.source_offset"] == b"%d" % original.offset
    assert headers["tagstream.replay.from"] == by_product["p1"]["address"].encode()
    assert not any(name.startswith("__connect.errors.") for name in headers)

    assert "0 replayed, 1 handled before" in run("replay", "--stage", "tag").output
    assert "1 replayed, 0 handled before" in run("replay", "--stage", "tag", "--again").output
    wait_until(stream, repeated=1)


@pytest.mark.parametrize("version_from", ["field", "timestamp"])
def test_a_replayed_older_version_is_stale_after_a_newer_one(
    broker: str,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[..., Stream],
    version_from: str,
) -> None:
    settings = environment(broker, valkey_url, monkeypatch, event_version_from=version_from)
    tagger = Choosy()
    stream = start(settings, tagger)
    then_ms = 1_767_600_000_000
    publish(settings, event("p1", 4, "cursed shirt"), timestamp_ms=then_ms)
    # The same timestamp: only the offset tells which of them is newer.
    publish(settings, event("p1", 5, "shirt"), timestamp_ms=then_ms)
    wait_until(stream, tagged=1, dead_lettered=1)
    tagger.fails_on = ""
    assert run("replay").exit_code == 0
    wait_until(stream, stale=1)
    assert title_version(settings, "p1") == (5 if version_from == "field" else then_ms)


def test_a_letter_that_fails_again_has_fresh_errors_and_its_first_offset(
    settings: Settings, start: Callable[..., Stream]
) -> None:
    tagger = Choosy()
    stream = start(settings, tagger)
    publish(settings, event("p1", 1, "cursed shirt"))
    wait_until(stream, dead_lettered=1)
    assert run("replay").exit_code == 0
    wait_until(stream, dead_lettered=2)
    [fresh] = listed()
    letter = json.loads(run("show", "--json", fresh["address"]).output)
    headers = {header["name"]: header["value"] for header in letter["headers"]}
    first, second = (record.offset for record in events_of(settings))
    assert headers["__connect.errors.offset"] == str(second)
    tagger.fails_on = ""
    assert run("replay", fresh["address"]).exit_code == 0
    wait_until(stream, tagged=1)
    last = dict(events_of(settings)[-1].headers)
    assert last["tagstream.replay.source_offset"] == b"%d" % first
    assert last["tagstream.replay.from"] == fresh["address"].encode()
    assert listed() == []


def test_a_letter_that_comes_back_while_it_is_replayed_is_replayed_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(settings, buried(settings, "p1", 1000))
    dead_letters, send = DeadLetters(settings), DeadLetters._send

    def fail_at_once(self: DeadLetters, letterbox: Any, letters: list[Any]) -> None:
        send(self, letterbox, letters)
        bury(settings, *(buried(settings, letter.product_id, 1000) for letter in letters))

    monkeypatch.setattr(DeadLetters, "_send", fail_at_once)
    monkeypatch.setattr("tagstream.ops.dead_letters._CHUNK_LETTERS", 1)
    assert dead_letters.replay(Filter()).replayed == 1
    assert len(events_of(settings)) == 1
    assert len(listed()) == 1


def test_a_letter_whose_value_was_left_out_is_not_replayed_as_a_deletion(settings: Settings) -> None:
    bury(settings, buried(settings, "big", 1000, value_omitted_bytes=b"27000000"))
    bury(settings, OutRecord(settings.topics.dead_letters, b"alien", b"x"), buried(settings, "p1", 1000))
    result = run("replay")
    assert result.exit_code == 1
    assert "its value of 27,000,000 bytes was too large to be kept" in result.output
    assert "it came from an unnamed topic" in result.output
    assert "1 replayed, 0 handled before, 2 cannot be replayed" in result.output
    assert [record.key for record in events_of(settings)] == [b"p1"]
    assert {row["product"] for row in listed()} == {"big", "alien"}


def test_a_letter_that_was_not_delivered_stays_unhandled(settings: Settings) -> None:
    nowhere = buried(settings, "p1", 1000)
    headers = tuple((n, b"77" if n == "__connect.errors.partition" else v) for n, v in nowhere.headers)
    bury(settings, OutRecord(nowhere.topic, nowhere.key, nowhere.value, headers))
    with pytest.raises(Unavailable, match="a record was not"):
        DeadLetters(settings).replay(Filter())
    assert len(listed()) == 1


def test_purge_by_filter_hides_what_it_names_and_nothing_else(settings: Settings) -> None:
    bury(settings, *(buried(settings, f"p{number}", 1000 + number) for number in range(5)))
    assert isinstance(run("purge").exception, BadSettings), "everything must be asked for by name"
    assert isinstance(run("purge", "--before", "1h", "--product", "p1").exception, BadSettings)
    refused = CliRunner().invoke(app, ["dead-letters", "purge", "--product", "p1"], input="n\n")
    assert refused.exit_code == 1
    assert len(listed()) == 5
    assert "1 marked as handled" in run("purge", "--product", "p1", "--yes").output
    assert "0 marked as handled" in run("purge", "--product", "p1", "--yes").output
    assert {row["product"] for row in listed()} == {"p0", "p2", "p3", "p4"}
    assert len(listed("--all")) == 5
    assert "4 replayed, 1 handled before" in run("replay").output


def test_a_broker_that_cannot_delete_records_says_so(settings: Settings) -> None:
    bury(settings, buried(settings, "p1", 1000))
    with pytest.raises(Unavailable, match="has not deleted the records of"):
        DeadLetters(settings).delete_prefix({0: 0, 1: 10_000})
    assert len(listed()) == 1


def test_purge_by_time_deletes_the_beginning_of_each_partition(
    apache_kafka: Any, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = environment(apache_kafka.address, valkey_url, monkeypatch)
    now_ms = int(time.time() * 1000)
    old = [buried(settings, f"old{number}", now_ms - 7_200_000) for number in range(6)]
    new = [buried(settings, f"new{number}", now_ms) for number in range(6)]
    bury(settings, *old)
    bury(settings, *new)
    bury(settings, buried(settings, "old-behind-new", now_ms - 7_200_000))
    assert "6 deleted" in run("purge", "--before", "1h", "--yes").output
    kept = {f"new{number}" for number in range(6)} | {"old-behind-new"}
    assert {row["product"] for row in listed()} == kept, "only a beginning can be deleted"
    assert "0 deleted" in run("purge", "--before", "3h", "--yes").output
