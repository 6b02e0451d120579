"""What the broker lets us do, asked without doing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import confluent_kafka as ck
import confluent_kafka.admin

from tagstream.core.errors import Unavailable

_ADMIN: Any = confluent_kafka.admin


def missing_rights(
    bootstrap_servers: str,
    *,
    read: Sequence[str],
    write: Sequence[str],
    client_config: Mapping[str, Any] | None = None,
    timeout_s: float = 10.0,
) -> list[str]:
    """A sentence for each right on a topic that the ACLs withhold. A broker without ACLs withholds none.

    Raises:
        Unavailable: the broker does not answer.
    """
    admin = _ADMIN.AdminClient(
        {"bootstrap.servers": bootstrap_servers, "log_level": 0, **(client_config or {})}
    )
    wanted = dict.fromkeys(read, "READ") | dict.fromkeys(write, "WRITE")
    futures = admin.describe_topics(
        ck.TopicCollection(list(wanted)), include_authorized_operations=True, request_timeout=timeout_s
    )
    missing = []
    for topic, future in futures.items():
        try:
            allowed = future.result().authorized_operations
        except ck.KafkaException as error:
            if error.args[0].code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue  # told as a missing topic
            if error.args[0].code() == ck.KafkaError.TOPIC_AUTHORIZATION_FAILED:
                allowed = []
            else:
                raise Unavailable(f"the broker does not answer: {error.args[0].str()}") from error
        if allowed is not None and wanted[topic] not in {operation.name for operation in allowed}:
            missing.append(f"ACL {wanted[topic]} on topic {topic} is missing: grant it to this user.")
    return missing
