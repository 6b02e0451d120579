"""Run as a Ray job by test_isolation.py: replicas that die in mid-call, over gRPC as in serve/config.yaml."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest

os.environ["RAY_SERVE_USE_GRPC_BY_DEFAULT"] = "1"  # read when Serve is imported

import ray
from ray import serve

from tagstream.adapters.ray.replicas import ReplicaTagger
from tagstream.core.errors import ReplicaDied
from tagstream.core.ports import MicroBatch, Scores, TextFields


class Mortal:
    def __init__(self, diary: str) -> None:
        self._diary = Path(diary)

    async def tag(self, batch: MicroBatch) -> Scores:
        title = batch.texts[0].title
        if title.startswith("kills"):
            with self._diary.open("a") as diary:
                diary.write(f"{os.getpid()}\n")
            if title == "kills later":
                await asyncio.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        return Scores("mortal", os.getpid(), np.zeros((1, 1), np.float32), ["none"])


def one(title: str) -> MicroBatch:
    return MicroBatch([TextFields(title)], [None])


def main() -> None:
    ray.init(runtime_env={"env_vars": {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"}})
    with tempfile.TemporaryDirectory() as folder:
        diary = Path(folder) / "diary"
        deployment = serve.deployment(
            name="Tagger", num_replicas=2, ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=8
        )(Mortal)
        tagger = ReplicaTagger(serve.run(deployment.bind(str(diary)), name="mortal", route_prefix=None), 60)
        try:
            for title in ("kills", "kills later"):
                diary.write_text("")
                tagger.tag(one("fine"))
                with pytest.raises(ReplicaDied):
                    tagger.tag(one(title))
                had_it = diary.read_text().split()
                assert len(had_it) == 1, f"{title}: Serve gave it to the next replica: {had_it}"
            tagger.tag(one("fine"))
        finally:
            serve.delete("mortal")
    print("each death is told once")


if __name__ == "__main__":
    main()
