"""The promise of the main path under anything that may happen, in any order.

Hypothesis publishes records, turns the loops of up to three consumers, lets their micro-batches go from
call to call, and in between takes partitions away, makes parts fail before or after their work, and kills
consumers. Whatever it did, nothing is committed that is not done, and in the end the store and the topic say
what the newest events say.

TAGSTREAM_TEST_EXAMPLES and TAGSTREAM_TEST_STEPS make it longer; then every run is another one.
TAGSTREAM_TEST_SHRINK=no takes the first counterexample as it is.
"""

from __future__ import annotations

import os
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tagstream.core.decide import Decider
from tagstream.core.errors import Overloaded, ReplicaDied, TransactionAborted, Unavailable
from tagstream.core.ports import OutRecord, Record, TextFields, TopicPartition
from tagstream.stream.halting import DeadLetterLimits
from tagstream.stream.worker import Worker
from tests.support.interleaving import (
    Paused,
    PausedExecutor,
    PausingClock,
    PausingPublisher,
    PausingStore,
    PausingTagger,
    Returned,
)
from tests.support.memory import After, MemorySource, MemoryTransactions
from tests.support.stage import LIMITS, TAXONOMY, TOPICS, Stage, deletion, event, headers

EXAMPLES = os.environ.get("TAGSTREAM_TEST_EXAMPLES")
STEPS = int(os.environ.get("TAGSTREAM_TEST_STEPS", "40"))
SHRINK = os.environ.get("TAGSTREAM_TEST_SHRINK") != "no"
PARTITIONS = 3
CONSUMERS = 3
#: Of these two fall on one partition.
PRODUCTS = ("p1", "p2", "p3", "p4")
POISON = "a title on which the model raises"
KILLER = "a title that kills the tagger's process"
#: More turns than any backlog of these tests needs.
ENOUGH_TURNS = 300

_PRODUCTS = st.sampled_from(PRODUCTS)
_VERSIONS = st.integers(1, 4)
_TITLES = st.sampled_from(["A red shirt", "Shoe", "A red shirt", "Shoe", POISON, KILLER])


@dataclass(frozen=True)
class Sent:
    """What was sent, and what must become of it."""

    record: Record
    kind: str
    product_id: str
    version: int
    title: str

    @property
    def order(self) -> tuple[int, int]:
        return self.version, self.record.offset


@dataclass(eq=False)
class Consumer:
    worker: Worker
    source: MemorySource
    executor: PausedExecutor
    #: products of which it published after their partition had gone, and which it has not healed yet
    owes: set[str]

    def holds(self, partition: TopicPartition) -> bool:
        return partition in self.source.positions


def epochs_of(paused: Paused, partition: TopicPartition) -> set[int]:
    """Of the entries of a micro-batch."""
    return {entry.epoch for entry in paused.entries if entry.record.source == partition}


