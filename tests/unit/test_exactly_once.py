"""With transactions: outputs and the offsets they belong to are seen together, once, or not at all."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stage import Stage, event, headers

from tagstream.adapters.memory import After, MemorySource, MemoryTransactions
from tagstream.core.errors import StartOver, TransactionAborted, Unavailable
from tagstream.core.offsets import OffsetTracker
from tagstream.core.ports import OutRecord


def transactions(stage: Stage) -> MemoryTransactions:
    found = stage.worker._ports.transactions
    assert isinstance(found, MemoryTransactions)
    return found


def seen(stage: Stage) -> Counter[tuple[bytes | None, str]]:
    return Counter((record.key, headers(record)["revision"]) for record in stage.tags)


def test_tags_and_dead_letters_appear_with_the_offsets_they_belong_to() -> None:
    stage = Stage(inline=False, exactly_once=True)
    for n in range(8):  # two micro-batches of four
        stage.send(f"p{n}", event(f"p{n}") if n != 1 else b"{broken")
    stage.turn(3)
    stage.executor.step(1)
    stage.turn(6)
    assert (stage.tags, stage.dead, stage.committed) == ([], [], 0), "the first four are not done yet"
    stage.executor.step()
    stage.turn(6)
    assert len(stage.tags) == 7
    assert len(stage.dead) == 1
    assert stage.committed == 8
    assert stage.books == {"consumed": 8, "tagged": 7, "dead_lettered": 1}


def test_an_aborted_transaction_is_sent_again_without_tagging_again() -> None:
    stage = Stage(exactly_once=True)
    transactions(stage).faults.extend([TransactionAborted("fenced")] * 3)
    stage.send("p1", event("p1"))
    stage.turn(30)
    assert len(stage.tags) == 1
    assert len(stage.tagger.calls) == 1
    assert stage.committed == 1
    assert stage.worker.status().ready


def test_one_whose_end_is_unknown_is_decided_before_anything_else_is_sent() -> None:
    stage = Stage(exactly_once=True)
    transactions(stage).faults.append(Unavailable("no answer"))
    stage.send("p1", event("p1"))
    stage.turn(4)
    stage.send("p2", event("p2"))
    stage.turn(20)
    assert seen(stage) == {(b"p1", "1"): 1, (b"p2", "1"): 1}
    assert stage.committed == 2


def test_a_consumer_that_died_before_its_transaction_leaves_the_publish_to_the_next() -> None:
    stage = Stage(exactly_once=True)
    transactions(stage).faults.extend([TransactionAborted("down")] * 1000)
    for n in range(6):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(6)
    stage.broker.evict(stage.source)
    other = stage.new_worker(MemorySource(stage.broker, "g", "product-events"))
    for _ in range(12):
        other.turn()
        stage.clock.advance(0.3)
    assert seen(stage) == {(b"p%d" % n, "1"): 1 for n in range(6)}
    assert stage.committed == 6
    assert other.status().books == {"consumed": 6, "repeated": 6}


def test_a_zombie_s_transaction_is_refused() -> None:
    stage = Stage(exactly_once=True)
    stage.send("p1", event("p1"))
    stage.worker.turn()
    assert stage.tags == []
    stage.broker.evict(stage.source)
    with pytest.raises(TransactionAborted):
        transactions(stage).commit([], {next(iter(stage.source.lost)): 1})


def test_a_clean_revoke_ends_with_the_last_transaction() -> None:
    stage = Stage(exactly_once=True)
    stage.send("p1", event("p1"))
    stage.worker.turn()
    stage.worker.turn()
    stage.source.close()
    assert seen(stage) == {(b"p1", "1"): 1}
    assert stage.committed == 1


def test_a_commit_that_succeeded_unheard_is_not_sent_twice() -> None:
    stage = Stage(exactly_once=True)
    transactions(stage).faults.append(After(Unavailable("the answer was lost")))
    stage.send("p1", event("p1"))
    stage.turn(20)
    assert seen(stage) == {(b"p1", "1"): 1}
    assert stage.committed == 1


def test_results_that_wait_while_the_store_is_emptied_are_made_anew() -> None:
    stage = Stage(inline=False, exactly_once=True)
    for n in range(8):  # two micro-batches; the second is stored first, and waits
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(3)
    stage.executor.step(1)
    stage.turn(3)
    stage.store.empty()

    def retry(timeout_s: float) -> bool:  # the loop sees it; then the store is rebuilt, from a topic
        with pytest.raises(StartOver):  # that has nothing yet
            stage.worker.turn()
        stage.store.initialise()
        stage.clock.wait = wait  # type: ignore[method-assign]
        return False

    wait, stage.clock.wait = stage.clock.wait, retry  # type: ignore[method-assign]
    stage.executor.step()
    stage.source.close()
    other = stage.new_worker(MemorySource(stage.broker, "g", "product-events"))
    stage.executor.inline = True
    for _ in range(12):
        other.turn()
        stage.clock.advance(0.3)
    assert seen(stage) == {(b"p%d" % n, "1"): 1 for n in range(8)}
    assert all(stage.standing(f"p{n}") for n in range(8))
    assert stage.committed == 8


def test_outputs_that_wait_keep_the_order_in_which_they_were_stored() -> None:
    tracker = OffsetTracker(epoch=1)
    for offset in (11, 12):
        tracker.take(offset, "p")
    tracker.done(12, OutRecord("tags", b"p", b"revision 1"))  # the older version went first, after a halt
    tracker.done(11, OutRecord("tags", b"p", b"revision 2"))
    assert [record.value for record in tracker.outputs()] == [b"revision 1", b"revision 2"]
    tracker.committed(13)
    assert tracker.outputs() == []
