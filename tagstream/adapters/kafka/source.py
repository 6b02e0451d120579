"""The event topic as a `Source`, over librdkafka."""

from __future__ import annotations

import itertools
import logging
import struct
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import confluent_kafka as ck

from tagstream.adapters.kafka.client import (
    MIB,
    RECORD_MAX_BYTES,
    committed_offsets,
    connect,
    librdkafka_log,
    record_of,
)
from tagstream.core.errors import BadSettings, TagstreamError, TransactionAborted, Unavailable
from tagstream.core.ports import AssignmentListener, Record, TopicPartition

log = logging.getLogger(__name__)


class _ProtocolEar:
    """A consumer's logger that hears whether the broker offers group.protocol=consumer. librdkafka says so
    in one place only, a debug line at each connection; it asks a broker without it again for ever."""

    def __init__(self, forwards_debug: bool) -> None:
        self.is_offered: bool | None = None
        self._forwards_debug = forwards_debug

    def log(self, level: int, form: str, *words: str) -> None:
        text = words[-1]
        if "ConsumerGroupHeartbeat" in text and "supported by broker" in text:
            self.is_offered = "NOT supported" not in text
        if level > logging.DEBUG or self._forwards_debug:
            librdkafka_log.log(level, form, *words)


#: Of a question that `poll` or `lag` puts to the broker; it is put again.
_ASK_TIMEOUT_S = 1.0
#: Of the same about one partition, while others are read; and when it is told.
_PLACE_TIMEOUT_S, _PLACE_PATIENCE_S = 0.5, 15.0
#: Log lines are heard between two calls of librdkafka's `poll` only.
_FIND_OUT_S = 0.01

_KAFKA = ck.KafkaError
#: The group has moved on: the offsets belong to the next owner, who reads from the last commit.
_GROUP_MOVED_ON = {
    _KAFKA.ILLEGAL_GENERATION,
    _KAFKA.UNKNOWN_MEMBER_ID,
    _KAFKA.REBALANCE_IN_PROGRESS,
    _KAFKA.STALE_MEMBER_EPOCH,
    _KAFKA.FENCED_MEMBER_EPOCH,
    _KAFKA._ASSIGNMENT_LOST,
}
_FOR_THE_BROKER_TO_SAY = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")
#: librdkafka's serialized group metadata: this, then the generation (or member epoch), then the rest.
_GROUP_METADATA, _GENERATION = b"CGMDv2:", struct.Struct("=i")
_MISSING_TOPIC = {_KAFKA.UNKNOWN_TOPIC_OR_PART, _KAFKA._UNKNOWN_TOPIC, _KAFKA._UNKNOWN_PARTITION}


