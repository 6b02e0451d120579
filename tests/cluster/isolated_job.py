"""Run as a Ray job by test_isolation.py: a tagger that dies of one title, in a process of its own."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import ray

from tagstream.adapters.replicas import ReplicaTagger
from tagstream.core.errors import ReplicaDied, TaggingFailed
from tagstream.core.ports import MicroBatch, Scores, TextFields


class Mortal:
    def tag(self, batch: MicroBatch) -> Scores:
        [text] = batch.texts
        if text.title == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        if text.title == "raises":
            raise TaggingFailed("cannot bear it")
        return Scores("mortal", os.getpid(), np.zeros((1, 1), np.float32), ["none"])


def one(title: str) -> MicroBatch:
    return MicroBatch([TextFields(title)], [None])


def main() -> None:
    ray.init()
    tagger = ReplicaTagger(None, 5, Mortal)  # type: ignore[arg-type]  # no replica is asked here
    first = tagger.tag_isolated(one("fine")).model_generation
    assert first not in (0, os.getpid()), "it ran in this very process"
    assert tagger.tag_isolated(one("fine")).model_generation == first, "a process is used again"
    with pytest.raises(TaggingFailed, match="cannot bear it"):
        tagger.tag_isolated(one("raises"))
    with pytest.raises(ReplicaDied):
        tagger.tag_isolated(one("kills"))
    assert tagger.tag_isolated(one("fine")).model_generation != first, "the next one has a new process"
    print("isolated and alive")


if __name__ == "__main__":
    main()
