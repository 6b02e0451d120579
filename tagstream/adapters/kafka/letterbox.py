"""What an operator does to the topic of dead letters: send records to a partition, delete a prefix."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import confluent_kafka as ck
import confluent_kafka.admin

from tagstream.adapters.kafka.client import connect, served
from tagstream.adapters.kafka.publisher import BY_KEY, produce, producer_config
from tagstream.core.errors import Unavailable
from tagstream.core.ports import OutRecord

#: Its stubs do not export what it exports.
_admin: Any = confluent_kafka.admin


class Letterbox:
    """Connects when constructed; for one thread. Every call raises `Unavailable` if it was not done."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_config: Mapping[str, Any] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """
        Args:
            client_config: handed to librdkafka as it is; wins over our defaults.
            timeout_s: how long the broker may take over one call.

        Raises:
            BadSettings: librdkafka refuses the settings.
        """
        self._timeout_s = timeout_s
        self._client_config = {**(client_config or {}), "bootstrap.servers": bootstrap_servers}
        self._producer = connect(
            ck.Producer, producer_config(bootstrap_servers, timeout_s, client_config or {})
        )

    def send(self, records: Sequence[tuple[OutRecord, int | None]]) -> None:
        """Produce each record to its partition (None: where its key belongs), return when all are
        acknowledged. On `Unavailable` some may have been."""
        failures: list[ck.KafkaError] = []

        def report(error: ck.KafkaError | None, _: object) -> None:
            if error is not None:
                failures.append(error)

        deadline_s = time.monotonic() + self._timeout_s
        try:
            for record, partition in records:
                number = BY_KEY if partition is None else partition
                produce(self._producer, record, report, deadline_s, partition=number)
            # librdkafka fails what is not delivered in time; the margin only guards against its own delay.
            if served(self._producer.flush, self._timeout_s + 5.0):
                raise TimeoutError(f"the broker has not acknowledged within {self._timeout_s:g} s")
        except TimeoutError as error:
            raise Unavailable(str(error)) from error
        except ck.KafkaException as error:
            raise Unavailable(f"a record was not taken for publishing: {error.args[0].str()}") from error
        if failures:
            raise Unavailable(f"a record was not delivered: {failures[0].str()}")

    def delete_before(self, topic: str, first_kept: Mapping[int, int]) -> None:
        """Delete what lies before an offset, by partition, for good."""
        admin = connect(_admin.AdminClient, {**self._client_config, "log_level": 0})
        offsets = [ck.TopicPartition(topic, *part) for part in sorted(first_kept.items())]
        refused = []
        for partition, future in admin.delete_records(offsets, request_timeout=self._timeout_s).items():
            try:
                future.result()
            except ck.KafkaException as error:
                refused.append(f"partition {partition.partition}: {error.args[0].str()}")
        if refused:
            raise Unavailable(
                f"the broker has not deleted the records of {topic} ({'; '.join(refused)}); one that cannot "
                "delete records (the embedded broker cannot) needs `purge` with a filter instead"
            )

    def close(self) -> None:
        self._producer.flush(1.0)
