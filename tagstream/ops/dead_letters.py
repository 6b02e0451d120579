"""Dead letters, read, replayed and purged from outside the stream.

A letter that was replayed or purged is *handled*. A record in the middle of a topic cannot be deleted, so a
compacted topic beside the letters keeps a mark: `partition/offset` → {at, how}. Only a chunk of letters is in
memory at a time; a mark costs eight bytes.
"""

from __future__ import annotations

import contextlib
import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from tagstream.adapters.kafka.topics import TopicAdmin, read_all
from tagstream.core.errors import InvalidEvent
from tagstream.core.events import EVENT_VERSION_MAX
from tagstream.core.ports import OutRecord, Publisher, Record
from tagstream.ops.rebuild import batches
from tagstream.settings import Settings
from tagstream.stream.decode import EventVersionFrom
from tagstream.stream.replay import Replay, replay_headers, replay_of
from tagstream.wiring import build_publisher

#: Sent and awaited together.
_CHUNK_LETTERS = 500
_CHUNK_BYTES = 8 * 2**20
_DELETE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: the record as it came; its headers describe the failure."""

    record: Record

    @property
    def address(self) -> str:
        return f"{self.record.partition}/{self.record.offset}"

    @property
    def product_id(self) -> str:
        return (self.record.key or b"").decode(errors="replace")

    @property
    def stage(self) -> str:
        return self._text("__connect.errors.stage")

    @property
    def reason(self) -> str:
        return self._text("__connect.errors.exception.message")

    @property
    def topic(self) -> str:
        return self._text("__connect.errors.topic")

    @property
    def attempts(self) -> int | None:
        return self._number("tagstream.attempts")

    @property
    def source_partition(self) -> int | None:
        return self._number("__connect.errors.partition")

    @property
    def omitted_bytes(self) -> int | None:
        """The size of a value that was too large for a letter; None if the value is there."""
        return self._number("tagstream.value_omitted_bytes")

    @property
    def when_ms(self) -> int:
        """When the event failed for the first time. The letter's timestamp is the event's own."""
        first_seen_ms = self._number("tagstream.first_seen_ms")
        return self.record.timestamp_ms if first_seen_ms is None else first_seen_ms

    def first(self, event_version_from: EventVersionFrom) -> Replay | None:
        """What the record was before it failed, and before any replay; None if the headers lack it."""
        with contextlib.suppress(InvalidEvent):  # malformed replay headers may be why it is here
            if (replay := replay_of(self.record)) is not None:
                return replay
        source_offset = self._number("__connect.errors.offset")
        if source_offset is None:
            return None
        event_version = self._number("tagstream.event_version")
        if event_version is None and event_version_from == "timestamp":
            event_version = max(self.record.timestamp_ms, 0)
        return Replay(source_offset, event_version)

    def _text(self, name: str) -> str:
        return (dict(self.record.headers).get(name) or b"").decode(errors="replace")

    def _number(self, name: str) -> int | None:
        text = self._text(name)
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
        return number if number is not None and number <= EVENT_VERSION_MAX else None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant: those that match every field that is set.

    `reason` is a part of the reason, `since_ms` the first and `until_ms` the first excluded moment.
    """

    reason: str = ""
    stage: str = ""
    product_id: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    addresses: frozenset[str] = frozenset()

    def matches(self, letter: Letter) -> bool:
        return (
            self.reason.casefold() in letter.reason.casefold()
            and self.stage in ("", letter.stage)
            and self.product_id in ("", letter.product_id)
            and (self.since_ms is None or letter.when_ms >= self.since_ms)
            and (self.until_ms is None or letter.when_ms < self.until_ms)
            and (not self.addresses or letter.address in self.addresses)
        )


class Handled:
    """The addresses of the handled letters."""

    def __init__(self, marks: Iterable[tuple[int, int]]) -> None:
        self._offsets: dict[int, array[int]] = {}
        for partition, offset in marks:
            self._offsets.setdefault(partition, array("q")).append(offset)
        for partition, offsets in self._offsets.items():
            self._offsets[partition] = array("q", sorted(offsets))

    def __contains__(self, letter: Letter) -> bool:
        offsets, offset = self._offsets.get(letter.record.partition, ()), letter.record.offset
        at = bisect_left(offsets, offset)
        return at < len(offsets) and offsets[at] == offset


@dataclass(slots=True)
class Outcome:
    replayed: int = 0
    already_handled: int = 0
    impossible: int = 0


