"""The audit sees what it is for: each sabotage of a sound outcome shows in its own number."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

sys.path.insert(0, str(Path(__file__).parent))
from past import past

from tagstream.core.decide import delete_write
from tagstream.core.events import Event, ProductTags, Tag
from tagstream.core.ports import OutRecord, Standing, Write
from tagstream.ops.audit import Expectation, examine, expect
from tagstream.ops.topics import create_topics
from tagstream.settings import Settings
from tagstream.stream.outgoing import tag_record
from tagstream.wiring import build_publisher, build_store

RECORDS = past(seed=3, products=40, versions=3)


@pytest.fixture
def settings(broker: str, valkey_url: str) -> Settings:
    made = Settings(kafka_bootstrap_servers=broker, redis_url=valkey_url, prefix=f"audit-{uuid4().hex[:8]}-")
    create_topics(made, partitions=2)
    return made


def tagged(expectation: Expectation) -> list[Write]:
    """The newest state of each product, as a sound stream leaves it."""
    writes = []
    for event in expectation.newest.values():
        product = ProductTags(
            product_id=event.product_id,
            revision=0,
            event_version=event.event_version or 0,
            model_version="m1",
            model_generation=1,
            taxonomy_version="t1",
            tagged_at=event.occurred_at,
            image="none",
            tags=(Tag(group="colour", value="Red", score=0.9, source="model"),),
        )
        if event.type == "delete":
            writes.append(delete_write(Event(event, event.event_version or 0, 0), 1))
        else:
            writes.append(Write(product, source_offset=0))
    return writes


@pytest.fixture
def sound(settings: Settings) -> Expectation:
    """A past, and what a sound stream makes of it."""
    expectation = expect(RECORDS)
    store = build_store(settings)
    standings = store.put(tagged(expectation))
    store.close()
    letters = [OutRecord(settings.topics.dead_letters, sent.key, sent.value) for sent in expectation.refused]
    publish(settings, [_record(settings, standing) for standing in standings] + letters)
    return expectation


def _record(settings: Settings, standing: Standing) -> OutRecord:
    return tag_record(settings.topics.tags, standing)


def publish(settings: Settings, records: list[OutRecord]) -> None:
    publisher = build_publisher(settings)
    publisher.publish(records)
    publisher.close()


def present(expectation: Expectation) -> str:
    return next(product_id for product_id, event in expectation.newest.items() if event.type == "upsert")


def key_of(client: Any, settings: Settings, product_id: str) -> str:
    [key] = client.scan_iter(f"{settings.prefix}tagstream:{{*}}:product:{product_id}")
    return str(key)


def forgotten(settings: Settings, client: Any, product_id: str) -> dict[str, int]:
    client.delete(key_of(client, settings, product_id))
    return {"lost": 1, "not_healed": 1, "index_differences": 1}


def old(settings: Settings, client: Any, product_id: str) -> dict[str, int]:
    client.hset(key_of(client, settings, product_id), "event_version", 1)
    return {"stale": 1, "not_healed": 1}


def never_deleted(settings: Settings, client: Any, product_id: str) -> dict[str, int]:
    client.hset(key_of(client, settings, product_id), "deleted", 1)
    return {"lost": 1, "not_healed": 1, "index_differences": 1}


def orphaned_entry(settings: Settings, client: Any, product_id: str) -> dict[str, int]:
    shard = key_of(client, settings, product_id).split(":product:")[0]
    client.zadd(f"{shard}:tag:colour=Mauve", {product_id: 0.9})
    return {"index_differences": 1}


def unhealed(settings: Settings, client: Any, product_id: str) -> dict[str, int]:
    """A zombie had the last word on the topic."""
    store = build_store(settings)
    [standing] = store.get([product_id])
    store.close()
    assert standing is not None
    assert standing.product is not None
    older = standing.product.model_copy(update={"revision": 0, "event_version": 1})
    publish(settings, [_record(settings, Standing("same", older))])
    return {"reordered": 1, "not_healed": 1}


def repeated(settings: Settings, client: Any, product_id: str) -> dict[str, int]:
    store = build_store(settings)
    [standing] = store.get([product_id])
    store.close()
    assert standing is not None
    publish(settings, [_record(settings, standing)])
    return {"repeated": 1}


def another_letter(settings: Settings, client: Any, product_id: str) -> dict[str, int]:
    publish(settings, [OutRecord(settings.topics.dead_letters, b"good", b"one")])
    return {"letters_extra": 1}


SABOTAGES = (forgotten, old, never_deleted, orphaned_entry, unhealed, repeated, another_letter)


def numbers(settings: Settings, expectation: Expectation) -> dict[str, int]:
    """What was found, without zeros."""
    found = examine(settings, expectation)
    return {name: n for name in found.__slots__ if name != "examples" and (n := getattr(found, name))}


def test_nothing_is_wrong_with_a_sound_outcome(settings: Settings, sound: Expectation) -> None:
    assert sound.refused
    assert numbers(settings, sound) == {}


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.__name__)
def test_each_sabotage_shows_in_its_own_number(
    settings: Settings, sound: Expectation, sabotage: Callable[[Settings, Any, str], dict[str, int]]
) -> None:
    client = redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
    expected = sabotage(settings, client, present(sound))
    client.close()
    assert numbers(settings, sound) == expected


def test_a_dead_letter_that_did_not_come_is_missing(settings: Settings, sound: Expectation) -> None:
    sound.refused.append(RECORDS[0])
    assert numbers(settings, sound) == {"letters_missing": 1}
