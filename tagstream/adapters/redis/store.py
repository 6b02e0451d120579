"""Tags in Redis (7 or newer) or Valkey: by product, and products by tag. put_tags.lua draws the keys.

Each product is compared and written by one atomic script; a micro-batch is one pipelined round trip.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import importlib.resources
import itertools
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import redis
from pydantic import TypeAdapter
from redis.backoff import NoBackoff
from redis.retry import Retry

from tagstream.core.errors import BadSettings, StoreNotInitialised, Unavailable
from tagstream.core.events import ProductTags, Tag
from tagstream.core.ports import Standing, Write

LAYOUT = "1"
SHARDS = [f"{number:02x}" for number in range(256)]

_SCRIPT = importlib.resources.files(__package__).joinpath("put_tags.lua").read_text("utf-8")
_INDEX_SCRIPT = importlib.resources.files(__package__).joinpath("check_index.lua").read_text("utf-8")
_BATCH = 1000
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_INDEX_SHA = hashlib.sha1(_INDEX_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_TAGS = TypeAdapter(tuple[Tag, ...])
_PLAIN_FIELDS = ProductTags.model_fields.keys() - {"product_id", "tags"}


class RedisStore:
    """The `TagStore`. See `core.ports.TagStore`."""

    def __init__(
        self, url: str, *, delete_marker_ttl_s: int, prefix: str = "", timeout_s: float = 5.0
    ) -> None:
        """Connects with the first call. Raises BadSettings: url or prefix cannot be used.

        Args:
            url: redis://, rediss:// or unix://, with user, password and database in it.
            delete_marker_ttl_s: how long a deleted product is remembered. Longer than source and dead letters
                are kept: until then a late event may be older than the delete.
            prefix: goes before every key, one per environment.
        """
        if re.search(r"[{}\s]", prefix):
            raise BadSettings(f"the store prefix {prefix!r} has a brace or a space: the keys cannot")
        try:
            self._redis = redis.Redis.from_url(
                url,
                protocol=2,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:
            # Without the cause: it quotes the url, and its password.
            raise BadSettings(
                "the store url cannot be used: redis://user:password@host:port/database, "
                "with special characters percent-encoded"
            ) from None
        self._prefix = f"{prefix}tagstream:"
        self._halted = f"{self._prefix}halted"
        self._delete_marker_ttl_s = delete_marker_ttl_s

    def put(self, writes: Sequence[Write]) -> list[Standing]:
        """See the port."""
        if not writes:
            return []
        commands = [self._command(write) for write in writes]
        with _unavailable():
            replies = self._pipelined(commands)
            unknown = redis.exceptions.NoScriptError
            again = [i for i, reply in enumerate(replies) if isinstance(reply, unknown)]
            if again:
                self._redis.script_load(_SCRIPT)
                for i, reply in zip(again, self._pipelined([commands[i] for i in again]), strict=True):
                    replies[i] = reply
            _raise_first(replies)
        return [_standing(write, reply) for write, reply in zip(writes, replies, strict=True)]

    def get(self, product_ids: Sequence[str]) -> list[Standing | None]:
        """See the port."""
        replies = self._read([("HGETALL", self._product_key(product_id)) for product_id in product_ids])
        return [
            _from_hash(product_id, reply) if reply else None
            for product_id, reply in zip(product_ids, replies, strict=True)
        ]

    def find(self, group: str, value: str, limit: int) -> list[tuple[str, float]]:
        """See the port."""
        if limit < 1:
            return []
        keys = [f"{self._prefix}{{{shard}}}:tag:{group}={value}" for shard in SHARDS]
        shards = self._read([("ZREVRANGE", key, 0, limit - 1, "WITHSCORES") for key in keys])
        found = ((member.decode(), float(score)) for shard in shards for member, score in _pairs(shard))
        return heapq.nsmallest(limit, found, key=lambda hit: (-hit[1], hit[0]))

    def initialise(self) -> None:
        self._read([("HSETNX", self._meta_key(shard), "layout", LAYOUT) for shard in SHARDS])

    def size(self) -> tuple[int, int]:
        """See the port."""
        counts = self._read([("HMGET", self._meta_key(shard), "products", "entries") for shard in SHARDS])
        products, entries = (sum(int(count or 0) for count in column) for column in zip(*counts, strict=True))
        return products, entries

    def product_ids(self) -> Iterator[str]:
        """Every product that is known, deleted ones included; one may come twice. Raises Unavailable."""
        start = f"{self._prefix}{{"
        with _unavailable():
            for key in self._redis.scan_iter(f"{self._prefix}{{*}}:product:*", count=_BATCH):
                yield key.decode().removeprefix(start).split("}:product:", 1)[1]

    def check_index(self, *, repair: bool) -> Iterator[tuple[str, str]]:
        """(product_id, what is wrong) of each product whose entries in the tag index are missing or have
        another score, and of each entry that its product does not have.

        Each is checked, and repaired if wished, in one atomic step: a running stream makes no false alarm.
        Raises Unavailable.
        """
        with _unavailable():
            self._redis.script_load(_INDEX_SCRIPT)
        for kind, claims in (
            ("missing in the tag index", ((product_id, "") for product_id in self.product_ids())),
            ("in the tag index without the tag", self._index_entries()),
        ):
            while batch := list(itertools.islice(claims, _BATCH)):
                wrong = self._read([self._index_command(*claim, repair) for claim in batch])
                yield from ((product_id, kind) for (product_id, _), n in zip(batch, wrong, strict=True) if n)

    def _index_entries(self) -> Iterator[tuple[str, str]]:
        """(product_id, "group=value"); one may come twice."""
        with _unavailable():
            for key in self._redis.scan_iter(f"{self._prefix}{{??}}:tag:*", count=_BATCH):
                tag = key.decode().removeprefix(self._prefix).split(":tag:", 1)[1]
                for member, _ in self._redis.zscan_iter(key, count=_BATCH):
                    yield member.decode(), tag

    def _index_command(self, product_id: str, tag: str, repair: bool) -> tuple[Any, ...]:
        key = self._product_key(product_id)
        shard = f"{self._prefix}{{{_shard(product_id)}}}:"
        return ("EVALSHA", _INDEX_SHA, 1, key, shard, product_id, int(repair), tag)

    def begin_rebuild(self) -> None:
        """Allow only writes with a revision until `end_rebuild`. Harmless when repeated.

        Raises Unavailable, BadSettings: the store was not emptied, it has its layout marks.
        """
        marks = self._read([("HMGET", self._meta_key(shard), "layout", "rebuilding") for shard in SHARDS])
        # A rebuild that was interrupted at its very end leaves both kinds of shards.
        if any(layout for layout, _ in marks) and not any(rebuilding for _, rebuilding in marks):
            raise BadSettings("the store is initialised: `tagstream verify --repair` heals it")
        self._read([("HSET", self._meta_key(shard), "rebuilding", 1) for shard in SHARDS])

    def end_rebuild(self) -> None:
        """Let the consumers write again."""
        self.initialise()
        self._read([("HDEL", self._meta_key(shard), "rebuilding") for shard in SHARDS])

    def halt(self, reason: str) -> None:
        """See the port."""
        at_ms = time.time_ns() // 1_000_000
        self._read([("HSETNX", self._halted, "reason", reason), ("HSETNX", self._halted, "at_ms", at_ms)])

    def halted(self) -> str:
        """See the port."""
        [reason] = self._read([("HGET", self._halted, "reason")])
        return (reason or b"").decode()

    def resume(self) -> bool:
        """See the port."""
        [removed] = self._read([("DEL", self._halted)])
        return bool(removed)

    def check(self) -> list[str]:
        """What is wrong with the store and what to do, a sentence each. Raises Unavailable."""
        with _unavailable():
            server = self._redis.info("server")
            policy = self._redis.info("memory").get("maxmemory_policy", "unknown")
        marks = self._read([("HGET", self._meta_key(shard), "layout") for shard in SHARDS])
        problems = []
        version = str(server.get("redis_version", "0"))
        if int(version.split(".")[0]) < 7:
            problems.append(f"The store is version {version}: use Redis 7, Valkey 7.2 or newer.")
        if policy != "noeviction":
            problems.append(f"maxmemory-policy is {policy}, which loses tags: set it to noeviction.")
        missing = sum(mark is None for mark in marks)
        if missing:
            problems.append(
                f"{missing} of {len(SHARDS)} shards are not initialised: run `tagstream topics create` for a "
                "new store, refill one that was emptied."
            )
        if any(mark not in (None, LAYOUT.encode()) for mark in marks):
            problems.append(f"The store has another layout than {LAYOUT}: use a new prefix and rebuild.")
        return problems

    def close(self) -> None:
        self._redis.close()

    def _command(self, write: Write) -> tuple[Any, ...]:
        product = write.product
        shard = f"{self._prefix}{{{_shard(product.product_id)}}}:"
        return (
            "EVALSHA",
            _SHA,
            2,
            f"{shard}meta",
            f"{shard}product:{product.product_id}",
            product.event_version,
            write.source_offset,
            product.model_generation,
            product.image,
            int(write.deleted),
            b"[]" if write.deleted else _TAGS.dump_json(product.tags),
            product.schema_version,
            product.model_version,
            product.taxonomy_version,
            product.tagged_at.isoformat(),
            product.product_id,
            shard,
            self._delete_marker_ttl_s,
            write.revision or 0,
        )

    def _pipelined(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Each command's reply or error, in order; one round trip."""
        pipeline: Any = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def _read(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Each command's reply. Raises Unavailable, StoreNotInitialised."""
        with _unavailable():
            replies = self._pipelined(commands)
            _raise_first(replies)
        return replies

    def _product_key(self, product_id: str) -> str:
        return f"{self._prefix}{{{_shard(product_id)}}}:product:{product_id}"

    def _meta_key(self, shard: str) -> str:
        return f"{self._prefix}{{{shard}}}:meta"


def _raise_first(replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, redis.RedisError):
            raise reply


def _shard(product_id: str) -> str:
    return SHARDS[zlib.crc32(product_id.encode()) & 0xFF]


def _standing(write: Write, reply: Any) -> Standing:
    if reply == b"stale":
        return Standing("stale", None)
    if reply[0] == b"applied":
        counted = {"revision": reply[1], "tags": ()} if write.deleted else {"revision": reply[1]}
        product = write.product.model_copy(update=counted)
        return Standing("applied", product, write.deleted, write.source_offset)
    return _from_hash(write.product.product_id, dict(_pairs(reply[1:])))


def _from_hash(product_id: str, fields: dict[bytes, bytes]) -> Standing:
    product = ProductTags.model_validate(
        {
            "product_id": product_id,
            "tags": _TAGS.validate_json(fields[b"tags"]),
            **{name: fields[name.encode()].decode() for name in _PLAIN_FIELDS},
        }
    )
    return Standing("same", product, fields[b"deleted"] == b"1", int(fields[b"source_offset"]))


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """Every failure of the store can be waited out: nothing is lost, and the message says what to do."""
    try:
        yield
    except redis.ResponseError as error:
        if str(error).startswith("UNINITIALISED"):
            raise StoreNotInitialised(f"the store was emptied or is new: {error}") from error
        raise Unavailable(f"the store refuses: {error}") from error
    except redis.RedisError as error:
        raise Unavailable(f"the store does not answer: {error}") from error
