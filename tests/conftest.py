"""Real servers for the suites that need them: started once, on free ports, ended with the test run.

TAGSTREAM_TEST_KAFKA (host:port) and TAGSTREAM_TEST_REDIS (url) name others to test against instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tagstream.adapters.embedded import EmbeddedBroker, EmbeddedStore


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
