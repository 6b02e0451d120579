"""What `tagstream up --embedded --kafka-home DIR --state FOLDER` keeps from one start to the next."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from tagstream.adapters.kafka.topics import read_all
from tagstream.adapters.local.embedded import EmbeddedStore
from tagstream.core.errors import BadSettings, StoreNotInitialised
from tagstream.core.events import ProductTags
from tagstream.core.ports import OutRecord, Write
from tagstream.local.stack import local_stack, servers
from tagstream.ops.topics import create_topics
from tagstream.settings import Settings, load_settings
from tagstream.wiring import build_publisher, build_store

TAGS = ProductTags(
    product_id="p1",
    revision=1,
    event_version=7,
    model_version="m",
    model_generation=1,
    taxonomy_version="t",
    tagged_at=datetime(2026, 1, 2, tzinfo=UTC),
    image="none",
    tags=(),
)


@contextmanager
def started(state: Path, kafka_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    with servers(state, kafka_home=kafka_home, durable=True, tell=lambda step: None) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield load_settings()


def put(settings: Settings) -> None:
    store = build_store(settings)
    try:
        store.put([Write(TAGS, 0, False)])
    finally:
        store.close()


def version_in_store(settings: Settings) -> int | None:
    store = build_store(settings)
    (standing,) = store.get(["p1"])
    store.close()
    return standing.product.event_version if standing and standing.product else None


def test_a_second_start_finds_records_and_keys_and_a_store_that_was_lost_is_not_taken_for_a_new_one(
    kafka_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path, kafka_home, monkeypatch) as settings:
        assert settings.topics.tags in create_topics(settings, partitions=1)
        publisher = build_publisher(settings)
        publisher.publish([OutRecord(settings.topics.tags, b"p1", TAGS.model_dump_json().encode())])
        publisher.close()
        put(settings)
        with pytest.raises(BadSettings, match="in use"), started(tmp_path, kafka_home, monkeypatch):
            pytest.fail("two on one folder")

    with started(tmp_path, kafka_home, monkeypatch) as settings:
        assert create_topics(settings, partitions=1) == []
        (record,) = read_all(settings.kafka, settings.topics.tags)
        assert ProductTags.model_validate_json(record.value or b"") == TAGS
        assert version_in_store(settings) == 7
        put(settings)

    shutil.rmtree(tmp_path / "store")
    with started(tmp_path, kafka_home, monkeypatch) as settings:
        create_topics(settings, partitions=1)
        assert version_in_store(settings) is None
        with pytest.raises(StoreNotInitialised):
            put(settings)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_durable_store_keeps_its_keys_and_evicts_none(tmp_path: Path, end: str) -> None:
    with EmbeddedStore(tmp_path, durable=True) as first, redis.Redis.from_url(first.url) as client:
        client.set("kept", "1")
        client.execute_command("WAITAOF", 1, 0, 5000)  # on the disk
        getattr(first, end)()
    with EmbeddedStore(tmp_path, durable=True) as second, redis.Redis.from_url(second.url) as client:
        assert client.get("kept") == b"1"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_store_that_is_not_durable_forgets(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as store, redis.Redis.from_url(store.url) as client:
        client.set("gone", "1")
        store.restart()
        assert client.get("gone") is None


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"embedded": True, "state": Path("s")}, "--state needs --kafka-home"),
        ({"embedded": False, "kafka_home": Path("k")}, "give both, or neither"),
    ],
    ids=["state without kafka", "kafka without embedded"],
)
def test_options_that_contradict_each_other_start_nothing(wrong: dict[str, object], reason: str) -> None:
    told: list[str] = []
    with pytest.raises(BadSettings, match=reason), local_stack(**wrong, tell=told.append):  # type: ignore[arg-type]
        pytest.fail("it started")
    assert told == []
