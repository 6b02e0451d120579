"""`tagstream check`: what is wrong and what to do, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from tagstream.adapters.kafka.rights import missing_rights
from tagstream.core.errors import TagstreamError
from tagstream.ops.topics import topic_differences
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
    differences = topic_differences(settings, replication=replication)
    outputs = [settings.topics.tags, settings.topics.dead_letters]
    is_exactly_once = settings.delivery == "exactly_once"
    rights = missing_rights(
        settings.kafka,
        # Under exactly once a worker reads back what it has committed.
        read=[settings.topics.events, *(outputs if is_exactly_once else [])],
        write=outputs,
        group=settings.consumer_group,
        transactional_id=settings.consumer_group if is_exactly_once else "",
    )
    check_delivery(settings)
    wrong = [Checked("kafka", False, sentence) for sentence in [*differences, *rights]]
    return wrong or [Checked("kafka", True, "answers; topics and rights are as they should be")]


def _store(settings: Settings) -> list[Checked]:
    with closing(build_store(settings)) as store:
        wrong = [Checked("store", False, sentence) for sentence in store.check()]
    return wrong or [Checked("store", True, "answers; evicts nothing; initialised")]


def _registry(settings: Settings) -> list[Checked]:
    registry = build_registry(settings)
    model_version, generation = registry.champion()
    registry.taxonomy(model_version)
    return [Checked("registry", True, f"champion {model_version}, generation {generation}")]
