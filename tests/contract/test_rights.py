"""What a broker with ACLs withholds is told in a sentence each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka.admin
import pytest

from tagstream.adapters.kafka.rights import missing_rights
from tagstream.adapters.kafka.topics import TopicAdmin, TopicPlan
from tagstream.adapters.local.apache import ApacheBroker
from tagstream.core.ports import KafkaAddress

ADMIN: Any = confluent_kafka.admin
#: Whoever has no name may do everything that nobody else was given.
WITH_ACLS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture(scope="module")
def guarded(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ApacheBroker(tmp_path_factory.mktemp("guarded"), home=kafka_home, properties=WITH_ACLS) as broker:
        TopicAdmin(KafkaAddress(broker.address)).create(
            [TopicPlan(name, 1) for name in ("events", "tags", "ours")]
        )
        admin = ADMIN.AdminClient({"bootstrap.servers": broker.address})
        given_away = [
            ("TOPIC", "ours", "ALL"),
            ("GROUP", "theirs", "ALL"),
            ("TRANSACTIONAL_ID", "theirs", "ALL"),
        ]
        acls = [
            ADMIN.AclBinding(
                ADMIN.ResourceType[kind],
                name,
                ADMIN.ResourcePatternType.PREFIXED,
                "User:somebody-else",
                "*",
                ADMIN.AclOperation[operation],
                ADMIN.AclPermissionType.ALLOW,
            )
            for kind, name, operation in given_away
        ]
        for future in admin.create_acls(acls).values():
            future.result(30)
        wait_for(admin, acls)
        yield broker.address


def wait_for(admin: Any, acls: list[Any]) -> None:
    """The controller has them first, the broker that is asked a moment later."""
    every = ADMIN.AclBindingFilter(
        ADMIN.ResourceType.ANY,
        None,
        ADMIN.ResourcePatternType.ANY,
        None,
        None,
        ADMIN.AclOperation.ANY,
        ADMIN.AclPermissionType.ANY,
    )
    deadline_s = time.monotonic() + 30
    while len(admin.describe_acls(every).result(30)) < len(acls):
        assert time.monotonic() < deadline_s, "the broker does not hear of its ACLs"


def test_a_user_who_has_every_right_misses_none(guarded: str) -> None:
    found = missing_rights(
        KafkaAddress(guarded), read=["events"], write=["tags"], group="mine", transactional_id="mine"
    )
    assert found == []


def test_a_right_on_a_topic_that_is_withheld_is_named(guarded: str) -> None:
    assert missing_rights(KafkaAddress(guarded), read=["ours"], write=["tags"], group="mine") == [
        "ACL READ on topic ours is missing: grant it to this user."
    ]


def test_a_topic_may_have_to_be_read_and_written(guarded: str) -> None:
    found = missing_rights(KafkaAddress(guarded), read=["events", "ours"], write=["ours"], group="mine")
    assert [sentence.split(" is missing")[0] for sentence in found] == [
        "ACL READ on topic ours",
        "ACL WRITE on topic ours",
    ]


def test_the_group_and_the_transactional_id_are_checked_as_exactly_once_needs_them(guarded: str) -> None:
    found = missing_rights(
        KafkaAddress(guarded), read=["events"], write=["tags"], group="theirs", transactional_id="theirs"
    )
    assert [sentence.split(" is missing")[0] for sentence in found] == [
        "ACL READ on group theirs",
        "ACL WRITE on transactional ids that begin with theirs-",
    ]


def test_at_least_once_needs_no_transactional_id(guarded: str) -> None:
    [sentence] = missing_rights(KafkaAddress(guarded), read=["events"], write=["tags"], group="theirs")
    assert "group theirs" in sentence


def test_a_broker_without_acls_withholds_nothing(broker: str) -> None:
    assert missing_rights(KafkaAddress(broker), read=[], write=[], group="any") == []
