"""The topics of tagstream, as `topics.yaml` describes them: create, list and compare them."""

from __future__ import annotations

from typing import Any

from tagstream.adapters.kafka.topics import TopicAdmin, TopicPlan
from tagstream.settings import Settings, described_topics
from tagstream.wiring import build_store


def topic_plans(
    settings: Settings, *, partitions: int | None = None, replication: int = 1
) -> list[TopicPlan]:
    """`partitions`: instead of each topic's own number. `replication`: from 3, min.insync.replicas is 2."""
    durable = {"min.insync.replicas": "2"} if replication >= 3 else {}
    return [
        TopicPlan(
            settings.prefix + topic["name"],
            partitions or topic["partitions"],
            {name: str(value) for name, value in topic["config"].items()} | durable,
        )
        for topic in described_topics().values()
    ]


def create_topics(settings: Settings, *, partitions: int | None = None, replication: int = 1) -> list[str]:
    """Create the missing topics and return their names.

    While the tag topic is empty the store may be empty too, so this initialises it. Later an empty store
    means a loss, and stays refused.
    """
    admin = TopicAdmin(settings.kafka)
    plans = topic_plans(settings, partitions=partitions, replication=replication)
    created = admin.create(plans, replication=replication)
    if admin.is_empty(settings.topics.tags):
        store = build_store(settings)
        store.initialise()
        store.close()
    return created


def topic_rows(settings: Settings) -> list[dict[str, Any]]:
    """Each topic and its partitions, None where it is missing."""
    found = TopicAdmin(settings.kafka).partitions()
    return [{"topic": plan.name, "partitions": found.get(plan.name)} for plan in topic_plans(settings)]


def topic_differences(settings: Settings, *, replication: int) -> list[str]:
    """How the broker's topics differ from the description, a sentence each."""
    plans = topic_plans(settings, replication=replication)
    return TopicAdmin(settings.kafka).differences(plans, replication=replication)
