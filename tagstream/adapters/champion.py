"""The tagger in this process: loads the champion, and swaps in its successor between two micro-batches."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tagstream.core.errors import IncompatibleModel, TaggingFailed, TagstreamError, Unavailable
from tagstream.core.events import ImageUse
from tagstream.core.metrics import Metric
from tagstream.core.ports import Metrics, MicroBatch, Models, Scores, Span, TextFields
from tagstream.core.taxonomy import Taxonomy

log = logging.getLogger("tagstream.champion")


class LoadedModel(Protocol):
    """A model version in memory. Several threads may score at once."""

    model_version: str
    taxonomy: Taxonomy

    def score(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float32], list[ImageUse]]: ...


@dataclass(frozen=True, slots=True)
class _Serving:
    model: LoadedModel
    generation: int


class Champion:
    """Implements the Tagger port in this process.

    `start` returns at once. A thread loads the champion and goes on watching the registry, so a replica is up
    while its registry is away, and a promotion needs no restart. A version that does not load is refused, and
    the present one stays.
    """

    def __init__(
        self,
        models: Models,
        load: Callable[[str], LoadedModel],
        metrics: Metrics,
        watch_interval_s: float,
        extract: Callable[[Sequence[TextFields]], Sequence[tuple[Span, ...]]] | None = None,
    ) -> None:
        """`extract` finds the spans of a micro-batch's titles, whichever model version answers."""
        self._models = models
        self._load = load
        self._extract = extract
        self._metrics = metrics
        self._watch_interval_s = watch_interval_s
        self._serving: _Serving | None = None
        self._refused: str = ""
        self._reason = "the champion is being loaded"
        self._scoring_since_s: dict[int, float] = {}
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="champion-watch", daemon=True)

    def start(self) -> None:
        self._watcher.start()

    def close(self) -> None:
        self._stopping.set()

    def ready(self) -> bool:
        return self._serving is not None

    def alive(self) -> bool:
        """False when the watching thread has died, which only a defect can cause."""
        return self._watcher.is_alive()

    def hangs(self, longer_than_s: float) -> bool:
        """Whether the model has been busy with one micro-batch for so long."""
        began_s = min(self._scoring_since_s.copy().values(), default=math.inf)
        return time.monotonic() - began_s > longer_than_s

    def tag(self, batch: MicroBatch) -> Scores:
        """Raises Unavailable while nothing is loaded, TaggingFailed when the model raises."""
        serving = self._serving
        if serving is None:
            raise Unavailable(self._reason)
        thread = threading.get_ident()
        self._scoring_since_s[thread] = time.monotonic()
        try:
            values, image = serving.model.score(batch)
            spans = self._extract(batch.texts) if self._extract is not None else ()
        except Exception as error:  # whatever the libraries raise, these events are the cause
            raise TaggingFailed(f"{type(error).__name__}: {error}") from error
        finally:
            del self._scoring_since_s[thread]
        return Scores(serving.model.model_version, serving.generation, values, image, spans)

    def taxonomy(self, model_version: str) -> Taxonomy:
        """Raises IncompatibleModel for an unknown version, Unavailable if the registry does not answer."""
        serving = self._serving
        if serving is not None and serving.model.model_version == model_version:
            return serving.model.taxonomy
        return self._models.taxonomy(model_version)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self.follow()
            except Exception as error:
                # Even a defect must not end this thread: Serve would kill the replica that holds the good
                # champion, and its successor would load the bad one again.
                reason = f"{type(error).__name__}: {error}"
                if reason != self._reason:
                    unforeseen = not isinstance(error, TagstreamError)
                    log.warning("the champion stays as it is: %s", reason, exc_info=unforeseen)
                self._reason = reason
            self._stopping.wait(self._watch_interval_s)

    def follow(self) -> None:
        """One look at the registry. Raises Unavailable or IncompatibleModel; the champion stays then."""
        model_version, generation = self._models.champion()
        serving = self._serving
        if serving is not None and generation == serving.generation:
            return
        if serving is not None and serving.model.model_version == model_version:
            self._serving = _Serving(serving.model, generation)
        elif model_version == self._refused:
            return
        else:
            try:
                self._serving = _Serving(self._load(model_version), generation)
            except IncompatibleModel:
                self._refused = model_version
                raise
        log.info("champion %s, generation %d", model_version, generation)
        for one, value in ((serving, 0), (self._serving, 1)):
            if one is not None:
                labels = {"model_version": one.model.model_version, "generation": str(one.generation)}
                self._metrics.set(Metric.MODEL, value, **labels)
