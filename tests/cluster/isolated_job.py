"""Run as a Ray job by test_isolation.py: a tagger that dies of one title, in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray

from tagstream.adapters.ray import replicas
from tagstream.adapters.ray.replicas import Isolated, ReplicaTagger
from tagstream.core.errors import ReplicaDied, TaggingFailed, Unavailable
from tagstream.core.ports import MicroBatch, Scores, TextFields


class Mortal:
    def tag(self, batch: MicroBatch) -> Scores:
        [text] = batch.texts
        if text.title == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        if text.title == "blocks":
            time.sleep(1000)
        if text.title == "raises":
            raise TaggingFailed("cannot bear it")
        return Scores("mortal", os.getpid(), np.zeros((1, 1), np.float32), ["none"])


def registry_away() -> Mortal:
    raise Unavailable("the registry is away")


def killed_while_loading() -> Mortal:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


def one(title: str) -> MicroBatch:
    return MicroBatch([TextFields(title)], [None])


def tagger_of(make: Callable[[], Isolated]) -> ReplicaTagger:
    return ReplicaTagger(None, 5, make)  # type: ignore[arg-type]  # no replica is asked here


def wait_until_gone(pid: int) -> None:
    deadline_s = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline_s, "it is ended"
        time.sleep(0.1)


def main() -> None:
    ray.init()
    for make in (registry_away, killed_while_loading):
        with pytest.raises(Unavailable) as raised:
            tagger_of(make).tag_isolated(one("innocent"))
        assert not isinstance(raised.value, ReplicaDied), f"{make.__name__}: an innocent event is blamed"
    tagger = tagger_of(Mortal)
    first = tagger.tag_isolated(one("fine")).model_generation
    assert first not in (0, os.getpid()), "it ran in this very process"
    assert tagger.tag_isolated(one("fine")).model_generation == first, "a process is used again"
    with pytest.raises(TaggingFailed, match="cannot bear it"):
        tagger.tag_isolated(one("raises"))
    with pytest.raises(ReplicaDied):
        tagger.tag_isolated(one("kills"))
    impatient = ReplicaTagger(None, 1, Mortal)  # type: ignore[arg-type]
    blocked = impatient.tag_isolated(one("fine")).model_generation
    with pytest.raises(ReplicaDied, match="no answer in 1 s"):
        impatient.tag_isolated(one("blocks"))
    wait_until_gone(blocked)
    replicas._ISOLATED_IDLE_S = 0.2
    last = tagger.tag_isolated(one("fine")).model_generation
    assert last != first, "the next one has a new process"
    wait_until_gone(last)
    assert tagger.tag_isolated(one("fine")).model_generation != last
    print("isolated and alive")


if __name__ == "__main__":
    main()
