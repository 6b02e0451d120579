"""The main path: product events in, their tags out.

    1 poll       records of the assigned partitions, many at a time
    2 decode     bytes → Event, or a dead letter
    3 batch      full by count or bytes, or due; one product is never in flight twice
    4 fetch      the pictures' encoded bytes
    5 tag        one call a micro-batch; scores come back
    6 decide     scores + taxonomy + what the event says → tags
    7 store      one atomic compare-and-write a product → verdict
    8 publish    tags and dead letters, acknowledged by the broker
    9 commit     the offsets whose work, and all work before it, is done

The order is the guarantee, at least once with harmless repeats: an offset is committed after 7 and 8 or
not at all, and whoever repeats 7 is told `same` and publishes what stands. For exactly once, 8 waits until
9 is due, and both are one transaction (core/committing.py).

One thread runs 1–3 and 9 (`run`) and owns the worker's state. Each micro-batch goes through 4–8 on a
thread of its own (`_carry`). It reads the epochs only: a partition that was lost meanwhile has another
epoch or none, and its events are let go before the next step.
"""

from __future__ import annotations

import logging
import math
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

from tagstream.core.decide import Decider, delete_write, tag_write
from tagstream.core.errors import (
    InvalidEvent,
    Overloaded,
    ReplicaDied,
    StartOver,
    StoreNotInitialised,
    TaggingFailed,
    TooManyDeadLetters,
    TransactionAborted,
    Unavailable,
)
from tagstream.core.events import ProductEvent
from tagstream.core.metrics import Metric
from tagstream.core.ports import (
    MicroBatch,
    OutRecord,
    Ports,
    Record,
    Scores,
    TextFields,
    TopicPartition,
)
from tagstream.core.rules import NO_RULES, Rules
from tagstream.stream.account import Account, WorkerStatus
from tagstream.stream.backpressure import Backpressure
from tagstream.stream.batching import MicroBatcher
from tagstream.stream.decode import Decoder
from tagstream.stream.delivery import Committer
from tagstream.stream.halting import DeadLetterGuard, HaltSwitch
from tagstream.stream.healing import Healer
from tagstream.stream.lanes import Entry, Lanes, Outcome
from tagstream.stream.limits import WorkerLimits
from tagstream.stream.offsets import OffsetTracker
from tagstream.stream.outgoing import dead_letter, tag_record

log = logging.getLogger("tagstream.worker")
T = TypeVar("T")

#: The longest wait of the loop when nothing happens; it bounds how late a stop is seen.
_IDLE_S = 0.2
#: The same while micro-batches are in flight; it bounds how late the loop learns that one is done.
_BUSY_S = 0.01
#: The store is asked for its size this often.
_SIZE_INTERVAL_S = 60.0
#: So many replicas may die of one micro-batch, or fall silent; so many processes of its own of one event.
_REPLICA_DEATHS = 2
#: Of the tags of one product, as JSON: even with every character escaped they fit a record of 1 MiB.
_TAGS_MAX_CHARS = 150_000
#: More of a description adds nothing that the model reads.
_DESCRIPTION_MAX_CHARS = 4000


class _LetGo(Exception):
    """Nobody waits for this micro-batch any more: its partitions have gone."""


