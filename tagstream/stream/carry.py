"""Steps 4 to 8: one micro-batch, from its records to its acknowledged tags.

4 fetch      the pictures' encoded bytes
5 tag        one call a micro-batch; scores come back
6 decide     scores + taxonomy + what the event says → tags
7 store      one atomic compare-and-write a product → verdict
8 publish    tags and dead letters, acknowledged by the broker
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from tagstream.core.decide import Deciders, decide, delete_write, tag_write
from tagstream.core.errors import (
    InvalidEvent,
    Overloaded,
    ReplicaDied,
    StoreNotInitialised,
    TaggingFailed,
    TooManyDeadLetters,
    Unavailable,
)
from tagstream.core.metrics import Metric
from tagstream.core.ports import (
    Clock,
    Images,
    Metrics,
    MicroBatch,
    OutRecord,
    Scores,
    Tagger,
    TagStore,
    TextFields,
    Topics,
)
from tagstream.core.rules import Rules
from tagstream.stream.account import Account
from tagstream.stream.delivery import Delivery
from tagstream.stream.entry import Assignment, Entry
from tagstream.stream.halting import DeadLetterGuard
from tagstream.stream.limits import WorkerLimits
from tagstream.stream.outgoing import dead_letter, tag_record

log = logging.getLogger("tagstream.worker")
T = TypeVar("T")

#: Replicas that may die of one micro-batch, or not answer it; then isolated processes, of one event.
_REPLICA_DEATHS_MAX = 2
#: Of the tags of one product, as JSON: even with every character escaped they fit a record of 1 MiB.
_TAGS_MAX_CHARS = 150_000


class _PartitionsLost(Exception):
    """This worker holds none of the micro-batch's partitions any more."""


class CarrierPorts(Protocol):
    """The ports that a micro-batch may use: any thread may call each of them."""

    @property
    def images(self) -> Images: ...
    @property
    def tagger(self) -> Tagger: ...
    @property
    def store(self) -> TagStore: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def topics(self) -> Topics: ...


