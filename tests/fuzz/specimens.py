"""Inputs of the fuzzer: records as they could stand on the event topic, and the corpus they are kept in."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagstream.catalogue.malformed import malformed
from tagstream.core.ports import Header, Record

CORPUS = Path(__file__).parent / "corpus"
NOW_MS = 1_750_000_000_000


@dataclass(frozen=True)
class Specimen:
    """One record's content. `name` says where it came from."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    timestamp_ms: int = NOW_MS
    name: str = ""

    def record(self, offset: int = 0) -> Record:
        return Record("product-events", 0, offset, self.key, self.value, self.headers, self.timestamp_ms)

    def store(self, why: str) -> Path:
        """Keep it in the corpus, under a name that its content gives it."""
        content = {
            "why": why,
            "key": _text(self.key),
            "value": _text(self.value),
            "headers": [[name, _text(value)] for name, value in self.headers],
            "timestamp_ms": self.timestamp_ms,
        }
        digest = hashlib.sha256(repr((self.key, self.value, self.headers, self.timestamp_ms)).encode())
        path = CORPUS / f"{digest.hexdigest()[:12]}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
        return path


def corpus() -> Iterator[Specimen]:
    for path in sorted(CORPUS.glob("*.json")):
        content = json.loads(path.read_text())
        headers = tuple((name, _bytes(value)) for name, value in content["headers"])
        yield Specimen(
            _bytes(content["key"]), _bytes(content["value"]), headers, content["timestamp_ms"], path.stem
        )


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(content: str | None) -> bytes | None:
    return None if content is None else base64.b64decode(content)


def event(**more: Any) -> dict[str, Any]:
    return {
        "schema_version": "1.0",
        "event_id": "e1",
        "type": "upsert",
        "product_id": "p1",
        "event_version": 1,
        "occurred_at": "2026-01-05T08:00:00Z",
        "title": "Puma Men Navy Blue Running Shoes",
        **more,
    }


#: Well-formed events of every shape.
EVENTS = [
    event(),
    event(type="delete", title=""),
    event(product_id="商品-1", title="彪马男士藏青色跑鞋", lang="zh-CN", brand="彪马"),
    event(description="A shoe. " * 40, brand="Puma", attributes={"Colour": "Navy Blue", "颜色": "藏青色"}),
    event(title="", image={"url": "https://example.com/p1.jpg"}),
    event(title="Shoe", image={"data": base64.b64encode(b"\xff\xd8\xff\xe0 a picture").decode()}),
    event(schema_version=1, event_version=2**53 - 1, occurred_at="2026-01-05T08:00:00.123456+08:00"),
    event(unknown={"nested": [1, 2.5, None, True, "x"]}, attributes={"gender": "Men", "season": "Summer"}),
]


def seeds() -> list[Specimen]:
    """Valid events, what shops should not send, and what parsers trip over."""
    found = [Specimen(e["product_id"].encode(), dumped(e), name="event") for e in EVENTS]
    found += [Specimen(bad.key, bad.value, name="malformed") for bad in malformed()]
    found += [Specimen(b"p1", value, name="odd") for value in _odd_values()]
    found += [Specimen(b"p1", None, headers, name="tombstone") for headers in _odd_headers()]
    found += [
        Specimen(b"p1", dumped(event()), (), at, name="time") for at in (-1, 0, 2**63 - 1, NOW_MS + 4_000_000)
    ]
    return found


def dumped(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _odd_values() -> list[bytes]:
    plain = dumped(event())
    return [
        b"",
        b"\x00",
        b"null",
        b"\xef\xbb\xbf" + plain,
        plain.decode().encode("utf-16"),
        plain + b"\x00",
        plain.replace(b"Puma", b"Pu\x00ma"),
        plain.replace(b"Puma", b"\\u0000"),
        plain.replace(b"Puma", b"\\ud800"),
        plain.replace(b"Puma", b"\xed\xa0\x80"),
        plain.replace(b'"title"', b'"title": "first", "title"'),
        plain.replace(b'"p1"', b'"other", "product_id": "p1"'),
        plain.replace(b": 1,", b": " + b"9" * 5000 + b","),
        plain.replace(b": 1,", b": -0,"),
        plain.replace(b": 1,", b": 1e400,"),
        plain.replace(b'"1.0"', b"9" * 5000),
        plain.replace(b'"2026-01-05T08:00:00Z"', b"1e308"),
        plain.replace(b'"2026-01-05T08:00:00Z"', b'"9999-12-31T23:59:59-23:59"'),
        plain[:-1] + b', "x": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        plain[:-1] + b', "x": ' + b'{"a":' * 31 + b"1" + b"}" * 31 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"' + b"\\" * 100_001,
        b'"' * 100_001,
    ]


def _odd_headers() -> list[tuple[Header, ...]]:
    return [
        (),
        (("event_version", b"1"),),
        (("event_version", b"9" * 5000),),
        (("event_version", "１２".encode()),),
        (("event_version", b"-1"), ("event_id", b"\xff" * 300)),
        (("event_version", None), ("event_version", b"2")),
        (("event_version", b"1"), ("event_id", b""), ("tagstream.first_seen_ms", None)),
        (("event_version", b"1"), ("tagstream.replay.source_offset", b"9" * 5000)),
        (("event_version", b"1"), ("tagstream.replay.source_offset", None)),
        (("event_version", b"1"), ("tagstream.replay.event_version", b"1")),
        (
            ("event_version", b"1"),
            ("tagstream.replay.source_offset", b"7"),
            ("tagstream.replay.event_version", b"2"),
            ("tagstream.replay.from", b"\xff"),
        ),
        (("", b"\x00"), ("event_version", b"9007199254740991"), ("tagstream.attempts", b"x")),
    ]
