"""An event that kills the tagger's process is a dead letter; its neighbours are tagged."""

from __future__ import annotations

import pytest

from tagstream.core.errors import ReplicaDied
from tests.support.stage import Stage, event, headers


def test_an_event_that_kills_replicas_is_isolated_after_two_deaths() -> None:
    stage = Stage()
    stage.tagger.killers = {"killer"}
    for n in range(4):
        stage.send(f"p{n}", event(f"p{n}", title="killer" if n == 2 else "fine"))
    stage.turn()
    assert stage.books == {"consumed": 4, "tagged": 3, "dead_lettered": 1}
    assert [letter.key for letter in stage.dead] == [b"p2"]
    assert headers(stage.dead[0])["__connect.errors.stage"] == "tag"
    assert "kills" in headers(stage.dead[0])["__connect.errors.exception.message"]
    assert (stage.tagger.deaths, stage.tagger.isolated_deaths) == (2, 2)
    assert stage.committed == 4
    assert stage.worker.status().ready


def test_an_event_on_which_the_tagger_hangs_is_a_dead_letter_and_everything_else_goes_on() -> None:
    stage = Stage()
    stage.tagger.hangers = {"hangs"}
    for n in range(9):
        stage.send(f"p{n}", event(f"p{n}", title="hangs" if n == 2 else "fine"))
    stage.turn()
    assert stage.books == {"consumed": 9, "tagged": 8, "dead_lettered": 1}
    assert [letter.key for letter in stage.dead] == [b"p2"]
    assert "no answer in time" in headers(stage.dead[0])["__connect.errors.exception.message"]
    assert (stage.tagger.deaths, stage.tagger.isolated_deaths) == (2, 2)
    assert stage.committed == 9


@pytest.mark.parametrize("silences", [1, 2, 3])
def test_slow_replicas_make_no_dead_letters_while_a_process_of_its_own_tags_the_event(silences: int) -> None:
    stage = Stage()
    stage.tagger.faults.extend([ReplicaDied("no answer in time")] * silences)  # the third: its own process
    for n in range(4):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn()
    assert stage.books == {"consumed": 4, "tagged": 4}
    assert stage.dead == []


def test_a_replica_that_died_of_something_else_costs_nothing() -> None:
    stage = Stage()
    stage.tagger.faults.append(ReplicaDied("a node went"))
    stage.send("p1", event("p1"))
    stage.turn()
    assert stage.books == {"consumed": 1, "tagged": 1}


def test_an_innocent_event_in_isolation_is_tagged() -> None:
    stage = Stage()
    stage.tagger.faults.extend([ReplicaDied("one"), ReplicaDied("two")])
    for n in range(3):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn()
    assert stage.books == {"consumed": 3, "tagged": 3}
    assert stage.dead == []


def test_an_event_on_which_the_model_raises_in_isolation_is_a_dead_letter() -> None:
    stage = Stage()
    stage.tagger.poison = {"raises"}
    stage.tagger.faults.extend([ReplicaDied("one"), ReplicaDied("two")])
    stage.send("p1", event("p1", title="raises"))
    stage.turn()
    assert stage.books == {"consumed": 1, "dead_lettered": 1}
