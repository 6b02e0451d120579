"""The pure parts: batching, offsets, lanes, backpressure, retries, decisions, scaling, letters."""

from __future__ import annotations

import contextlib
import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagstream.core.decide import Decider
from tagstream.core.errors import InvalidEvent
from tagstream.core.ports import Record, TextFields
from tagstream.core.taxonomy import Taxonomy
from tagstream.stream.backpressure import Backpressure
from tagstream.stream.batching import MicroBatcher, MicroBatchLimits
from tagstream.stream.decode import MAX_AHEAD_MS, Decoder
from tagstream.stream.healing import Mark
from tagstream.stream.limits import Backoff
from tagstream.stream.offsets import OffsetTracker
from tagstream.stream.scaling import PartitionLag, consumers_for


def test_a_micro_batch_is_full_by_count() -> None:
    batcher: MicroBatcher[int] = MicroBatcher(MicroBatchLimits(max_events=3, flush_timeout_s=9))
    for n in range(4):
        batcher.add(n, 1, 0.0)
    assert batcher.due_in_s(0.0) == 0
    assert batcher.take() == [0, 1, 2]
    assert batcher.due_in_s(0.0) == 9


def test_a_micro_batch_is_full_by_bytes_and_one_large_event_goes_alone() -> None:
    batcher: MicroBatcher[str] = MicroBatcher(MicroBatchLimits(max_bytes=10, flush_timeout_s=9))
    for name, size_bytes in (("huge", 50), ("a", 6), ("b", 6)):
        batcher.add(name, size_bytes, 0.0)
    assert batcher.take() == ["huge"]
    assert batcher.due_in_s(0.0) == 0
    assert batcher.take() == ["a"]
    assert batcher.due_in_s(0.0) == 9


def test_a_micro_batch_is_due_when_its_oldest_event_has_waited() -> None:
    batcher: MicroBatcher[str] = MicroBatcher(MicroBatchLimits(flush_timeout_s=0.5))
    assert batcher.due_in_s(0.0) is None
    batcher.add("a", 1, 1.0)
    batcher.add("b", 1, 1.4)
    assert batcher.due_in_s(1.25) == pytest.approx(0.25)
    assert batcher.due_in_s(1.5) == 0


def test_dropping_from_the_batcher_keeps_the_rest_in_order() -> None:
    batcher: MicroBatcher[int] = MicroBatcher(MicroBatchLimits(max_bytes=100))
    for n in range(6):
        batcher.add(n, 10, 0.0)
    assert batcher.drop(lambda n: n % 2 == 0) == [0, 2, 4]
    assert batcher.take() == [1, 3, 5]


@given(st.permutations(range(12)))
def test_a_commit_covers_exactly_the_unbroken_run_of_done_offsets(order: list[int]) -> None:
    tracker = OffsetTracker(epoch=1)
    for offset in range(12):
        tracker.take(offset + 100)
    done: set[int] = set()
    for offset in order:
        tracker.done(offset + 100)
        done.add(offset)
        run = next(n for n in range(13) if n not in done)
        assert tracker.committable() == (run + 100 if run else None)
        assert len(tracker) == 12 - run


def test_gaps_in_the_offsets_are_no_hindrance() -> None:
    tracker = OffsetTracker(epoch=1)
    for offset in (3, 7, 20):
        tracker.take(offset)
    tracker.done(3)
    tracker.done(7)
    assert tracker.committable() == 8


def test_offsets_that_do_not_grow_are_refused() -> None:
    tracker = OffsetTracker(epoch=1)
    tracker.take(5)
    with pytest.raises(ValueError, match="came after"):
        tracker.take(5)


def test_what_was_committed_is_not_committed_again_unless_rechecked() -> None:
    tracker = OffsetTracker(epoch=1)
    tracker.take(0)
    tracker.done(0)
    tracker.committed(1)
    assert tracker.committable() is None
    tracker.recheck()
    assert tracker.committable() == 1


def mark(offset: int) -> Mark:
    return Mark(f"p{offset}", 1, 1, offset, 1)


def test_what_was_published_is_suspect_until_a_later_commit_is_acknowledged() -> None:
    tracker = OffsetTracker(epoch=1)
    for offset in range(4):
        tracker.take(offset)
    tracker.done(0, published=mark(0))
    tracker.done(2, published=mark(2))
    tracker.committed(1)
    tracker.done(1, published=mark(1))
    tracker.committed(3)
    assert tracker.suspects() == [mark(0), mark(2), mark(1)]
    tracker.acknowledged(1)
    assert tracker.suspects() == [mark(1)]
    tracker.acknowledged(3)
    assert tracker.suspects() == []


