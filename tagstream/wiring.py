"""The only place that picks real parts, from the settings.

A part is imported when it is built: a command loads only what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagstream.core.errors import BadSettings
from tagstream.core.metrics import Metric
from tagstream.core.ports import Images, Metrics, Publisher, Transactions
from tagstream.core.rules import NO_RULES, Rules
from tagstream.settings import Settings

if TYPE_CHECKING:
    from tagstream.adapters.kafka.source import KafkaSource
    from tagstream.adapters.redis.store import RedisStore
    from tagstream.adapters.registry import Registry


def build_source(settings: Settings, metrics: Metrics) -> KafkaSource:
    from tagstream.adapters.kafka.source import KafkaSource

    return KafkaSource(
        settings.kafka,
        settings.consumer_group,
        settings.topics.events,
        session_timeout_ms=int(settings.session_timeout_s * 1000),
        on_offsets_lost=lambda count: metrics.add(Metric.OFFSETS_LOST, count),
    )


def build_publisher(settings: Settings) -> Publisher:
    from tagstream.adapters.kafka.publisher import KafkaPublisher

    return KafkaPublisher(settings.kafka)


def build_transactions(settings: Settings, source: KafkaSource) -> Transactions | None:
    """None unless delivery is exactly once."""
    if settings.delivery != "exactly_once":
        return None
    from tagstream.adapters.kafka.transactions import KafkaTransactions

    return KafkaTransactions(settings.kafka, settings.consumer_group, source)


def check_delivery(settings: Settings) -> None:
    """Raises BadSettings if the broker cannot keep the promise of `delivery`, Unavailable if it is silent."""
    if settings.delivery != "exactly_once":
        return
    from tagstream.adapters.kafka.visibility import hides_aborted_records

    if not hides_aborted_records(settings.kafka, f"{settings.prefix}tagstream-probe"):
        raise BadSettings(
            "TAGSTREAM_DELIVERY: exactly_once needs a broker that hides aborted records from read_committed; "
            "this one shows them (the embedded broker does): use Apache Kafka, or at_least_once"
        )


def build_store(settings: Settings) -> RedisStore:
    from tagstream.adapters.redis.store import RedisStore

    return RedisStore(
        settings.redis_url.get_secret_value(),
        prefix=settings.prefix,
        delete_marker_ttl_s=settings.delete_marker_ttl_s,
    )


def build_images(settings: Settings) -> Images:
    from tagstream.adapters.images import HttpImages

    return HttpImages(
        max_bytes=settings.image_max_bytes,
        timeout_s=settings.image_timeout_s,
        allow_private=settings.image_allow_private,
        file_roots=settings.image_file_roots,
        allow_hosts=settings.image_hosts,
    )


def build_registry(settings: Settings) -> Registry:
    from tagstream.adapters.registry import BUNDLED, Registry

    return Registry(settings.registry_uri or str(BUNDLED))


def build_rules(settings: Settings) -> Rules:
    """The rules of `rules_file`, none without one. Raises BadSettings if it cannot be read."""
    path = settings.rules_file
    if path is None:
        return NO_RULES
    import yaml

    try:
        return Rules.read(yaml.safe_load(path.read_text(encoding="utf-8")))  # JSON is YAML too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSettings(f"TAGSTREAM_RULES_FILE: {error}") from error
    except BadSettings as error:
        raise BadSettings(f"TAGSTREAM_RULES_FILE: {path}: {error}") from error
