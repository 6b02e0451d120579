"""Records that no shop should send and some do. Each ends as a dead letter with a reason for people."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tagstream.core.events import EVENT_VERSION_MAX, PRODUCT_ID_MAX_BYTES


class Malformed(NamedTuple):
    """A record and what its dead letter's reason must contain (ignoring case)."""

    key: bytes | None
    value: bytes
    expected_reason_fragment: str


def malformed(huge_value_bytes: int | None = None) -> list[Malformed]:
    """One record of each kind; with `huge_value_bytes`, also a well-formed one of that size."""
    records = [
        Malformed(b"bad-cut", _value("bad-cut")[:-9], "json"),
        Malformed(b"bad-text", b"Haldis Men Black Formal Shoes", "json"),
        Malformed(b"bad-list", b"[1, 2, 3]", "object"),
        Malformed(b"bad-types", _value("bad-types", title=42, attributes=["cotton"]), "title"),
        Malformed(b"bad-schema", _value("bad-schema", schema_version="9.0"), "schema_version 9.0"),
        Malformed(b"bad-id", _value("bad-id", without=("product_id",)), "product_id"),
        Malformed(b"bad-unversioned", _value("bad-unversioned", without=("event_version",)), "event_version"),
        Malformed(
            b"bad-version", _value("bad-version", event_version=EVENT_VERSION_MAX + 1), "event_version"
        ),
        Malformed(b"bad-zone", _value("bad-zone", occurred_at="2026-01-05T08:00:00"), "occurred_at"),
        Malformed(None, _value("bad-no-key"), "no key"),
        Malformed(b"bad-other-key", _value("bad-key"), "is not the event's product_id"),
        Malformed(
            b"k" * (PRODUCT_ID_MAX_BYTES + 1), _value("k" * (PRODUCT_ID_MAX_BYTES + 1)), "limit is 256"
        ),
        Malformed(b"\xff\xfe", _value("bad-key-text"), "not utf-8"),
        Malformed(b"bad-depth", _value("bad-depth", attributes=_nested(100)), "nested"),
        Malformed(b"bad-nan", _value("bad-nan", event_version=float("nan")), "json"),
        Malformed(b"bad-surrogate", _value("bad-surrogate", title="\ud83d shirt"), "json"),
        Malformed(b"bad-utf8", _value("bad-utf8").replace(b"Shoes", b"Sho\xe9s"), "json"),
        Malformed(b"bad-empty", _value("bad-empty", title=" "), "neither a title nor a picture"),
        Malformed(b"bad-framed", b"\x00\x00\x00\x00\x07" + _value("bad-framed"), "schema-registry"),
    ]
    if huge_value_bytes is not None:
        filling = huge_value_bytes - len(_value("bad-huge", description=""))
        records.append(Malformed(b"bad-huge", _value("bad-huge", description="x" * filling), "the limit is"))
    return records


def _value(product_id: str, without: tuple[str, ...] = (), **wrong: Any) -> bytes:
    event = {
        "schema_version": "1.0",
        "event_id": f"{product_id[:40]}-1",
        "type": "upsert",
        "product_id": product_id,
        "event_version": 1,
        "occurred_at": "2026-01-05T08:00:00Z",
        "title": "Haldis Men Black Formal Shoes",
        **wrong,
    }
    return json.dumps({name: content for name, content in event.items() if name not in without}).encode()


def _nested(levels: int) -> object:
    nested: object = "end"
    for _ in range(levels):
        nested = {"in": nested}
    return nested
