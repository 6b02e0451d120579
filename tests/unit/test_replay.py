"""A replayed record keeps its place, however often it fails."""

from __future__ import annotations

import json
import resource

import pytest

from tagstream.cli.dead_letters import _moment_ms, printable
from tagstream.core.errors import BadSettings, InvalidEvent
from tagstream.core.events import ProductTags
from tagstream.core.ports import Header, Record, Standing
from tagstream.ops.dead_letters import Filter, Handled, Letter, parse_address
from tagstream.stream.decode import MAX_AHEAD_MS, Decoder, _depth
from tagstream.stream.outgoing import dead_letter, tag_record
from tagstream.stream.replay import REPLAY_PREFIX, Replay, replay_headers, replay_of

EVENT = {
    "schema_version": "1.0",
    "event_id": "e1",
    "type": "upsert",
    "product_id": "p1",
    "event_version": 7,
    "occurred_at": "2026-01-05T08:00:00Z",
    "title": "Blue Shirt",
}
OFFSET, VERSION = f"{REPLAY_PREFIX}source_offset", f"{REPLAY_PREFIX}event_version"


def record(*headers: Header, offset: int = 90, timestamp_ms: int = 5000, value: object = EVENT) -> Record:
    content = None if value is None else json.dumps(value).encode()
    return Record("product-events", 2, offset, b"p1", content, headers, timestamp_ms)


def letter_of(source: Record, offset: int, event_version: int | None = None, now_ms: int = 9000) -> Record:
    """The dead letter of a record, as it is read from its topic."""
    out = dead_letter(
        "dead", source, InvalidEvent("too odd"), attempts=1, event_version=event_version, now_ms=now_ms
    )
    return Record("dead", 0, offset, out.key, out.value, out.headers, out.timestamp_ms or now_ms)


def replayed(letter: Record, offset: int) -> Record:
    """The letter, sent to its source topic again."""
    first = Letter(letter).first("timestamp")
    assert first is not None
    headers = replay_headers(letter, first)
    return Record("product-events", 2, offset, letter.key, letter.value, headers, letter.timestamp_ms)


def test_a_record_without_replay_headers_is_no_replay() -> None:
    assert replay_of(record(("tagstream.first_seen_ms", b"1"), ("event_id", b"e"))) is None
    assert Decoder().decode(record(), now_ms=9000).order == (7, 90)


def test_a_replayed_record_has_its_first_offset_and_the_version_that_its_value_says() -> None:
    event = Decoder().decode(record((OFFSET, b"12"), (VERSION, b"3")), now_ms=9000)
    assert event.order == (7, 12)


def test_in_timestamp_mode_a_replayed_record_has_its_first_version_whatever_the_broker_stamped() -> None:
    decoder = Decoder("timestamp")
    assert decoder.decode(record((OFFSET, b"12"), (VERSION, b"4000")), now_ms=9000).order == (4000, 12)
    assert decoder.decode(record((OFFSET, b"12")), now_ms=9000).order == (5000, 12)


def test_a_replayed_version_far_ahead_of_now_is_refused_as_any_other() -> None:
    ahead = b"%d" % (9001 + MAX_AHEAD_MS)
    with pytest.raises(InvalidEvent, match="more than an hour ahead"):
        Decoder("timestamp").decode(record((OFFSET, b"12"), (VERSION, ahead)), now_ms=9000)


def test_a_replayed_deletion_has_the_event_id_that_it_had_at_first() -> None:
    version: Header = ("event_version", b"3")
    first = Decoder().decode(record(version, offset=12, value=None), now_ms=9000)
    again = Decoder().decode(record(version, (OFFSET, b"12"), value=None), now_ms=9000)
    assert again == first


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        (((OFFSET, b"-1"),), OFFSET),
        (((OFFSET, b"twelve"),), OFFSET),
        (((OFFSET, None),), OFFSET),
        (((OFFSET, "١٢".encode()),), OFFSET),
        (((OFFSET, b"9007199254740992"),), OFFSET),
        (((OFFSET, b"12"), (VERSION, b"")), VERSION),
        (((OFFSET, b"12"), (VERSION, b"1.5")), VERSION),
        (((VERSION, b"3"),), OFFSET),
        (((f"{REPLAY_PREFIX}from", b"0/1"),), OFFSET),
    ],
)
def test_malformed_replay_headers_are_refused_by_name(headers: tuple[Header, ...], named: str) -> None:
    with pytest.raises(InvalidEvent, match=f"header {named}: "):
        Decoder().decode(record(*headers), now_ms=9000)


