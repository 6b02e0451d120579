"""A store that lost something, a topic that lost something: found, and put right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from tagstream.adapters.kafka.topics import read_all
from tagstream.core.errors import BadSettings, StoreNotInitialised
from tagstream.core.events import ProductTags, Tag
from tagstream.core.ports import Standing, Write
from tagstream.ops.rebuild import run_rebuild
from tagstream.ops.topics import create_topics
from tagstream.ops.verify import run_verify
from tagstream.settings import Settings
from tagstream.stream.outgoing import tag_record
from tagstream.wiring import build_publisher, build_store

ROOT = Path(__file__).resolve().parents[2]


def tags(product_id: str, version: int, value: str) -> ProductTags:
    return ProductTags(
        product_id=product_id,
        revision=0,
        event_version=version,
        model_version="m",
        model_generation=1,
        taxonomy_version="t",
        tagged_at=datetime(2026, 1, 1, tzinfo=UTC),
        image="none",
        tags=(Tag("colour", value, 0.5, "model"),),
    )


class Environment:
    """A store and a topic that agree: p0 … p9, of which p9 is deleted and p8 has two revisions."""

    def __init__(self, broker: str, url: str) -> None:
        self.settings = Settings(
            kafka_bootstrap_servers=broker, redis_url=url, prefix=f"rp-{uuid4().hex[:8]}-"
        )
        create_topics(self.settings, partitions=2)
        self.store = build_store(self.settings)
        self.publisher = build_publisher(self.settings)
        self.client: Any = redis.Redis.from_url(url)
        for n in range(10):
            self.write(Write(tags(f"p{n}", 1, "Red"), n))
        self.write(Write(tags("p8", 2, "Blue"), 20))
        self.write(Write(tags("p9", 2, "Red"), 21, deleted=True))

    def write(self, write: Write) -> None:
        self.publish(self.store.put([write]))

    def publish(self, standings: list[Standing]) -> None:
        self.publisher.publish([tag_record(self.settings.topics.tags, s) for s in standings])

    def key(self, product_id: str) -> bytes:
        [key] = self.client.keys(f"{self.settings.prefix}tagstream:*:product:{product_id}")
        return bytes(key)

    def index_key(self, product_id: str, value: str) -> str:
        shard = self.store._product_key(product_id).removesuffix(f"product:{product_id}")
        return f"{shard}tag:colour={value}"

    def everything(self) -> dict[str, Standing | None]:
        names = [f"p{n}" for n in range(10)]
        return dict(zip(names, self.store.get(names), strict=True))

    def empty_the_store(self) -> None:
        for key in self.client.keys(f"{self.settings.prefix}*"):
            self.client.delete(key)

    def verify(self, *, repair: bool = False) -> dict[str, int]:
        return dict(run_verify(self.settings, repair=repair, tell=lambda _: None).differences)

    def close(self) -> None:
        self.publisher.close()
        self.store.close()
        self.client.close()


@pytest.fixture
def environment(broker: str, valkey_url: str) -> Iterator[Environment]:
    made = Environment(broker, valkey_url)
    yield made
    made.close()


def test_where_topic_and_store_agree_there_is_nothing_to_say(environment: Environment) -> None:
    report = run_verify(environment.settings, repair=False, tell=lambda _: None)
    assert report.products == 10
    assert list(report.sentences())[-1] == "topic and store agree"


def test_what_the_topic_lacks_is_found_and_published(environment: Environment) -> None:
    environment.store.put([Write(tags("p1", 5, "Green"), 30)])  # stored, and then the consumer was gone
    environment.store.put([Write(tags("new", 1, "Red"), 31)])
    environment.store.put([Write(tags("p2", 5, "Red"), 32, deleted=True)])
    assert environment.verify() == {"missing on the topic": 1, "older on the topic": 2}
    assert environment.verify(repair=True) == {}
    last = {
        record.key: record
        for record in read_all(environment.settings.kafka, environment.settings.topics.tags)
    }
    assert ProductTags.model_validate_json(last[b"p1"].value or b"").tags[0].value == "Green"
    assert last[b"p2"].value is None
    assert environment.verify() == {}


def test_what_the_store_lacks_is_found_and_restored_with_its_revision(environment: Environment) -> None:
    before = environment.everything()
    environment.client.delete(environment.key("p8"), environment.key("p3"))
    assert environment.verify() == {"missing in the store": 2, "in the tag index without the tag": 2}
    assert environment.verify(repair=True) == {}
    assert environment.everything() == before
    assert environment.verify() == {}


def test_an_index_that_disagrees_with_its_products_is_found_and_mended(environment: Environment) -> None:
    client, red = environment.client, environment.index_key("p1", "Red")
    size = environment.store.size()
    client.zrem(red, "p1")
    client.zadd(environment.index_key("p2", "Red"), {"p2": 0.9})
    client.zadd(environment.index_key("p2", "Green"), {"p2": 0.9})
    client.zadd(environment.index_key("p9", "Red"), {"p9": 0.9})  # deleted
    client.zadd(environment.index_key("stranger", "Red"), {"stranger": 0.9})
    wrong = {"missing in the tag index": 2, "in the tag index without the tag": 3}
    assert environment.verify() == wrong
    assert environment.verify() == wrong, "to look changes nothing"
    report = run_verify(environment.settings, repair=True, tell=lambda _: None)
    assert (report.repaired, dict(report.differences)) == (5, {})
    assert environment.verify() == {}
    assert environment.store.find("colour", "Green", 10) == []
    found = environment.store.find("colour", "Red", 20)
    assert sorted(found) == [(f"p{n}", 0.5) for n in range(8)]
    assert environment.store.size() == size


def test_other_tags_at_the_same_revision_are_a_difference(environment: Environment) -> None:
    standing = environment.store.get(["p4"])[0]
    assert standing is not None
    assert standing.product is not None
    other = standing.product.model_copy(update={"tags": ()})
    environment.publish([Standing("same", other, source_offset=4)])
    assert environment.verify() == {"with other tags on the topic": 1}
    assert environment.verify(repair=True) == {}


def test_an_emptied_store_is_rebuilt_exactly_and_takes_newer_events_only(environment: Environment) -> None:
    before = environment.everything()
    environment.empty_the_store()
    with pytest.raises(StoreNotInitialised):
        environment.store.put([Write(tags("p1", 9, "Red"), 40)])
    assert run_rebuild(environment.settings, lambda _: None) == 12
    after = environment.everything()
    assert {p: s for p, s in after.items() if p != "p9"} == {p: s for p, s in before.items() if p != "p9"}
    assert after["p9"] is not None
    assert after["p9"].deleted
    assert [v.verdict for v in environment.store.put([Write(tags("p8", 1, "Red"), 8)])] == ["stale"]
    [next_one] = environment.store.put([Write(tags("p8", 3, "Red"), 41)])
    assert next_one.product is not None
    assert next_one.product.revision == 3, "the numbers go on from where the topic was"
    assert environment.store.find("colour", "Blue", 10) == []
    assert environment.store.size()[0] == 9


def test_while_it_is_refilled_consumers_are_refused_and_it_may_be_run_again(environment: Environment) -> None:
    environment.empty_the_store()
    environment.store.begin_rebuild()
    with pytest.raises(StoreNotInitialised):
        environment.store.put([Write(tags("p1", 9, "Red"), 40)])
    run_rebuild(environment.settings, lambda _: None)
    assert environment.verify() == {}


def test_a_store_that_was_not_emptied_is_left_alone(environment: Environment) -> None:
    with pytest.raises(BadSettings, match="verify --repair"):
        run_rebuild(environment.settings, lambda _: None)
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs/rebuild_store.py")],
        env={
            "TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS": environment.settings.kafka_bootstrap_servers,
            "TAGSTREAM_REDIS_URL": environment.settings.redis_url.get_secret_value(),
            "TAGSTREAM_PREFIX": environment.settings.prefix,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("rebuild_store: BadSettings: the store is initialised")
