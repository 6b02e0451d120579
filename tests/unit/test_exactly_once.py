"""With transactions: outputs and the offsets they belong to are seen together, once, or not at all."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagstream.core.errors import StartOver, TransactionAborted, Unavailable
from tagstream.core.ports import OutRecord, TopicPartition
from tagstream.stream.offsets import OffsetTracker
from tests.support.memory import After, MemorySource, MemoryTransactions
from tests.support.stage import LIMITS, Stage, event, headers

SIZES_AND_PRODUCTS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), max_size=12)


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


def test_what_waits_for_its_transaction_leaves_room_for_as_many_micro_batches_in_flight() -> None:
    stage = Stage(inline=False, exactly_once=True)
    for n in range(40):
        stage.send(f"p{n}", event(f"p{n}"))
    for _ in range(4):
        stage.worker.turn()
        while stage.executor.waiting:
            stage.executor.step()
    stage.worker.turn()
    assert (stage.tags, stage.committed) == ([], 0), "the commit interval has not passed"
    assert len(stage.executor.waiting) == LIMITS.max_in_flight


def test_what_a_crash_left_open_is_settled_while_no_event_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(exactly_once=True)
    settled: list[int] = []

    def settle() -> None:
        settled.append(stage.committed)
        if len(settled) == 1:
            raise TransactionAborted("not yet")

    monkeypatch.setattr(transactions(stage), "settle", settle)
    stage.send("p1", event("p1"))
    stage.turn(60)
    assert len(settled) > 1, "it is asked again after a refusal"
    assert stage.committed == 1
    assert stage.worker.status().ready


def test_an_aborted_transaction_is_sent_again_without_tagging_again() -> None:
    stage = Stage(exactly_once=True)
    transactions(stage).faults.extend([TransactionAborted("fenced")] * 3)
    stage.send("p1", event("p1"))
    stage.turn(30)
    assert len(stage.tags) == 1
    assert len(stage.tagger.calls) == 1
    assert stage.committed == 1
    assert stage.worker.status().ready


def test_a_full_consumer_whose_transactions_are_refused_lets_go_of_what_it_prefetched_at_once() -> None:
    stage = Stage(exactly_once=True, limits=replace(LIMITS, max_uncommitted_events=8, pause_after_s=3600.0))
    transactions(stage).faults.extend([TransactionAborted("fenced")] * 30)
    for n in range(40):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(30)
    assert stage.source.paused
    assert not stage.worker.status().ready
    stage.turn(90)
    assert not stage.source.paused
    assert stage.worker.status().ready
    assert stage.committed == 40


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
        tracker.take(offset)
    tracker.done(12, OutRecord("tags", b"p", b"revision 1"))  # the older version went first, after a halt
    tracker.done(11, OutRecord("tags", b"p", b"revision 2"))
    for room_bytes in (1, 1000):  # they are not torn apart either
        next_offset, outputs = tracker.outputs(room_bytes)
        assert next_offset == 13
        assert [record.value for record in outputs] == [b"revision 1", b"revision 2"]
    tracker.committed(13)
    assert tracker.outputs(1000) == (13, [])
    assert tracker.output_bytes == 0


@settings(deadline=None)
@given(SIZES_AND_PRODUCTS, st.integers(1, 80), st.randoms())
def test_outputs_taken_in_portions_are_all_of_them_each_product_in_the_order_in_which_it_was_stored(
    drawn: list[tuple[int, int]], room_bytes: int, rng: random.Random
) -> None:
    tracker, stored = OffsetTracker(epoch=1), list[OutRecord]()
    for offset in range(len(drawn)):
        tracker.take(offset)
    for offset in rng.sample(range(len(drawn)), len(drawn)):
        size_bytes, product = drawn[offset]
        stored.append(OutRecord("tags", b"%d" % product, b"x" * size_bytes, timestamp_ms=offset))
        tracker.done(offset, stored[-1])
    taken: list[OutRecord] = []
    while tracker.committable() is not None:
        next_offset, outputs = tracker.outputs(room_bytes)
        tracker.committed(next_offset)
        taken += outputs
        assert all((record.timestamp_ms or 0) < next_offset for record in outputs)
    for product in range(4):
        key = b"%d" % product
        assert [record for record in taken if record.key == key] == [r for r in stored if r.key == key]


def test_large_dead_letters_go_in_several_transactions_and_all_go() -> None:
    stage = Stage(exactly_once=True)
    sent: list[int] = []
    commit = transactions(stage).commit

    def noting(records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int]) -> None:
        sent.append(sum(record.size_bytes for record in records))
        commit(records, next_offsets)

    transactions(stage).commit = noting  # type: ignore[method-assign]
    for n in range(8):
        stage.send(f"bad{n}", b"{" + b" " * (6 * 2**20))
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn()
    assert stage.books == {"consumed": 16, "tagged": 8, "dead_lettered": 8}
    assert len(stage.dead) == 8
    assert stage.committed == 16
    assert len(sent) > 1
    assert max(sent) < 24 * 2**20


def test_dead_letters_that_wait_for_their_transaction_count_as_held() -> None:
    stage = Stage(inline=False, exactly_once=True, limits=replace(LIMITS, held_max_bytes=2**20))
    for n in range(8):
        stage.send(f"p{n}", event(f"p{n}") if n < 4 else b"{" + b" " * 2**18)
    stage.turn(3)
    stage.executor.step(1)  # the first micro-batch is not done, so that the second one's letters wait
    for n in range(8, 12):
        stage.send(f"p{n}", b"{" + b" " * 2**18)
    stage.turn(3)
    assert stage.books["consumed"] == 8, "there is no room for more"
    stage.executor.inline = True
    while stage.executor.waiting:
        stage.executor.step()
    stage.turn(20)
    assert stage.books == {"consumed": 12, "tagged": 4, "dead_lettered": 8}
    assert stage.committed == 12


def test_nothing_is_kept_of_transactions_that_ended_well() -> None:
    stage = Stage(exactly_once=True)
    for n in range(9):
        stage.send(f"p{n}", event(f"p{n}"))
        stage.turn(4)
    assert stage.committed == 9
    assert not any(tracker._published_before for tracker in stage.worker._delivery.trackers.values())