@pytest.mark.parametrize("known", [5000, None])
def test_a_letter_that_fails_again_keeps_its_first_offset_and_version_and_gets_fresh_errors(
    known: int | None,
) -> None:
    first_letter = letter_of(record(("traceparent", b"00-1"), offset=12), 0, known, now_ms=6000)
    second_letter = letter_of(replayed(first_letter, offset=90), 1, known, now_ms=9000)
    third_letter = letter_of(replayed(second_letter, offset=91), 2, known, now_ms=9500)
    headers = dict(third_letter.headers)
    assert len(headers) == len(third_letter.headers), "nothing stands twice"
    assert headers["__connect.errors.offset"] == b"91", "the errors are fresh"
    assert headers[f"{REPLAY_PREFIX}from"] == b"0/1", "the letter before this one"
    assert headers["tagstream.first_seen_ms"] == b"6000"
    assert headers["traceparent"] == b"00-1"
    assert replay_of(replayed(third_letter, offset=92)) == Replay(12, 5000)
    assert Decoder("timestamp").decode(replayed(third_letter, offset=92), now_ms=9999).order == (5000, 12)


def test_a_letter_with_malformed_replay_headers_is_replayed_from_the_offset_where_it_failed() -> None:
    letter = letter_of(record((OFFSET, b"twelve"), offset=90), 0)
    assert replay_of(replayed(letter, offset=95)) == Replay(90, 5000)


def test_replay_headers_do_not_travel_to_the_tag_topic() -> None:
    tags = ProductTags(
        product_id="p1",
        revision=1,
        event_version=7,
        model_version="m",
        model_generation=1,
        taxonomy_version="t",
        tagged_at="2026-01-05T08:00:00Z",
        image="none",
        tags=(),
    )
    out = tag_record("tags", Standing("applied", tags), "e1", record((OFFSET, b"12"), ("own", b"1")))
    assert dict(out.headers).keys() == {
        "own",
        "event_id",
        "revision",
        "event_version",
        "source_offset",
        "model_generation",
    }


def test_a_filter_matches_all_that_it_says() -> None:
    letter = Letter(letter_of(record(), 4, now_ms=9000))
    assert Filter().matches(letter)
    assert Filter("ODD", "decode", "p1", 9000, 9001, frozenset({"0/4"})).matches(letter)
    others = [
        Filter(reason="even"),
        Filter(stage="tag"),
        Filter(product_id="p"),
        Filter(since_ms=9001),
        Filter(until_ms=9000),
        Filter(addresses=frozenset({"0/5"})),
    ]
    assert not any(other.matches(letter) for other in others)


def test_only_a_marked_address_is_handled() -> None:
    handled = Handled([(0, 7), (0, 4), (1, 5)])
    found = [(p, o) for p in range(3) for o in range(9) if Letter(Record("dead", p, o, b"", b"")) in handled]
    assert found == [(0, 4), (0, 7), (1, 5)]


def test_an_address_is_two_numbers_with_a_slash() -> None:
    assert parse_address("3/14") == (3, 14)
    for text in ("", "3", "3/", "/3", "3/x", "-3/1", "3/1/2", "３/1", f"3/{'1' * 40}"):
        assert parse_address(text) is None, text


def test_a_moment_is_iso_or_so_long_ago() -> None:
    assert _moment_ms("2026-01-05T08:00:00") == _moment_ms("2026-01-05T09:00:00+01:00") == 1767600000000
    assert 7_199_000 <= (_moment_ms("0s") or 0) - (_moment_ms("2h") or 0) <= 7_201_000
    with pytest.raises(BadSettings, match="neither ISO 8601 nor a time ago"):
        _moment_ms("yesterday")


def test_what_is_shown_cannot_speak_to_the_terminal() -> None:
    assert printable("\x1b[2J深蓝\u202e\n") == r"\x1b[2J深蓝\u202e\n"


def test_a_large_string_costs_the_depth_check_little_memory() -> None:
    value = b'{"a": "' + b"{" * 40 + b"x" * 3_000_000 + b'"}'
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert _depth(value) == 1
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 100_000
