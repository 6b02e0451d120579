"""What Serve's replicas run: the worker on a thread of its own, and the champion with its model."""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from tagstream.adapters.champion import Champion
from tagstream.adapters.clock import SystemClock
from tagstream.core.errors import StartOver, Unavailable
from tagstream.core.metrics import NoMetrics
from tagstream.core.ports import Metrics, Ports, Tagger
from tagstream.settings import Settings, load_settings
from tagstream.stream.account import WorkerStatus
from tagstream.stream.worker import Worker
from tagstream.wiring import (
    build_images,
    build_publisher,
    build_registry,
    build_rules,
    build_source,
    build_store,
    build_transactions,
    check_delivery,
)

log = logging.getLogger("tagstream.stream")

Device = Literal["cpu", "cuda"]

#: A loop that has not turned for so long is stuck: it polls at least every second.
_STUCK_AFTER_S = 120.0
_DELIVERY_CHECK_INTERVAL_S = 2.0


def build_champion(settings: Settings, metrics: Metrics, device: Device = "cpu") -> Champion:
    """Raises IncompatibleModel if `extractor` is not a folder of an extractor as it was saved."""
    from tagstream.model.version.load import load, load_extractor  # seconds of torch, for taggers only

    registry = build_registry(settings)
    return Champion(
        registry,
        lambda model_version: load(registry.fetch(model_version), threads=1, device=device),
        metrics,
        settings.champion_watch_interval_s,
        load_extractor(settings.extractor).extract if settings.extractor else None,
    )


def build_isolated_tagger() -> Champion:
    """The champion in the calling process, for events that may kill it; it follows promotions."""
    champion = build_champion(load_settings(), NoMetrics())
    champion.follow()  # loads it, or raises
    champion.start()
    return champion


def tagger_device(*, has_gpu: bool) -> Device:
    """Where a replica computes: on the GPU that Ray gave it, if torch can use it. Ray does not hide the cards
    from a replica that has none."""
    import torch  # seconds, for taggers only

    return "cuda" if has_gpu and torch.cuda.is_available() else "cpu"


def tagger_threads(*, on_gpu: bool) -> int:
    """How many micro-batches a replica scores at once by default, each on one thread.

    Many threads on one micro-batch are as fast on an idle machine, but beside a consumer and a broker they
    wait for each other. On a GPU, one thread reads titles while the other's kernels run.
    """
    return 2 if on_gpu else len(os.sched_getaffinity(0))


class Stream:
    """A worker on a thread of its own, with its real parts.

    The thread builds what connects, so constructing a Stream touches no network.
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
        """Waits for a broker that is away. Raises BadSettings for one that cannot keep the promise."""
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
        images, store, publisher = build_images(settings), build_store(settings), build_publisher(settings)
        stopping = threading.Event()
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
            clock=SystemClock(stopping),
            topics=settings.topics,
            transactions=transactions,
        )
        rules = build_rules(settings)
        self._worker = Worker(ports, settings.decoder, settings.worker_limits, executor, rules)
        if self._closing.is_set():
            self._worker.stop()
        try:
            self._worker.run()
        finally:
            stopping.set()
            executor.shutdown(wait=False)
            for part in (transactions, publisher, images, store):
                if part is not None:
                    part.close()
