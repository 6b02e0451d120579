"""Real servers for the suites that need them: started once, on free ports, ended with the test run.

TAGSTREAM_TEST_KAFKA (host:port) and TAGSTREAM_TEST_REDIS (url) name others to test against instead. What only
Apache Kafka can show runs where KAFKA_HOME names one.

`make test` runs two workers of pytest-xdist, since most of the slow tests wait. A file stays on one of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from tagstream.adapters.local.apache import ApacheBroker
from tagstream.adapters.local.embedded import EmbeddedBroker, EmbeddedStore
from tagstream.core.errors import TagstreamError

# Workers are told that they write 80 columns; a test that asks for more would not be heard.
os.environ.pop("COLUMNS", None)


class ByFixture(LoadFileScheduling):
    """What shares a fixture runs on one worker: a file, and all that need the Ray cluster."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "cluster" if "/cluster/" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFixture:
    # Not by the marks of `--dist loadgroup`: pytest-xdist 3.8 does not find them under pytest 9.2.
    return ByFixture(config, log)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real Kafka-compatible broker."""
    given = os.environ.get("TAGSTREAM_TEST_KAFKA")
    if given:
        yield given
        return
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as embedded:
        yield embedded.address


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Url of a real Redis or Valkey."""
    given = os.environ.get("TAGSTREAM_TEST_REDIS")
    if given:
        yield given
        return
    with EmbeddedStore(tmp_path_factory.mktemp("store")) as embedded:
        yield embedded.url


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    """Folder of an Apache Kafka, from KAFKA_HOME."""
    given = os.environ.get("KAFKA_HOME")
    if not given:
        pytest.skip("KAFKA_HOME names no Apache Kafka")
    return Path(given)


@pytest.fixture(scope="session")
def apache_kafka(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheBroker]:
    """A real Apache Kafka. A KAFKA_HOME that is broken fails the tests instead of hiding them."""
    try:
        broker = ApacheBroker(tmp_path_factory.mktemp("kafka"), home=kafka_home, start_timeout_s=120.0)
    except TagstreamError as error:
        pytest.fail(f"KAFKA_HOME is set and broken: {error}")
    with broker:
        yield broker
