"""Turns specimens into others: byte by byte, or field by field of the JSON."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from specimens import EVENTS, NOW_MS, Specimen, dumped

#: Longer values only cost time: what breaks parsers is short, or stands in the seeds.
MAX_BYTES = 200_000
#: Seeds of this size cost so much time that few are taken.
_LARGE_BYTES = 20_000

TOKENS = [
    *(
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"0.1",
        b"9007199254740992",
        b"9" * 400,
        b"1" * 4400,
    ),
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"[[[[[[[[",
        b'{"a":{"a":',
        b"/**/",
        b"\x00",
        b"\x7f",
        b"\xff",
    ),
    *(
        b"\\ud83d",
        b"\\udc00",
        b"\\u0000",
        b"\xed\xa0\xbd",
        b"\xef\xbb\xbf",
        "\u2028\u202e\u0130".encode(),
        "藏青色".encode(),
    ),
    *(
        b'"title":',
        b'"product_id":"p1",',
        b'"event_version":',
        b'"type":"delete",',
        b'"image":{"url":',
        b'"lang":"zh"',
    ),
]

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**53 - 1, 2**53, 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *(
        "",
        " ",
        "\u0000",
        "\ud800",
        "x" * 300,
        "x" * 5000,
        "\u200b",
        "İ",
        "ß",
        "\u2028",
        "１",
        "zh",
        "zh_Hant-TW",
        "-",
        "_",
    ),
    *(
        "1.0",
        "1.7",
        "2.0",
        "0001.0001",
        "1",
        "upsert",
        "delete",
        "UPSERT",
        "p1",
        "商品-1",
        "藏青色",
        "Navy Blue",
    ),
    *(
        "2026-01-05T08:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-02-30T00:00:00Z",
        "1e5",
    ),
    *(
        [],
        [1],
        ["a", None],
        {},
        {"a": "b"},
        {"a": 1},
        {"": ""},
        {"url": None},
        {"url": "x" * 4097},
        {"data": "!"},
    ),
    *({"Colour": "navy blue", "COLOUR": "Red"}, {"颜色": "藏青色"}, {"baseColour": " Blue "}, {"ﬁ": "ﬂ"}),
]
_HEADERS = (
    "event_id",
    "",
    "tagstream.first_seen_ms",
    "tagstream.replay.source_offset",
    "tagstream.replay.source_offset",
    "tagstream.replay.event_version",
)
_OPTIONAL = ("title", "title", "description", "brand", "lang", "attributes", "image")
_TEXTS = [odd for odd in ODD if isinstance(odd, str)] + [
    "Colour",
    "颜色",
    "gender",
    "Men",
    "A red shirt 42",
    "a" * 35,
]


class Mutator:
    """Endless, from one seed the same."""

    def __init__(self, seeds: list[Specimen], rng: random.Random) -> None:
        self._seeds = [seed for seed in seeds if len(seed.value or b"") < _LARGE_BYTES]
        self._large = [seed for seed in seeds if len(seed.value or b"") >= _LARGE_BYTES]
        self._rng = rng
        self._ways: list[Callable[[bytearray], None]] = [
            self._flip,
            self._overwrite,
            self._insert_token,
            self._insert_token,
            self._delete,
            self._repeat,
            self._splice,
            self._cut,
        ]

    def next(self) -> Specimen:
        rng = self._rng
        specimen = self._of_fields() if rng.random() < 0.5 else self._of_bytes()
        if rng.random() < 0.1:
            specimen = self._other_frame(specimen)
        return replace(specimen, value=specimen.value and specimen.value[:MAX_BYTES], name="mutated")

    def _of_bytes(self) -> Specimen:
        seeds = self._large if self._large and self._rng.random() < 0.02 else self._seeds
        specimen = self._rng.choice(seeds)
        return replace(specimen, value=self.bytes(specimen.value or b""))

    def bytes(self, content: bytes) -> bytes:
        """One to four changes."""
        changed = bytearray(content)
        for _ in range(self._rng.randint(1, 4)):
            self._rng.choice(self._ways)(changed)
        return bytes(changed)

    def _of_fields(self) -> Specimen:
        event = self.fields(self._rng.choice(EVENTS))
        product_id = event.get("product_id")
        key = product_id.encode("utf-8", "surrogatepass") if isinstance(product_id, str) else b"p1"
        return Specimen(key if self._rng.random() < 0.95 else b"p2", dumped(event))

    def fields(self, content: dict[str, Any]) -> dict[str, Any]:
        """One or two fields say something odd, are gone, or are new."""
        rng, changed = self._rng, dict(content)
        for _ in range(rng.choice([1, 1, 2])):
            name = rng.choice([*content, *_OPTIONAL, *_OPTIONAL])
            if rng.random() < 0.1:
                changed.pop(name, None)
            elif name == "image" and rng.random() < 0.7:
                changed[name] = {rng.choice(["url", "data"]): rng.choice(_TEXTS)}
            elif name == "attributes" and rng.random() < 0.7:
                changed[name] = {rng.choice(_TEXTS): rng.choice(_TEXTS) for _ in range(rng.randint(0, 4))}
            else:
                changed[name] = rng.choice(_TEXTS if name in _OPTIONAL and rng.random() < 0.6 else ODD)
        return changed

    def _other_frame(self, specimen: Specimen) -> Specimen:
        rng = self._rng
        way = rng.randrange(4)
        if way == 0:
            return replace(
                specimen, key=rng.choice([None, b"", b"p1", b"\xff", b"k" * 257, self.bytes(b"p1")[:400]])
            )
        if way == 1:
            return replace(
                specimen, timestamp_ms=rng.choice([-(2**63), -1, 0, 1, NOW_MS + 3_600_001, 2**63 - 1])
            )
        version = self.bytes(b"12") if rng.random() < 0.5 else b"%d" % rng.getrandbits(rng.randint(1, 70))
        headers = (("event_version", version), (rng.choice(_HEADERS), self.bytes(rng.choice([b"e1", b"12"]))))
        return replace(specimen, headers=headers, value=None if way == 2 else specimen.value)

    def _at(self, content: bytearray) -> int:
        return self._rng.randint(0, max(0, len(content) - 1))

    def _flip(self, content: bytearray) -> None:
        if content:
            content[self._at(content)] ^= 1 << self._rng.randrange(8)

    def _overwrite(self, content: bytearray) -> None:
        if content:
            content[self._at(content)] = self._rng.randrange(256)

    def _insert_token(self, content: bytearray) -> None:
        at = self._at(content)
        content[at:at] = self._rng.choice(TOKENS)

    def _delete(self, content: bytearray) -> None:
        at = self._at(content)
        del content[at : at + self._rng.randint(1, 12)]

    def _repeat(self, content: bytearray) -> None:
        at = self._at(content)
        content[at:at] = content[at : at + self._rng.randint(1, 40)] * self._rng.randint(1, 40)

    def _splice(self, content: bytearray) -> None:
        other = self._rng.choice(self._seeds).value or b""
        content[self._at(content) :] = other[self._rng.randint(0, len(other)) :]

    def _cut(self, content: bytearray) -> None:
        del content[self._at(content) :]
