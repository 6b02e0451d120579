"""The promise of the main path: nothing lost, nothing stale, commits last."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stage import LIMITS, Stage, deletion, event, headers

from tagstream.adapters.memory import After, MemorySource
from tagstream.core.errors import InvalidEvent, StoreNotInitialised, TaggingFailed, Unavailable
from tagstream.core.letters import dead_letter
from tagstream.core.metrics import Metric
from tagstream.core.ports import MicroBatch, Record, Scores, Span


def test_an_event_is_stored_published_and_then_committed() -> None:
    stage = Stage()
    stage.send("p1", event("p1"), headers=(("traceparent", b"00-abc"),))
    stage.turn()
    standing = stage.standing("p1")
    assert standing is not None
    assert {tag.group for tag in standing.tags} == {"colour", "kind"}
    [record] = stage.tags
    assert record.key == b"p1"
    assert json.loads(record.value or b"") == json.loads(standing.model_dump_json())
    assert headers(record) == {
        "event_id": "p1-1",
        "revision": "1",
        "event_version": "1",
        "source_offset": "0",
        "model_generation": "1",
        "traceparent": "00-abc",
    }
    assert stage.committed == 1
    assert stage.books == {"consumed": 1, "tagged": 1}


def test_nothing_is_committed_before_the_tags_are_published() -> None:
    stage = Stage(inline=False)
    stage.send("p1", event("p1"))
    stage.turn()
    assert stage.committed == 0
    stage.executor.step()
    stage.turn()
    assert stage.committed == 1


def test_a_commit_never_passes_an_earlier_event_that_is_not_done() -> None:
    stage = Stage(inline=False)
    for n in range(8):  # two micro-batches of four
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn()
    stage.executor.step(1)
    stage.turn()
    assert len(stage.tags) == 4
    assert stage.committed == 0
    stage.executor.step()
    stage.turn()
    assert stage.committed == 8


@pytest.mark.parametrize("part", ["tagger", "store", "publisher"])
def test_an_outage_delays_the_commit_but_loses_nothing(part: str) -> None:
    stage = Stage()
    getattr(stage, part).faults.extend([Unavailable("away")] * 5)
    stage.send("p1", event("p1"))
    stage.turn()
    assert stage.books == {"consumed": 1, "tagged": 1}
    assert stage.committed == 1
    assert stage.worker.status().ready
    assert stage.metrics.value(Metric.RETRIES) == 5


def test_a_store_that_was_emptied_is_waited_for() -> None:
    stage = Stage()
    stage.store.faults.extend([StoreNotInitialised("emptied")] * 3)
    stage.send("p1", event("p1"))
    stage.turn()
    assert stage.books == {"consumed": 1, "tagged": 1}


def test_during_an_outage_the_worker_is_not_ready_and_says_why() -> None:
    stage = Stage()
    stage.source.faults.extend([Unavailable("broker down")] * 100)
    stage.turn(3)
    status = stage.worker.status()
    assert not status.ready
    assert "broker down" in status.reason


def test_a_store_that_died_after_the_write_gets_the_publish_it_is_owed() -> None:
    stage = Stage()
    stage.store.faults.append(After(Unavailable("died after the write")))
    stage.send("p1", event("p1"))
    stage.turn()
    assert [headers(r)["revision"] for r in stage.tags] == ["1"]
    assert stage.books == {"consumed": 1, "repeated": 1}


def test_an_event_that_is_read_again_changes_nothing_and_is_published_again() -> None:
    stage = Stage()
    stage.send("p1", event("p1"))
    stage.turn()
    before = stage.standing("p1")
    stage.broker.committed.clear()  # as after a crash between publish and commit
    again = stage.new_worker(MemorySource(stage.broker, "other", "product-events"))
    for _ in range(5):
        again.turn()
        stage.clock.advance(0.3)
    assert stage.standing("p1") == before
    assert [r.value for r in stage.tags] == [stage.tags[0].value] * 2
    assert again.status().books == {"consumed": 1, "repeated": 1}


def test_an_older_version_after_a_newer_one_is_stale_and_not_published() -> None:
    stage = Stage()
    stage.send("p1", event("p1", 7, title="new"))
    stage.turn()
    stage.send("p1", event("p1", 3, title="old"))
    stage.turn()
    assert stage.books == {"consumed": 2, "tagged": 1, "stale": 1}
    assert len(stage.tags) == 1
    assert stage.committed == 2


def test_of_the_events_waiting_behind_one_in_flight_only_the_newest_is_tagged() -> None:
    stage = Stage(inline=False)
    stage.send("p1", event("p1", 1))
    stage.turn()
    for version in (2, 5, 4):
        stage.send("p1", event("p1", version))
    stage.turn()
    stage.executor.step()
    stage.turn()
    assert stage.books == {"consumed": 4, "tagged": 1}, "nothing is superseded before its successor is done"
    assert stage.committed == 1
    stage.executor.step()
    stage.turn()
    assert stage.books == {"consumed": 4, "tagged": 2, "superseded": 2}
    assert [headers(r)["event_version"] for r in stage.tags] == ["1", "5"]
    assert stage.committed == 4


def test_a_superseded_event_is_tagged_after_all_when_its_successor_is_a_dead_letter() -> None:
    stage = Stage(inline=False)
    stage.tagger.poison = {"poison"}
    stage.send("p1", event("p1", 1))
    stage.turn()
    stage.send("p1", event("p1", 2, title="good"))
    stage.send("p1", event("p1", 3, title="better"))
    stage.send("p1", event("p1", 4, title="poison"))
    stage.turn()
    while stage.executor.waiting:
        stage.executor.step()
        stage.turn()
    assert stage.books == {"consumed": 4, "tagged": 2, "superseded": 1, "dead_lettered": 1}
    assert [headers(r)["event_version"] for r in stage.tags] == ["1", "3"]
    assert stage.committed == 4


def test_one_product_is_never_in_flight_twice() -> None:
    stage = Stage(inline=False)
    for version in range(1, 9):
        stage.send("p1", event("p1", version))
    stage.turn()
    assert len(stage.executor.waiting) == 1


def test_what_cannot_be_decoded_is_a_dead_letter_exactly_as_it_came() -> None:
    stage = Stage()
    stage.send("p1", b"{broken", headers=(("h", b"\x00\xff"), ("tagstream.attempts", b"9")), timestamp_ms=123)
    stage.send("p2", event("p2"))
    stage.turn()
    [letter] = stage.dead
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"p1", b"{broken", 123)
    assert dict(letter.headers)["h"] == b"\x00\xff"
    assert "JSON" in headers_of(letter)["__connect.errors.exception.message"]
    assert headers_of(letter)["__connect.errors.topic"] == "product-events"
    assert headers_of(letter)["__connect.errors.offset"] == "0"
    assert [name for name, _ in letter.headers].count("tagstream.attempts") == 1
    assert stage.books == {"consumed": 2, "tagged": 1, "dead_lettered": 1}
    assert stage.committed == 2


def headers_of(record: object) -> dict[str, str]:
    return {n: (v or b"").decode("utf-8", "replace") for n, v in record.headers}  # type: ignore[attr-defined]


def test_an_unacknowledged_dead_letter_holds_the_commit_back() -> None:
    stage = Stage(inline=False)
    stage.publisher.faults.append(After(Unavailable("no acknowledgement")))
    stage.send("p1", b"{broken")
    stage.turn()
    assert stage.committed == 0
    stage.executor.step()
    stage.turn()
    assert stage.committed == 1
    assert len(stage.dead) == 2, "at least once: the first may have arrived"


def test_an_event_on_which_the_model_raises_is_a_dead_letter_and_its_neighbours_are_tagged() -> None:
    stage = Stage()
    stage.tagger.poison = {"poison"}
    for n in range(4):
        stage.send(f"p{n}", event(f"p{n}", title="poison" if n == 2 else "fine"))
    stage.turn()
    assert stage.books == {"consumed": 4, "tagged": 3, "dead_lettered": 1}
    assert [r.key for r in stage.dead] == [b"p2"]
    assert headers(stage.dead[0])["__connect.errors.stage"] == "tag"
    assert headers(stage.dead[0])["tagstream.event_version"] == "1"


def test_a_delete_removes_tags_and_publishes_an_empty_value() -> None:
    stage = Stage()
    stage.send("p1", event("p1", 1))
    stage.turn()
    stage.send("p1", deletion("p1", 2))
    stage.turn()
    assert stage.standing("p1") is None
    assert stage.store.size() == (0, 0)
    assert stage.tags[-1].value is None
    assert headers(stage.tags[-1])["revision"] == "2"
    assert stage.books == {"consumed": 2, "tagged": 1, "deleted": 1}
    stage.send("p1", event("p1", 1))
    stage.turn()
    assert stage.books["stale"] == 1


def test_an_empty_value_deletes_when_a_header_says_its_version() -> None:
    stage = Stage()
    stage.send("p1", event("p1", 1))
    stage.send("p2", event("p2", 1))
    stage.turn()
    stage.send("p1", None, headers=(("event_version", b"2"),))
    stage.send("p2", None)
    stage.turn()
    assert stage.standing("p1") is None
    assert stage.standing("p2") is not None
    assert stage.books == {"consumed": 4, "tagged": 2, "deleted": 1, "dead_lettered": 1}


def test_the_event_attribute_wins_over_the_model() -> None:
    stage = Stage()
    stage.send("p1", event("p1", attributes={"Colour": "green"}))
    stage.turn()
    standing = stage.standing("p1")
    assert standing is not None
    [colour] = [tag for tag in standing.tags if tag.group == "colour"]
    assert (colour.value, colour.source) == ("Green", "event")


@pytest.mark.parametrize(
    ("image", "use"),
    [
        (None, "none"),
        ({"data": "AAAA"}, "used"),
        ({"data": "!!"}, "unusable"),
        ({"url": "https://gone"}, "unusable"),
    ],
)
def test_the_picture_s_outcome_is_told_and_never_a_dead_letter(
    image: dict[str, str] | None, use: str
) -> None:
    stage = Stage()
    stage.send("p1", event("p1", image=image))
    stage.turn()
    standing = stage.standing("p1")
    assert standing is not None
    assert standing.image == use


def test_without_title_and_usable_picture_the_model_s_prior_is_not_called_a_tag() -> None:
    stage = Stage()
    stage.send("p1", event("p1", title="", image={"url": "https://gone"}, attributes={"colour": "red"}))
    stage.turn()
    standing = stage.standing("p1")
    assert standing is not None
    assert [(tag.value, tag.source) for tag in standing.tags] == [("Red", "event")]


def test_a_full_worker_stops_taking_then_pauses_and_resumes_at_half() -> None:
    stage = Stage(inline=False, limits=replace(LIMITS, max_uncommitted_events=8, pause_after_s=1.0))
    for n in range(40):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(3)
    assert stage.worker.status().uncommitted == 8
    assert not stage.source.paused
    stage.turn(6)
    assert stage.source.paused
    assert stage.worker.status().uncommitted == 8
    while stage.executor.waiting:
        stage.executor.step()
        stage.turn(3)
    assert not stage.source.paused
    assert stage.books == {"consumed": 40, "tagged": 40}


def test_held_bytes_bound_what_is_taken() -> None:
    size = len(event("p0"))
    stage = Stage(inline=False, limits=replace(LIMITS, held_max_bytes=2 * size, poll_max_records=1))
    for n in range(9):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(6)
    assert stage.worker.status().uncommitted == 2


def test_a_clean_revoke_finishes_what_is_in_flight_and_drops_what_waits() -> None:
    stage = Stage(limits=replace(LIMITS, max_in_flight=1))
    stage.executor.inline = False
    for version in (1, 2, 3):
        stage.send("p1", event("p1", version))
    stage.send("p2", event("p2"))
    stage.worker.turn()
    stage.clock.advance(0.1)
    stage.worker.turn()
    assert len(stage.executor.waiting) == 1
    stage.executor.step()
    stage.source.close()
    books = stage.worker.status().books
    assert books == {"consumed": 4, "tagged": 2, "dropped": 2}
    assert stage.committed == 1, "p2 is done, but p1's later versions before it are not"
    assert stage.worker.status().partitions == {}
    assert stage.balanced()


def test_a_partition_that_moves_loses_nothing() -> None:
    stage = Stage(partitions=4)
    other_source = MemorySource(stage.broker, "g", "product-events")
    for n in range(40):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(2)
    other = stage.new_worker(other_source)
    for n in range(40, 80):
        stage.send(f"p{n}", event(f"p{n}"))
    for _ in range(20):
        stage.worker.turn()
        other.turn()
        stage.clock.advance(0.3)
    assert stage.committed == 80
    assert all(stage.standing(f"p{n}") for n in range(80))
    assert len(other.status().partitions) == 2


def test_results_for_a_lost_partition_are_neither_stored_nor_published() -> None:
    stage = Stage(inline=False)
    stage.send("p1", event("p1"))
    stage.turn(3)
    stage.broker.evict(stage.source)
    stage.worker.turn()
    stage.executor.step()
    stage.worker.turn()
    assert stage.standing("p1") is None
    assert stage.tags == []
    assert stage.books["dropped"] == 1


def freeze_before_the_next_publish(stage: Stage, meanwhile: Callable[[], None] = lambda: None) -> None:
    """The worker falls asleep there; the group moves on, another worker does all there is, then it wakes."""
    other = stage.new_worker(MemorySource(stage.broker, "g", "product-events"))
    publish = stage.publisher.publish

    def asleep(records: object) -> None:
        stage.publisher.publish = publish  # type: ignore[method-assign]
        stage.broker.evict(stage.source)
        meanwhile()
        stage.executor.inline = True
        for _ in range(6):
            other.turn()
            stage.clock.advance(0.3)
        stage.executor.inline = False
        publish(records)  # type: ignore[arg-type]

    stage.publisher.publish = asleep  # type: ignore[method-assign]


def test_a_consumer_frozen_between_store_and_publish_puts_the_topic_right_when_it_wakes() -> None:
    stage = Stage(inline=False)
    stage.send("p1", event("p1", 1, title="old"))
    stage.turn(3)
    freeze_before_the_next_publish(stage, lambda: stage.send("p1", event("p1", 2, title="new")))
    stage.executor.step()
    assert [headers(r)["revision"] for r in stage.tags][-1] == "1", "the zombie's old revision came last"
    for _ in range(5):
        stage.worker.turn()
        stage.clock.advance(0.3)
    assert headers(stage.tags[-1])["revision"] == "2"
    standing = stage.standing("p1")
    assert standing is not None
    assert json.loads(stage.tags[-1].value or b"")["revision"] == standing.revision


def test_a_consumer_that_lost_its_partitions_unseen_repeats_nothing_that_still_stands() -> None:
    stage = Stage(inline=False)
    for n in range(6):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(3)
    stage.executor.step()
    stage.worker.turn()
    stage.broker.evict(stage.source)
    published = len(stage.tags)
    assert published == 4
    stage.turn(3)
    stage.executor.step()
    stage.turn(3)
    assert len(stage.tags) == published


def test_while_the_group_does_not_answer_no_more_is_published_than_a_micro_batch_and_what_is_in_flight() -> (
    None
):
    stage = Stage()
    heard = stage.worker.on_committed
    stage.worker.on_committed = lambda next_offsets: None  # type: ignore[method-assign]
    for n in range(60):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(20)
    bound = (LIMITS.max_in_flight + 1) * LIMITS.micro_batch.max_events
    assert 0 < len(stage.tags) <= bound
    stage.worker.on_committed = heard  # type: ignore[method-assign]
    stage.turn(20)
    assert len(stage.tags) == 60


def test_what_waits_for_its_commit_takes_the_place_of_what_could_be_in_flight() -> None:
    stage = Stage(inline=False)
    stage.worker.on_committed = lambda next_offsets: None  # type: ignore[method-assign]

    def publish(products: int) -> None:
        for n in range(products):
            stage.send(f"p{n}", event(f"p{n}", len(stage.tags) + 1))
        for _ in range(2):
            stage.worker.turn()
            stage.clock.advance(LIMITS.micro_batch.flush_timeout_s)
        while stage.executor.waiting:
            stage.executor.step()
        stage.worker.turn()

    publish(3)
    stage.clock.advance(LIMITS.commit_interval_s)
    stage.worker.turn()  # three are committed, as far as this worker can do it
    publish(3)  # three are not yet, being less than a micro-batch
    publish(8)
    assert len(stage.tags) == 10
    assert len(stage.tags) <= (LIMITS.max_in_flight + 1) * LIMITS.micro_batch.max_events


@pytest.mark.parametrize("seed", range(12))
def test_whenever_a_worker_dies_no_more_is_published_again_than_the_bound(seed: int) -> None:
    rng, most = random.Random(seed), 1 + seed % 4
    stage = Stage(inline=False, limits=replace(LIMITS, max_in_flight=most))
    for n in range(120):
        stage.send(f"p{n}", event(f"p{n}") if rng.random() < 0.6 else b"{broken")
    for _ in range(800):
        stage.worker.turn()
        stage.clock.advance(0.02)
        if stage.executor.waiting and rng.random() < 0.5:
            stage.executor.step(rng.randrange(len(stage.executor.waiting)))
        published = [int(headers(record)["source_offset"]) for record in stage.tags]
        published += [int(headers(record)["__connect.errors.offset"]) for record in stage.dead]
        at_stake = sum(offset >= stage.committed for offset in published)
        assert at_stake <= (most + 1) * LIMITS.micro_batch.max_events
    assert len(published) == 120


def test_a_micro_batch_that_takes_long_is_overtaken_by_as_many_as_may_be_in_flight() -> None:
    stage = Stage(inline=False)
    for n in range(40):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(2)
    for _ in range(2):
        stage.executor.step(1)
        stage.turn(2)
    assert len(stage.executor.waiting) == 1, "the slow one; what overtook it could come twice"
    assert (len(stage.tags), stage.committed) == (8, 0)
    for _ in range(12):
        while stage.executor.waiting:
            stage.executor.step()
        stage.turn(2)
    assert (len(stage.tags), stage.committed) == (40, 40)


@pytest.mark.parametrize("fails", [False, True])
def test_a_consumer_that_goes_on_before_it_hears_of_its_loss_puts_the_topic_right_too(fails: bool) -> None:
    stage = Stage(inline=False)
    stage.send("p1", event("p1", 1, title="old"))
    stage.turn(3)
    publish, put, rebalance = stage.publisher.publish, stage.store.put, stage.source._rebalance
    freeze_before_the_next_publish(stage)
    stage.send("p1", event("p1", 2, title="new"))
    stage.worker.turn()

    def hear_of_the_loss() -> None:
        stage.source._rebalance = rebalance  # type: ignore[method-assign]
        stage.worker.turn()

    def put_then_hear(writes: object) -> object:
        found = put(writes)  # type: ignore[arg-type]
        hear_of_the_loss()
        return found

    def hear_then_fail(records: object) -> None:
        stage.publisher.publish = publish  # type: ignore[method-assign]
        hear_of_the_loss()
        raise Unavailable("away for a moment")

    stage.executor.step()
    stage.source._rebalance = lambda: None  # type: ignore[method-assign]
    for _ in range(2):
        stage.worker.turn()
        stage.clock.advance(0.3)
    if fails:
        stage.publisher.publish = hear_then_fail  # type: ignore[method-assign]
    else:
        stage.store.put = put_then_hear  # type: ignore[method-assign,assignment]
    stage.executor.step()
    stage.store.put = put  # type: ignore[method-assign]
    stage.turn(4)
    assert [headers(r)["revision"] for r in stage.tags] == ["1", "2", "1", "2"]


def test_a_late_record_that_was_never_acknowledged_is_put_right_too() -> None:
    stage = Stage(inline=False)
    stage.send("p1", event("p1", 1, title="old"))
    stage.turn(3)
    freeze_before_the_next_publish(stage, lambda: stage.send("p1", event("p1", 2, title="new")))
    asleep = stage.publisher.publish

    def unacknowledged(records: object) -> None:
        asleep(records)  # type: ignore[arg-type]
        stage.worker.turn()  # hears of the loss
        raise Unavailable("no acknowledgement")

    stage.publisher.publish = unacknowledged  # type: ignore[method-assign]
    stage.executor.step()
    stage.turn(3)
    assert [headers(r)["revision"] for r in stage.tags] == ["1", "2", "1", "2"]


def test_a_revocation_that_is_heard_too_late_is_as_good_as_a_loss() -> None:
    stage = Stage(inline=False)
    stage.send("p1", event("p1", 1, title="old"))
    stage.turn(3)
    freeze_before_the_next_publish(stage, lambda: stage.send("p1", event("p1", 2, title="new")))
    stage.executor.step()
    stage.worker.on_revoked(sorted(stage.source.lost))
    stage.source.lost = set()
    stage.turn(3)
    assert [headers(r)["revision"] for r in stage.tags] == ["1", "2", "1", "2"]


def test_a_group_that_answers_no_commit_is_told_of_and_memory_stays_bounded() -> None:
    limits = replace(LIMITS, max_uncommitted_events=40, poll_max_records=20)
    stage = Stage(limits=limits)
    heard = stage.worker.on_committed
    stage.worker.on_committed = lambda next_offsets: None  # type: ignore[method-assign]
    for n in range(3000):
        stage.send(f"p{n}", event(f"p{n}"))
    for _ in range(400):
        stage.worker.turn()
        stage.clock.advance(0.01)
    status = stage.worker.status()
    assert not status.ready
    assert "acknowledged no commit" in status.reason
    assert status.uncommitted < 40 + limits.commit_interval_s / 0.01 + 20
    stage.worker.on_committed = heard  # type: ignore[method-assign]
    stage.turn(600)
    assert stage.worker.status().ready
    assert stage.books["tagged"] == 3000


def test_a_micro_batch_of_published_events_is_committed_at_once() -> None:
    stage = Stage()
    for n in range(9):
        stage.send(f"p{n}", event(f"p{n}"))
    for _ in range(3):
        stage.worker.turn()  # no time passes
    assert stage.committed == 8


def test_an_event_that_waited_for_its_product_goes_before_later_ones() -> None:
    stage = Stage(inline=False, limits=replace(LIMITS, max_in_flight=1))
    stage.send("p0", event("p0", 1))
    stage.send("p0", event("p0", 2))
    for n in range(1, 12):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(2)
    for _ in range(2):
        stage.executor.step()
        stage.turn(2)
    assert [headers(r)["event_version"] for r in stage.tags if r.key == b"p0"] == ["1", "2"]


def test_a_defect_stops_the_worker_loudly_and_commits_nothing_of_it() -> None:
    stage = Stage()
    stage.tagger.faults.append(ZeroDivisionError("a defect"))
    stage.send("p1", event("p1"))
    with pytest.raises(ZeroDivisionError):
        stage.turn()
    assert stage.committed == 0


def test_a_failed_commit_is_said_again() -> None:
    stage = Stage()
    stage.source.commit_faults.append(Unavailable("no coordinator"))
    stage.send("p1", event("p1"))
    stage.turn(20)
    assert stage.committed == 1


def test_tagging_errors_are_not_retried_for_ever() -> None:
    stage = Stage()
    stage.tagger.faults.extend([TaggingFailed("bad")] * 3)
    stage.send("p1", event("p1"))
    stage.send("p2", event("p2"))
    stage.turn()
    assert stage.books == {"consumed": 2, "dead_lettered": 2}


def test_a_backlog_of_one_product_s_versions_is_one_event_to_tag() -> None:
    stage = Stage(inline=False)
    for version in range(1, 1901):
        stage.send("p1", event("p1", version))
    stage.turn()
    while stage.executor.waiting:
        stage.executor.step()
        stage.turn(3)
    assert stage.books == {"consumed": 1900, "tagged": 2, "superseded": 1898}
    assert stage.committed == 1900


@pytest.mark.parametrize(
    ("value", "more"),
    [
        (None, {"headers": (("event_version", b"9" * 5000),)}),
        (event("p1", schema_version="\U00011bf1.0"), {}),
        (event("x" * 100_000), {}),
    ],
)
def test_odd_records_are_dead_letters_with_short_reasons_and_the_loop_goes_on(
    value: bytes | None, more: dict[str, object]
) -> None:
    stage = Stage()
    stage.send("p1", value, **more)
    stage.send("p2", event("p2"))
    stage.turn()
    assert stage.books == {"consumed": 2, "tagged": 1, "dead_lettered": 1}
    assert len(headers(stage.dead[0])["__connect.errors.exception.message"]) <= 500


def test_a_defect_of_the_decoder_is_a_dead_letter_not_a_crash_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    monkeypatch.setattr("tagstream.core.decode._parse", lambda value: 1 / 0)
    stage.send("p1", event("p1"))
    stage.turn()
    assert stage.books == {"consumed": 1, "dead_lettered": 1}
    assert "defect" in headers(stage.dead[0])["__connect.errors.exception.message"]


def test_a_micro_batch_that_its_pictures_made_too_large_is_cut() -> None:
    limits = replace(LIMITS, micro_batch=replace(LIMITS.micro_batch, max_bytes=1000))
    stage = Stage(limits=limits)
    stage.images.pages = {"https://p": b"x" * 400}
    for n in range(4):
        stage.send(f"p{n}", event(f"p{n}", image={"url": "https://p"}))
    stage.turn()
    assert stage.books == {"consumed": 4, "tagged": 4}
    assert max(sum(len(i or b"") for i in call.images) for call in stage.tagger.calls) <= 1000


def test_the_source_s_headers_travel_on_up_to_a_limit() -> None:
    stage = Stage()
    stage.send("p1", event("p1"), headers=(("traceparent", b"00"), ("huge", b"x" * 3_000_000)))
    stage.turn()
    assert headers(stage.tags[0])["traceparent"] == "00"
    assert "huge" not in headers(stage.tags[0])


def test_a_dead_letter_too_large_for_its_topic_goes_without_its_value() -> None:
    stage = Stage()
    stage.send("p1", b"{" + b" " * 26_000_000)
    stage.turn()
    [letter] = stage.dead
    assert letter.value is None
    assert headers(letter)["tagstream.value_omitted_bytes"] == "26000001"


def test_an_event_with_more_tags_than_a_record_takes_is_a_dead_letter_and_its_neighbours_are_tagged() -> None:
    stage = Stage()
    tag = stage.tagger.tag

    def wordy(batch: MicroBatch) -> Scores:
        spans = [
            tuple(Span("line", f"{n:06}" * 5, 0.9, 0, 1) for n in range(2000 if text.title == "wordy" else 2))
            for text in batch.texts
        ]
        return replace(tag(batch), spans=spans)

    stage.tagger.tag = wordy  # type: ignore[method-assign]
    for n in range(3):
        stage.send(f"p{n}", event(f"p{n}", title="wordy" if n == 1 else "fine"))
    stage.turn()
    [letter] = stage.dead
    assert letter.key == b"p1"
    assert headers(letter)["__connect.errors.stage"] == "decide"
    assert "2,002 tags" in headers(letter)["__connect.errors.exception.message"]
    assert stage.books == {"consumed": 3, "tagged": 2, "dead_lettered": 1}


@pytest.mark.parametrize(
    ("value_mib", "headers_mib", "keeps_value"),
    [(20, 6, False), (1, 26, True), (26, 26, False), (24, 0, True)],
)
def test_a_dead_letter_always_fits_its_topic(value_mib: int, headers_mib: int, keeps_value: bool) -> None:
    own = (("huge", b"x" * (headers_mib * 2**20)),)
    record = Record("product-events", 0, 7, b"p1", b"{" + b" " * (value_mib * 2**20 - 1), own)
    letter = dead_letter(
        "dead", record, InvalidEvent("é" * 500), attempts=1, event_version=2**53 - 1, now_ms=2**41
    )
    assert letter.size_bytes < 25 * 2**20
    assert (letter.value is not None) == keeps_value


def test_what_outlasts_a_revoke_is_put_right_on_the_topic_afterwards() -> None:
    stage = Stage(inline=False, limits=replace(LIMITS, revoke_timeout_s=0))
    stage.send("p1", event("p1", 1, title="old"))
    stage.turn(3)
    publish = stage.publisher.publish
    other = stage.new_worker(MemorySource(stage.broker, "other-group", "product-events"))

    def slow(records: object) -> None:  # the partition goes while the publish is under way
        stage.publisher.publish = publish  # type: ignore[method-assign]
        stage.worker.on_revoked(sorted(stage.source.positions))
        stage.executor.inline = True
        stage.send("p1", event("p1", 2, title="new"))
        for _ in range(6):
            other.turn()
            stage.clock.advance(0.3)
        publish(records)  # type: ignore[arg-type]

    stage.publisher.publish = slow  # type: ignore[method-assign]
    stage.executor.step()
    assert headers(stage.tags[-1])["revision"] == "1"
    for _ in range(3):
        stage.worker.turn()
    assert headers(stage.tags[-1])["revision"] == "2"


def test_an_offset_whose_commit_was_refused_in_a_rebalance_is_committed_after_it() -> None:
    stage = Stage()
    stage.send("p1", event("p1"))
    stage.turn()
    stage.broker.committed.clear()
    stage.worker.on_assigned([])
    stage.turn()
    assert stage.committed == 1
