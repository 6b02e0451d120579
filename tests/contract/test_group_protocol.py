"""A source speaks the group protocol that its broker offers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import uuid4

import pytest

from tagstream.adapters.kafka import topics
from tagstream.adapters.kafka.source import KafkaSource
from tagstream.core.ports import KafkaAddress, TopicPartition


class Listener:
    def __init__(self) -> None:
        self.assigned: list[TopicPartition] = []

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned += partitions

    def on_committed(self, next_offsets: object) -> None: ...

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None: ...

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None: ...


def joined(address: str, client_config: dict[str, str] | None = None) -> str:
    """The protocol in which a consumer joined a new group."""
    name = uuid4().hex
    topics.TopicAdmin(KafkaAddress(address)).create([topics.TopicPlan(name, 1)])
    source, listener = (
        KafkaSource(KafkaAddress(address, client_config or {}), name, name, session_timeout_ms=6000),
        Listener(),
    )
    source.subscribe(listener)
    deadline_s = time.monotonic() + 30
    while not listener.assigned:
        assert time.monotonic() < deadline_s, "it never joined"
        source.poll(1, 0.1)
    source.close()
    return source.group_protocol


def test_the_newer_protocol_is_spoken_where_the_broker_offers_it(request: pytest.FixtureRequest) -> None:
    assert joined(request.getfixturevalue("apache_kafka").address) == "consumer"


def test_the_settings_have_the_last_word(request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue("apache_kafka").address
    assert joined(address, {"group.protocol": "classic"}) == "classic"
    assert joined(address, {"group.protocol": "consumer"}) == "consumer"


def test_cooperative_sticky_is_spoken_elsewhere(broker: str, request: pytest.FixtureRequest) -> None:
    assert joined(broker) == "classic"
    assert joined(broker, {"group.protocol": "classic"}) == "classic"
