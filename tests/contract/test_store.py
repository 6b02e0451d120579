"""`TagStore`: the twin in memory and the scripts on a real server."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis

from tagstream.adapters.local.embedded import EmbeddedStore
from tagstream.adapters.redis.store import SHARDS, RedisStore
from tagstream.core.errors import BadSettings, StoreNotInitialised, Unavailable
from tagstream.core.events import EVENT_VERSION_MAX, ImageUse, ProductTags, Tag
from tagstream.core.ports import Standing, TagStore, Write
from tests.support.memory_store import MemoryStore

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=8)))
RED, BLUE = ("colour", "Red"), ("colour", "藏青 = {navy}")


def write(
    product_id: str = "p",
    event_version: int = 1,
    offset: int = 0,
    *,
    tags: dict[tuple[str, str], float] | None = None,
    generation: int = 1,
    image: ImageUse = "used",
    deleted: bool = False,
) -> Write:
    product = ProductTags(
        product_id=product_id,
        revision=0,
        event_version=event_version,
        model_version=f"model-{generation}",
        model_generation=generation,
        taxonomy_version="t1",
        tagged_at=AT,
        image=image,
        tags=tuple(
            Tag(group=group, value=value, score=score, source="model")
            for (group, value), score in ({RED: 0.5} if tags is None else tags).items()
        ),
    )
    return Write(product, offset, deleted)


def put(store: TagStore, *writes: Write) -> list[str]:
    return [standing.verdict for standing in store.put(writes)]


def standing(store: TagStore, product_id: str = "p") -> Standing:
    (found,) = store.get([product_id])
    assert found is not None
    assert found.product is not None
    return found


@pytest.fixture
def ready(store: TagStore) -> TagStore:
    store.initialise()
    return store


def test_a_store_that_was_not_initialised_is_refused_and_nothing_is_written(store: TagStore) -> None:
    with pytest.raises(StoreNotInitialised):
        store.put([write()])
    assert store.get(["p"]) == [None]
    store.initialise()
    assert put(store, write()) == ["applied"]
    store.initialise()
    assert standing(store).product is not None, "initialising again leaves what stands"


def test_what_was_put_is_read_back_exactly(ready: TagStore) -> None:
    tags = {RED: 0.1 + 0.2, BLUE: 1e-9}
    (applied,) = ready.put([write(tags=tags, image="unavailable")])
    expected = write(tags=tags, image="unavailable").product.model_copy(update={"revision": 1})
    assert applied == Standing("applied", expected)
    assert ready.get(["p", "unknown"]) == [Standing("same", expected), None]


def test_an_older_event_is_stale(ready: TagStore) -> None:
    assert put(ready, write(event_version=5, offset=5)) == ["applied"]
    (stale,) = ready.put([write(event_version=4, offset=9, generation=9)])
    assert stale == Standing("stale", None)
    assert put(ready, write(event_version=5, offset=4, generation=9)) == ["stale"]
    assert standing(ready).product.model_generation == 1


def test_a_repeated_event_is_the_same_and_what_stands_comes_back(ready: TagStore) -> None:
    ready.put([write()])
    (same,) = ready.put([write(tags={BLUE: 0.9})])
    assert same.verdict == "same"
    assert same.product == standing(ready).product
    assert same.product.revision == 1
    assert same.product.tags[0].value == "Red"


def test_every_applied_write_raises_the_revision(ready: TagStore) -> None:
    for event_version in range(1, 5):
        (applied,) = ready.put([write(event_version=event_version)])
        assert applied.product.revision == event_version
    assert put(ready, write(event_version=2), write(event_version=4)) == ["stale", "same"]
    assert standing(ready).product.revision == 4


def test_equal_version_with_a_later_offset_is_applied(ready: TagStore) -> None:
    assert put(ready, write(offset=1), write(offset=2), write(offset=1)) == ["applied", "applied", "stale"]


def test_a_newer_model_generation_is_applied_an_older_one_is_the_same(ready: TagStore) -> None:
    assert put(ready, write(generation=2), write(generation=3), write(generation=1)) == [
        "applied",
        "applied",
        "same",
    ]
    assert standing(ready).product.model_generation == 3


def test_tags_made_with_the_picture_replace_those_without_and_not_the_reverse(ready: TagStore) -> None:
    order: list[ImageUse] = ["unavailable", "used", "unavailable", "none", "used"]
    verdicts = put(ready, *(write(image=image) for image in order))
    assert verdicts == ["applied", "applied", "same", "same", "same"]
    assert standing(ready).product.image == "used"


def test_a_newer_generation_wins_even_without_the_picture(ready: TagStore) -> None:
    verdicts = put(ready, write(), write(generation=2, image="none"), write(generation=1))
    assert verdicts == ["applied", "applied", "same"]


def test_a_delete_removes_tags_and_index_and_leaves_a_marker(ready: TagStore) -> None:
    ready.put([write(tags={RED: 0.5, BLUE: 0.6})])
    (deleted,) = ready.put([write(event_version=2, deleted=True)])
    assert (deleted.verdict, deleted.deleted, deleted.product.revision) == ("applied", True, 2)
    marker = standing(ready)
    assert marker.deleted
    assert marker.product == deleted.product
    assert (marker.product.event_version, marker.product.tags) == (2, ())
    assert ready.find(*RED, limit=9) == ready.find(*BLUE, limit=9) == []
    assert ready.size() == (0, 0)


def test_a_repeated_delete_is_the_same(ready: TagStore) -> None:
    assert put(ready, write(deleted=True), write(deleted=True, generation=2)) == ["applied", "same"]
    assert standing(ready).product.revision == 1


def test_what_is_older_than_a_delete_stays_dead_what_is_newer_lives_with_the_next_revision(
    ready: TagStore,
) -> None:
    ready.put([write(event_version=5, deleted=True)])
    assert put(ready, write(event_version=4)) == ["stale"]
    assert ready.size() == (0, 0)
    (alive,) = ready.put([write(event_version=6)])
    assert (alive.verdict, alive.deleted, alive.product.revision) == ("applied", False, 2)
    assert not standing(ready).deleted
    assert ready.size() == (1, 1)


def test_the_largest_versions_are_compared_exactly(ready: TagStore) -> None:
    top = EVENT_VERSION_MAX
    assert put(ready, write(event_version=top - 1, offset=top)) == ["applied"]
    assert put(ready, write(event_version=top, offset=top - 1)) == ["applied"]
    assert put(ready, write(event_version=top, offset=top)) == ["applied"]
    assert put(ready, write(event_version=top, offset=top - 1)) == ["stale"]
    assert put(ready, write(event_version=top - 1, offset=top)) == ["stale"]
    assert standing(ready).product.event_version == top


def test_products_are_found_by_tag_highest_score_first(ready: TagStore) -> None:
    scores = {f"product {number} ü": number / 100 for number in range(60)}
    ready.put([write(product_id, tags={BLUE: score}) for product_id, score in scores.items()])
    expected = sorted(scores.items(), key=lambda hit: -hit[1])
    assert ready.find(*BLUE, limit=10) == expected[:10]
    assert ready.find(*BLUE, limit=1000) == expected
    assert ready.find(*BLUE, limit=0) == []
    assert ready.find("colour", "Green", limit=10) == []
    assert ready.size() == (60, 60)


def test_a_tag_that_is_gone_is_not_found_any_more_one_that_stays_has_its_new_score(ready: TagStore) -> None:
    ready.put([write(tags={RED: 0.5, BLUE: 0.6})])
    ready.put([write(event_version=2, tags={BLUE: 0.7})])
    assert ready.find(*RED, limit=9) == []
    assert ready.find(*BLUE, limit=9) == [("p", 0.7)]
    ready.put([write(event_version=3, tags={})])
    assert ready.size() == (1, 0)


def test_nothing_put_is_nothing(ready: TagStore) -> None:
    assert ready.put([]) == []
    assert ready.get([]) == []


def revision(store: TagStore) -> int:
    product = standing(store).product
    assert product is not None
    return product.revision


def test_a_write_that_restores_brings_its_revision_and_never_lowers_one(ready: TagStore) -> None:
    put(ready, replace(write(event_version=3), revision=7))
    assert revision(ready) == 7
    put(ready, replace(write(event_version=4), revision=2))
    assert revision(ready) == 7
    put(ready, write(event_version=5))
    assert revision(ready) == 8
    assert put(ready, replace(write(event_version=2), revision=9)) == ["stale"]


def test_what_stands_tells_the_offset_that_decided(ready: TagStore) -> None:
    [applied] = ready.put([write(event_version=3, offset=41)])
    assert applied.source_offset == standing(ready).source_offset == 41


def test_the_first_reason_to_halt_stays_until_somebody_resumes(store: TagStore) -> None:
    assert store.halted() == ""
    store.halt("6 dead letters in a row")
    store.halt("another reason")
    assert store.halted() == "6 dead letters in a row"
    assert store.resume()
    assert not store.resume()
    assert store.halted() == ""


def random_writes(rng: random.Random, count: int) -> list[Write]:
    groups = [("g", value) for value in "abcde"] + [("h", value) for value in "xyz"]
    images: list[ImageUse] = ["used", "none", "unavailable", "unusable"]
    return [
        write(
            f"p{rng.randrange(12)}",
            rng.randrange(6),
            rng.randrange(3),
            tags={tag: round(rng.random(), 6) for tag in rng.sample(groups, rng.randrange(5))},
            generation=rng.randrange(1, 4),
            image=rng.choice(images),
            deleted=rng.random() < 0.2,
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_index_agrees_with_the_products_both_ways_after_any_sequence(ready: TagStore, seed: int) -> None:
    rng = random.Random(seed)
    twin = MemoryStore()
    twin.initialise()
    for _ in range(12):
        writes = random_writes(rng, 20)
        assert ready.put(writes) == twin.put(writes)
        facts = standing_facts(ready)
        for group, value in [("g", value) for value in "abcde"] + [("h", value) for value in "xyz"]:
            expected = {product_id: score for product_id, tag, score in facts if tag == (group, value)}
            assert dict(ready.find(group, value, limit=100)) == expected
        assert ready.size()[1] == len(facts)
    assert ready.size() == twin.size()


def standing_facts(store: TagStore) -> list[tuple[str, tuple[str, str], float]]:
    return [
        (found.product.product_id, (tag.group, tag.value), tag.score)
        for found in store.get([f"p{number}" for number in range(12)])
        if found is not None and found.product is not None
        for tag in found.product.tags
    ]


def test_writers_that_race_leave_the_newest(ready: TagStore) -> None:
    writes = [write(event_version=version, tags={("g", str(version)): 0.5}) for version in range(200)]
    random.Random(7).shuffle(writes)
    with ThreadPoolExecutor(8) as threads:
        verdicts = list(threads.map(lambda one: put(ready, one)[0], writes))
    assert standing(ready).product.event_version == 199
    assert standing(ready).product.revision == verdicts.count("applied")
    assert ready.find("g", "199", limit=9) == [("p", 0.5)]
    assert ready.size() == (1, 1)


# --------------------------------------------------------------------- what only the real one has


@dataclass
class Real:
    store: RedisStore
    client: Any
    prefix: str

    def key(self, pattern: str) -> bytes:
        (key,) = self.client.keys(f"{self.prefix}{pattern}")
        return bytes(key)


@pytest.fixture
def real(valkey_url: str) -> Iterator[Real]:
    prefix = f"{uuid4().hex}-"
    store = RedisStore(valkey_url, prefix=prefix, delete_marker_ttl_s=1000)
    store.initialise()
    with redis.Redis.from_url(valkey_url) as client:
        yield Real(store, client, prefix)
    store.close()


def test_a_delete_marker_expires_and_a_product_that_lives_again_does_not(real: Real) -> None:
    real.store.put([write(deleted=True)])
    key = real.key("*:product:p")
    assert 990 < real.client.ttl(key) <= 1000
    real.store.put([write(event_version=2)])
    assert real.client.ttl(key) == -1


def test_everything_of_a_product_lies_in_one_slot(real: Real) -> None:
    real.store.put([write(f"p{{{number}}}", tags={RED: 0.5, BLUE: 0.5}) for number in range(50)])
    keys = [key.decode().removeprefix(real.prefix) for key in real.client.keys(f"{real.prefix}*")]
    assert {key.split(":")[1] for key in keys} == {f"{{{shard}}}" for shard in SHARDS}
    assert sum(":product:" in key for key in keys) == 50


def test_a_script_that_the_server_forgot_is_sent_again(real: Real) -> None:
    real.store.put([write()])
    real.client.script_flush()
    assert put(real.store, write(), write(event_version=2)) == ["same", "applied"]


def test_a_cluster_node_runs_the_script_without_a_key_in_another_slot(tmp_path: Path) -> None:
    class ClusterNode(EmbeddedStore):
        def command(self) -> list[str]:
            return [*super().command(), "--cluster-enabled", "yes"]

    with ClusterNode(tmp_path) as node, redis.Redis.from_url(node.url) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline_s = time.monotonic() + 20
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < deadline_s
        store = RedisStore(node.url, delete_marker_ttl_s=86_400)
        store.initialise()
        writes = [write(f"p{number}", tags={RED: 0.5, BLUE: 0.5}) for number in range(64)]
        assert set(put(store, *writes)) == {"applied"}
        assert len(store.find(*RED, limit=100)) == 64
        assert store.size() == (64, 128)
        store.close()


def test_one_lost_shard_is_refused_until_it_is_refilled(real: Real) -> None:
    real.store.put([write("a"), write("b")])
    shard = real.key("*:product:a").decode().removeprefix(real.prefix).split(":")[1]
    assert shard != real.key("*:product:b").decode().removeprefix(real.prefix).split(":")[1]
    real.client.delete(f"{real.prefix}tagstream:{shard}:meta")
    with pytest.raises(StoreNotInitialised, match="meta is missing"):
        real.store.put([write("a", 2)])
    assert put(real.store, write("b", 2)) == ["applied"]
    assert any("1 of 256 shards are not initialised" in problem for problem in real.store.check())


def test_another_layout_is_refused(real: Real) -> None:
    real.store.put([write()])
    shard = real.key("*:product:p").decode().removeprefix(real.prefix).split(":")[1]
    real.client.hset(f"{real.prefix}tagstream:{shard}:meta", "layout", "2")
    with pytest.raises(Unavailable, match="says layout 2, this code writes 1"):
        real.store.put([write(event_version=2)])
    assert any("another layout" in problem for problem in real.store.check())


def test_a_good_store_has_no_problems_and_a_bad_policy_is_one(real: Real, tmp_path: Path) -> None:
    assert real.store.check() == []
    with EmbeddedStore(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        store = RedisStore(server.url, delete_marker_ttl_s=86_400)
        policy, missing = store.check()
        assert "maxmemory-policy is allkeys-lru" in policy
        assert "256 of 256 shards" in missing
        store.close()


def test_a_full_a_read_only_and_a_stopped_store_are_unavailable(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        store = RedisStore(server.url, timeout_s=1.0, delete_marker_ttl_s=86_400)
        store.initialise()
        assert put(store, write()) == ["applied"]
        client.config_set("maxmemory", "1mb")
        with pytest.raises(Unavailable, match="maxmemory"):
            store.put([write(event_version=2)])
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(Unavailable, match="refuses"):
            store.put([write(event_version=2)])
        client.replicaof("NO", "ONE")
        assert put(store, write(event_version=2)) == ["applied"]
        port = server.port
    with pytest.raises(Unavailable, match="does not answer") as caught:
        store.put([write(event_version=3)])
    assert isinstance(caught.value.__cause__, redis.RedisError)
    with pytest.raises(Unavailable):
        store.find(*RED, limit=1)
    with EmbeddedStore(tmp_path, port=port):  # memory only: it comes back empty
        with pytest.raises(StoreNotInitialised):
            store.put([write(event_version=3)])
        store.initialise()
        assert put(store, write(event_version=3)) == ["applied"]
    store.close()


def test_two_prefixes_do_not_see_each_other(real: Real, valkey_url: str) -> None:
    other = RedisStore(valkey_url, prefix=f"{real.prefix}[*]?", delete_marker_ttl_s=86_400)
    other.initialise()
    real.store.put([write()])
    assert other.get(["p"]) == [None]
    assert other.size() == (0, 0)
    assert other.find(*RED, limit=1) == []
    other.put([write(), replace(write("q"), deleted=False)])
    assert other.size() == (2, 2)
    assert real.store.size() == (1, 1)
    other.close()


@pytest.mark.parametrize(("url", "prefix"), [("redis://x", "a{b}"), ("redis://x", "a b"), ("http://x", "")])
def test_what_keys_or_client_cannot_bear_is_refused(url: str, prefix: str) -> None:
    with pytest.raises(BadSettings):
        RedisStore(url, prefix=prefix, delete_marker_ttl_s=86_400)


def test_times_keep_their_zone(ready: TagStore) -> None:
    for number, at in enumerate([AT, datetime(2026, 5, 1, tzinfo=UTC)]):
        one = write(f"p{number}")
        ready.put([replace(one, product=one.product.model_copy(update={"tagged_at": at}))])
        assert standing(ready, f"p{number}").product.tagged_at == at
        assert standing(ready, f"p{number}").product.tagged_at.utcoffset() == at.utcoffset()