def _consumer_config(
    bootstrap_servers: str,
    group: str,
    session_timeout_ms: int,
    queued_max_kbytes: int,
    client_config: Mapping[str, Any],
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "session.timeout.ms": session_timeout_ms,
        "heartbeat.interval.ms": max(100, min(3000, session_timeout_ms // 3)),
        "partition.assignment.strategy": "cooperative-sticky",
        # Pictures: the default of 64 MiB a partition queue would be the largest thing in the process.
        "queued.max.messages.kbytes": queued_max_kbytes,
        # The default of 1 s shows as hiccups when the queue is this small.
        "fetch.queue.backoff.ms": 20,
        "fetch.wait.max.ms": 100,
        "fetch.message.max.bytes": RECORD_MAX_BYTES + MIB,
        "fetch.max.bytes": RECORD_MAX_BYTES + MIB,
        "receive.message.max.bytes": 2 * RECORD_MAX_BYTES,
        "socket.keepalive.enable": True,
        **client_config,
        # Ours to handle: librdkafka would reset silently, and what retention took could not be counted.
        "auto.offset.reset": "error",
    }
    asked_for = config.get("group.protocol", "")
    if asked_for != "consumer" and config["partition.assignment.strategy"] != "cooperative-sticky":
        raise BadSettings("the Kafka client setting partition.assignment.strategy must be cooperative-sticky")
    return config


def _speaking(protocol: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` for this group protocol. In the newer one (KIP-848) the broker decides about sessions and
    assignment, and librdkafka refuses to be told."""
    unsaid = _FOR_THE_BROKER_TO_SAY if protocol == "consumer" else ()
    return {key: value for key, value in config.items() if key not in unsaid} | {"group.protocol": protocol}


class KafkaSource:
    """The `Source` of one topic. See `core.ports.Source`."""

    def __init__(
        self,
        bootstrap_servers: str,
        group: str,
        topic: str,
        *,
        session_timeout_ms: int = 10_000,
        queued_max_kbytes: int = 16_384,
        client_config: Mapping[str, Any] | None = None,
        on_offsets_lost: Callable[[int], object] | None = None,
    ) -> None:
        """
        Args:
            session_timeout_ms: how long a consumer may be silent before its partitions go to others. A broker
                with group.protocol=consumer decides that itself (group.consumer.session.timeout.ms).
            queued_max_kbytes: prefetched records kept in memory, over all partitions, in KiB.
            client_config: handed to librdkafka as it is (security, sizes); wins over our defaults.
                `auto.offset.reset` (earliest, the default, or latest) says where a new group starts,
                `group.protocol` (consumer or classic) keeps us from finding out what the broker offers.
            on_offsets_lost: told, from inside `poll`, how many offsets retention deleted unread.

        Raises:
            BadSettings: librdkafka refuses the settings.
        """
        overrides = dict(client_config or {})
        reset = str(overrides.pop("auto.offset.reset", "earliest"))
        if reset not in ("earliest", "latest"):
            raise BadSettings(f"the Kafka client setting auto.offset.reset is {reset!r}: earliest or latest")
        self._from_end = reset == "latest"
        self._topic = topic
        self._listener: AssignmentListener | None = None
        self._assigned: dict[TopicPartition, int] = {}
        self._assignments = itertools.count()
        self._committed: dict[TopicPartition, int] = {}
        #: assigned since when, and held back until the group has said where it stands
        self._unplaced: dict[TopicPartition, float] = {}
        self._ask_again_s = 0.0
        #: where the group stood when the broker said that this offset does not exist
        self._gone: dict[TopicPartition, int] = {}
        self._must_rejoin = False
        self._paused = False
        self._error: TagstreamError | None = None
        self._may_ask = True
        self._is_refused = False
        self._on_offsets_lost = on_offsets_lost
        config = _consumer_config(bootstrap_servers, group, session_timeout_ms, queued_max_kbytes, overrides)
        self._max_silence_s = int(config.get("max.poll.interval.ms", 300_000)) / 1000
        self._polled_s = time.monotonic()
        self._config = config | {"error_cb": self._on_error, "on_commit": self._on_commit}
        self._ear = _ProtocolEar(forwards_debug="debug" in config)
        self._may_choose = self._finds_out = "group.protocol" not in config
        #: consumer or classic; until the broker was heard a guess
        self.group_protocol = str(config.get("group.protocol", "classic"))
        self._consumer = self._open()

    def subscribe(self, listener: AssignmentListener) -> None:
        self._listener = listener
        if not self._finds_out:
            self._join()

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        self._raise_error()
        self._place()
        records = []
        for message in self._take(max_records, timeout_s):
            error = message.error()
            if error is not None:
                self._handle(error, message)
                continue
            records.append(record_of(message))
        if self._gone:
            for record in records:
                self._gone.pop(record.source, None)
        if self._must_rejoin:
            self._must_rejoin = False
            self._consumer.unsubscribe()
            self._join()
        if not records:
            self._raise_error()
        return records

    def _open(self) -> Any:
        config = _speaking(self.group_protocol, self._config) | {"logger": librdkafka_log}
        if self._finds_out:
            debug = [*filter(None, [self._config.get("debug")]), "feature"]
            config |= {"logger": self._ear, "debug": ",".join(debug)}
        return connect(ck.Consumer, config)

    def _join(self) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _find_out(self, timeout_s: float) -> None:
        """Join the group once the broker was heard: a member of the one protocol cannot turn to the other."""
        deadline_s = time.monotonic() + timeout_s
        while self._ear.is_offered is None:
            left_s = deadline_s - time.monotonic()
            self._consumer.poll(max(0.0, min(left_s, _FIND_OUT_S)))
            if left_s <= 0:
                return
        self._finds_out = False
        self._speak("consumer" if self._ear.is_offered else "classic")

    def _speak(self, protocol: str) -> None:
        if protocol != self.group_protocol:
            self._consumer.close()
            self.group_protocol = protocol
            self._consumer = self._open()
        self._join()

    def _take(self, max_records: int, timeout_s: float) -> list[Any]:
        # `consume` alone waits for the last record that it was asked for, not for the first.
        messages: list[Any] = []  # of confluent_kafka.Message, whose stubs doubt what consumed ones have
        try:
            if self._finds_out and self._listener is not None:
                self._find_out(timeout_s)
                return []
            first = self._consumer.poll(timeout_s)
            if first is not None:
                messages.append(first)
                messages += self._consumer.consume(max_records - 1, 0) if max_records > 1 else []
        except ck.KafkaException as error:
            self._on_error(error.args[0])
            self._error = self._error or Unavailable(f"the broker reports: {error.args[0]}")
        if self._is_refused:
            self._is_refused = self._may_choose = False
            self._speak("classic")
        self._polled_s = time.monotonic()
        return messages

    def commit(self, next_offsets: Mapping[TopicPartition, int], *, wait: bool) -> None:
        """Raises Unavailable; without `wait` the next `poll` raises it. A rebalance is not an error."""
        if not next_offsets:
            return
        offsets = [ck.TopicPartition(*partition, offset) for partition, offset in next_offsets.items()]
        try:
            answer = self._consumer.commit(offsets=offsets, asynchronous=not wait)
        except ck.KafkaException as error:
            self._on_commit(error.args[0], offsets)
        else:
            refused = [part.error for part in answer or () if part.error is not None]
            for reason in refused:
                self._on_commit(reason, offsets)
            if wait and not refused:
                self._on_commit(None, offsets)
        if wait:
            self._raise_error()

    def group_metadata(self, partitions: Collection[TopicPartition]) -> bytes:
        """What a transaction names so that the group refuses it from a consumer that it has given up.

        Raises TransactionAborted: it has given up this one, which need not have polled since. The broker
        would take the offsets: metadata without a member fences nothing.
        """
        metadata: bytes = self._consumer.consumer_group_metadata()
        is_member = metadata.startswith(_GROUP_METADATA) and (
            _GENERATION.unpack_from(metadata, len(_GROUP_METADATA))[0] >= 0
        )
        if not is_member or not self._assigned.keys() >= set(partitions):
            raise TransactionAborted(f"the group has moved on: {sorted(partitions)} are no longer held")
        return metadata

    def assignments(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Those of them that are held, as far as the consumer has heard. Another number is another
        assignment: somebody else may have held them in between."""
        return {
            partition: self._assigned[partition] for partition in partitions if partition in self._assigned
        }

    def pause(self) -> None:
        self._paused = True
        self._consumer.pause(_to_kafka(self._assigned))

    def resume(self) -> None:
        self._paused = False
        self._consumer.resume(_to_kafka(self._assigned.keys() - self._unplaced.keys()))

    def lag(self) -> dict[TopicPartition, int]:
        """See the port. The high watermark is the one that came with the last fetch."""
        self._may_ask = True
        positions = self._consumer.position(_to_kafka(self._assigned))
        return {_from_kafka(part): self._lag_of(part) for part in positions}

    def close(self) -> None:
        self._consumer.close()

    def _lag_of(self, position: ck.TopicPartition) -> int:
        low, high = self._consumer.get_watermark_offsets(position, cached=True)
        if self._paused or high < 0:  # nothing is fetched, so nothing tells us
            asked = self._ask(self._consumer.get_watermark_offsets, position)
            # The embedded broker answers too little, so that the fetched one may be the newer.
            low, high = (low, high) if asked is None else (asked[0], max(high, asked[1]))
        next_offset = position.offset if position.offset >= 0 else self._committed_offset(position)
        lag: int = high - max(next_offset, low, 0)
        return max(0, lag)

    def _committed_offset(self, position: ck.TopicPartition) -> int:
        partition = _from_kafka(position)
        if partition not in self._committed:
            answer = self._ask(self._consumer.committed, [ck.TopicPartition(*partition)])
            if answer is None:
                return 0
            self._committed[partition] = answer[0].offset
        return self._committed[partition]

    def _ask(self, question: Callable[..., Any], about: Any) -> Any:
        """The broker's answer, or None. After the first silence of this `lag` it is not asked again: one
        timeout a partition would keep the thread from polling."""
        if self._may_ask:
            try:
                return question(about, timeout=_ASK_TIMEOUT_S)
            except ck.KafkaException as error:
                self._may_ask = False
                log.info("the lag is a guess, the broker does not answer: %s", error)
        return None

    def _on_assign(self, _: Any, partitions: list[ck.TopicPartition]) -> None:
        """Begin where the group stands. librdkafka, left to itself, begins where a new group would, if it is
        told that a transaction is open and partitions change before it has asked again."""
        assigned, stand, begin = [_from_kafka(part) for part in partitions], {}, {}
        try:
            stand = committed_offsets(self._consumer, assigned, _ASK_TIMEOUT_S)
        except Unavailable as error:
            log.info("it is asked again where to begin: %s", error)
        try:
            for partition in assigned:
                begin[partition] = self._first_of(partition, stand.get(partition))
        except ck.KafkaException as error:
            log.info("it is asked again what is left of the partitions: %s", error)
        self._consumer.incremental_assign([ck.TopicPartition(*part, begin.get(part, 0)) for part in assigned])
        # librdkafka remembers a pause over the loss of a partition.
        (self._consumer.pause if self._paused else self._consumer.resume)(partitions)
        unplaced = [part for part in assigned if part not in stand or part not in begin]
        self._consumer.pause([ck.TopicPartition(*part) for part in unplaced])
        self._unplaced |= dict.fromkeys(unplaced, time.monotonic())
        self._assigned |= dict.fromkeys(assigned, next(self._assignments))
        if self._listener is not None:
            self._listener.on_assigned(assigned)

    def _first_of(self, partition: TopicPartition, stands_at: int | None) -> int:
        """Where to begin in a partition where the group stands there, the first offset if that is not known.
        What retention took is counted. Raises KafkaException."""
        part = ck.TopicPartition(*partition)
        low, high = self._consumer.get_watermark_offsets(part, timeout=_ASK_TIMEOUT_S)
        if stands_at is None:
            return int(low)
        if stands_at < 0:
            if not self._from_end:
                return int(low)
            part.offset = high  # else its next owner begins at a later end
            self._consumer.commit(offsets=[part], asynchronous=True)
            return int(high)
        if low <= stands_at != self._gone.get(partition):
            return stands_at
        log.error("%s: offset %s is gone, going on from %s", partition, stands_at, low)
        if low > stands_at and self._on_offsets_lost is not None:
            self._on_offsets_lost(low - stands_at)
        return int(low)

    def _on_revoke(self, _: Any, partitions: list[ck.TopicPartition]) -> None:
        if time.monotonic() - self._polled_s > self._max_silence_s:
            # Announced long ago, heard only now: the group has meanwhile given them away.
            self._on_lost(_, partitions)
            return
        # Held until the listener returns: its last transaction is for them.
        if self._listener is not None:
            self._listener.on_revoked([_from_kafka(part) for part in partitions])
        self._take_away(partitions)

    def _on_lost(self, _: Any, partitions: list[ck.TopicPartition]) -> None:
        lost = self._take_away(partitions)
        if self._listener is not None:
            self._listener.on_lost(lost)

    def _take_away(self, partitions: list[ck.TopicPartition]) -> list[TopicPartition]:
        gone = [_from_kafka(part) for part in partitions]
        for partition in gone:
            self._assigned.pop(partition, None)
            self._unplaced.pop(partition, None)
            self._committed.pop(partition, None)
        return gone

    def _on_commit(self, error: ck.KafkaError | None, offsets: list[ck.TopicPartition]) -> None:
        if error is None:
            taken = {_from_kafka(part): part.offset for part in offsets if part.error is None}
            if len(taken) < len(offsets):
                log.info("offsets not committed: %s", [part for part in offsets if part.error is not None])
            if self._listener is not None:
                self._listener.on_committed(taken)
            return
        if error.code() == _KAFKA._NO_OFFSET:
            return
        if error.code() in _GROUP_MOVED_ON:
            log.info("offsets not committed, the group has moved on: %s", error)
            return
        self._error = Unavailable(f"the broker did not take the offsets {offsets}: {error}")

    def _on_error(self, error: ck.KafkaError) -> None:
        """librdkafka goes on trying; the worker is told once, so that it reports itself as not ready."""
        if error.code() == _KAFKA.UNSUPPORTED_VERSION and self._may_choose:
            self._is_refused = True  # the broker has the newer group protocol, and it is switched off
        elif error.fatal():
            self._error = TagstreamError(f"the Kafka consumer cannot go on: {error}")
        elif error.code() == _KAFKA._ALL_BROKERS_DOWN:
            self._error = Unavailable(f"no broker answers: {error}")
        else:
            log.debug("the Kafka client reports: %s", error)

    def _handle(self, error: ck.KafkaError, message: ck.Message) -> None:
        """An error that came in a record's place. It waits for records taken with it to be returned."""
        if error.code() == _KAFKA._AUTO_OFFSET_RESET:
            self._start_over(message)
        elif error.code() == _KAFKA._MAX_POLL_EXCEEDED:
            log.error("the consumer was too slow to poll and left its group: %s", error)
        elif error.code() in _MISSING_TOPIC:
            self._error = Unavailable(
                f"the topic {self._topic} is not there, run `tagstream topics create`: {error}"
            )
        elif error.code() != _KAFKA._PARTITION_EOF:
            self._on_error(error)
            self._error = self._error or Unavailable(f"the broker reports: {error}")

    def _start_over(self, message: ck.Message) -> None:
        """The next offset does not exist: retention was faster, or the topic is new. Only a partition that is
        being assigned can be given another: between two rebalances, librdkafka would take that for the answer
        to one that it has not announced yet, and the group for the hand-over."""
        partition = TopicPartition(str(message.topic()), message.partition() or 0)
        if partition in self._assigned:
            self._gone[partition] = message.offset() or 0
            self._must_rejoin = True

    def _place(self) -> None:
        """Ask where the group stands in one of the partitions that wait for it, in turns: a transaction that
        is open holds the answer back, and the others are not to wait for that."""
        if not self._unplaced or time.monotonic() < self._ask_again_s:
            return
        partition, since_s = next(iter(self._unplaced.items()))
        del self._unplaced[partition]
        try:
            stand = committed_offsets(self._consumer, [partition], _PLACE_TIMEOUT_S)
            self._consumer.seek(ck.TopicPartition(*partition, self._first_of(partition, stand[partition])))
        except (Unavailable, ck.KafkaException) as error:
            self._unplaced[partition] = since_s
            self._ask_again_s = time.monotonic() + _PLACE_TIMEOUT_S
            if time.monotonic() - since_s > _PLACE_PATIENCE_S:
                self._error = Unavailable(f"it is not known where to begin in {partition}: {error}")
        else:
            if not self._paused:
                self._consumer.resume([ck.TopicPartition(*partition)])

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def _to_kafka(partitions: Iterable[TopicPartition]) -> list[ck.TopicPartition]:
    return [ck.TopicPartition(*partition) for partition in sorted(partitions)]


def _from_kafka(partition: ck.TopicPartition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)