class Stream(RuleBasedStateMachine):
    """At least once."""

    exactly_once = False

    def __init__(self) -> None:
        super().__init__()
        limits = replace(
            LIMITS,
            revoke_timeout_s=1.0,
            max_uncommitted_events=12,
            dead_letters=DeadLetterLimits(max_run=6),
        )
        tagger = PausingTagger(TAXONOMY)
        tagger.poison, tagger.killers = {POISON}, {KILLER}
        stage = Stage(
            limits=limits,
            partitions=PARTITIONS,
            exactly_once=self.exactly_once,
            clock=PausingClock(),
            store=PausingStore(),
            tagger=tagger,
        )
        stage.source.close()  # the stage's own consumer: here they come and go by `join`
        stage.publisher = PausingPublisher(stage.broker, self._on_enter, self._on_publish)
        self.stage = stage
        self.consumers: list[Consumer] = []
        self.sent: list[Sent] = []
        self.checked_commits: dict[TopicPartition, int] = {}
        #: product → number of its tag records after which an older one may come
        self.late: defaultdict[str, set[int]] = defaultdict(set)
        self.unhealed: set[str] = set()
        self.audited = 0
        self.join()
        self.join()
        self.turn_all(0.06)
        self.turn_all(0.06)

    def _on_enter(self, paused: Paused | None, records: Sequence[OutRecord]) -> None:
        if paused is None or paused.tries > 1:
            return  # what is tried again goes as a whole, and is healed
        assigned = paused.owner.worker.status().partitions
        for record in records:
            partition = of_events(record)
            _, now = assigned.get(partition.partition, (0, None))
            assert now in epochs_of(paused, partition), "published for an assignment that is known to be over"

    def _on_publish(self, paused: Paused | None, records: Sequence[OutRecord]) -> None:
        """A record is late if its partition has gone, or has come back as another assignment."""
        if paused is None:
            return
        assigned = paused.owner.worker.status().partitions
        for record in records:
            partition = of_events(record)
            _, now = assigned.get(partition.partition, (0, None))
            is_ours = paused.owner.holds(partition) and now in epochs_of(paused, partition)
            if record.topic == TOPICS.tags and not is_ours:
                product_id = (record.key or b"").decode()
                paused.owner.owes.add(product_id)
                self.late[product_id].add(len(self._tags_of(product_id)))

    # ------------------------------------------------------------------ what may happen

    @rule(product_id=_PRODUCTS, version=_VERSIONS, title=_TITLES)
    def publish_event(self, product_id: str, version: int, title: str) -> None:
        kind = "poison" if title in (POISON, KILLER) else "good"
        self._send(kind, product_id, version, title, event(product_id, version, title))

    @rule(product_id=_PRODUCTS, version=_VERSIONS, is_empty=st.booleans())
    def publish_deletion(self, product_id: str, version: int, is_empty: bool) -> None:
        if is_empty:
            own = (("event_version", b"%d" % version),)
            self._send("deletion", product_id, version, "", None, headers=own)
        else:
            self._send("deletion", product_id, version, "", deletion(product_id, version))

    @rule(product_id=_PRODUCTS, value=st.sampled_from([b"{broken", b"[]", None, event("another")]))
    def publish_what_cannot_be_decoded(self, product_id: str, value: bytes | None) -> None:
        self._send("broken", product_id, 0, "", value, headers=(("own", b"\xff"),), timestamp_ms=123)

    def _send(
        self, kind: str, product_id: str, version: int, title: str, value: bytes | None, **more: Any
    ) -> None:
        out = OutRecord(TOPICS.events, product_id.encode(), value, **more)
        self.sent.append(Sent(self.stage.broker.append(out), kind, product_id, version, title))

    @rule(data=st.data(), times=st.integers(1, 4), pass_s=st.sampled_from([0.0, 0.06, 1.1]))
    def turn(self, data: st.DataObject, times: int, pass_s: float) -> None:
        consumer = self._one_of(data)
        for _ in range(times):
            self.stage.clock.advance(pass_s)
            self._turn(consumer)

    @rule(pass_s=st.sampled_from([0.06, 1.1]))
    def turn_all(self, pass_s: float) -> None:
        self.stage.clock.advance(pass_s)
        for consumer in self.consumers:
            self._turn(consumer)

    def _turn(self, consumer: Consumer) -> None:
        consumer.worker.turn()
        if not consumer.worker.is_healing and not consumer.source.lost:
            consumer.owes.clear()

    @precondition(lambda self: any(c.executor.under_way for c in self.consumers))
    @rule(data=st.data(), calls=st.integers(1, 8))
    def advance_a_micro_batch(self, data: st.DataObject, calls: int) -> None:
        busy = [c for c in self.consumers if c.executor.under_way]
        executor = data.draw(st.sampled_from(range(len(busy))).map(lambda n: busy[n].executor))
        paused = executor.under_way[data.draw(st.integers(0, len(executor.under_way) - 1))]
        for _ in range(calls):
            if not paused.done:
                executor.advance(executor.under_way.index(paused))

    @rule(
        part=st.sampled_from(["store", "publisher", "tagger"]),
        error=st.sampled_from([Unavailable("away"), Overloaded("full"), ReplicaDied("died")]),
        is_after=st.booleans(),
        times=st.integers(1, 3),
    )
    def fail(self, part: str, error: Exception, is_after: bool, times: int) -> None:
        if part != "tagger":
            error = Unavailable("away")
        faults = getattr(self.stage, part).faults
        faults.extend([After(error) if is_after else error] * times)

    @rule(data=st.data(), of_commit=st.booleans(), is_after=st.booleans())
    def fail_the_broker(self, data: st.DataObject, of_commit: bool, is_after: bool) -> None:
        source = self._one_of(data).source
        if of_commit:
            source.commit_faults.append(After(Unavailable("c")) if is_after else Unavailable("c"))
        else:
            source.faults.append(Unavailable("p"))

    @precondition(lambda self: self.exactly_once)
    @rule(data=st.data(), is_committed=st.booleans())
    def fail_a_transaction(self, data: st.DataObject, is_committed: bool) -> None:
        """It is committed and nobody hears of it, or it is aborted. One that is not decided is left out: its
        offsets would be unstable, and nobody would be given them to read from."""
        transactions = self._one_of(data).worker._ports.transactions
        assert isinstance(transactions, MemoryTransactions)
        if is_committed:
            transactions.faults.append(After(Unavailable("no answer")))
        elif not transactions._is_unknown and not transactions.faults:
            transactions.faults.append(TransactionAborted("rolled back"))

    @rule(turns=st.integers(1, 3))
    def halt_for_a_while(self, turns: int) -> None:
        self.stage.store.halt("somebody wants it")
        for _ in range(turns):
            self.turn_all(1.1)
        self.stage.store.resume()

    @precondition(lambda self: self.stage.store.halted())
    @rule()
    def resume(self) -> None:
        self.stage.store.resume()

    @precondition(
        lambda self: (
            len(self.consumers) > 1
            and any(c.executor.under_way and c.source.positions for c in self.consumers)
        )
    )
    @rule(
        data=st.data(),
        where=st.sampled_from(["before store", "after store", "before publish", "before publish"]),
    )
    def freeze(self, data: st.DataObject, where: str) -> None:
        """A consumer stops in the middle of a micro-batch for so long that others do its work meanwhile, and
        tag newer events of its products."""
        busy = [c for c in self.consumers if c.executor.under_way and c.source.positions]
        frozen = busy[data.draw(st.integers(0, len(busy) - 1))]
        paused = frozen.executor.under_way[0]
        while not paused.done and paused.where != where:
            frozen.executor.advance()
        self.stage.broker.evict(frozen.source)
        for old in [entry.event for entry in paused.entries if entry.event]:
            self.publish_event(old.product.product_id, old.event_version + 1, "Shoe")
        for _ in range(4):
            for consumer in self.consumers:
                if consumer is not frozen:
                    self._turn(consumer)
                    self._finish_micro_batches(consumer)
            self.stage.clock.advance(0.3)

    @precondition(lambda self: any(c.source.positions for c in self.consumers))
    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        """The group gives its partitions to others; it learns so when it polls next."""
        owners = [c for c in self.consumers if c.source.positions]
        self.stage.broker.evict(owners[data.draw(st.integers(0, len(owners) - 1))].source)

    @precondition(lambda self: len(self.consumers) < CONSUMERS)
    @rule()
    def join(self) -> None:
        stage = self.stage
        stage.executor = executor = PausedExecutor()  # type: ignore[assignment]
        source = MemorySource(stage.broker, "g", TOPICS.events)
        worker = stage.new_worker(source)
        worker._finished = Returned(executor, stage.clock)  # type: ignore[assignment]
        worker._rng.seed(0)
        executor.owner = consumer = Consumer(worker, source, executor, set())
        self.consumers.append(consumer)

    @precondition(lambda self: len(self.consumers) > 1)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """It is stopped: hands its partitions back in time or not, and ends."""
        consumer = self._one_of(data)
        consumer.source.faults.clear()
        consumer.worker.stop()
        consumer.source.subscribe = lambda listener: None  # type: ignore[method-assign]
        consumer.worker.run()
        self._bury(consumer)

    @precondition(lambda self: len(self.consumers) > 1)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """It ends wherever it is."""
        consumer = self._one_of(data)
        self.stage.broker.evict(consumer.source)
        self._bury(consumer)

    def _bury(self, consumer: Consumer) -> None:
        consumer.executor.kill()
        self.unhealed |= consumer.owes  # woken, published late, and died before it could put that right
        self.consumers.remove(consumer)

    def _one_of(self, data: st.DataObject) -> Consumer:
        return self.consumers[data.draw(st.integers(0, len(self.consumers) - 1))]

    # ------------------------------------------------------------------ what must hold at any time

    @invariant()
    def what_is_committed_is_done(self) -> None:
        dead = self._dead_offsets()
        for sent in self.sent:
            partition = sent.record.source
            if not self.checked_commits.get(partition, 0) <= sent.record.offset < self._committed(partition):
                continue
            if sent.kind == "broken":
                assert partition_offset(sent.record) in dead, "committed without its dead letter"
            elif sent.kind != "poison" or partition_offset(sent.record) not in dead:
                assert self._is_told(sent), "committed without being published"
                assert self._stored_order(sent.product_id) >= sent.order, "committed without being stored"
        for number in range(PARTITIONS):
            partition = TopicPartition(TOPICS.events, number)
            assert self._committed(partition) >= self.checked_commits.get(partition, 0), "a commit went back"
            self.checked_commits[partition] = self._committed(partition)

    def _is_told(self, sent: Sent) -> bool:
        told = [int(headers(r)["event_version"]) for r in self._tags_of(sent.product_id)]
        return max(told, default=-1) >= sent.version

    @invariant()
    def a_revision_goes_back_only_where_a_consumer_published_late(self) -> None:
        for product_id in PRODUCTS:
            revisions = [int(headers(r)["revision"]) for r in self._tags_of(product_id)]
            for n in range(1, len(revisions)):
                if n not in self.late[product_id]:
                    assert revisions[n] >= revisions[n - 1], f"{product_id}: {revisions}"

    # ------------------------------------------------------------------ what must hold in the end

    @precondition(lambda self: len(self.sent) - self.audited >= 12)
    @rule()
    def come_to_rest(self) -> None:
        stage = self.stage
        for faults in (stage.store.faults, stage.publisher.faults, stage.tagger.faults):
            faults.clear()
        for _ in range(ENOUGH_TURNS):
            stage.store.resume()
            for consumer in self.consumers:
                consumer.source.faults.clear()
                consumer.source.commit_faults.clear()
                transactions = consumer.worker._ports.transactions
                if isinstance(transactions, MemoryTransactions):
                    transactions.faults.clear()
                self._finish_micro_batches(consumer)
                self._turn(consumer)
            stage.clock.advance(0.4)
            if self._rests():
                break
        else:
            raise AssertionError(f"no rest: {[c.worker.status() for c in self.consumers]}")
        self._audit()

    def _finish_micro_batches(self, consumer: Consumer) -> None:
        while consumer.executor.under_way:
            consumer.executor.advance()

    def _rests(self) -> bool:
        ends = {sent.record.source: sent.record.offset + 1 for sent in self.sent}
        return all(self._committed(partition) == end for partition, end in ends.items()) and not any(
            c.executor.under_way or c.worker.status().uncommitted or c.worker.is_healing or c.source.lost
            for c in self.consumers
        )

    def _audit(self) -> None:
        self.audited = len(self.sent)
        for product_id in PRODUCTS:
            self._audit_product(product_id)
        self._audit_dead_letters()
        for consumer in self.consumers:
            books = consumer.worker.status().books
            assert books.pop("consumed", 0) == sum(books.values()), f"the books do not balance: {books}"
            assert consumer.worker._held_bytes == 0
            assert not consumer.worker._lanes

    def _audit_product(self, product_id: str) -> None:
        events = [s for s in self.sent if s.product_id == product_id and s.kind in ("good", "deletion")]
        [standing] = self.stage.store.get([product_id])
        if not events:
            assert standing is None
            assert not self._tags_of(product_id)
            return
        newest = max(events, key=lambda sent: sent.order)
        assert standing is not None
        assert standing.product is not None
        assert self._stored_order(product_id) == newest.order, "the store does not hold the newest event"
        assert standing.deleted == (newest.kind == "deletion")
        assert standing.product.tags == (() if standing.deleted else expected_tags(newest.title))
        if product_id not in self.unhealed:
            last = self._tags_of(product_id)[-1]
            shown = None if standing.deleted else standing.product.model_dump_json().encode()
            assert last.value == shown, "the topic's last word is not what stands"
            assert headers(last)["revision"] == str(standing.product.revision)

    def _audit_dead_letters(self) -> None:
        came = {partition_offset(sent.record): sent for sent in self.sent}
        dead = self._dead_offsets()
        for where, letter in dead.items():
            record = came[where].record
            assert came[where].kind in ("broken", "poison"), "a good event is a dead letter"
            assert (letter.key, letter.value, letter.timestamp_ms) == (
                record.key,
                record.value,
                record.timestamp_ms,
            )
            assert letter.headers[: len(record.headers)] == record.headers
        for where, sent in came.items():
            if sent.kind == "poison" and any(
                s.product_id == sent.product_id and s.kind in ("good", "deletion") and s.order > sent.order
                for s in self.sent
            ):
                continue  # it may have been superseded
            assert where in dead or sent.kind not in ("broken", "poison"), "a dead letter is missing"

    # ------------------------------------------------------------------ looking

    def _committed(self, partition: TopicPartition) -> int:
        return self.stage.broker.committed.get(("g", partition), 0)

    def _tags_of(self, product_id: str) -> list[Record]:
        return [record for record in self.stage.tags if record.key == product_id.encode()]

    def _dead_offsets(self) -> dict[tuple[int, int], Record]:
        named = [(headers_of(letter), letter) for letter in self.stage.dead]
        return {
            (int(own["__connect.errors.partition"]), int(own["__connect.errors.offset"])): letter
            for own, letter in named
        }

    def _stored_order(self, product_id: str) -> tuple[int, int]:
        write, _ = self.stage.store._states.get(product_id, (None, 0))
        return (write.product.event_version, write.source_offset) if write else (-1, -1)

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            for consumer in self.consumers:
                consumer.executor.kill()


