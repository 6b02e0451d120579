"""The only place that picks real parts, from the settings."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import yaml

from tagstream.adapters.champion import Champion
from tagstream.adapters.images import HttpImages
from tagstream.adapters.kafka.publisher import KafkaPublisher
from tagstream.adapters.kafka.source import KafkaSource
from tagstream.adapters.kafka.transaction_probe import hides_aborted_records
from tagstream.adapters.kafka.transactions import KafkaTransactions
from tagstream.adapters.redis.store import RedisStore
from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.errors import BadSettings, StartOver, Unavailable
from tagstream.core.metrics import Metric
from tagstream.core.ports import (
    Images,
    Metrics,
    Ports,
    Publisher,
    Span,
    Tagger,
    TextFields,
    Transactions,
)
from tagstream.core.rules import NO_RULES, Rules
from tagstream.settings import Settings, load_settings
from tagstream.stream.account import WorkerStatus
from tagstream.stream.worker import Worker

log = logging.getLogger("tagstream.stream")

Device = Literal["cpu", "cuda"]

#: A loop that has not turned for so long is stuck: it polls at least every second.
_STUCK_AFTER_S = 120.0
_DELIVERY_CHECK_INTERVAL_S = 2.0


class NoMetrics:
    """Where nobody reads them."""

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None: ...

    def set(self, metric: Metric, value: float, **labels: str) -> None: ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None: ...


class SystemClock:
    """The real time. Waits end early once `stopping` is set."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wait(self, timeout_s: float) -> bool:
        return self._stopping.wait(timeout_s)


def build_source(settings: Settings, metrics: Metrics) -> KafkaSource:
    return KafkaSource(
        settings.kafka_bootstrap_servers,
        settings.consumer_group,
        settings.topics.events,
        session_timeout_ms=int(settings.session_timeout_s * 1000),
        client_config=settings.kafka_client_config,
        on_offsets_lost=lambda count: metrics.add(Metric.OFFSETS_LOST, count),
    )


def build_publisher(settings: Settings) -> Publisher:
    return KafkaPublisher(settings.kafka_bootstrap_servers, client_config=settings.kafka_client_config)


def build_transactions(settings: Settings, source: KafkaSource) -> Transactions | None:
    """None unless delivery is exactly once."""
    if settings.delivery != "exactly_once":
        return None
    return KafkaTransactions(
        settings.kafka_bootstrap_servers,
        settings.consumer_group,
        source,
        client_config=settings.kafka_client_config,
    )


def check_delivery(settings: Settings) -> None:
    """Raises BadSettings if the broker cannot keep the promise of `delivery`, Unavailable if it is silent."""
    if settings.delivery == "exactly_once" and not hides_aborted_records(
        settings.kafka_bootstrap_servers,
        f"{settings.prefix}tagstream-probe",
        client_config=settings.kafka_client_config,
    ):
        raise BadSettings(
            "TAGSTREAM_DELIVERY: exactly_once needs a broker that hides aborted records from read_committed; "
            "this one shows them (the embedded broker does): use Apache Kafka, or at_least_once"
        )


def build_store(settings: Settings) -> RedisStore:
    return RedisStore(
        settings.redis_url.get_secret_value(),
        prefix=settings.prefix,
        delete_marker_ttl_s=settings.delete_marker_ttl_s,
    )


def build_images(settings: Settings) -> Images:
    return HttpImages(
        max_bytes=settings.image_max_bytes,
        timeout_s=settings.image_timeout_s,
        allow_private=settings.image_allow_private,
        file_roots=settings.image_file_roots,
        allow_hosts=settings.image_hosts,
    )


def build_registry(settings: Settings) -> Registry:
    return Registry(settings.registry_uri or str(BUNDLED))


def load_extractor(
    folder: Path | None,
) -> Callable[[Sequence[TextFields]], Sequence[tuple[Span, ...]]] | None:
    """Raises IncompatibleModel if the folder is not an extractor as it was saved."""
    if folder is None:
        return None
    from tagstream.model.version import load

    return load.load_extractor(folder).extract


def load_rules(settings: Settings) -> Rules:
    """The rules of `rules_file`, none without one. Raises BadSettings if it cannot be read."""
    path = settings.rules_file
    if path is None:
        return NO_RULES
    try:
        return Rules.read(yaml.safe_load(path.read_text(encoding="utf-8")))  # JSON is YAML too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadSettings(f"TAGSTREAM_RULES_FILE: {error}") from error
    except BadSettings as error:
        raise BadSettings(f"TAGSTREAM_RULES_FILE: {path}: {error}") from error


