"""Too many dead letters halt the stream; nothing is lost meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tagstream.core.errors import TooManyDeadLetters, Unavailable
from tagstream.stream.halting import DeadLetterGuard, DeadLetterLimits
from tests.support.memory import MemorySource
from tests.support.stage import LIMITS, Stage, event, headers

STRICT = replace(LIMITS, dead_letters=DeadLetterLimits(max_run=5, max_ratio=0.5, window=20))


def test_a_run_of_failures_halts() -> None:
    guard = DeadLetterGuard(DeadLetterLimits(max_run=3))
    guard.take([True, True, True])
    guard.take([False, True, True, True])
    with pytest.raises(TooManyDeadLetters, match="4 dead letters in a row"):
        guard.take([True])


def test_a_ratio_of_failures_halts_once_the_window_is_full() -> None:
    guard = DeadLetterGuard(DeadLetterLimits(max_run=100, max_ratio=0.5, window=10))
    guard.take([True, False] * 5)
    with pytest.raises(TooManyDeadLetters, match="6 of the last 10"):
        guard.take([False, True, True, True])


def test_a_window_forgets_what_is_long_ago() -> None:
    guard = DeadLetterGuard(DeadLetterLimits(max_run=100, max_ratio=0.5, window=10))
    for _ in range(50):
        guard.take([True, False, False])


def halted_stage() -> Stage:
    stage = Stage(limits=STRICT)
    stage.tagger.poison = {"A red shirt"}
    for n in range(12):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(40)
    return stage


def test_a_model_that_raises_on_everything_halts_the_stream_before_it_floods_the_dead_letters() -> None:
    stage = halted_stage()
    assert stage.store.halted() == "6 dead letters in a row"
    assert len(stage.dead) <= 5
    assert stage.source.paused
    status = stage.worker.status()
    assert not status.ready
    assert "tagstream resume" in status.reason


def test_after_the_cause_is_mended_and_resumed_every_event_that_waited_is_tagged() -> None:
    stage = halted_stage()
    dead = len(stage.dead)
    stage.tagger.poison.clear()
    assert stage.store.resume()
    stage.turn(40)
    assert stage.books == {"consumed": 12, "tagged": 12 - dead, "dead_lettered": dead}
    assert stage.committed == 12
    assert stage.worker.status().ready


def test_what_a_halt_let_go_is_tagged_before_what_came_after_it() -> None:
    stage = halted_stage()
    stage.tagger.poison.clear()
    stage.store.resume()
    stage.turn(40)
    offsets = [int(headers(record)["source_offset"]) for record in stage.tags]
    assert offsets == sorted(offsets)
    assert offsets[-1] == 11


def test_a_restart_finds_the_switch_and_takes_nothing() -> None:
    stage = halted_stage()
    dead, before = len(stage.dead), stage.committed
    again = stage.new_worker(MemorySource(stage.broker, "other", "product-events"))
    for _ in range(20):
        again.turn()
        stage.clock.advance(0.3)
    assert again.status().books == {}
    assert len(stage.dead) == dead
    assert stage.committed == before


def test_undecodable_records_that_waited_through_a_halt_become_dead_letters_after_it() -> None:
    stage = Stage(limits=STRICT)
    for n in range(12):
        stage.send(f"p{n}", b"{broken")
    stage.turn(40)
    assert len(stage.dead) <= 5
    for _ in range(3):  # each resume lets so many through as the limit allows
        stage.store.resume()
        stage.turn(40)
    assert stage.books == {"consumed": 12, "dead_lettered": 12}
    assert len(stage.dead) == 12
    assert stage.committed == 12


def test_a_halt_that_cannot_be_written_holds_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(limits=STRICT)
    stage.tagger.poison = {"A red shirt"}

    def away(reason: str) -> None:
        raise Unavailable("store away")

    monkeypatch.setattr(stage.store, "halt", away)
    for n in range(30):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(40)
    assert stage.tagger.calls, "it has begun"
    assert len(stage.dead) <= STRICT.dead_letters.max_run
    assert stage.committed == len(stage.dead), "no offset passes without its dead letter"
    asked = len(stage.tagger.calls)
    stage.turn(40)
    assert len(stage.tagger.calls) == asked, "and nothing more is tried"
    assert stage.source.paused
    assert not stage.worker.status().ready
    monkeypatch.undo()
    stage.turn(2)
    assert stage.store.halted() == "6 dead letters in a row"


def test_a_restart_while_the_store_is_away_takes_nothing_until_it_is_known_whether_all_is_halted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage()

    def away() -> str:
        raise Unavailable("store away")

    monkeypatch.setattr(stage.store, "halted", away)
    stage.send("p1", b"{broken")
    stage.turn()
    assert stage.books == {}
    assert stage.dead == []
    monkeypatch.undo()
    stage.turn(30)
    assert stage.books == {"consumed": 1, "dead_lettered": 1}


def test_a_halt_that_comes_while_the_switch_is_being_read_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(limits=STRICT)
    halted = stage.store.halted

    def late() -> str:
        reason = halted()
        stage.worker._halt.throw("6 dead letters in a row")  # a micro-batch has just returned it
        monkeypatch.undo()
        return reason

    stage.turn()
    monkeypatch.setattr(stage.store, "halted", late)
    stage.turn()
    assert stage.store.halted() == "6 dead letters in a row"


def test_a_halt_that_was_told_stays_when_the_store_does_not_answer_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(limits=STRICT)
    stage.turn()
    switch = stage.worker._halt
    switch.throw("6 dead letters in a row")

    def away() -> str:
        raise Unavailable("away for a moment")

    monkeypatch.setattr(stage.store, "halted", away)
    with pytest.raises(Unavailable):
        switch.check(0.0)
    assert switch.is_on