def test_a_commit_that_was_said_again_clears_no_more_than_the_first_one_did() -> None:
    tracker = OffsetTracker(epoch=1)
    tracker.take(0)
    tracker.done(0, published=mark(0))
    tracker.committed(1)
    tracker.take(1)
    tracker.take(2)
    tracker.done(2, published=mark(2))
    tracker.committed(1)
    tracker.acknowledged(1)
    assert tracker.suspects() == [mark(2)]


def test_an_acknowledgement_from_before_proves_nothing() -> None:
    tracker = OffsetTracker(epoch=1)
    for offset in range(10):
        tracker.take(offset)
        tracker.done(offset, published=mark(offset))
    tracker.committed(10)
    assert tracker.unacknowledged == 10
    tracker.acknowledged(5)
    assert len(tracker.suspects()) == tracker.unacknowledged == 10
    tracker.acknowledged(10)
    assert tracker.unacknowledged == 0


def test_what_goes_first_does_not_make_others_wait_longer() -> None:
    batcher: MicroBatcher[int] = MicroBatcher(MicroBatchLimits(max_events=3, flush_timeout_s=0.05))
    batcher.add(1, 1, 0.0)
    batcher.add_first(0, 1, 0.04)
    assert batcher.due_in_s(0.05) == 0
    assert batcher.take() == [0, 1]


def test_backpressure_waits_first_then_pauses_and_resumes_at_half() -> None:
    pressure = Backpressure(pause_after_s=5)
    assert pressure.move(load=0.9, now_s=0) == "take"
    assert pressure.move(load=1.0, now_s=1) == "wait"
    assert pressure.move(load=1.0, now_s=5) == "wait"
    assert pressure.move(load=1.0, now_s=6) == "pause"
    assert pressure.move(load=0.6, now_s=7) == "stay_paused"
    assert pressure.move(load=0.5, now_s=8) == "resume"
    assert pressure.move(load=0.5, now_s=9) == "take"


def test_a_short_fullness_never_pauses() -> None:
    pressure = Backpressure(pause_after_s=5)
    for now_s in range(0, 100, 4):
        assert pressure.move(load=1.0, now_s=now_s) == "wait"
        assert pressure.move(load=0.9, now_s=now_s + 2) == "take"


@given(st.integers(1, 1000), st.integers(0, 2**32))
def test_backoff_grows_is_jittered_and_has_a_ceiling(attempt: int, seed: int) -> None:
    delay_s = Backoff(initial_s=0.1, max_s=5).delay_s(attempt, random.Random(seed))
    ceiling_s = min(5, 0.1 * 2 ** min(attempt - 1, 30))
    assert 0.1 * ceiling_s <= delay_s <= ceiling_s


@pytest.mark.parametrize(
    ("lags", "wanted"),
    [
        ([], 1),
        ([(0, 0, 1)], 1),
        ([(0, 900, 1), (1, 0, 1)], 1),
        ([(0, 2500, 1)], 1),
        ([(0, 900, 1), (1, 900, 1), (2, 900, 1)], 3),
        ([(0, 300, 1), (1, 300, 1), (2, 300, 1)], 1),
        ([(p, 10_000, 1) for p in range(4)], 4),
    ],
)
def test_as_many_consumers_as_the_lag_calls_for_and_partitions_can_use(
    lags: list[tuple[int, float, float]], wanted: int
) -> None:
    assert consumers_for([PartitionLag(*lag) for lag in lags], lag_per_consumer=1000) == wanted


def test_of_two_words_on_a_partition_the_newer_epoch_counts() -> None:
    reports = [PartitionLag(0, 0, 5), PartitionLag(0, 9000, 4), PartitionLag(1, 3000, 7)]
    assert consumers_for(reports, lag_per_consumer=1000) == 1


