"""The event topic as a `Source`, over librdkafka."""

from __future__ import annotations

import itertools
import logging
import struct
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import confluent_kafka as ck

from tagstream.adapters.kafka.client import committed_offsets, connect, librdkafka_log, record_of
from tagstream.adapters.kafka.group_protocol import ProtocolListener, consumer_config, for_protocol
from tagstream.core.errors import BadSettings, TagstreamError, TransactionAborted, Unavailable
from tagstream.core.ports import AssignmentListener, KafkaAddress, Record, TopicPartition

log = logging.getLogger(__name__)

#: For a question that `poll` or `lag` asks the broker; a later call asks it again.
_ASK_TIMEOUT_S = 1.0
#: For the start of one partition while others are read; and after how long it becomes an error.
_START_TIMEOUT_S, _START_PATIENCE_S = 0.5, 15.0
#: librdkafka hands over log lines only between two calls of `poll`.
_DETECT_S = 0.01

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
#: librdkafka's serialized group metadata: this, then the generation (or member epoch), then the rest.
_GROUP_METADATA, _GENERATION = b"CGMDv2:", struct.Struct("=i")
_MISSING_TOPIC = {_KAFKA.UNKNOWN_TOPIC_OR_PART, _KAFKA._UNKNOWN_TOPIC, _KAFKA._UNKNOWN_PARTITION}


