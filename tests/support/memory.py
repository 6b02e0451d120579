"""Twins of the ports in memory, for tests: they keep the contracts, and fail on command. The store's is in
`memory_store`.

Faults are data, one a call: `publisher.faults.extend([Unavailable("…"), None, After(Unavailable("…"))])`
fails the first call before anything happened, lets the second work, and does the third before failing it.
Time is a `ManualClock`: it passes when somebody waits, and nobody ever sleeps.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import threading
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tagstream.core.errors import ReplicaDied, TaggingFailed, TransactionAborted
from tagstream.core.events import ImageRef, ImageUse
from tagstream.core.metrics import Metric
from tagstream.core.ports import (
    AssignmentListener,
    Clock,
    MicroBatch,
    OutRecord,
    Picture,
    Record,
    Scores,
    TopicPartition,
)
from tagstream.core.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class After:
    """A fault that strikes when the work is done: the caller cannot know that it was."""

    error: Exception


class Faults(deque[Exception | After | None]):
    """What the next calls do. Empty: they work."""

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Around the work of one call: raises its fault, before or after."""
        fault = self.popleft() if self else None
        if isinstance(fault, Exception):
            raise fault
        yield
        if isinstance(fault, After):
            raise fault.error


class ManualClock:
    """Time that passes when somebody waits, or by `advance`."""

    def __init__(self, wall_ms: int = 1_750_000_000_000) -> None:
        self._start_ms = wall_ms
        self._now_s = 0.0
        self._lock = threading.Lock()
        self.stopping = False

    def wall_ms(self) -> int:
        return self._start_ms + int(self._now_s * 1000)

    def monotonic_s(self) -> float:
        return self._now_s

    def wait(self, timeout_s: float) -> bool:
        """See the port."""
        self.advance(max(0.0, timeout_s))
        return self.stopping

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now_s += seconds


class MemoryBroker:
    """Topics, partitions, offsets and consumer groups with cooperative rebalances."""

    def __init__(self, partitions: int = 4, clock: Clock | None = None) -> None:
        self.partitions = partitions
        self.clock = clock or ManualClock()
        #: (group, partition) → next offset to read
        self.committed: dict[tuple[str, TopicPartition], int] = {}
        self._logs: dict[TopicPartition, list[Record]] = {}
        self._trimmed: Counter[TopicPartition] = Counter()
        self._members: dict[str, list[MemorySource]] = defaultdict(list)
        self._lock = threading.RLock()

    def append(self, record: OutRecord) -> Record:
        """Write one record; without a partition its key decides."""
        number = zlib.crc32(record.key or b"") % self.partitions
        partition = TopicPartition(record.topic, number if record.partition is None else record.partition)
        timestamp_ms = self.clock.wall_ms() if record.timestamp_ms is None else record.timestamp_ms
        with self._lock:
            log = self._logs.setdefault(partition, [])
            written = Record(
                *partition, len(log), record.key, record.value, tuple(record.headers), timestamp_ms
            )
            log.append(written)
            return written

    def records(self, topic: str) -> list[Record]:
        """All records that were ever written to the topic, by partition and offset."""
        with self._lock:
            return [record for p in self._all(topic) for record in self._logs.get(p, [])]

    def trim(self, partition: TopicPartition, first_offset: int) -> None:
        """Retention: what lies before `first_offset` is gone."""
        self._trimmed[partition] = first_offset

    def evict(self, source: MemorySource) -> None:
        """The group gives `source` up: others get its partitions; it learns of it at its next poll."""
        with self._lock:
            source.lost |= set(source.positions)
            source.positions.clear()
            self._leave(source)

    def _all(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self.partitions)]

    def _join(self, source: MemorySource) -> None:
        self._members[source.group].append(source)
        self._share_out(source.group)

    def _leave(self, source: MemorySource) -> None:
        if source in self._members[source.group]:
            self._members[source.group].remove(source)
            self._share_out(source.group)

    def _share_out(self, group: str) -> None:
        members = self._members[group]
        for number, member in enumerate(members):
            member.target = set(self._all(member.topic)[number :: len(members)])

    def _is_free(self, group: str, partition: TopicPartition) -> bool:
        return not any(partition in member.positions for member in self._members[group])

    def _first_offset(self, group: str, partition: TopicPartition) -> int:
        return self.committed.get((group, partition), 0)

    def _read(self, partition: TopicPartition, offset: int, max_records: int) -> list[Record]:
        return self._logs.get(partition, [])[offset : offset + max_records]

    def _end(self, partition: TopicPartition) -> int:
        return len(self._logs.get(partition, []))