TAXONOMY = Taxonomy.model_validate(
    {
        "taxonomy_version": "t",
        "groups": [
            {
                "name": "colour",
                "langs": ["en"],
                "names": {"zh": "颜色"},
                "values": [
                    {"value": "Red", "threshold": 0.4, "names": {"zh": "红色"}},
                    {"value": "Blue", "threshold": 0.6},
                ],
            },
            {
                "name": "风格",
                "kind": "multi",
                "langs": ["zh"],
                "values": [{"value": "复古"}, {"value": "简约"}],
            },
            {"name": "kind", "values": [{"value": "Shirt"}, {"value": "Shoe"}]},
        ],
    }
)


def decide(scores: list[float], title: str = "a thing", **text: object) -> list[tuple[str, str, str]]:
    fields = TextFields(title, **text)  # type: ignore[arg-type]
    [tags] = Decider(TAXONOMY).decide(np.array([scores], np.float32), [fields])
    return [(tag.group, tag.value, tag.source) for tag in tags]


def test_a_single_choice_group_gives_its_highest_score_if_that_reaches_its_threshold() -> None:
    assert decide([0.45, 0.55, 0, 0, 0.9, 0.1]) == [("kind", "Shirt", "model")]
    assert decide([0.5, 0.45, 0, 0, 0.1, 0.9])[0] == ("colour", "Red", "model")


def test_a_group_of_another_language_gives_nothing() -> None:
    scores = [0.9, 0.1, 0.9, 0.9, 0.9, 0.1]
    assert [group for group, _, _ in decide(scores)] == ["colour", "kind"]
    assert [value for _, value, _ in decide(scores, "复古风")] == ["复古", "简约", "Shirt"]
    assert [group for group, _, _ in decide(scores, "复古风", lang="en-GB")] == ["colour", "kind"]


@pytest.mark.parametrize("attributes", [{"Colour": "RED"}, {"颜色": "红色"}, {" colour ": " red "}])
def test_what_the_event_states_wins_in_any_spelling_and_keeps_the_order(attributes: dict[str, str]) -> None:
    tags = decide([0.1, 0.9, 0, 0, 0.9, 0.1], attributes=attributes)
    assert tags == [("colour", "Red", "event"), ("kind", "Shirt", "model")]


def test_an_attribute_outside_the_taxonomy_changes_nothing() -> None:
    tags = decide([0.1, 0.9, 0, 0, 0.9, 0.1], attributes={"colour": "Mauve", "size": "XL"})
    assert tags == [("colour", "Blue", "model"), ("kind", "Shirt", "model")]


def record(value: object, **changes: object) -> Record:
    fields = {"topic": "t", "partition": 0, "offset": 7, "key": b"p", "timestamp_ms": 1000, **changes}
    return Record(value=json.dumps(value).encode() if value is not None else None, **fields)  # type: ignore[arg-type]


EVENT = {
    "schema_version": "1.3",
    "event_id": "e",
    "type": "upsert",
    "product_id": "p",
    "occurred_at": "2026-01-01T00:00:00+08:00",
    "title": "x",
    "a_new_field": {"is": "ignored"},
}


def test_in_timestamp_mode_the_record_s_time_is_the_version_and_the_offset_breaks_the_tie() -> None:
    event = Decoder("timestamp").decode(record(EVENT), now_ms=1000)
    assert event.order == (1000, 7)
    assert Decoder("timestamp").decode(record(None), now_ms=1000).deletes


def test_in_timestamp_mode_a_clock_far_ahead_is_refused() -> None:
    Decoder("timestamp").decode(record(EVENT, timestamp_ms=1000 + MAX_AHEAD_MS), now_ms=1000)
    with pytest.raises(InvalidEvent, match="an hour ahead"):
        Decoder("timestamp").decode(record(EVENT, timestamp_ms=1001 + MAX_AHEAD_MS), now_ms=1000)


@pytest.mark.parametrize("version", [b"-1", b"1.5", b"9007199254740992", "٣".encode(), b"x"])
def test_a_delete_by_empty_value_needs_a_whole_version_in_its_header(version: bytes) -> None:
    with pytest.raises(InvalidEvent, match="event_version"):
        Decoder().decode(record(None, headers=(("event_version", version),)), now_ms=0)


def test_a_title_full_of_brackets_is_not_nesting() -> None:
    assert Decoder().decode(record({**EVENT, "event_version": 1, "title": "[{" * 100}), now_ms=0)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_whatever_comes_is_an_event_or_an_invalid_one(value: bytes) -> None:
    with contextlib.suppress(InvalidEvent):  # anything else would escape
        Decoder().decode(Record("t", 0, 0, b"p", value, (), 0), now_ms=0)
