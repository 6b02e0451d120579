"""What must become of every record: an event with valid tags, or a dead letter with a reason."""

from __future__ import annotations

import json
import math
import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from specimens import NOW_MS, Specimen

import tagstream
from tagstream.core.decide import Decider, delete_write, tag_write
from tagstream.core.errors import InvalidEvent
from tagstream.core.events import Event, ProductTags, TagSource
from tagstream.core.ports import Scores, Standing, TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.stream.decode import Decoder
from tagstream.stream.outgoing import dead_letter, tag_record

HANG_S = 1.0
BATCH = 64
DECODERS = (Decoder(), Decoder("timestamp"), Decoder(event_max_bytes=600))
[_FILE] = (Path(tagstream.__file__).parent / "bundled" / "versions").glob("*/taxonomy.json")
TAXONOMY = Taxonomy.model_validate_json(_FILE.read_bytes())
DECIDER = Decider(TAXONOMY)
_VALUES = {group.name: {value.value for value in group.values} for group in TAXONOMY.groups}
_SINGLE = {group.name for group in TAXONOMY.groups if group.kind == "single"}


class Hang(BaseException):
    """It takes too long. No `except Exception` can hide it."""


@dataclass
class Tally:
    """Of a run; `accounted` is the sum of events and invalid."""

    events: int = 0
    invalid: int = 0
    #: what failed, and how
    crashes: list[tuple[Specimen, str]] = field(default_factory=list)
    hangs: list[tuple[Specimen, str]] = field(default_factory=list)

    @property
    def accounted(self) -> int:
        return self.events + self.invalid

    def add(self, other: Tally) -> None:
        self.events += other.events
        self.invalid += other.invalid
        self.crashes += other.crashes
        self.hangs += other.hangs


def judge(specimens: Sequence[Specimen], rng: np.random.Generator) -> Tally:
    """What became of each. Together first, because that is faster; one by one if that failed."""
    try:
        with at_most(HANG_S):
            kinds = Counter(_outcomes(specimens, rng))
        return Tally(kinds["event"], kinds["invalid"])
    except (Exception, Hang):
        tally = Tally()
        for specimen in specimens:
            tally.add(judge_one(specimen, rng))
        return tally


def judge_one(specimen: Specimen, rng: np.random.Generator) -> Tally:
    try:
        with at_most(HANG_S):
            [kind] = _outcomes([specimen], rng)
    except Hang:
        return Tally(hangs=[(specimen, f"over {HANG_S:g} s")])
    except Exception as error:
        return Tally(crashes=[(specimen, f"{type(error).__name__}: {error}"[:300])])
    return Tally(events=kind == "event", invalid=kind == "invalid")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises Hang, also afterwards, if the signal could not interrupt. In the main thread only."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    started_s = time.perf_counter()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if time.perf_counter() - started_s > seconds:
        raise Hang


def _outcomes(specimens: Sequence[Specimen], rng: np.random.Generator) -> list[str]:
    events: list[tuple[Event, Specimen]] = []
    for specimen in specimens:
        decoder = DECODERS[zlib.crc32(specimen.value or b"") % len(DECODERS)]
        try:
            events.append((decoder.decode(specimen.record(), NOW_MS), specimen))
        except InvalidEvent as error:
            _check_letter(specimen, error)
    _check_events(events, rng)
    return ["event"] * len(events) + ["invalid"] * (len(specimens) - len(events))


def _check_letter(specimen: Specimen, error: InvalidEvent) -> None:
    assert 0 < len(error.reason) <= 500, f"a reason of {len(error.reason)} characters"
    letter = dead_letter("dead", specimen.record(), error, attempts=0, event_version=None, now_ms=NOW_MS)
    assert (letter.key, letter.value) == (specimen.key, specimen.value)


def _check_events(events: list[tuple[Event, Specimen]], rng: np.random.Generator) -> None:
    if not events:
        return
    products = [event.product for event, _ in events]
    texts = [TextFields(p.title, p.brand, p.description, p.attributes, p.lang) for p in products]
    values = rng.random((len(events), TAXONOMY.size), np.float32).round(int(rng.integers(0, 7)))
    scores = Scores("m", 1, values, ["none"] * len(events))
    for (event, specimen), tags in zip(events, DECIDER.decide(values, texts), strict=True):
        _check_tags(tags)
        write = (
            delete_write(event, NOW_MS)
            if event.deletes
            else tag_write(event, tags, "used", scores, "t", NOW_MS)
        )
        standing = Standing("applied", write.product, event.deletes)
        record = tag_record("tags", standing, event.product.event_id, specimen.record())
        assert record.key == specimen.key
        if record.value is not None:
            assert ProductTags.model_validate_json(record.value) == write.product


def _check_tags(tags: Sequence[Any]) -> None:
    for tag in tags:
        assert tag.value in _VALUES[tag.group], f"{tag} is not of the taxonomy"
        assert math.isfinite(tag.score), f"{tag}"
        assert 0 <= tag.score <= 1, f"{tag}"
        assert tag.source in get_args(TagSource)
    given = Counter(tag.group for tag in tags)
    assert not [group for group in _SINGLE if given[group] > 1], "two values of a single group"


def minimised(specimen: Specimen, fails: Callable[[Specimen], bool]) -> Specimen:
    """A smaller one that `fails` too: without its headers if they do not matter, its value cut down."""
    if fails(replace(specimen, headers=())):
        specimen = replace(specimen, headers=())
    value = specimen.value or b""
    size = len(value) // 2
    while size and len(value) < 50_000:
        at = 0
        while at < len(value):
            shorter = value[:at] + value[at + size :]
            if fails(replace(specimen, value=shorter)):
                value = shorter
            else:
                at += size
        size //= 2
    return replace(specimen, value=value) if specimen.value is not None else specimen


def is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True