class MemorySource:
    """The `Source` of one topic, one member of a group."""

    def __init__(
        self,
        broker: MemoryBroker,
        group: str,
        topic: str,
        on_offsets_lost: Callable[[int], object] | None = None,
    ) -> None:
        self.group = group
        self.topic = topic
        #: of the assigned partitions: the next offset to poll
        self.positions: dict[TopicPartition, int] = {}
        self.target: set[TopicPartition] = set()
        self.lost: set[TopicPartition] = set()
        self.faults = Faults()
        self.commit_faults = Faults()
        self.paused = False
        self._broker = broker
        self._listener: AssignmentListener | None = None
        self._on_offsets_lost = on_offsets_lost

    def subscribe(self, listener: AssignmentListener) -> None:
        """See the port."""
        self._listener = listener
        self._broker._join(self)

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """See the port."""
        with self.faults.around():
            self._rebalance()
            records = [] if self.paused else self._take(max_records)
            if not records:
                self._broker.clock.wait(timeout_s)
            return records

    def commit(self, next_offsets: Mapping[TopicPartition, int], *, wait: bool) -> None:
        """See the port."""
        with self.commit_faults.around():
            held = {p: offset for p, offset in next_offsets.items() if p in self.positions}
            for partition, offset in held.items():
                self._broker.committed[self.group, partition] = offset
            if self._listener is not None:
                self._listener.on_committed(held)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def lag(self) -> dict[TopicPartition, int]:
        return {p: self._broker._end(p) - position for p, position in sorted(self.positions.items())}

    def close(self) -> None:
        """See the port."""
        assert self._listener is not None
        if self.positions:
            self._listener.on_revoked(sorted(self.positions))
        with self._broker._lock:
            self.positions.clear()
            self._broker._leave(self)

    def _rebalance(self) -> None:
        assert self._listener is not None
        if self.lost:
            lost, self.lost = self.lost, set()
            self._listener.on_lost(sorted(lost))
            self._broker._join(self)
        revoked = self.positions.keys() - self.target
        if revoked:
            self._listener.on_revoked(sorted(revoked))
        with self._broker._lock:
            for partition in revoked:
                del self.positions[partition]
            free = [p for p in sorted(self.target) if self._broker._is_free(self.group, p)]
            for partition in free:
                self.positions[partition] = self._broker._first_offset(self.group, partition)
        if free:
            self._listener.on_assigned(free)

    def _take(self, max_records: int) -> list[Record]:
        taken: list[Record] = []
        for partition in sorted(self.positions):
            self._skip_trimmed(partition)
            records = self._broker._read(partition, self.positions[partition], max_records - len(taken))
            self.positions[partition] += len(records)
            taken += records
        return taken

    def _skip_trimmed(self, partition: TopicPartition) -> None:
        missing = self._broker._trimmed[partition] - self.positions[partition]
        if missing > 0:
            self.positions[partition] += missing
            if (self.group, partition) in self._broker.committed and self._on_offsets_lost is not None:
                self._on_offsets_lost(missing)


class MemoryPublisher:
    """The `Publisher` to a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.faults = Faults()
        self._broker = broker

    def publish(self, records: Sequence[OutRecord]) -> None:
        """See the port."""
        with self.faults.around():
            for record in records:
                self._broker.append(record)

    def close(self) -> None:
        return


class MemoryTransactions:
    """The `Transactions` of `source`'s group, on a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, source: MemorySource) -> None:
        self.faults = Faults()
        self._broker = broker
        self._source = source
        self._is_unknown = False

    def commit(self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int]) -> None:
        """See the port."""
        with self.faults.around():
            if not self._is_unknown:
                self._write(records, next_offsets)
            self._is_unknown = True  # to the caller: a fault may strike when the work is done
        self._is_unknown = False

    def settle(self) -> None:
        return

    def close(self) -> None:
        return

    def _write(self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int]) -> None:
        with self._broker._lock:
            gone = next_offsets.keys() - self._source.positions.keys()
            if gone:
                raise TransactionAborted(f"the group has moved on: {sorted(gone)} are no longer held")
            for record in records:
                self._broker.append(record)
            for partition, offset in next_offsets.items():
                self._broker.committed[self._source.group, partition] = offset


