"""Partitions come and go, and workers die: what is handed over, what may come twice, what is put right."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tagstream.core.errors import Unavailable
from tagstream.core.ports import OutRecord, Record
from tagstream.stream.batching import MicroBatchLimits
from tagstream.stream.halting import DeadLetterLimits
from tests.support.memory import MemorySource
from tests.support.stage import LIMITS, Stage, event, headers


def test_a_clean_revoke_finishes_what_is_in_flight_and_what_lies_before_it_and_drops_the_rest() -> None:
    stage = Stage(limits=replace(LIMITS, max_in_flight=1))
    stage.executor.inline = False
    for version in (1, 2, 3):
        stage.send("p1", event("p1", version))
    stage.send("p2", event("p2"))
    stage.send("p1", event("p1", 4))
    stage.worker.turn()
    stage.clock.advance(0.1)
    stage.worker.turn()
    assert len(stage.executor.waiting) == 1, "p1 in its first version, and p2"
    stage.executor.step()
    stage.executor.inline = True
    stage.source.close()
    books = stage.worker.status().books
    assert books == {"consumed": 5, "tagged": 3, "superseded": 1, "dropped": 1}
    assert stage.committed == 4, "up to p2, which was published; p1's fourth version is the next owner's"
    assert stage.worker.status().partitions == {}
    assert stage.balanced()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("poisonous", [0.0, 0.5])
def test_after_a_clean_hand_over_nothing_is_published_again(seed: int, poisonous: float) -> None:
    rng = random.Random(seed)
    limits = replace(LIMITS, dead_letters=DeadLetterLimits(max_run=1000, max_ratio=1.0))
    stage = Stage(inline=False, partitions=3, limits=limits)
    stage.tagger.poison = {"poison"}
    for _ in range(150):
        product_id = f"p{rng.randrange(12)}"
        title = "poison" if rng.random() < poisonous else "A red shirt"
        value = event(product_id, rng.randrange(1, 9), title) if rng.random() < 0.95 else b"?"
        stage.send(product_id, value)
    for _ in range(rng.randrange(4, 12)):
        stage.worker.turn()
        stage.clock.advance(0.3)
        if stage.executor.waiting:
            stage.executor.step(rng.randrange(len(stage.executor.waiting)))
    while stage.executor.waiting:
        stage.executor.step()
    stage.executor.inline = True
    stage.source.close()
    assert stage.balanced()

    other = stage.new_worker(MemorySource(stage.broker, "g", "product-events"))
    for _ in range(60):
        other.turn()
        stage.clock.advance(0.3)

    assert stage.committed == 150
    published = [(record.key, record.value is None, headers(record)["revision"]) for record in stage.tags]
    assert len(published) == len(set(published))
    places = [
        (told["__connect.errors.partition"], told["__connect.errors.offset"])
        for told in map(headers, stage.dead)
    ]
    assert len(places) == len(set(places))


def test_a_long_hand_over_commits_as_it_goes() -> None:
    stage = Stage(inline=False)
    for n in range(100):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.send("p0", event("p0", 2))
    stage.turn(2)
    stage.executor.step()
    stage.turn(2)
    flying = [entry.record.offset for entries in stage.worker._in_flight.values() for entry in entries]
    assert 100 in flying, "the second version of p0 goes as soon as the first is done"
    while stage.executor.waiting:
        stage.executor.step()
    at_stake: list[int] = []
    publish = stage.publisher.publish

    def watched(records: Sequence[OutRecord]) -> None:
        publish(records)
        offsets = [int(headers(record)["source_offset"]) for record in stage.tags]
        at_stake.append(sum(offset >= stage.committed for offset in offsets))

    stage.publisher.publish = watched  # type: ignore[method-assign]
    stage.executor.inline = True
    stage.source.close()
    assert stage.committed == 101
    assert len(at_stake) > 20
    assert max(at_stake) <= (LIMITS.max_in_flight + 1) * LIMITS.micro_batch.max_events


def test_a_hand_over_does_not_wait_for_a_micro_batch_to_be_due() -> None:
    patient = MicroBatchLimits(max_events=4, flush_timeout_s=60)
    stage = Stage(inline=False, limits=replace(LIMITS, micro_batch=patient))
    for product_id, version in (("p1", 1), ("p1", 2), ("p2", 1), ("p3", 1), ("p4", 1)):
        stage.send(product_id, event(product_id, version))
    stage.turn(2)
    stage.executor.step()
    stage.executor.inline = True
    before_s = stage.clock.monotonic_s()
    stage.source.close()
    assert stage.clock.monotonic_s() - before_s < 1
    assert stage.committed == 5


def test_a_worker_that_stops_hands_over_before_it_says_goodbye_to_its_group() -> None:
    stage = Stage()
    for n in range(6):
        stage.send(f"p{n}", event(f"p{n}"))
    poll, close = stage.source.poll, stage.source.close
    held: list[set[int]] = []

    def poll_and_stop(max_records: int, timeout_s: float) -> list[Record]:
        records = poll(max_records, timeout_s)
        if records:
            stage.worker.stop()
        return records

    def watched_close() -> None:
        held.append(set(stage.worker.status().partitions))
        close()

    stage.source.poll, stage.source.close = poll_and_stop, watched_close  # type: ignore[method-assign]
    stage.source.subscribe = lambda listener: None  # type: ignore[method-assign]  # the stage has done that
    stage.worker.run()
    assert held == [set()]
    assert stage.committed == 4, "a micro-batch of four was done, the other two are the next owner's"
    assert stage.books == {"consumed": 6, "tagged": 4, "dropped": 2}


def test_a_hand_over_that_takes_too_long_leaves_the_rest_to_the_next_owner() -> None:
    stage = Stage(limits=replace(LIMITS, max_in_flight=1, revoke_timeout_s=0.0))
    stage.executor.inline = False
    stage.send("p1", event("p1", 1))
    stage.send("p1", event("p1", 2))
    stage.send("p2", event("p2"))
    stage.turn(2)
    stage.executor.step()
    stage.worker.collect_finished(timeout_s=0)
    stage.source.close()
    assert stage.committed == 1
    assert stage.books == {"consumed": 3, "tagged": 2, "dropped": 1}


def test_a_halted_stream_hands_over_at_once() -> None:
    stage = Stage(limits=replace(LIMITS, max_in_flight=1))
    stage.executor.inline = False
    stage.send("p1", event("p1", 1))
    stage.send("p1", event("p1", 2))
    stage.send("p2", event("p2"))
    stage.turn(2)
    stage.store.halt("somebody says so")
    stage.turn(5)
    stage.executor.step()
    stage.turn(1)
    before_s = stage.clock.monotonic_s()
    stage.source.close()
    assert stage.clock.monotonic_s() - before_s < 1
    assert stage.books == {"consumed": 3, "tagged": 2, "dropped": 1}


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
    heard = stage.worker.handover.on_committed
    stage.worker.handover.on_committed = lambda next_offsets: None  # type: ignore[method-assign]
    for n in range(60):
        stage.send(f"p{n}", event(f"p{n}"))
    stage.turn(20)
    bound = (LIMITS.max_in_flight + 1) * LIMITS.micro_batch.max_events
    assert 0 < len(stage.tags) <= bound
    stage.worker.handover.on_committed = heard  # type: ignore[method-assign]
    stage.turn(20)
    assert len(stage.tags) == 60


def test_what_waits_for_its_commit_takes_the_place_of_what_could_be_in_flight() -> None:
    stage = Stage(inline=False)
    stage.worker.handover.on_committed = lambda next_offsets: None  # type: ignore[method-assign]

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
    stage.worker.handover.on_revoked(sorted(stage.source.lost))
    stage.source.lost = set()
    stage.turn(3)
    assert [headers(r)["revision"] for r in stage.tags] == ["1", "2", "1", "2"]


def test_a_group_that_answers_no_commit_is_told_of_and_memory_stays_bounded() -> None:
    limits = replace(LIMITS, max_uncommitted_events=40, poll_max_records=20)
    stage = Stage(limits=limits)
    heard = stage.worker.handover.on_committed
    stage.worker.handover.on_committed = lambda next_offsets: None  # type: ignore[method-assign]
    for n in range(3000):
        stage.send(f"p{n}", event(f"p{n}"))
    for _ in range(400):
        stage.worker.turn()
        stage.clock.advance(0.01)
    status = stage.worker.status()
    assert not status.ready
    assert "acknowledged no commit" in status.reason
    assert status.uncommitted < 40 + limits.commit_interval_s / 0.01 + 20
    stage.worker.handover.on_committed = heard  # type: ignore[method-assign]
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


def test_what_outlasts_a_revoke_is_put_right_on_the_topic_afterwards() -> None:
    stage = Stage(inline=False, limits=replace(LIMITS, revoke_timeout_s=0))
    stage.send("p1", event("p1", 1, title="old"))
    stage.turn(3)
    publish = stage.publisher.publish
    other = stage.new_worker(MemorySource(stage.broker, "other-group", "product-events"))

    def slow(records: object) -> None:  # the partition goes while the publish is under way
        stage.publisher.publish = publish  # type: ignore[method-assign]
        stage.worker.handover.on_revoked(sorted(stage.source.positions))
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
    stage.worker.handover.on_assigned([])
    stage.turn()
    assert stage.committed == 1
