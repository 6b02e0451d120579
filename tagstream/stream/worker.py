"""The main path: product events in, their tags out.

    1 poll       records of the assigned partitions, many at a time
    2 decode     bytes → Event, or a dead letter
    3 batch      full by count or bytes, or due; one product is never in flight twice
    4–8          one micro-batch: fetch, tag, decide, store, publish (stream/carry.py)
    9 commit     the offsets whose work, and all work before it, is done

The order is the guarantee, at least once with harmless repeats: an offset is committed after 7 and 8 or not
at all. A repeated 7 answers `same`, and what is stored is published again. For exactly once, 8 waits until 9
is due, and both are one transaction (stream/delivery.py).

One thread runs the loop: 1–3 and 9. It owns everything here. Each micro-batch goes through 4–8 on a thread
of its own, which touches only what `Carrier` is constructed with. A partition that was lost meanwhile has
another epoch or none, and the micro-batch drops its events before the next step.
"""

from __future__ import annotations

import logging
import math
import queue
import random
import threading
from collections.abc import Collection
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial

from tagstream.core.errors import InvalidEvent, StartOver, TooManyDeadLetters, TransactionAborted, Unavailable
from tagstream.core.metrics import Metric
from tagstream.core.ports import Ports, Record, TopicPartition
from tagstream.core.rules import NO_RULES, Rules
from tagstream.stream.account import Account, WorkerStatus
from tagstream.stream.backpressure import Backpressure
from tagstream.stream.batching import MicroBatcher
from tagstream.stream.carry import Carrier
from tagstream.stream.decode import Decoder
from tagstream.stream.delivery import delivery_of
from tagstream.stream.entry import Assignment, Entry, Outcome
from tagstream.stream.halting import DeadLetterGuard, HaltSwitch
from tagstream.stream.handover import Handover
from tagstream.stream.healing import Healer
from tagstream.stream.lanes import Lanes
from tagstream.stream.limits import WorkerLimits

log = logging.getLogger("tagstream.worker")

