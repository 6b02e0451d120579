"""A consumer's settings, and which of Kafka's two group protocols it uses."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tagstream.adapters.kafka.client import MIB, RECORD_MAX_BYTES, librdkafka_log
from tagstream.core.errors import BadSettings
from tagstream.core.ports import KafkaAddress

#: In the newer protocol (KIP-848) the broker decides these, and librdkafka refuses them.
_DECIDED_BY_BROKER = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy")


class ProtocolListener:
    """A consumer's logger that finds out whether the broker offers group.protocol=consumer. librdkafka
    reports it only in a debug line at each connection, and asks a broker without it again and again."""

    def __init__(self, forwards_debug: bool) -> None:
        self.is_offered: bool | None = None
        self._forwards_debug = forwards_debug

    def log(self, level: int, form: str, *words: str) -> None:
        """Called by librdkafka for each line."""
        text = words[-1]
        if "ConsumerGroupHeartbeat" in text and "supported by broker" in text:
            self.is_offered = "NOT supported" not in text
        if level > logging.DEBUG or self._forwards_debug:
            librdkafka_log.log(level, form, *words)


def consumer_config(kafka: KafkaAddress, group: str, session_timeout_ms: int) -> dict[str, Any]:
    """Of a member of the group; the address' own settings win. Raises BadSettings."""
    config: dict[str, Any] = {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "session.timeout.ms": session_timeout_ms,
        "heartbeat.interval.ms": max(100, min(3000, session_timeout_ms // 3)),
        "partition.assignment.strategy": "cooperative-sticky",
        # Prefetched, over all partitions. Pictures: the default of 64 MiB would be the largest thing here.
        "queued.max.messages.kbytes": 16_384,
        # The default of 1 s shows as hiccups when the queue is this small.
        "fetch.queue.backoff.ms": 20,
        "fetch.wait.max.ms": 100,
        "fetch.message.max.bytes": RECORD_MAX_BYTES + MIB,
        "fetch.max.bytes": RECORD_MAX_BYTES + MIB,
        "receive.message.max.bytes": 2 * RECORD_MAX_BYTES,
        "socket.keepalive.enable": True,
        **kafka.config,
        # Ours to handle: librdkafka would reset silently, and what retention took could not be counted.
        "auto.offset.reset": "error",
    }
    asked_for = config.get("group.protocol", "")
    if asked_for != "consumer" and config["partition.assignment.strategy"] != "cooperative-sticky":
        raise BadSettings("the Kafka client setting partition.assignment.strategy must be cooperative-sticky")
    return config


def for_protocol(protocol: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` for this group protocol, `consumer` or `classic`."""
    unwanted = _DECIDED_BY_BROKER if protocol == "consumer" else ()
    return {key: value for key, value in config.items() if key not in unwanted} | {"group.protocol": protocol}