class MemoryImages:
    """The `Images`: inline pictures, and those of `pages` (url → bytes, or how fetching it ends)."""

    def __init__(self, pages: Mapping[str, bytes | Picture] | None = None) -> None:
        self.pages = dict(pages or {})

    def fetch(self, images: Sequence[ImageRef | None]) -> list[Picture]:
        return [self._fetch(image) for image in images]

    def close(self) -> None:
        return

    def _fetch(self, image: ImageRef | None) -> Picture:
        if image is None or (image.data is None and image.url is None):
            return Picture("none")
        if image.data is not None:
            try:
                return Picture("used", base64.b64decode(image.data, validate=True))
            except (binascii.Error, ValueError):
                return Picture("unusable", reason="not base64")
        page = self.pages.get(image.url or "", Picture("unusable", reason="status 404"))
        return page if isinstance(page, Picture) else Picture("used", page)


#: The bytes of a picture that `MemoryTagger` cannot decode.
BROKEN_PICTURE = b"broken"


class MemoryTagger:
    """The `Tagger`: of each group one value, chosen by the title's checksum, scores 0.9, the others 0.01."""

    def __init__(self, taxonomy: Taxonomy, model_version: str = "memory", model_generation: int = 1) -> None:
        self.model_version = model_version
        self.model_generation = model_generation
        #: titles on which the model raises
        self.poison: set[str] = set()
        #: titles that kill the process which has them
        self.killers: set[str] = set()
        #: titles of which it never comes back
        self.hangers: set[str] = set()
        self.deaths = self.isolated_deaths = 0
        self.faults = Faults()
        self.calls: list[MicroBatch] = []
        self._taxonomy = taxonomy

    def tag(self, batch: MicroBatch) -> Scores:
        """See the port."""
        self.calls.append(batch)
        with self.faults.around():
            if reason := self._loss(batch):
                self.deaths += 1
                raise ReplicaDied(f"a replica: {reason}")
            poisoned = [text.title for text in batch.texts if text.title in self.poison]
            if poisoned:
                raise TaggingFailed(f"cannot bear {poisoned}")
            values = np.full((len(batch), self._taxonomy.size), 0.01, np.float32)
            for row, text in enumerate(batch.texts):
                checksum = zlib.crc32(text.title.encode())
                for columns in self._taxonomy.slices.values():
                    values[row, columns.start + checksum % (columns.stop - columns.start)] = 0.9
            use = [_use_of(encoded) for encoded in batch.images]
            return Scores(self.model_version, self.model_generation, values, use)

    def tag_isolated(self, batch: MicroBatch) -> Scores:
        """See the port."""
        if reason := self._loss(batch):
            self.isolated_deaths += 1
            raise ReplicaDied(f"a process of its own: {reason}")
        return self.tag(batch)

    def taxonomy(self, model_version: str) -> Taxonomy:
        return self._taxonomy

    def _loss(self, batch: MicroBatch) -> str:
        """How this batch ends the process that has it; empty if it does not."""
        titles = {text.title for text in batch.texts}
        return "it died" if titles & self.killers else "no answer in time" if titles & self.hangers else ""


def _use_of(encoded: bytes | None) -> ImageUse:
    if encoded is None:
        return "none"
    return "unusable" if encoded == BROKEN_PICTURE else "used"


class MemoryMetrics:
    """The `Metrics`: `value(metric, **labels)` for counters and gauges, `observed` for histograms."""

    def __init__(self) -> None:
        self.observed: dict[Metric, list[float]] = defaultdict(list)
        self._values: defaultdict[tuple[Metric, tuple[str, ...]], float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        with self._lock:
            self._values[metric, _labels(metric, labels)] += amount

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self._values[metric, _labels(metric, labels)] = value

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """See the port."""
        _labels(metric, labels)
        self.observed[metric].append(value)

    def value(self, metric: Metric, **labels: str) -> float:
        """0 if never counted. Without labels: the sum over all of them."""
        if labels:
            return self._values[metric, _labels(metric, labels)]
        return sum(value for (counted, _), value in self._values.items() if counted is metric)


def _labels(metric: Metric, labels: Mapping[str, str]) -> tuple[str, ...]:
    if set(labels) != set(metric.value.labels):
        raise ValueError(f"{metric.name} has the labels {metric.value.labels}, not {sorted(labels)}")
    return tuple(labels[name] for name in metric.value.labels)
