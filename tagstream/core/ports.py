"""What the worker needs from the outside, as protocols. Adapters implement them, tests swap them.

Every call may block; none retries. A call raises `Unavailable` when the other side does not answer,
and leaves retrying to the worker, which alone knows the deadline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tagstream.core.events import ImageRef, ImageUse, ProductTags
from tagstream.core.metrics import Metric
from tagstream.core.taxonomy import Taxonomy

Header = tuple[str, bytes | None]
#: Of a description; the model reads no further.
DESCRIPTION_MAX_CHARS = 4000


class TopicPartition(NamedTuple):
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """A raw Kafka message as it came."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    timestamp_ms: int = 0

    @property
    def source(self) -> TopicPartition:
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be produced. A value of None deletes the key of a compacted topic; without a `partition`
    the key decides it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    timestamp_ms: int | None = None
    partition: int | None = None

    @property
    def size_bytes(self) -> int:
        """Key, value and headers."""
        named = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + named


class AssignmentListener(Protocol):
    """Called from inside `Source.poll`, on the thread that polls."""

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None: ...

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """A clean hand-over: offsets of these partitions may still be committed until this returns."""

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """The partitions belong to somebody else already: nothing may be stored, published or committed."""

    def on_committed(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """The group took a commit of ours: when it was sent, these partitions were assigned to us."""


class Source(Protocol):
    """The assigned partitions of the event topic. Used by one thread."""

    def subscribe(self, listener: AssignmentListener) -> None: ...

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records` records; waits at most `timeout_s` for the first one. Serves the listener."""

    def commit(self, next_offsets: Mapping[TopicPartition, int], *, wait: bool) -> None:
        """Record progress. A committed offset is the next one to read. `wait` returns after the answer."""

    def pause(self) -> None:
        """Stop fetching; `poll` goes on serving the listener and returns nothing."""

    def resume(self) -> None: ...

    def lag(self) -> dict[TopicPartition, int]:
        """Records between what was polled and the newest offset, of each assigned partition."""

    def close(self) -> None:
        """Leave the group: calls `on_revoked` for what is assigned, then disconnects."""


class Publisher(Protocol):
    """Any thread may call it."""

    def publish(self, records: Sequence[OutRecord]) -> None:
        """Produce all of them, in order, and return when each is acknowledged by the broker.

        Raises:
            Unavailable: some were not acknowledged; producing all of them again is harmless.
        """

    def close(self) -> None: ...


class Transactions(Protocol):
    """The publisher of exactly-once delivery. Used by the thread that polls."""

    def commit(self, records: Sequence[OutRecord], next_offsets: Mapping[TopicPartition, int]) -> None:
        """Produce `records` in order and record the progress, both or neither, as one transaction.

        Raises:
            TransactionAborted: neither. The group may have moved on, or the broker gave up.
            Unavailable: not decided yet. Call again with the same arguments until it is.
        """

    def settle(self) -> None:
        """Called now and then when there is nothing to commit: what a crash may have left open is closed.
        Raises TransactionAborted: not yet."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Picture:
    """The outcome of fetching one picture: its encoded bytes if `use` is `used`, else the reason why not."""

    use: ImageUse
    encoded: bytes | None = None
    reason: str = ""


class Images(Protocol):
    """Any thread may call it."""

    def fetch(self, images: Sequence[ImageRef | None]) -> list[Picture]:
        """The encoded bytes of each picture, in order, within the fetch deadline. Never raises for one."""

    def close(self) -> None: ...


class HasText(Protocol):
    """A product with texts: an event, or a request to tag."""

    @property
    def title(self) -> str: ...
    @property
    def brand(self) -> str | None: ...
    @property
    def description(self) -> str | None: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def lang(self) -> str | None: ...


class TextFields(NamedTuple):
    """The text of one product, as the model reads it."""

    title: str
    brand: str | None = None
    description: str | None = None
    attributes: Mapping[str, str] = {}
    lang: str | None = None

    @classmethod
    def of(cls, product: HasText) -> TextFields:
        """The first 4,000 characters of the description: more adds nothing that the model reads."""
        description = product.description[:DESCRIPTION_MAX_CHARS] if product.description else None
        return cls(product.title, product.brand, description, product.attributes, product.lang)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What is sent to a replica together. Pictures are encoded (JPEG, PNG, WebP) and may be missing."""

    texts: list[TextFields]
    images: list[bytes | None]

    def __len__(self) -> int:
        return len(self.texts)


class Span(NamedTuple):
    """A stretch of a title, characters `start` to `end` (exclusive), that names a value of a group.
    `value` is how the tag is written, `score` from 0 to 1."""

    group: str
    value: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Scores:
    """A replica's answer. `values[i, j]` is the calibrated probability of the taxonomy's j-th value.
    `spans` are what each title was found to name; empty where nothing extracts."""

    model_version: str
    model_generation: int
    values: npt.NDArray[np.float32]  # (events, taxonomy.size)
    image: list[ImageUse]  # per event: used, none, or unusable when the picture does not decode
    spans: Sequence[tuple[Span, ...]] = ()


class Tagger(Protocol):
    """Any thread may call it."""

    def tag(self, batch: MicroBatch) -> Scores:
        """One call a micro-batch.

        Raises:
            Unavailable: the replicas cannot be reached.
            ReplicaDied: the replica that worked on it died, or did not answer in time.
            Overloaded: the replicas refuse more work.
            TaggingFailed: the model raised on it.
        """

    def tag_isolated(self, batch: MicroBatch) -> Scores:
        """The same in a process that serves nobody else, for a batch that replicas died of.

        Raises:
            ReplicaDied: that process died of it, or did not answer in time and was ended.
            Unavailable: there is no such process yet, or it is out of reach.
            TaggingFailed: the model raised on it.
        """

    def taxonomy(self, model_version: str) -> Taxonomy:
        """The taxonomy of this model version: what the columns of its scores mean."""


StoreVerdict = Literal["applied", "same", "stale"]


@dataclass(frozen=True, slots=True)
class Write:
    """One product's new state. `product.revision` is ignored: the store counts. `deleted` drops its tags.
    `revision` is for a store that is refilled: counting goes on from there."""

    product: ProductTags
    source_offset: int
    deleted: bool = False
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The store's verdict on a write, and what the store holds after it (None if `stale`)."""

    verdict: StoreVerdict
    product: ProductTags | None
    deleted: bool = False
    source_offset: int = 0


class TagStore(Protocol):
    """Tags by product and products by tag. Newest version wins. Any thread may call it."""

    def put(self, writes: Sequence[Write]) -> list[Standing]:
        """Compare and write each product atomically; one round trip. A write is

        - `applied` if (event_version, source_offset, model_generation, picture used) is newer;
        - `same` if (event_version, source_offset) is equal and the rest is not newer: it was done before;
        - `stale` if (event_version, source_offset) is older.

        One with a `revision` is applied with the higher of it and the present one.

        Raises:
            StoreNotInitialised: the shard has no layout mark.
            Unavailable: the store does not answer or refuses writes; some may have been applied.
        """

    def get(self, product_ids: Sequence[str]) -> list[Standing | None]:
        """What the store holds of each product (verdict `same`), None where nothing is known."""

    def find(self, group: str, value: str, limit: int) -> list[tuple[str, float]]:
        """Up to `limit` products with this tag and its score, highest score first."""

    def initialise(self) -> None:
        """Write the layout mark of every shard, if missing."""

    def size(self) -> tuple[int, int]:
        """(products with tags, index entries). Raises Unavailable."""

    def close(self) -> None: ...


class Halts(Protocol):
    """The switch that all consumers of an environment obey; it outlives them. Calls raise Unavailable."""

    def halt(self, reason: str) -> None:
        """Stop all consumers. The first reason stays."""

    def halted(self) -> str:
        """Why they are stopped; empty if they are not."""

    def resume(self) -> bool:
        """Let them go on; False if they were not stopped."""


class Models(Protocol):
    """The registry of model versions."""

    def champion(self) -> tuple[str, int]:
        """(model_version, model_generation) that answers now."""

    def taxonomy(self, model_version: str) -> Taxonomy: ...


class Metrics(Protocol):
    """Any thread may call it. Names, kinds and labels: `core.metrics`."""

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None: ...

    def set(self, metric: Metric, value: float, **labels: str) -> None: ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None: ...


class Clock(Protocol):
    def wall_ms(self) -> int:
        """Milliseconds since the epoch."""

    def monotonic_s(self) -> float: ...

    def wait(self, timeout_s: float) -> bool:
        """Wait, or return early with True when the worker is stopping."""


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Where Kafka is, and how to talk to it.

    `client_config` is handed to librdkafka as it is (SASL, TLS, sizes) and wins over our defaults. It holds
    secrets, so it is not printed.
    """

    bootstrap_servers: str
    client_config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def config(self) -> dict[str, Any]:
        """Both together, in librdkafka's names."""
        return {**self.client_config, "bootstrap.servers": self.bootstrap_servers}


@dataclass(frozen=True, slots=True)
class Topics:
    """The names in use, prefix included. They come from `ops/topics.yaml`."""

    events: str
    tags: str
    dead_letters: str
    handled_letters: str


@dataclass(frozen=True, slots=True)
class Ports:
    """The outside of a worker."""

    source: Source
    images: Images
    tagger: Tagger
    store: TagStore
    publisher: Publisher
    halts: Halts
    metrics: Metrics
    clock: Clock
    topics: Topics
    #: of exactly-once delivery: they publish and commit in place of `publisher` and `source`
    transactions: Transactions | None = None
