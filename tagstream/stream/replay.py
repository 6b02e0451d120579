"""A replayed record: a dead letter that was sent to its source topic again.

Its new offset does not tell which event is newer. So its headers carry its first place:

    tagstream.replay.source_offset   its first offset: the tie-break between equal event versions
    tagstream.replay.event_version   its event_version, if known; counts where timestamps are versions
    tagstream.replay.from            the dead letter, as partition/offset

So a replayed record is not newer than what overtook it. If it fails again, its new dead letter keeps these
headers, and the next replay starts from the same first offset.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tagstream.core.errors import InvalidEvent
from tagstream.core.events import EVENT_VERSION_MAX
from tagstream.core.ports import Header, Record

REPLAY_PREFIX = "tagstream.replay."
_SOURCE_OFFSET = f"{REPLAY_PREFIX}source_offset"
_EVENT_VERSION = f"{REPLAY_PREFIX}event_version"
_FROM = f"{REPLAY_PREFIX}from"
_FIRST_SEEN = "tagstream.first_seen_ms"
#: Headers that are ours, not the producer's.
LETTER_PREFIXES = ("__connect.errors.", "tagstream.")


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replayed record was at first. `event_version` is None if nobody could tell."""

    source_offset: int
    event_version: int | None = None


def replay_of(record: Record) -> Replay | None:
    """None for a record that is no replay. Raises InvalidEvent if its replay headers make no sense."""
    headers = {name: value for name, value in record.headers if name.startswith(REPLAY_PREFIX)}
    if not headers:
        return None
    if _SOURCE_OFFSET not in headers:
        raise InvalidEvent(f"header {_SOURCE_OFFSET}: missing, but there are other replay headers")
    source_offset = _number(_SOURCE_OFFSET, headers[_SOURCE_OFFSET])
    if _EVENT_VERSION not in headers:
        return Replay(source_offset)
    return Replay(source_offset, _number(_EVENT_VERSION, headers[_EVENT_VERSION]))


def replay_headers(letter: Record, first: Replay) -> tuple[Header, ...]:
    """The headers that a dead letter is replayed with: its producer's own, and what the replay adds."""
    own = tuple(header for header in letter.headers if not header[0].startswith(LETTER_PREFIXES))
    first_seen = tuple(header for header in letter.headers if header[0] == _FIRST_SEEN)
    added: list[Header] = [
        (_SOURCE_OFFSET, b"%d" % first.source_offset),
        (_FROM, b"%d/%d" % (letter.partition, letter.offset)),
    ]
    if first.event_version is not None:
        added.append((_EVENT_VERSION, b"%d" % first.event_version))
    return (*own, *first_seen, *added)


def _number(name: str, value: bytes | None) -> int:
    text = (value or b"").decode("ascii", "replace")
    if not re.fullmatch("[0-9]{1,16}", text) or int(text) > EVENT_VERSION_MAX:
        raise InvalidEvent(f"header {name}: not an integer from 0 to 2^53-1")
    return int(text)
