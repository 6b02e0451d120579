"""Step 2: a record's bytes → an event, or `InvalidEvent` with a reason that a person understands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import ValidationError
from pydantic_core import from_json

from tagstream.core.errors import InvalidEvent
from tagstream.core.events import EVENT_VERSION_MAX, PRODUCT_ID_MAX_BYTES, SCHEMA_VERSION, Event, ProductEvent
from tagstream.core.ports import Record
from tagstream.stream.replay import Replay, replay_of

EventVersionFrom = Literal["field", "timestamp"]

#: Deeper JSON is refused: no product needs it, and recursive readers downstream would fall over.
MAX_DEPTH = 32
#: A clock further ahead than this would lock the product against every honest event until it is reached.
MAX_AHEAD_MS = 3_600_000

#: The last moment that a datetime can hold.
_LATEST_MS = 253_402_300_799_000

_SUPPORTED_MAJOR = int(SCHEMA_VERSION.split(".")[0])
#: Possessive: to be able to step back would cost 100 bytes of memory for each byte of a picture.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Decoder:
    """How the records of one topic become events."""

    event_version_from: EventVersionFrom = "field"
    event_max_bytes: int = 12 * 2**20

    def decode(self, record: Record, now_ms: int) -> Event:
        """Raises InvalidEvent."""
        product_id = _product_id(record)
        replay = replay_of(record)
        source_offset = record.offset if replay is None else replay.source_offset
        if not record.value:
            product = _deletion(record, product_id, source_offset)
        else:
            self._check_shape(record.value)
            product = _parse(record.value)
        if product.product_id != product_id:
            raise InvalidEvent(f"key {product_id!r} is not the event's product_id {product.product_id!r}")
        if product.type == "upsert" and not product.title.strip() and not _has_picture(product):
            raise InvalidEvent("neither a title nor a picture: nothing to tag")
        return Event(product, self._event_version(record, replay, product, now_ms), source_offset)

    def _check_shape(self, value: bytes) -> None:
        if len(value) > self.event_max_bytes:
            raise InvalidEvent(f"value of {len(value):,} bytes, the limit is {self.event_max_bytes:,}")
        if value[0] == 0:
            raise InvalidEvent("value starts with 0x00 (schema-registry framing): send plain JSON")
        if value.count(b"{") + value.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
            raise InvalidEvent(f"JSON nested deeper than {MAX_DEPTH} levels")

    def _event_version(
        self, record: Record, replay: Replay | None, product: ProductEvent, now_ms: int
    ) -> int:
        if self.event_version_from == "timestamp":
            timestamp_ms = record.timestamp_ms
            if replay is not None and replay.event_version is not None:
                timestamp_ms = replay.event_version  # the broker may have stamped the replay with its own
            if timestamp_ms > now_ms + MAX_AHEAD_MS:
                raise InvalidEvent("the record's timestamp is more than an hour ahead of now")
            if timestamp_ms < 0:
                raise InvalidEvent("the record has no timestamp to take its event_version from")
            return timestamp_ms
        if product.event_version is None:
            raise InvalidEvent("event_version: missing (event_version_from is 'field')")
        return product.event_version


def _product_id(record: Record) -> str:
    if not record.key:
        raise InvalidEvent("the record has no key: it must equal product_id")
    if len(record.key) > PRODUCT_ID_MAX_BYTES:
        raise InvalidEvent(f"key of {len(record.key):,} bytes, the limit is {PRODUCT_ID_MAX_BYTES}")
    try:
        return record.key.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent("the record's key is not UTF-8") from error


def _deletion(record: Record, product_id: str, source_offset: int) -> ProductEvent:
    """An empty value deletes. Its version comes from the header `event_version`, having no field."""
    headers = {name: value for name, value in record.headers if value}
    version = headers.get("event_version", b"").decode("ascii", "replace")
    if version and not (re.fullmatch("[0-9]{1,16}", version) and int(version) <= EVENT_VERSION_MAX):
        raise InvalidEvent("header event_version: not an integer from 0 to 2^53-1")
    return ProductEvent(
        schema_version=SCHEMA_VERSION,
        event_id=headers.get("event_id", b"").decode("utf-8", "replace")[:256]
        or f"{record.topic}-{record.partition}-{source_offset}",
        type="delete",
        product_id=product_id,
        event_version=int(version) if version else None,
        occurred_at=datetime.fromtimestamp(min(max(record.timestamp_ms, 0), _LATEST_MS) / 1000, UTC),
    )


def _parse(value: bytes) -> ProductEvent:
    try:
        if b"NaN" in value or b"Infinity" in value:
            from_json(value, allow_inf_nan=False)
        product = ProductEvent.model_validate_json(value)
    except ValidationError as error:
        raise InvalidEvent(_sentence(error)) from error
    except ValueError as error:
        raise InvalidEvent(f"not JSON: {error}") from error
    if int(product.schema_version.split(".")[0]) > _SUPPORTED_MAJOR:
        raise InvalidEvent(f"schema_version {product.schema_version}: this reads up to {_SUPPORTED_MAJOR}.x")
    return product


def _sentence(error: ValidationError) -> str:
    """The first three complaints, without the values: they may be large or private."""
    complaints = error.errors(include_url=False, include_context=False, include_input=False)
    parts = [f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in complaints[:3]]
    more = f"; and {len(complaints) - 3} more" if len(complaints) > 3 else ""
    return ("; ".join(parts) + more)[:500]


def _has_picture(product: ProductEvent) -> bool:
    return product.image is not None and bool(product.image.url or product.image.data)


def _depth(value: bytes) -> int:
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(value):
        token = match.group()
        if token in (b"{", b"["):
            depth += 1
            deepest = max(deepest, depth)
        elif token in (b"}", b"]"):
            depth -= 1
    return deepest