class KafkaSource:
    """The `Source` of one topic. See `core.ports.Source`."""

    def __init__(
        self,
        kafka: KafkaAddress,
        group: str,
        topic: str,
        *,
        session_timeout_ms: int = 10_000,
        on_offsets_lost: Callable[[int], object] | None = None,
    ) -> None:
        """
        Args:
            kafka: in its settings `auto.offset.reset` (earliest, the default, or latest) says where a new
                group starts; `group.protocol` (consumer or classic) replaces asking what the broker offers.
            session_timeout_ms: how long a consumer may be silent before its partitions go to others. A broker
                with group.protocol=consumer decides that itself (group.consumer.session.timeout.ms).
            on_offsets_lost: called inside `poll` with the number of offsets that retention deleted unread.

        Raises:
            BadSettings: librdkafka refuses the settings.
        """
        reset = str(kafka.client_config.get("auto.offset.reset", "earliest"))
        if reset not in ("earliest", "latest"):
            raise BadSettings(f"the Kafka client setting auto.offset.reset is {reset!r}: earliest or latest")
        self._from_end = reset == "latest"
        self._topic = topic
        self._listener: AssignmentListener | None = None
        self._assigned: dict[TopicPartition, int] = {}
        self._assignments = itertools.count()
        self._committed: dict[TopicPartition, int] = {}
        #: paused until the group's offset is known → assigned since when
        self._without_start: dict[TopicPartition, float] = {}
        self._ask_again_s = 0.0
        #: the group's offset that does not exist, according to the broker
        self._missing_offset: dict[TopicPartition, int] = {}
        self._must_rejoin = False
        self._paused = False
        self._error: TagstreamError | None = None
        self._may_ask = True
        self._is_refused = False
        self._on_offsets_lost = on_offsets_lost
        config = consumer_config(kafka, group, session_timeout_ms)
        self._max_silence_s = int(config.get("max.poll.interval.ms", 300_000)) / 1000
        self._polled_s = time.monotonic()
        self._config = config | {"error_cb": self._on_error, "on_commit": self._on_commit}
        self._protocol = ProtocolListener(forwards_debug="debug" in config)
        self._may_choose = self._is_detecting = "group.protocol" not in config
        #: consumer or classic; a guess until the broker has answered
        self.group_protocol = str(config.get("group.protocol", "classic"))
        self._consumer = self._open()

    def subscribe(self, listener: AssignmentListener) -> None:
        """See the port."""
        self._listener = listener
        if not self._is_detecting:
            self._join()

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """See the port."""
        self._raise_error()
        self._find_a_start()
        records = []
        for message in self._take(max_records, timeout_s):
            error = message.error()
            if error is not None:
                self._handle(error, message)
                continue
            records.append(record_of(message))
        if self._missing_offset:
            for record in records:
                self._missing_offset.pop(record.source, None)
        if self._must_rejoin:
            self._must_rejoin = False
            self._consumer.unsubscribe()
            self._join()
        if not records:
            self._raise_error()
        return records

    def _open(self) -> Any:
        config = for_protocol(self.group_protocol, self._config) | {"logger": librdkafka_log}
        if self._is_detecting:
            debug = [*filter(None, [self._config.get("debug")]), "feature"]
            config |= {"logger": self._protocol, "debug": ",".join(debug)}
        return connect(ck.Consumer, config)

    def _join(self) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _detect_protocol(self, timeout_s: float) -> None:
        """Join the group once the broker has answered: a member cannot change its protocol."""
        deadline_s = time.monotonic() + timeout_s
        while self._protocol.is_offered is None:
            left_s = deadline_s - time.monotonic()
            self._consumer.poll(max(0.0, min(left_s, _DETECT_S)))
            if left_s <= 0:
                return
        self._is_detecting = False
        self._join_with("consumer" if self._protocol.is_offered else "classic")

    def _join_with(self, protocol: str) -> None:
        if protocol != self.group_protocol:
            self._consumer.close()
            self.group_protocol = protocol
            self._consumer = self._open()
        self._join()

    def _take(self, max_records: int, timeout_s: float) -> list[Any]:
        # `consume` alone waits for the last of the records that it may return, not for the first.
        messages: list[Any] = []  # of confluent_kafka.Message, whose stubs allow None where none can be
        try:
            if self._is_detecting and self._listener is not None:
                self._detect_protocol(timeout_s)
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
            self._join_with("classic")
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
        """What a transaction carries so that the group refuses it from a consumer that it has given up.

        Raises TransactionAborted: the group has given up this consumer, which may not have polled since.
        Without this check the broker would take the offsets: metadata without a member fences nothing.
        """
        metadata: bytes = self._consumer.consumer_group_metadata()
        is_member = metadata.startswith(_GROUP_METADATA) and (
            _GENERATION.unpack_from(metadata, len(_GROUP_METADATA))[0] >= 0
        )
        if not is_member or not self._assigned.keys() >= set(partitions):
            raise TransactionAborted(f"the group has moved on: {sorted(partitions)} are no longer held")
        return metadata

    def assignments(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Those of them that are held, as far as the consumer knows → the number of their assignment. Under
        another number somebody else may have held the partition in between."""
        return {
            partition: self._assigned[partition] for partition in partitions if partition in self._assigned
        }

    def pause(self) -> None:
        """See the port."""
        self._paused = True
        self._consumer.pause(_to_kafka(self._assigned))

    def resume(self) -> None:
        """See the port."""
        self._paused = False
        self._consumer.resume(_to_kafka(self._assigned.keys() - self._without_start.keys()))

    def lag(self) -> dict[TopicPartition, int]:
        """See the port. The high watermark is the one that came with the last fetch."""
        self._may_ask = True
        positions = self._consumer.position(_to_kafka(self._assigned))
        return {_from_kafka(part): self._lag_of(part) for part in positions}

    def close(self) -> None:
        self._consumer.close()

    def _lag_of(self, position: ck.TopicPartition) -> int:
        low, high = self._consumer.get_watermark_offsets(position, cached=True)
        if self._paused or high < 0:  # nothing is fetched, so the known one is old
            asked = self._ask(self._consumer.get_watermark_offsets, position)
            # The embedded broker answers too low, so the fetched one may be the newer.
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
        """The broker's answer, or None. After its first silence this `lag` asks no more: one timeout a
        partition would keep the thread from polling."""
        if self._may_ask:
            try:
                return question(about, timeout=_ASK_TIMEOUT_S)
            except ck.KafkaException as error:
                self._may_ask = False
                log.info("the lag is a guess, the broker does not answer: %s", error)
        return None

    def _on_assign(self, _: Any, partitions: list[ck.TopicPartition]) -> None:
        """Begin at the group's offset. librdkafka would ask for it by itself. But if a transaction is open
        and partitions change before it asks again, it begins where a new group would."""
        assigned, committed, begin = [_from_kafka(part) for part in partitions], {}, {}
        try:
            committed = committed_offsets(self._consumer, assigned, _ASK_TIMEOUT_S)
        except Unavailable as error:
            log.info("the group's offsets will be asked for again: %s", error)
        try:
            for partition in assigned:
                begin[partition] = self._first_offset(partition, committed.get(partition))
        except ck.KafkaException as error:
            log.info("the ends of the partitions will be asked for again: %s", error)
        self._consumer.incremental_assign([ck.TopicPartition(*part, begin.get(part, 0)) for part in assigned])
        # librdkafka remembers a pause over the loss of a partition.
        (self._consumer.pause if self._paused else self._consumer.resume)(partitions)
        without_start = [part for part in assigned if part not in committed or part not in begin]
        self._consumer.pause([ck.TopicPartition(*part) for part in without_start])
        self._without_start |= dict.fromkeys(without_start, time.monotonic())
        self._assigned |= dict.fromkeys(assigned, next(self._assignments))
        if self._listener is not None:
            self._listener.on_assigned(assigned)

    def _first_offset(self, partition: TopicPartition, committed: int | None) -> int:
        """Where to begin, given the group's offset: the first one if that is unknown. Counts what retention
        took. Raises KafkaException."""
        part = ck.TopicPartition(*partition)
        low, high = self._consumer.get_watermark_offsets(part, timeout=_ASK_TIMEOUT_S)
        if committed is None:
            return int(low)
        if committed < 0:
            if not self._from_end:
                return int(low)
            part.offset = high  # otherwise its next owner begins at a later end
            self._consumer.commit(offsets=[part], asynchronous=True)
            return int(high)
        if low <= committed != self._missing_offset.get(partition):
            return committed
        log.error("%s: offset %s is gone, going on from %s", partition, committed, low)
        if low > committed and self._on_offsets_lost is not None:
            self._on_offsets_lost(low - committed)
        return int(low)

    def _on_revoke(self, _: Any, partitions: list[ck.TopicPartition]) -> None:
        if time.monotonic() - self._polled_s > self._max_silence_s:
            # Announced long ago and noticed only now: the group has given them away in the meantime.
            self._on_lost(_, partitions)
            return
        # Still held while the listener runs: its last transaction is for them.
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
            self._without_start.pop(partition, None)
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
        """librdkafka goes on trying; the next `poll` raises once, and the worker is not ready then."""
        if error.code() == _KAFKA.UNSUPPORTED_VERSION and self._may_choose:
            self._is_refused = True  # the broker knows the newer group protocol and has it switched off
        elif error.fatal():
            self._error = TagstreamError(f"the Kafka consumer cannot go on: {error}")
        elif error.code() == _KAFKA._ALL_BROKERS_DOWN:
            self._error = Unavailable(f"no broker answers: {error}")
        else:
            log.debug("the Kafka client reports: %s", error)

    def _handle(self, error: ck.KafkaError, message: ck.Message) -> None:
        """An error in place of a record. It is raised only after the records taken with it are returned."""
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
        """The next offset does not exist: retention was faster, or the topic is new. Only an assignment can
        give another. Between two rebalances, librdkafka would take it for the answer to one that it has not
        announced yet, and the group would take it for the hand-over."""
        partition = TopicPartition(str(message.topic()), message.partition() or 0)
        if partition in self._assigned:
            self._missing_offset[partition] = message.offset() or 0
            self._must_rejoin = True

    def _find_a_start(self) -> None:
        """Ask for the group's offset in one of the partitions that wait for it, in turns: an open transaction
        delays the answer, and the other partitions must not wait for that."""
        if not self._without_start or time.monotonic() < self._ask_again_s:
            return
        partition, since_s = next(iter(self._without_start.items()))
        del self._without_start[partition]
        try:
            committed = committed_offsets(self._consumer, [partition], _START_TIMEOUT_S)[partition]
            self._consumer.seek(ck.TopicPartition(*partition, self._first_offset(partition, committed)))
        except (Unavailable, ck.KafkaException) as error:
            self._without_start[partition] = since_s
            self._ask_again_s = time.monotonic() + _START_TIMEOUT_S
            if time.monotonic() - since_s > _START_PATIENCE_S:
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
