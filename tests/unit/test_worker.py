"""The promise of the main path: nothing lost, nothing stale, commits last."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tagstream.core.errors import StoreNotInitialised, TaggingFailed, Unavailable
from tagstream.core.metrics import Metric
from tests.support.memory import After, MemorySource
from tests.support.stage import LIMITS, Stage, deletion, event, headers


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


def test_one_product_is_never_in_flight_twice() -> None:
    stage = Stage(inline=False)
    for version in range(1, 9):
        stage.send("p1", event("p1", version))
    stage.turn()
    assert len(stage.executor.waiting) == 1


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