class Carrier:
    """Carries micro-batches, each on a thread of its own. It touches only what it is constructed with:

    `ports`          calls them
    `delivery`       calls `publish`, nothing else
    `assignment`     reads the epochs
    `guard`          counts dead letters (it has a lock)
    `account`        notes durations and troubles of the steps
    `store_emptied`  sets it when the store has lost its layout mark
    `rng`            draws the jitter of its waits

    and its own deciders. The loop leaves the entries of a micro-batch alone until they return.
    """

    def __init__(
        self,
        ports: CarrierPorts,
        delivery: Delivery,
        assignment: Assignment,
        guard: DeadLetterGuard,
        account: Account,
        store_emptied: threading.Event,
        limits: WorkerLimits,
        rules: Rules,
        rng: random.Random,
    ) -> None:
        self._ports = ports
        self._delivery = delivery
        self._assignment = assignment
        self._guard = guard
        self._account = account
        self._store_emptied = store_emptied
        self._limits = limits
        self._rng = rng
        self._deciders = Deciders(ports.tagger, rules)

    def process_micro_batch(self, entries: list[Entry]) -> str:
        """Give each entry its outcome; one that returns without belongs to the partition's next owner.

        Returns why every consumer must halt, or nothing.
        """
        held = self._assignment.held
        try:
            self._fetch([entry for entry in entries if entry.to_tag])
            self._tag([entry for entry in entries if entry.to_tag])
            self._guard.take([entry.invalid is not None for entry in entries])
            self._store(held([entry for entry in entries if entry.invalid is None]))
            self._publish(held(entries))
        except _PartitionsLost:
            log.info("micro-batch dropped: its partitions have a new owner", extra={"events": len(entries)})
        except TooManyDeadLetters as error:
            log.error("halted: %s", error)
            return str(error)
        return ""

    def _fetch(self, entries: list[Entry]) -> None:
        """Step 4."""
        entries = [entry for entry in entries if entry.product.image is not None]
        if entries:
            with self._account.timed("fetch"):
                pictures = self._ports.images.fetch([entry.product.image for entry in entries])
            for entry, picture in zip(entries, pictures, strict=True):
                entry.picture = picture

    def _tag(self, entries: list[Entry]) -> None:
        """Step 5. A micro-batch on which the model raises is halved until the guilty event is alone. That one
        becomes a dead letter; the others are tagged. A micro-batch that is too large is halved too: only now
        are the sizes of pictures by URL known."""
        if not entries:
            return
        size_bytes = sum(len(entry.picture.encoded or b"") for entry in entries)
        if len(entries) > 1 and size_bytes > self._limits.micro_batch.max_bytes:
            self._tag_halves(entries)
            return
        texts = [TextFields.of(entry.product) for entry in entries]
        batch = MicroBatch(texts, [entry.picture.encoded for entry in entries])
        try:
            with self._account.timed("tag"):
                scores = self._retry("tag", partial(self._ports.tagger.tag, batch), entries)
        except ReplicaDied:
            log.error(
                "replicas died of a micro-batch, or did not answer: its events are isolated",
                extra={"events": len(entries)},
            )
            for entry in entries:
                self._tag_isolated(entry)
        except TaggingFailed as error:
            if len(entries) == 1:
                entries[0].invalid = InvalidEvent(f"the tagger raised on it: {error}", stage="tag")
            else:
                self._tag_halves(entries)
        else:
            self._decide(entries, texts, scores)

    def _tag_halves(self, entries: list[Entry]) -> None:
        middle = len(entries) // 2
        self._tag(entries[:middle])
        self._tag(entries[middle:])

    def _tag_isolated(self, entry: Entry) -> None:
        """Step 5 for an event that may have killed or blocked replicas. It goes through a process that does
        nothing else; if that dies or blocks too, and so does the next one, the event is the cause."""
        text = TextFields.of(entry.product)
        batch = MicroBatch([text], [entry.picture.encoded])
        try:
            with self._account.timed("tag"):
                scores = self._retry("tag", partial(self._ports.tagger.tag_isolated, batch), [entry])
        except ReplicaDied as error:
            self._account.recovered("tag")
            entry.invalid = InvalidEvent(f"it kills or blocks the tagger's process: {error}", stage="tag")
        except TaggingFailed as error:
            entry.invalid = InvalidEvent(f"the tagger raised on it: {error}", stage="tag")
        else:
            self._decide([entry], [text], scores)

    def _decide(self, entries: list[Entry], texts: list[TextFields], scores: Scores) -> None:
        """Step 6."""
        find_decider = partial(self._deciders.of, scores.model_version)
        decider = self._retry("taxonomy", find_decider, entries)
        decided, uses = decide(decider, texts, [entry.picture for entry in entries], scores)
        now_ms = self._ports.clock.wall_ms()
        for entry, tags, use in zip(entries, decided, uses, strict=True):
            assert entry.event is not None
            if sum(len(tag.group) + len(tag.value) + 60 for tag in tags) > _TAGS_MAX_CHARS:
                entry.invalid = InvalidEvent(f"its {len(tags):,} tags are more than a record takes", "decide")
                continue
            version = decider.taxonomy.taxonomy_version
            entry.write = tag_write(entry.event, tags, use, scores, version, now_ms)
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
            standings = self._retry("store", partial(self._ports.store.put, writes), entries)
        now_ms = self._ports.clock.wall_ms()
        for entry, standing in zip(entries, standings, strict=True):
            entry.standing = standing
        oldest_ms = min(entry.record.timestamp_ms for entry in entries)
        self._ports.metrics.observe(Metric.LATENCY_S, max(0, now_ms - oldest_ms) / 1000)

    def _publish(self, entries: list[Entry]) -> None:
        """Step 8. Only here does an entry get its outcome: once the broker has acknowledged its record, or
        once that waits for its transaction."""
        entries = [entry for entry in entries if entry.invalid is not None or entry.standing is not None]
        for entry in entries:
            entry.output = self._output_of(entry)
        records = [entry.output for entry in entries if entry.output is not None]
        if records:
            with self._account.timed("publish"):
                publish = partial(self._delivery.publish, records)
                is_acknowledged = self._retry("publish", publish, entries)
            if is_acknowledged:
                for entry in entries:
                    entry.output = None
        for entry in entries:
            entry.conclude()

    def _output_of(self, entry: Entry) -> OutRecord | None:
        """The record to publish; None if a newer event is stored already."""
        if entry.invalid is not None:
            log.warning("dead letter: %s", entry.invalid.reason, extra=entry.origin)
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
        return tag_record(self._ports.topics.tags, entry.standing, entry.product.event_id, entry.record)

    def _retry(self, step: str, call: Callable[[], T], entries: list[Entry]) -> T:
        """Call until it works, with backoff, while this worker holds a partition of these entries.

        Raises:
            ReplicaDied: as many replicas died of the call as may.
            _PartitionsLost: nobody here waits for the answer any more.
        """
        attempt = deaths = 0
        while True:
            attempt += 1
            for entry in entries:
                entry.attempts = max(entry.attempts, attempt)
            try:
                answer = call()
            except (Unavailable, Overloaded) as error:
                deaths += isinstance(error, ReplicaDied)
                if deaths >= _REPLICA_DEATHS_MAX:
                    raise
                self._account.trouble(step, error)
                if isinstance(error, StoreNotInitialised):
                    self._store_emptied.set()
                self._ports.metrics.add(Metric.RETRIES, step=step)
                self._ports.clock.wait(self._limits.backoff.delay_s(attempt, self._rng))
                if not self._assignment.held(entries):
                    raise _PartitionsLost from error
            else:
                self._account.recovered(step)
                return answer