def build_champion(settings: Settings, metrics: Metrics, device: Device = "cpu") -> Champion:
    from tagstream.model.version.load import load  # seconds of torch, which only taggers need

    registry = build_registry(settings)
    return Champion(
        registry,
        lambda model_version: load(registry.fetch(model_version), threads=1, device=device),
        metrics,
        settings.champion_watch_interval_s,
        load_extractor(settings.extractor),
    )


def build_isolated_tagger() -> Champion:
    """The champion in the calling process, for events that may kill it; it follows promotions."""
    settings = load_settings()
    champion = build_champion(settings, NoMetrics())
    champion.follow()  # loads it, or raises
    champion.start()
    return champion


def tagger_device(*, has_gpu: bool) -> Device:
    """Where a replica computes: on the GPU that Ray gave it, if torch can use that one. Ray does not hide the
    cards from a replica that it gave none."""
    import torch  # seconds, which only taggers need

    return "cuda" if has_gpu and torch.cuda.is_available() else "cpu"


def tagger_threads(*, on_gpu: bool) -> int:
    """How many micro-batches a replica scores at once by default, each on one thread. Many threads on one
    micro-batch would be as fast on an idle machine; beside a consumer and a broker they wait for each other.
    On a GPU one reads titles while the other's kernels run."""
    return 2 if on_gpu else len(os.sched_getaffinity(0))


class Stream:
    """A worker on a thread of its own, with its real parts.

    The thread builds what connects, so that constructing a Stream touches no network.
    """

    def __init__(self, settings: Settings, tagger: Tagger, metrics: Metrics) -> None:
        self._settings = settings
        self._tagger = tagger
        self._metrics = metrics
        self._worker: Worker | None = None
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Drain and commit; True if that was finished within `timeout_s`."""
        self._closing.set()
        if self._worker is not None:
            self._worker.stop()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raises RuntimeError when the loop is dead or stuck. Trouble outside is neither."""
        if self._failure is not None:
            raise RuntimeError(f"the worker has failed: {self._failure!r}") from self._failure
        status = self.status()
        if status is not None and time.monotonic() - status.heartbeat_s > _STUCK_AFTER_S:
            raise RuntimeError(f"the worker's loop has not turned for {_STUCK_AFTER_S:g} s")

    def status(self) -> WorkerStatus | None:
        """None before the worker is built."""
        if self._worker is None:
            return None
        status = self._worker.status()
        return replace(status, ready=False, reason=repr(self._failure)) if self._failure else status

    def _run(self) -> None:
        try:
            while True:
                try:
                    self._work()
                except StartOver as error:
                    log.warning("the worker starts over: %s", error)
                else:
                    return
        except BaseException as error:
            self._failure = error
            log.exception("the worker has failed")

    def _wait_for_delivery(self) -> None:
        """A broker that is away is waited for; one that cannot keep the promise raises BadSettings."""
        while not self._closing.is_set():
            try:
                check_delivery(self._settings)
            except Unavailable as error:
                log.warning("waiting for the broker: %s", error)
                self._closing.wait(_DELIVERY_CHECK_INTERVAL_S)
            else:
                return

    def _work(self) -> None:
        settings = self._settings
        self._wait_for_delivery()
        images, store = build_images(settings), build_store(settings)
        publisher = build_publisher(settings)
        given_up = threading.Event()
        executor = ThreadPoolExecutor(settings.max_in_flight, thread_name_prefix="micro-batch")
        source = build_source(settings, self._metrics)
        transactions = build_transactions(settings, source)
        ports = Ports(
            source=source,
            images=images,
            tagger=self._tagger,
            store=store,
            publisher=publisher,
            halts=store,
            metrics=self._metrics,
            clock=SystemClock(given_up),
            topics=settings.topics,
            transactions=transactions,
        )
        self._worker = Worker(ports, settings.decoder, settings.worker_limits, executor, load_rules(settings))
        if self._closing.is_set():
            self._worker.stop()
        try:
            self._worker.run()
        finally:
            given_up.set()
            executor.shutdown(wait=False)
            for part in (transactions, publisher, images, store):
                if part is not None:
                    part.close()
