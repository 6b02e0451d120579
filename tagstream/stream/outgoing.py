"""The records that tagstream produces: tags, tombstones and dead letters.

A dead letter is the record as it came (key, value, timestamp, own headers) with these headers on top,
named as Kafka Connect names them where it has the name:

    __connect.errors.topic, .partition, .offset, .stage, .exception.class.name, .exception.message
    tagstream.attempts, tagstream.event_version, tagstream.first_seen_ms

A value too large for the topic is left out; the headers `tagstream.value_omitted_bytes` and `.value_sha256`
record that. The record's own headers are left out too if they alone are as large.
"""

from __future__ import annotations

import hashlib

from tagstream.core.errors import InvalidEvent
from tagstream.core.ports import Header, OutRecord, Record, Standing
from tagstream.stream.replay import LETTER_PREFIXES, REPLAY_PREFIX

_TAG_HEADERS = ("event_id", "revision", "event_version", "source_offset", "model_generation")
#: Of a source's own headers this much travels on to the tag topic, whose records are small.
_PASSED_ON_MAX_BYTES = 64 * 2**10
#: A larger value does not fit into a dead letter beside its headers.
_LETTER_VALUE_MAX_BYTES = 25 * 2**20 - 2**18


def tag_record(topic: str, standing: Standing, event_id: str = "", source: Record | None = None) -> OutRecord:
    """What the store holds of a product. The source's own headers are passed on, `traceparent` among them.
    A repair has no event, so no `event_id` either."""
    product = standing.product
    assert product is not None, "a stale write has nothing to publish"
    own: tuple[Header, ...] = (
        ("revision", b"%d" % product.revision),
        ("event_version", b"%d" % product.event_version),
        ("source_offset", b"%d" % standing.source_offset),
        ("model_generation", b"%d" % product.model_generation),
    )
    if event_id:
        own = (("event_id", event_id.encode()), *own)
    if source is not None:
        own = (*_passed_on(source.headers), *own)
    value = None if standing.deleted else product.model_dump_json().encode()
    return OutRecord(topic, product.product_id.encode(), value, own)


def dead_letter(
    topic: str, record: Record, error: InvalidEvent, *, attempts: int, event_version: int | None, now_ms: int
) -> OutRecord:
    """The record as it came, with the reason. Error headers of an earlier failure are replaced; those of a
    replay stay, so that the next replay knows the first offset."""
    kept = tuple(h for h in record.headers if not _is_own(h) or h[0].startswith(REPLAY_PREFIX))
    first_seen = dict(record.headers).get("tagstream.first_seen_ms") or b"%d" % now_ms
    own: list[Header] = [
        ("__connect.errors.topic", record.topic.encode()),
        ("__connect.errors.partition", b"%d" % record.partition),
        ("__connect.errors.offset", b"%d" % record.offset),
        ("__connect.errors.stage", error.stage.encode()),
        ("__connect.errors.exception.class.name", type(error.__cause__ or error).__name__.encode()),
        ("__connect.errors.exception.message", error.reason.encode("utf-8", "replace")),
        ("tagstream.attempts", b"%d" % attempts),
        ("tagstream.first_seen_ms", first_seen),
    ]
    if event_version is not None:
        own.append(("tagstream.event_version", b"%d" % event_version))
    value, kept_bytes = record.value, sum(len(name) + len(held or b"") for name, held in kept)
    if kept_bytes > _LETTER_VALUE_MAX_BYTES:
        kept, kept_bytes = (), 0
    if value is not None and len(value) + kept_bytes > _LETTER_VALUE_MAX_BYTES:
        own.append(("tagstream.value_omitted_bytes", b"%d" % len(value)))
        own.append(("tagstream.value_sha256", hashlib.sha256(value).hexdigest().encode()))
        value = None
    timestamp_ms = record.timestamp_ms if record.timestamp_ms > 0 else None
    return OutRecord(topic, record.key, value, (*kept, *own), timestamp_ms)


def _passed_on(headers: tuple[Header, ...]) -> list[Header]:
    passed: list[Header] = []
    room_bytes = _PASSED_ON_MAX_BYTES
    for name, value in headers:
        room_bytes -= len(name) + len(value or b"")
        if name not in _TAG_HEADERS and not _is_own((name, value)) and room_bytes >= 0:
            passed.append((name, value))
    return passed


def _is_own(header: Header) -> bool:
    return header[0].startswith(LETTER_PREFIXES)
