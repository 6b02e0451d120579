"""The champion: loaded behind the scenes, swapped between micro-batches, kept if its successor is bad."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import pytest

from tagstream.adapters.champion import Champion
from tagstream.core.errors import IncompatibleModel, TaggingFailed, Unavailable
from tagstream.core.events import ImageUse
from tagstream.core.metrics import Metric
from tagstream.core.ports import MicroBatch, Span, TextFields
from tagstream.core.taxonomy import Taxonomy
from tests.support.memory import MemoryMetrics

TAXONOMY = Taxonomy.model_validate(
    {"taxonomy_version": "t", "groups": [{"name": "g", "values": [{"value": "v"}]}]}
)
BATCH = MicroBatch([TextFields("x")], [None])


class Registry:
    def __init__(self) -> None:
        self.answer: tuple[str, int] | Exception = ("m1", 1)

    def champion(self) -> tuple[str, int]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def taxonomy(self, model_version: str) -> Taxonomy:
        return TAXONOMY


class Model:
    taxonomy = TAXONOMY

    def __init__(self, model_version: str) -> None:
        if model_version == "broken":
            raise IncompatibleModel("its manifest disagrees")
        self.model_version = model_version

    def score(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float32], list[ImageUse]]:
        if batch.texts[0].title == "poison":
            raise ValueError("shape")
        return np.ones((len(batch), 1), np.float32), ["none"] * len(batch)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def metrics() -> MemoryMetrics:
    return MemoryMetrics()


@pytest.fixture
def champion(registry: Registry, metrics: MemoryMetrics) -> Champion:
    return Champion(registry, Model, metrics, watch_interval_s=60)


def test_before_anything_is_loaded_it_is_unavailable(champion: Champion) -> None:
    assert not champion.ready()
    with pytest.raises(Unavailable):
        champion.tag(BATCH)


def test_a_model_that_keeps_a_micro_batch_for_too_long_is_told_until_it_lets_go(champion: Champion) -> None:
    begun, let_go = threading.Event(), threading.Event()

    class Slow(Model):
        def score(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float32], list[ImageUse]]:
            begun.set()
            assert let_go.wait(30)
            return super().score(batch)

    champion._load = Slow
    champion.follow()
    assert not champion.hangs(0)
    caller = threading.Thread(target=champion.tag, args=(BATCH,))
    caller.start()
    assert begun.wait(30)
    assert champion.hangs(0)
    assert not champion.hangs(1000)
    let_go.set()
    caller.join()
    assert not champion.hangs(0)


def test_a_promotion_is_taken_up_and_told(
    champion: Champion, registry: Registry, metrics: MemoryMetrics
) -> None:
    champion.follow()
    assert champion.tag(BATCH).model_version == "m1"
    registry.answer = ("m2", 2)
    champion.follow()
    scores = champion.tag(BATCH)
    assert (scores.model_version, scores.model_generation) == ("m2", 2)
    assert metrics.value(Metric.MODEL, model_version="m1", generation="1") == 0
    assert metrics.value(Metric.MODEL, model_version="m2", generation="2") == 1


def test_a_rollback_to_the_version_in_memory_raises_the_generation(
    champion: Champion, registry: Registry
) -> None:
    champion.follow()
    registry.answer = ("m1", 3)
    champion.follow()
    assert champion.tag(BATCH).model_generation == 3


def test_a_version_that_does_not_load_is_refused_and_the_champion_stays(
    champion: Champion, registry: Registry
) -> None:
    champion.follow()
    registry.answer = ("broken", 2)
    with pytest.raises(IncompatibleModel):
        champion.follow()
    champion.follow()  # it is not tried again
    assert champion.tag(BATCH).model_version == "m1"


def test_while_the_registry_is_away_the_champion_answers(champion: Champion, registry: Registry) -> None:
    champion.follow()
    registry.answer = Unavailable("registry away")
    with pytest.raises(Unavailable):
        champion.follow()
    assert champion.tag(BATCH).model_version == "m1"


def test_what_the_model_raises_is_a_tagging_failure(champion: Champion) -> None:
    champion.follow()
    with pytest.raises(TaggingFailed, match="ValueError: shape"):
        champion.tag(MicroBatch([TextFields("poison")], [None]))


def test_what_is_extracted_comes_with_the_scores(registry: Registry, metrics: MemoryMetrics) -> None:
    found = [(Span("brand", "x", 0.9, 0, 1),)]
    champion = Champion(registry, Model, metrics, 60, lambda texts: found if texts == BATCH.texts else [])
    champion.follow()
    assert champion.tag(BATCH).spans == found


def test_without_an_extractor_there_are_no_spans(champion: Champion) -> None:
    champion.follow()
    assert champion.tag(BATCH).spans == ()


def test_what_the_extractor_raises_is_a_tagging_failure(registry: Registry, metrics: MemoryMetrics) -> None:
    def extract(texts: object) -> list[tuple[Span, ...]]:
        raise ValueError("no such character")

    champion = Champion(registry, Model, metrics, 60, extract)
    champion.follow()
    with pytest.raises(TaggingFailed, match="no such character"):
        champion.tag(BATCH)


def test_a_defect_while_loading_leaves_the_watch_alive_and_the_champion_in_place(
    registry: Registry, metrics: MemoryMetrics
) -> None:
    tried = threading.Event()

    def load(model_version: str) -> Model:
        if model_version == "m2":
            tried.set()
            raise MemoryError("no room on the GPU")
        return Model(model_version)

    champion = Champion(registry, load, metrics, watch_interval_s=0.001)
    champion.follow()
    registry.answer = ("m2", 2)
    champion.start()
    assert tried.wait(30)
    tried.clear()
    assert tried.wait(30), "it is tried again"
    assert champion.alive()
    assert champion.tag(BATCH).model_version == "m1"
    champion.close()