class DeadLetters:
    """The dead letters of one environment. Every call raises `Unavailable` if the broker does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = settings.topics

    def letters(self) -> Iterator[Letter]:
        """Each partition from its beginning to its end, as it is reached."""
        return map(Letter, self._read(self._topics.dead_letters))

    def handled(self) -> Handled:
        return Handled(
            address
            for mark in self._read(self._topics.handled_letters)
            if mark.value and (address := parse_address((mark.key or b"").decode(errors="replace")))
        )

    def find(self, address: str) -> tuple[Letter, dict[str, str] | None] | None:
        """The letter and its mark ({at, how}, None if it has none); None if there is no such letter."""
        letter = next((letter for letter in self.letters() if letter.address == address), None)
        if letter is None:
            return None
        marks = self._read(self._topics.handled_letters)
        ours = [json.loads(mark.value) for mark in marks if mark.key == address.encode() and mark.value]
        return letter, ours[-1] if ours else None

    def open_letters(self, chosen: Filter) -> Iterator[Letter]:
        """The chosen letters that are not handled yet."""
        handled = self.handled()
        return (letter for letter in self.letters() if chosen.matches(letter) and letter not in handled)

    def replay(
        self,
        chosen: Filter,
        *,
        again: bool = False,
        dry_run: bool = False,
        tell: Callable[[Letter, str], None] = lambda letter, sentence: None,
    ) -> Outcome:
        """Send the chosen letters to their source topic again, each to its old partition, and mark them.

        Args:
            again: handled letters too.
            dry_run: send and mark nothing; the outcome counts what would have been.
            tell: called for each letter that is replayed or cannot be.
        """
        # Where each partition ends now: a replayed letter may come back while we read.
        ends = {letter.record.partition: letter.record.offset + 1 for letter in self.letters()}
        outcome, handled = Outcome(), self.handled()
        chunk: list[Letter] = []
        with contextlib.closing(build_publisher(self._settings)) as publisher:
            for letter in self.letters():
                came_later = letter.record.offset >= ends.get(letter.record.partition, 0)
                if came_later or not chosen.matches(letter):
                    continue
                if letter in handled and not again:
                    outcome.already_handled += 1
                elif obstacle := self._obstacle(letter):
                    outcome.impossible += 1
                    tell(letter, f"cannot be replayed: {obstacle}")
                else:
                    outcome.replayed += 1
                    tell(letter, "would be replayed" if dry_run else "is replayed")
                    chunk += [] if dry_run else [letter]
                if _is_full(chunk):
                    self._send(publisher, chunk)
                    chunk = []
            self._send(publisher, chunk)
        return outcome

    def purge(self, chosen: Filter) -> int:
        """Mark the chosen letters as handled; how many were not before."""
        purged = 0
        with contextlib.closing(build_publisher(self._settings)) as publisher:
            # Addresses alone: 500 letters with pictures would fill the memory.
            for addresses in batches(letter.address for letter in self.open_letters(chosen)):
                self._mark(publisher, addresses, "purged")
                purged += len(addresses)
        return purged

    def prefix(self, before_ms: int) -> tuple[dict[int, int], int]:
        """By partition, the first offset whose letter failed at `before_ms` or later, where any letter lies
        before it; and how many letters lie before these offsets."""
        first_kept: dict[int, int] = {}
        reached: set[int] = set()
        count = 0
        for letter in self.letters():
            partition = letter.record.partition
            if letter.when_ms >= before_ms:
                reached.add(partition)
            if partition not in reached:
                first_kept[partition] = letter.record.offset + 1
                count += 1
        return first_kept, count

    def delete_prefix(self, first_kept: dict[int, int]) -> None:
        """Delete what lies before these offsets, for good."""
        admin = TopicAdmin(self._settings.kafka, timeout_s=_DELETE_TIMEOUT_S)
        admin.delete_before(self._topics.dead_letters, first_kept)

    def _obstacle(self, letter: Letter) -> str:
        """Why it cannot be replayed; empty if it can."""
        if letter.omitted_bytes is not None:
            return f"its value of {letter.omitted_bytes:,} bytes was too large to be kept"
        if letter.topic != self._topics.events:
            return f"it came from {letter.topic or 'an unnamed topic'}, not {self._topics.events}"
        if letter.first(self._settings.event_version_from) is None or letter.source_partition is None:
            return "its headers lack the partition and offset that it had"
        return ""

    def _send(self, publisher: Publisher, letters: list[Letter]) -> None:
        publisher.publish([self._replayed(letter) for letter in letters])
        self._mark(publisher, [letter.address for letter in letters], "replayed")

    def _replayed(self, letter: Letter) -> OutRecord:
        record, first = letter.record, letter.first(self._settings.event_version_from)
        assert first is not None, "nothing keeps it from being replayed"
        timestamp_ms = record.timestamp_ms if record.timestamp_ms > 0 else None
        headers = replay_headers(record, first)
        topic, partition = self._topics.events, letter.source_partition
        return OutRecord(topic, record.key, record.value, headers, timestamp_ms, partition)

    def _mark(self, publisher: Publisher, addresses: Iterable[str], how: str) -> None:
        value = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), "how": how}).encode()
        topic = self._topics.handled_letters
        publisher.publish([OutRecord(topic, address.encode(), value) for address in addresses])

    def _read(self, topic: str) -> Iterator[Record]:
        return read_all(self._settings.kafka, topic)


def parse_address(text: str) -> tuple[int, int] | None:
    """(partition, offset) of `partition/offset`; None if it is not one."""
    partition, _, offset = text.partition("/")
    both = partition + offset
    is_address = bool(partition and offset) and both.isascii() and both.isdigit() and len(text) <= 30
    return (int(partition), int(offset)) if is_address else None


def _is_full(chunk: list[Letter]) -> bool:
    held_bytes = sum(len(letter.record.value or b"") for letter in chunk)
    return len(chunk) >= _CHUNK_LETTERS or held_bytes >= _CHUNK_BYTES