class Worker:
    """Turns product events into stored, published tags."""

    def __init__(
        self,
        ports: Ports,
        decoder: Decoder,
        limits: WorkerLimits,
        executor: Executor,
        rules: Rules = NO_RULES,
    ) -> None:
        self._ports = ports
        self._rules = rules
        self._decoder = decoder
        self._limits = limits
        self._executor = executor
        self._rng = random.Random()
        self._stopping = threading.Event()

        self._epochs: dict[TopicPartition, int] = {}
        self._last_epoch = 0
        self._commits = Committer(ports.source, ports.transactions, limits, now_s=ports.clock.monotonic_s())
        self._trackers = self._commits.trackers
        #: partitions that go, and the first offset of each that is left to its next owner
        self._leaving: dict[TopicPartition, int] = {}
        self._lanes = Lanes()
        self._batcher: MicroBatcher[Entry] = MicroBatcher(limits.micro_batch)
        self._in_flight: dict[int, list[Entry]] = {}
        self._submitted = 0
        self._returned: queue.SimpleQueue[tuple[int, BaseException | None]] = queue.SimpleQueue()
        self._held_bytes = 0
        self._backpressure = Backpressure(limits.pause_after_s)
        guard = DeadLetterGuard(limits.dead_letters)
        self._halt = HaltSwitch(ports.halts, guard, limits.commit_interval_s)
        self._store_emptied = False
        self._healer = Healer(ports.store, ports.publisher, ports.topics.tags)

        self._deciders: dict[str, Decider] = {}
        self._account = Account(ports.metrics)
        self._heartbeat_s = self._reported_s = self._size_due_s = ports.clock.monotonic_s()

    # ------------------------------------------------------------------ the loop: steps 1, 2, 3 and 9

    def run(self) -> None:
        """Work until `stop`, then hand the partitions back. Raises what no retry can mend."""
        self._ports.source.subscribe(self)
        try:
            while not self._stopping.is_set():
                self.turn()
            # While a client says goodbye, the group hears nothing of it and may give it up.
            self.on_revoked(list(self._trackers))
        finally:
            try:
                self._ports.source.close()  # revokes: what is in flight is finished and committed
            finally:
                self._epochs.clear()
            self._pay_debts()
            self._account.report_books()

    def _pay_debts(self) -> None:
        """What outlasted the hand-over may still publish: wait for it, then put the topic right."""
        deadline_s = self._ports.clock.monotonic_s() + self._limits.revoke_timeout_s
        while self._in_flight and self._ports.clock.monotonic_s() < deadline_s:
            self._settle(timeout_s=_IDLE_S)
            self._ports.clock.wait(0)
        if self._healer:
            self._heal()

    def stop(self) -> None:
        """Ask `run` to return; any thread may."""
        self._stopping.set()

    def turn(self) -> None:
        """One round of the loop."""
        self._heartbeat_s = self._ports.clock.monotonic_s()
        self._obey()
        self._give_up_what_the_store_forgot()
        self._admit(self._poll())
        self._submit()
        self._settle(timeout_s=0)
        if self._healer:
            self._heal()
        if self._commits.is_due(self._heartbeat_s, self._load()):
            self._commit(self._trackers, wait=False)
        if self._heartbeat_s - self._reported_s >= self._limits.commit_interval_s:
            self._reported_s = self._heartbeat_s
            self._report()

    def _obey(self) -> None:
        """Look at the switch that halts every consumer, and throw it when too much has failed here."""
        if not self._halt.is_due(self._heartbeat_s):
            return
        try:
            self._halt.obey(self._heartbeat_s)
        except (TooManyDeadLetters, Unavailable) as error:
            self._account.trouble("halt", error)
        else:
            self._account.well("halt")

    def _give_up_what_the_store_forgot(self) -> None:
        """Exactly once, results wait for those before them. A store that is emptied meanwhile is rebuilt
        from a topic that does not have them yet, and would count their revisions again."""
        emptied, self._store_emptied = self._store_emptied, False
        if (
            emptied
            and self._ports.transactions is not None
            and any(tracker.holds_outputs for tracker in self._trackers.values())
        ):
            self._epochs.clear()  # whatever is in flight is let go
            raise StartOver("the store was emptied under results that wait for their transaction")

    def _poll(self) -> list[Record]:
        """Step 1, as far as there is room."""
        source, now_s = self._ports.source, self._ports.clock.monotonic_s()
        unheard_s = self._commits.unheard_for_s(now_s)
        if unheard_s > 2 * self._limits.commit_interval_s:
            self._account.trouble(
                "group", Unavailable(f"it has acknowledged no commit for {unheard_s:.0f} s")
            )
        else:
            self._account.well("group")
        # A client that was told of no brokers cannot look for them again while it holds prefetched records
        # (librdkafka's issue 5301). One that is full does not take them, but a pause lets go of them.
        at_once = unheard_s > self._limits.commit_interval_s or self._commits.is_refused
        move = self._backpressure.move(load=self._load(), now_s=now_s, at_once=at_once)
        if move == "pause":
            source.pause()
        elif move == "resume":
            source.resume()
        if move not in ("take", "resume"):
            self._settle(timeout_s=_IDLE_S)
        if move == "wait":
            if not unheard_s:
                return []
            self._ports.clock.wait(_BUSY_S)  # only a poll hears of commits, and it may bring a record
        room = self._limits.max_uncommitted_events - self._commits.uncommitted
        try:
            records = source.poll(max(1, min(room, self._limits.poll_max_records)), self._patience_s(now_s))
        except Unavailable as error:
            self._account.trouble("poll", error)
            self._commits.doubt()
            self._ports.clock.wait(self._limits.backoff.delay_s(1, self._rng))
            return []
        self._account.well("poll")
        return records

    def _load(self) -> float:
        if self._halt.is_on:
            return math.inf
        return max(
            self._commits.uncommitted / self._limits.max_uncommitted_events,
            (self._held_bytes + sum(tracker.output_bytes for tracker in self._trackers.values()))
            / self._limits.held_max_bytes,
        )

    def _patience_s(self, now_s: float) -> float:
        if self._in_flight or self._commits.is_unheard:
            return _BUSY_S
        if self._halt.is_on:
            return _IDLE_S
        due_in_s = self._batcher.due_in_s(now_s)
        return _IDLE_S if due_in_s is None else min(due_in_s, _IDLE_S)

    def _admit(self, records: list[Record]) -> None:
        """Steps 2 and 3."""
        now_ms = self._ports.clock.wall_ms()
        for record in records:
            tracker = self._trackers.get(record.source)
            if tracker is None:
                continue  # polled just before its partition went: the next owner has it
            entry = Entry(record, tracker.epoch)
            try:
                entry.event = self._decoder.decode(record, now_ms)
            except InvalidEvent as error:
                entry.invalid = error
            except Exception:
                # A defect of ours; as a crash, it would be read again at every restart.
                log.exception("the decoder failed", extra=_origin(entry))
                entry.invalid = InvalidEvent("the decoder failed on it: a defect of tagstream")
            tracker.take(record.offset)
            self._held_bytes += entry.size_bytes
            self._account.count("consumed")
            if entry.event is None or self._lanes.admit(entry):
                self._queue(entry)

    def _queue(self, entry: Entry) -> None:
        self._batcher.add(entry, entry.size_bytes, self._ports.clock.monotonic_s())

    def _queue_first(self, entry: Entry) -> None:
        """An entry that has waited once: every offset after it waits for it."""
        self._batcher.add_first(entry, entry.size_bytes, self._ports.clock.monotonic_s())

    def _submit(self) -> None:
        while not self._halt.is_on and self._may_submit():
            due_in_s = self._batcher.due_in_s(self._ports.clock.monotonic_s())
            if due_in_s is None or (due_in_s > 0 and not self._leaving):
                return
            entries = self._batcher.take()
            self._submitted += 1
            number = self._submitted
            self._in_flight[number] = entries
            self._ports.metrics.observe(Metric.MICRO_BATCH_EVENTS, len(entries))
            future = self._executor.submit(self._carry, entries)
            future.add_done_callback(partial(self._return, number))

    def _may_submit(self) -> bool:
        """However this worker ends, its successors publish at most `max_in_flight` + 1 micro-batches again:
        so many wait for their commit, or overtake one that takes long, and the others wait for that."""
        flying, most = len(self._in_flight), self._limits.max_in_flight
        if flying >= most or self._commits.is_unheard:
            return False
        exposed = self._commits.exposed + sum(map(len, self._in_flight.values()))
        return not flying or exposed <= most * self._limits.micro_batch.max_events

    def _return(self, number: int, done: Future[None]) -> None:
        self._returned.put((number, done.exception()))

    def _settle(self, timeout_s: float) -> None:
        """Take back the micro-batches that have returned; wait at most `timeout_s` for the first."""
        while self._in_flight:
            try:
                number, error = self._returned.get(block=timeout_s > 0, timeout=timeout_s or None)
            except queue.Empty:
                return
            timeout_s = 0
            # The last one first, so that successors stand in the queue in the order of their predecessors.
            for entry in reversed(self._in_flight.pop(number)):
                self._settle_entry(entry)
            if error is not None:
                raise error

    def _settle_entry(self, entry: Entry) -> None:
        left_behind: list[Entry] = []
        if entry.outcome is None:
            if entry.output is not None and entry.product_id is not None:
                self._healer.unsure(entry.product_id)
            left_behind = list(entry.with_overtaken())
            entry.overtaken = []
        else:
            if entry.published is not None:
                self._healer.published(entry.published)
            self._done(entry, entry.outcome)
        if entry.event is not None:
            superseded, successor = self._lanes.finish(entry)
            for older in superseded:
                self._done(older, "superseded")
            if successor is not None and self._is_left(successor):
                self._settle_entry(successor)
            elif successor is not None:
                self._queue_first(successor)
        self._drop(left_behind)

    def _done(self, entry: Entry, outcome: Outcome) -> None:
        self._held_bytes -= entry.size_bytes
        self._account.count(outcome)
        if entry.invalid is not None:
            self._ports.metrics.add(Metric.DEAD_LETTERS, stage=entry.invalid.stage)
        tracker = self._trackers.get(entry.record.source)
        if tracker is not None and tracker.epoch == entry.epoch:
            if self._ports.transactions is not None:
                # One that comes late is refused: nothing is to be put right after it.
                tracker.done(entry.record.offset, entry.output)
            else:
                dead_lettered = outcome == "dead_lettered"
                tracker.done(entry.record.offset, published=entry.published, dead_lettered=dead_lettered)

    def _drop(self, entries: list[Entry]) -> None:
        """Let entries go undone whose partition goes: its next owner starts at the committed offset.
        Those whose partition stays (the stream has halted, or a product is spread over two partitions)
        start again."""
        for entry in entries:
            entry.overtaken = []
            entry.start_over()
            if self._is_left(entry) or not self._held([entry]):
                self._held_bytes -= entry.size_bytes
                self._account.count("dropped")
            elif entry.event is None or self._lanes.admit(entry):
                self._queue_first(entry)

    def _commit(self, partitions: Collection[TopicPartition], *, wait: bool) -> None:
        """Step 9."""
        try:
            with self._account.timed("commit"):
                self._commits.commit(partitions, self._ports.clock.monotonic_s(), wait=wait)
        except (Unavailable, TransactionAborted) as error:
            self._account.trouble("commit", error)
        else:
            self._account.well("commit")

    # ------------------------------------------------------------------ one micro-batch: steps 4 to 8

    def _carry(self, entries: list[Entry]) -> None:
        """An entry that comes back without an outcome was let go."""
        try:
            self._fetch([entry for entry in entries if entry.to_tag])
            self._tag([entry for entry in entries if entry.to_tag])
            self._halt.guard.take([entry.invalid is not None for entry in entries])
            self._store(self._held([entry for entry in entries if entry.invalid is None]))
            self._publish(self._held(entries))
        except _LetGo:
            log.info("micro-batch let go: its partitions have a new owner", extra={"events": len(entries)})
        except TooManyDeadLetters as error:
            log.error("halted: %s", error)
            self._halt.throw(str(error))

    def _fetch(self, entries: list[Entry]) -> None:
        """Step 4."""
        entries = [entry for entry in entries if _product(entry).image is not None]
        if entries:
            with self._account.timed("fetch"):
                pictures = self._ports.images.fetch([_product(entry).image for entry in entries])
            for entry, picture in zip(entries, pictures, strict=True):
                entry.picture = picture

    def _tag(self, entries: list[Entry]) -> None:
        """Step 5. A micro-batch on which the model raises is halved until the guilty event stands alone;
        that one becomes a dead letter, the others are tagged. So is one that has grown too large: its
        pictures by URL are known only now."""
        if not entries:
            return
        size_bytes = sum(len(entry.picture.encoded or b"") for entry in entries)
        if len(entries) > 1 and size_bytes > self._limits.micro_batch.max_bytes:
            self._tag(entries[: len(entries) // 2])
            self._tag(entries[len(entries) // 2 :])
            return
        texts = [_text(_product(entry)) for entry in entries]
        batch = MicroBatch(texts, [entry.picture.encoded for entry in entries])
        try:
            with self._account.timed("tag"):
                scores = self._insist("tag", partial(self._ports.tagger.tag, batch), entries)
        except ReplicaDied:
            log.error(
                "replicas died of a micro-batch, or fell silent: its events are isolated",
                extra={"events": len(entries)},
            )
            for entry in entries:
                self._tag_isolated(entry)
        except TaggingFailed as error:
            if len(entries) == 1:
                entries[0].invalid = InvalidEvent(f"the tagger raised on it: {error}", stage="tag")
                return
            self._tag(entries[: len(entries) // 2])
            self._tag(entries[len(entries) // 2 :])
        else:
            self._decide(entries, texts, scores)

    def _tag_isolated(self, entry: Entry) -> None:
        """Step 5 for an event that may have killed replicas or silenced them: if it does so to a process of
        its own, and to the next one, which has nothing else to do either, it did."""
        text = _text(_product(entry))
        batch = MicroBatch([text], [entry.picture.encoded])
        try:
            with self._account.timed("tag"):
                call = partial(self._ports.tagger.tag_isolated, batch)
                scores = self._insist("tag", call, [entry])
        except ReplicaDied as error:
            self._account.well("tag")
            entry.invalid = InvalidEvent(f"it kills or blocks the tagger's process: {error}", stage="tag")
        except TaggingFailed as error:
            entry.invalid = InvalidEvent(f"the tagger raised on it: {error}", stage="tag")
        else:
            self._decide([entry], [text], scores)

    def _decide(self, entries: list[Entry], texts: list[TextFields], scores: Scores) -> None:
        """Step 6."""
        decider = self._deciders.get(scores.model_version)
        if decider is None:
            fetch_taxonomy = partial(self._ports.tagger.taxonomy, scores.model_version)
            decider = Decider(self._insist("taxonomy", fetch_taxonomy, entries), self._rules)
            self._deciders[scores.model_version] = decider
        decided = decider.decide(scores.values, texts, scores.spans)
        now_ms = self._ports.clock.wall_ms()
        for entry, tags, seen in zip(entries, decided, scores.image, strict=True):
            assert entry.event is not None
            if sum(len(tag.group) + len(tag.value) + 60 for tag in tags) > _TAGS_MAX_CHARS:
                entry.invalid = InvalidEvent(f"its {len(tags):,} tags are more than a record takes", "decide")
                continue
            image = seen if entry.picture.encoded is not None else entry.picture.use
            entry.write = tag_write(
                entry.event, tags, image, scores, decider.taxonomy.taxonomy_version, now_ms
            )
        for use, count in Counter(entry.write.product.image for entry in entries if entry.write).items():
            self._ports.metrics.add(Metric.PICTURES, count, use=use)

    def _store(self, entries: list[Entry]) -> None:
        """Step 7."""
        if not entries:
            return
        now_ms = self._ports.clock.wall_ms()
        writes = []
        for entry in entries:
            assert entry.event is not None
            writes.append(entry.write or delete_write(entry.event, now_ms))
        with self._account.timed("store"):
            standings = self._insist("store", partial(self._ports.store.put, writes), entries)
        now_ms = self._ports.clock.wall_ms()
        for entry, standing in zip(entries, standings, strict=True):
            entry.standing = standing
        oldest_ms = min(entry.record.timestamp_ms for entry in entries)
        self._ports.metrics.observe(Metric.LATENCY_S, max(0, now_ms - oldest_ms) / 1000)

    def _publish(self, entries: list[Entry]) -> None:
        """Step 8. Only here, with the broker's word, does an entry get its outcome. Exactly once, the
        record waits with its offset instead."""
        entries = [entry for entry in entries if entry.invalid is not None or entry.standing is not None]
        for entry in entries:
            entry.output = self._record_of(entry)
        records = [entry.output for entry in entries if entry.output is not None]
        if records and self._ports.transactions is None:
            with self._account.timed("publish"):
                self._insist("publish", partial(self._ports.publisher.publish, records), entries)
                for entry in entries:
                    entry.output = None
        for entry in entries:
            entry.conclude()

    def _record_of(self, entry: Entry) -> OutRecord | None:
        if entry.invalid is not None:
            log.warning("dead letter: %s", entry.invalid.reason, extra=_origin(entry))
            return dead_letter(
                self._ports.topics.dead_letters,
                entry.record,
                entry.invalid,
                attempts=entry.attempts,
                event_version=entry.event.event_version if entry.event else None,
                now_ms=self._ports.clock.wall_ms(),
            )
        assert entry.standing is not None
        if entry.standing.verdict == "stale":
            return None
        return tag_record(self._ports.topics.tags, entry.standing, _product(entry).event_id, entry.record)

    def _insist(self, step: str, call: Callable[[], T], entries: list[Entry]) -> T:
        """Try until it works, with backoff, for as long as a partition of these entries is ours. Raises
        ReplicaDied when so many have died of the call."""
        attempt = deaths = 0
        while True:
            attempt += 1
            for entry in entries:
                entry.attempts = max(entry.attempts, attempt)
            try:
                answer = call()
            except (Unavailable, Overloaded) as error:
                deaths += isinstance(error, ReplicaDied)
                if deaths >= _REPLICA_DEATHS:
                    raise
                self._account.trouble(step, error)
                self._store_emptied |= isinstance(error, StoreNotInitialised)
                self._ports.metrics.add(Metric.RETRIES, step=step)
                self._ports.clock.wait(self._limits.backoff.delay_s(attempt, self._rng))
                if not self._held(entries):
                    raise _LetGo from error
            else:
                self._account.well(step)
                return answer

    # ------------------------------------------------------------------ partitions come and go

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._commits.doubt()  # one sent during the rebalance was refused
        for partition in partitions:
            # Wall time, so that the epochs of two consumers can be compared: the later one owns it.
            self._last_epoch = max(self._ports.clock.wall_ms(), self._last_epoch + 1)
            self._trackers[partition] = OffsetTracker(self._last_epoch)
            self._epochs[partition] = self._last_epoch

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """A clean hand-over: finish what is in flight and what lies before it, commit, return."""
        try:
            self._leave({partition: self._reach(partition) for partition in partitions})
            try:
                self._finish_leaving()
            finally:
                self._commit(self._leaving.keys() & self._trackers.keys(), wait=True)
        finally:
            self._leave(dict.fromkeys(partitions, 0))
            # What is still in flight may publish once more, after the next owner has; and where the last
            # commit was refused, the partitions had gone before this was heard.
            self._suspect_leaving()
            self._let_go()

    def _reach(self, partition: TopicPartition) -> int:
        """One after the last offset that is published, or about to be, before all offsets below it are done:
        if those were left to the next owner, it would publish this one again."""
        tracker = self._trackers.get(partition)
        if tracker is None or self._ports.transactions is not None:
            return 0
        flying = [
            entry.record.offset + 1
            for entries in self._in_flight.values()
            for entry in self._held(entries)
            if entry.record.source == partition
        ]
        return max([tracker.published_until, *flying])

    def _leave(self, first_offsets: dict[TopicPartition, int]) -> None:
        """What waits of these partitions, from these offsets on, is left to their next owners."""
        self._leaving = first_offsets
        self._drop(self._lanes.drop_waiting(self._is_left))
        for entry in self._batcher.drop(self._is_left):
            self._settle_entry(entry)

    def _finish_leaving(self) -> None:
        """Until all is done that is not left to the next owners, or time is up."""
        if goes_on := any(self._leaving.values()):
            self._commits.doubt()
            self._commit(self._trackers, wait=True)  # heard of here: nobody polls meanwhile
            leaving = [tracker for part, tracker in self._trackers.items() if part in self._leaving]
            if any(tracker.unacknowledged for tracker in leaving):  # the group has moved on
                goes_on = False
                self._leave(dict.fromkeys(self._leaving, 0))
        deadline_s = self._ports.clock.monotonic_s() + self._limits.revoke_timeout_s
        while self._is_leaving() and (left_s := deadline_s - self._ports.clock.monotonic_s()) > 0:
            if goes_on:
                self._submit()
            is_stuck = self._halt.is_on or self._commits.is_unheard or not self._in_flight
            if is_stuck and not self._in_flight_leaves():
                return
            self._settle(timeout_s=min(left_s, _IDLE_S))
            if goes_on and self._commits.is_due(self._ports.clock.monotonic_s(), self._load()):
                self._commit(self._trackers, wait=True)

    def _is_leaving(self) -> bool:
        return self._in_flight_leaves() or any(
            not self._trackers[partition].is_done_to(first_offset)
            for partition, first_offset in self._leaving.items()
            if partition in self._trackers
        )

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Somebody else has them already, and has perhaps tagged newer events: whatever this worker has
        published since it last knew better is compared with the store."""
        self._leave(dict.fromkeys(partitions, 0))
        self._suspect_leaving()
        self._let_go()

    def on_committed(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        self._commits.acknowledged(next_offsets)

    def _suspect_leaving(self) -> None:
        if self._ports.transactions is not None:
            return  # the group's generation fences whatever would come late
        in_flight = [
            entry.product_id
            for entries in self._in_flight.values()
            for entry in entries
            if entry.product_id is not None and entry.record.source in self._leaving
        ]
        self._healer.suspect(in_flight, self._submitted)
        for partition in self._leaving.keys() & self._trackers.keys():
            for mark in self._trackers[partition].suspects():
                self._healer.suspect([mark.product_id], self._submitted)
                self._healer.published(mark)

    def _let_go(self) -> None:
        for partition in self._leaving:
            self._epochs.pop(partition, None)
            self._trackers.pop(partition, None)
            self._account.forget_lag(partition)
        self._leaving = {}

    def _is_left(self, entry: Entry) -> bool:
        """Whether an entry is the next owner's."""
        first_offset = self._leaving.get(entry.record.source)
        return first_offset is not None and entry.record.offset >= first_offset

    def _in_flight_leaves(self) -> bool:
        return any(
            entry.record.source in self._leaving for entries in self._in_flight.values() for entry in entries
        )

    def _held(self, entries: list[Entry]) -> list[Entry]:
        """Those whose partition is still ours, in the same assignment."""
        return [entry for entry in entries if self._epochs.get(entry.record.source) == entry.epoch]

    def _heal(self) -> None:
        try:
            self._healer.heal(self._in_flight)
        except Unavailable as error:
            self._account.trouble("heal", error)
        else:
            self._account.well("heal")

    # ------------------------------------------------------------------ what others may see

    def status(self) -> WorkerStatus:
        """Any thread may ask."""
        return self._account.status(
            self._epochs,
            heartbeat_s=self._heartbeat_s,
            in_flight=len(self._in_flight),
            uncommitted=self._commits.uncommitted,
        )

    def _report(self) -> None:
        self._account.report_books()
        self._account.report_load(in_flight=len(self._in_flight), uncommitted=self._commits.uncommitted)
        self._account.report_lag(self._ports.source.lag())
        if self._heartbeat_s >= self._size_due_s:
            self._size_due_s = self._heartbeat_s + _SIZE_INTERVAL_S
            with suppress(Unavailable):  # a store that is away shows in the steps; its size can wait
                products, entries = self._ports.store.size()
                self._account.report_size(products=products, entries=entries)


def _product(entry: Entry) -> ProductEvent:
    assert entry.event is not None
    return entry.event.product


def _text(product: ProductEvent) -> TextFields:
    description = product.description[:_DESCRIPTION_MAX_CHARS] if product.description else None
    return TextFields(product.title, product.brand, description, product.attributes, product.lang)


def _origin(entry: Entry) -> dict[str, object]:
    record = entry.record
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "product_id": entry.product_id,
    }
