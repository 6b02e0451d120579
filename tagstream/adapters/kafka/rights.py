"""What the broker's ACLs allow us, asked without doing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import confluent_kafka as ck

from tagstream.adapters.kafka.client import ck_admin, connect
from tagstream.core.errors import Unavailable
from tagstream.core.ports import KafkaAddress


def missing_rights(
    kafka: KafkaAddress,
    *,
    read: Sequence[str],
    write: Sequence[str],
    group: str,
    transactional_id: str = "",
    timeout_s: float = 10.0,
) -> list[str]:
    """A sentence for each right that the ACLs withhold. A broker without ACLs withholds none.

    `read`, `write`: topics. `transactional_id`: what the ids of exactly-once delivery begin with; empty: not
    needed. Raises Unavailable.
    """
    settings = {"log_level": 0, **kafka.config}
    admin = connect(ck_admin.AdminClient, settings)
    missing = _on_topics(admin, read, write, timeout_s)
    if not _may_read(admin, group, timeout_s):
        missing.append(f"ACL READ on group {group} is missing: grant it to this user.")
    if transactional_id and not _may_write(settings, transactional_id, timeout_s):
        missing.append(
            f"ACL WRITE on transactional ids that begin with {transactional_id}- is missing: grant it to "
            "this user, or choose at_least_once."
        )
    return missing


def _on_topics(admin: Any, read: Sequence[str], write: Sequence[str], timeout_s: float) -> list[str]:
    topics = ck.TopicCollection(list(dict.fromkeys([*read, *write])))
    futures = admin.describe_topics(topics, include_authorized_operations=True, request_timeout=timeout_s)
    missing = []
    for topic, future in futures.items():
        try:
            allowed = future.result().authorized_operations
        except ck.KafkaException as error:
            if error.args[0].code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue  # `tagstream check` reports it as a missing topic
            if error.args[0].code() == ck.KafkaError.TOPIC_AUTHORIZATION_FAILED:
                allowed = []
            else:
                raise Unavailable(f"the broker does not answer: {error.args[0].str()}") from error
        if allowed is None:
            continue
        wanted = ["READ"] * (topic in read) + ["WRITE"] * (topic in write)
        granted = {operation.name for operation in allowed}
        missing += [
            f"ACL {right} on topic {topic} is missing: grant it to this user."
            for right in wanted
            if right not in granted
        ]
    return missing


def _may_read(admin: Any, group: str, timeout_s: float) -> bool:
    """A group that does not exist yet lists no operations, so only a clear refusal counts."""
    [future] = admin.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=timeout_s
    ).values()
    try:
        allowed = future.result().authorized_operations
    except ck.KafkaException as error:
        return bool(error.args[0].code() != ck.KafkaError.GROUP_AUTHORIZATION_FAILED)
    return not allowed or "READ" in {operation.name for operation in allowed}


def _may_write(settings: Mapping[str, Any], transactional_id: str, timeout_s: float) -> bool:
    """Takes such an id, and does nothing with it."""
    producer = connect(
        ck.Producer, {**settings, "transactional.id": f"{transactional_id}-check-{uuid4().hex}"}
    )
    try:
        producer.init_transactions(timeout_s)
    except ck.KafkaException as error:
        if error.args[0].code() == ck.KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return False
        raise Unavailable(f"the broker grants no transactions: {error.args[0].str()}") from error
    return True