def of_events(record: OutRecord) -> TopicPartition:
    """The partition of the event that this came of: it has the same key."""
    return TopicPartition(TOPICS.events, zlib.crc32(record.key or b"") % PARTITIONS)


def partition_offset(record: Record) -> tuple[int, int]:
    return record.partition, record.offset


def headers_of(record: Record) -> dict[str, bytes]:
    return {name: value or b"" for name, value in record.headers}


def expected_tags(title: str) -> tuple[Any, ...]:
    values = np.full((1, TAXONOMY.size), 0.01, np.float32)
    for columns in TAXONOMY.slices.values():
        values[0, columns.start + zlib.crc32(title.encode()) % (columns.stop - columns.start)] = 0.9
    return Decider(TAXONOMY).decide(values, [TextFields(title)])[0]


class StreamExactlyOnce(Stream):
    """With transactions: besides, nothing is seen twice."""

    exactly_once = True

    def _is_told(self, sent: Sent) -> bool:
        """Of a superseded event the offset may be committed before its successor's, which has the output."""
        return super()._is_told(sent) or any(
            later.product_id == sent.product_id
            and sent.order < later.order <= self._stored_order(sent.product_id)
            and later.record.offset >= self._committed(later.record.source)
            for later in self.sent
        )

    @invariant()
    def nothing_is_seen_twice(self) -> None:
        seen = [(record.key, headers(record)["revision"]) for record in self.stage.tags]
        assert len(seen) == len(set(seen)), f"a revision stands twice on the topic: {seen}"
        assert len(self._dead_offsets()) == len(self.stage.dead), "a dead letter stands twice"


PROFILE = settings(
    max_examples=int(EXAMPLES or 120),
    stateful_step_count=STEPS,
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.shrink or SHRINK],
    suppress_health_check=list(HealthCheck),
)
TestAtLeastOnce = Stream.TestCase
TestAtLeastOnce.settings = PROFILE
TestExactlyOnce = StreamExactlyOnce.TestCase
TestExactlyOnce.settings = PROFILE