#: The longest wait of the loop when nothing happens. It bounds how late a stop is noticed.
_IDLE_S = 0.2
#: The same while micro-batches are in flight. It bounds how late the loop learns that one has finished.
_BUSY_S = 0.01
#: How often the store is asked for its size.
_SIZE_INTERVAL_S = 60.0


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
        self._decoder = decoder
        self._limits = limits
        self._executor = executor
        self._rng = random.Random()
        self._stopping = threading.Event()

        now_s = ports.clock.monotonic_s()
        self._account = Account(ports.metrics)
        self._assignment = Assignment()
        self._delivery = delivery_of(ports, limits, now_s)
        self._healer = Healer(ports.store, ports.publisher, ports.topics.tags)
        self._halt = HaltSwitch(ports.halts, DeadLetterGuard(limits.dead_letters), limits.commit_interval_s)
        self._store_emptied = threading.Event()
        self.carrier = Carrier(
            ports,
            self._delivery,
            self._assignment,
            self._halt.guard,
            self._account,
            self._store_emptied,
            limits,
            rules,
            self._rng,
        )
        self.handover = Handover(
            self,
            self._delivery,
            self._assignment,
            self._healer,
            self._account,
            ports.clock,
            limits.revoke_timeout_s,
        )
        self._lanes = Lanes()
        self._batcher: MicroBatcher[Entry] = MicroBatcher(limits.micro_batch)
        self._in_flight: dict[int, list[Entry]] = {}
        self._finished: queue.SimpleQueue[tuple[int, Future[str]]] = queue.SimpleQueue()
        self._held_bytes = 0
        self._backpressure = Backpressure(limits.pause_after_s)
        self.last_submitted = 0
        self._heartbeat_s = self._reported_s = self._size_due_s = now_s

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Work until `stop`, then hand the partitions back. Raises what no retry can repair."""
        self._ports.source.subscribe(self.handover)
        try:
            while not self._stopping.is_set():
                self.turn()
            # Before the client closes: closing takes time, in which the group may give the consumer up.
            self.handover.on_revoked(list(self._delivery.trackers))
        finally:
            try:
                self._ports.source.close()  # revokes: what is in flight is finished and committed
            finally:
                self._assignment.epochs.clear()
            self._finish_in_flight()
            self._account.report_books()

    def stop(self) -> None:
        """Ask `run` to return; any thread may."""
        self._stopping.set()

    def turn(self) -> None:
        """One round of the loop."""
        self._heartbeat_s = self._ports.clock.monotonic_s()
        self._check_halt()
        self._restart_if_store_was_emptied()
        self._admit(self._poll())
        self.submit_due()
        self.collect_finished(timeout_s=0)
        self._heal()
        self.commit_if_due(wait=False)
        self._report_if_due()

    def _check_halt(self) -> None:
        """Look at the switch that halts every consumer, and throw it when too much has failed here."""
        if not self._halt.is_due(self._heartbeat_s):
            return
        try:
            self._halt.check(self._heartbeat_s)
        except (TooManyDeadLetters, Unavailable) as error:
            self._account.trouble("halt", error)
        else:
            self._account.recovered("halt")

    def _restart_if_store_was_emptied(self) -> None:
        """Exactly once, stored results wait to be published. A store that is emptied meanwhile is rebuilt
        from a topic that does not have them yet, and would count their revisions again."""
        if not self._store_emptied.is_set():
            return
        self._store_emptied.clear()
        if self._delivery.holds_outputs:
            self._assignment.epochs.clear()  # what is in flight is dropped
            raise StartOver("the store was emptied under results that wait for their transaction")

    # ------------------------------------------------------------------ step 1: poll

    def _poll(self) -> list[Record]:
        """Take records, as far as there is room."""
        source, now_s = self._ports.source, self._ports.clock.monotonic_s()
        silent_s = self._delivery.unacknowledged_for_s(now_s)
        if silent_s > 2 * self._limits.commit_interval_s:
            silence = Unavailable(f"it has acknowledged no commit for {silent_s:.0f} s")
            self._account.trouble("group", silence)
        else:
            self._account.recovered("group")
        # A client that was told of no brokers cannot look for them again while it holds prefetched records
        # (librdkafka's issue 5301). One that is full does not take them, but a pause lets go of them.
        at_once = silent_s > self._limits.commit_interval_s or self._delivery.last_commit_failed
        move = self._backpressure.move(load=self._load(), now_s=now_s, at_once=at_once)
        if move == "pause":
            source.pause()
        elif move == "resume":
            source.resume()
        if move not in ("take", "resume"):
            self.collect_finished(timeout_s=_IDLE_S)
        if move == "wait":
            if not silent_s:
                return []
            self._ports.clock.wait(_BUSY_S)  # only a poll hears of commits, and it may bring a record
        room = self._limits.max_uncommitted_events - self._delivery.uncommitted
        try:
            records = source.poll(max(1, min(room, self._limits.poll_max_records)), self._patience_s(now_s))
        except Unavailable as error:
            self._account.trouble("poll", error)
            self._delivery.recheck()
            self._ports.clock.wait(self._limits.backoff.delay_s(1, self._rng))
            return []
        self._account.recovered("poll")
        return records

    def _load(self) -> float:
        """The share of this worker's bounds in use; 1 or more is full."""
        if self._halt.is_on:
            return math.inf
        return max(
            self._delivery.uncommitted / self._limits.max_uncommitted_events,
            (self._held_bytes + self._delivery.output_bytes) / self._limits.held_max_bytes,
        )

    def _patience_s(self, now_s: float) -> float:
        if self._in_flight or self._delivery.is_unacknowledged:
            return _BUSY_S
        if self._halt.is_on:
            return _IDLE_S
        due_in_s = self._batcher.due_in_s(now_s)
        return _IDLE_S if due_in_s is None else min(due_in_s, _IDLE_S)

    # ------------------------------------------------------------------ step 2: decode

    def _admit(self, records: list[Record]) -> None:
        """Decode, and queue what may go; what waits for its product's current event stays in its lane."""
        now_ms = self._ports.clock.wall_ms()
        for record in records:
            tracker = self._delivery.trackers.get(record.source)
            if tracker is None:
                continue  # polled just before its partition went: the next owner has it
            entry = Entry(record, tracker.epoch)
            try:
                entry.event = self._decoder.decode(record, now_ms)
            except InvalidEvent as error:
                entry.invalid = error
            except Exception:
                # A defect of ours. As a crash it would be read again at every restart.
                log.exception("the decoder failed", extra=entry.origin)
                entry.invalid = InvalidEvent("the decoder failed on it: a defect of tagstream")
            tracker.take(record.offset)
            self._held_bytes += entry.size_bytes
            self._account.count("consumed")
            if entry.event is None or self._lanes.admit(entry):
                self._batcher.add(entry, entry.size_bytes, self._ports.clock.monotonic_s())

    # ------------------------------------------------------------------ step 3: batch

    def submit_due(self) -> None:
        """Send off each micro-batch that is full or due, as far as more may be in flight."""
        self.collect_finished(timeout_s=0)  # one that has finished may halt the stream
        while not self._halt.is_on and self._may_submit():
            due_in_s = self._batcher.due_in_s(self._ports.clock.monotonic_s())
            if due_in_s is None or (due_in_s > 0 and not self.handover.is_going_on):
                return
            entries = self._batcher.take()
            self.last_submitted += 1
            number = self.last_submitted
            self._in_flight[number] = entries
            self._ports.metrics.observe(Metric.MICRO_BATCH_EVENTS, len(entries))
            future = self._executor.submit(self.carrier.process_micro_batch, entries)  # steps 4 to 8
            future.add_done_callback(partial(self._note_finished, number))

    def _may_submit(self) -> bool:
        """However this worker ends, its successors publish at most `max_in_flight` + 1 micro-batches again.
        So the records that wait for their commit count as well as those in flight."""
        flying, most = len(self._in_flight), self._limits.max_in_flight
        if flying >= most or self._delivery.is_unacknowledged:
            return False
        republishable = self._delivery.republishable + sum(map(len, self._in_flight.values()))
        return not flying or republishable <= most * self._limits.micro_batch.max_events

    def _note_finished(self, number: int, done: Future[str]) -> None:
        """On the micro-batch's thread."""
        self._finished.put((number, done))

    # ------------------------------------------------------------------ after steps 4 to 8

    def collect_finished(self, timeout_s: float) -> None:
        """Take back the micro-batches that have finished; wait at most `timeout_s` for the first."""
        while self._in_flight:
            try:
                number, done = self._finished.get(block=timeout_s > 0, timeout=timeout_s or None)
            except queue.Empty:
                return
            timeout_s = 0
            error = done.exception()
            if error is None and (halt_reason := done.result()):
                self._halt.throw(halt_reason)
            # The last one first, so that successors are queued in the order of their predecessors.
            for entry in reversed(self._in_flight.pop(number)):
                self._settle(entry)
            if error is not None:
                raise error

    def _settle(self, entry: Entry) -> None:
        """Count an entry that has returned, and let its product's next event go."""
        dropped: list[Entry] = []
        if entry.outcome is None:
            if entry.output is not None and entry.product_id is not None:
                self._healer.mark_uncertain(entry.product_id)
            dropped = entry.with_overtaken()
            entry.overtaken = []
        else:
            if entry.published is not None:
                self._healer.published(entry.published)
            self._finish(entry, entry.outcome)
        if entry.event is not None:
            superseded, successor = self._lanes.finish(entry)
            for older in superseded:
                self._finish(older, "superseded")
            if successor is not None and self.handover.is_left(successor):
                self._settle(successor)
            elif successor is not None:
                self._queue_first(successor)
        self._drop(dropped)

    def _finish(self, entry: Entry, outcome: Outcome) -> None:
        entry.outcome = outcome
        self._held_bytes -= entry.size_bytes
        self._account.count(outcome)
        if entry.invalid is not None:
            self._ports.metrics.add(Metric.DEAD_LETTERS, stage=entry.invalid.stage)
        self._delivery.done(entry)

    def _drop(self, entries: list[Entry]) -> None:
        """Drop entries whose partition goes: its next owner starts at the committed offset. They start again
        where it stays: the stream has halted, or a product is spread over two partitions."""
        for entry in entries:
            entry.overtaken = []
            entry.reset()
            if self.handover.is_left(entry) or not self._assignment.held([entry]):
                self._held_bytes -= entry.size_bytes
                self._account.count("dropped")
            elif entry.event is None or self._lanes.admit(entry):
                self._queue_first(entry)

    def _queue_first(self, entry: Entry) -> None:
        """An entry that has waited once: every offset after it waits for it."""
        self._batcher.add_first(entry, entry.size_bytes, self._ports.clock.monotonic_s())

    def drop_waiting(self) -> None:
        """Drop what waits and is left to the next owner of its partition."""
        self._drop(self._lanes.drop_waiting(self.handover.is_left))
        for entry in self._batcher.drop(self.handover.is_left):
            self._settle(entry)

    # ------------------------------------------------------------------ step 9: commit

    def commit_if_due(self, *, wait: bool) -> None:
        if self._delivery.is_due(self._ports.clock.monotonic_s(), self._load()):
            self.commit(self._delivery.trackers, wait=wait)

    def commit(self, partitions: Collection[TopicPartition], *, wait: bool) -> None:
        """Commit the offsets of these partitions whose work, and all work before it, is done."""
        try:
            with self._account.timed("commit"):
                self._delivery.commit(partitions, self._ports.clock.monotonic_s(), wait=wait)
        except (Unavailable, TransactionAborted) as error:
            self._account.trouble("commit", error)
        else:
            self._account.recovered("commit")

    # ------------------------------------------------------------------ after a hand-over

    def _finish_in_flight(self) -> None:
        """What outlasts the last hand-over may still publish: wait for it, then compare topic and store."""
        deadline_s = self._ports.clock.monotonic_s() + self._limits.revoke_timeout_s
        while self._in_flight and self._ports.clock.monotonic_s() < deadline_s:
            self.collect_finished(timeout_s=_IDLE_S)
            self._ports.clock.wait(0)
        self._heal()

    def _heal(self) -> None:
        if not self._healer:
            return
        try:
            self._healer.heal(self._in_flight)
        except Unavailable as error:
            self._account.trouble("heal", error)
        else:
            self._account.recovered("heal")

    # ------------------------------------------------------------------ what others may see

    def in_flight_entries(self) -> list[Entry]:
        return [entry for entries in self._in_flight.values() for entry in entries]

    @property
    def is_halted(self) -> bool:
        return self._halt.is_on

    @property
    def is_healing(self) -> bool:
        """Whether topic and store are still being compared after a lost partition."""
        return bool(self._healer)

    def status(self) -> WorkerStatus:
        """Any thread may ask."""
        return self._account.status(
            self._assignment.epochs,
            heartbeat_s=self._heartbeat_s,
            in_flight=len(self._in_flight),
            uncommitted=self._delivery.uncommitted,
        )

    def _report_if_due(self) -> None:
        if self._heartbeat_s - self._reported_s < self._limits.commit_interval_s:
            return
        self._reported_s = self._heartbeat_s
        self._account.report_books()
        self._account.report_load(in_flight=len(self._in_flight), uncommitted=self._delivery.uncommitted)
        self._account.report_lag(self._ports.source.lag())
        if self._heartbeat_s >= self._size_due_s:
            self._size_due_s = self._heartbeat_s + _SIZE_INTERVAL_S
            with suppress(Unavailable):  # the steps report a store that is away; its size can wait
                products, entries = self._ports.store.size()
                self._account.report_size(products=products, entries=entries)
