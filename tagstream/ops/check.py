"""`tagstream check`: what is wrong and what to do, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tagstream.adapters.kafka.rights import missing_rights
from tagstream.adapters.redis.store import RedisStore
from tagstream.core.errors import TagstreamError
from tagstream.local.stack import topic_admin, topic_plans
from tagstream.settings import Settings
from tagstream.wiring import build_registry, build_store, check_delivery


@dataclass(frozen=True, slots=True)
class Checked:
    subject: str
    ok: bool
    sentence: str


def run_checks(settings: Settings, *, replication: int) -> Iterator[Checked]:
    """One result a subject, or one a difference."""
    yield Checked("settings", True, "read")
    yield from _attempt("kafka", lambda: _kafka(settings, replication))
    yield from _attempt("store", lambda: _store(settings))
    yield from _attempt("registry", lambda: _registry(settings))


def _attempt(subject: str, check: Callable[[], list[Checked]]) -> Iterator[Checked]:
    try:
        yield from check()
    except TagstreamError as error:
        yield Checked(subject, False, " ".join(f"{type(error).__name__}: {error}".split()))


def _kafka(settings: Settings, replication: int) -> list[Checked]:
    admin = topic_admin(settings)
    plans = topic_plans(settings, replication=replication)
    differences = admin.describe(plans, replication=replication)
    outputs = [settings.topics.tags, settings.topics.dead_letters]
    # Exactly once, a worker looks whether what it has committed is shown.
    read_back = outputs if settings.delivery == "exactly_once" else []
    rights = missing_rights(
        settings.kafka_bootstrap_servers,
        read=[settings.topics.events, *read_back],
        write=outputs,
        group=settings.consumer_group,
        transactional_id=settings.consumer_group if settings.delivery == "exactly_once" else "",
        client_config=settings.kafka_client_config,
    )
    check_delivery(settings)
    wrong = [Checked("kafka", False, sentence) for sentence in [*differences, *rights]]
    return wrong or [Checked("kafka", True, "answers; topics and rights are as they should be")]


def _store(settings: Settings) -> list[Checked]:
    store = build_store(settings)
    assert isinstance(store, RedisStore)
    wrong = [Checked("store", False, sentence) for sentence in store.check()]
    store.close()
    return wrong or [Checked("store", True, "answers; evicts nothing; initialised")]


def _registry(settings: Settings) -> list[Checked]:
    registry = build_registry(settings)
    model_version, generation = registry.champion()
    registry.taxonomy(model_version)
    return [Checked("registry", True, f"champion {model_version}, generation {generation}")]
