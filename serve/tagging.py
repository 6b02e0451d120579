"""The `Tagger` deployment: the champion model on a share of a GPU or CPU."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import ray
from ray import serve

from tagstream.adapters.ray.replicas import RayMetrics
from tagstream.core.errors import TagstreamError
from tagstream.core.ports import MicroBatch, Scores
from tagstream.logs import set_up_logs
from tagstream.runner import build_champion, tagger_device, tagger_threads
from tagstream.settings import load_settings


@serve.deployment
class Tagger:
    """`tag(micro-batch) → scores`. Returns errors that the caller knows as values: Ray would wrap them."""

    def __init__(self) -> None:
        settings = load_settings()
        set_up_logs(as_json=settings.log_json)
        device = tagger_device(has_gpu=bool(ray.get_gpu_ids()))
        self._champion = build_champion(settings, RayMetrics(), device)
        self._champion.start()
        self._tag_timeout_s = settings.tag_timeout_s
        threads = settings.tagger_threads or tagger_threads(on_gpu=device == "cuda")
        self._model_threads = ThreadPoolExecutor(threads, thread_name_prefix="model")

    async def tag(self, batch: MicroBatch) -> Scores | TagstreamError:
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._model_threads, self._champion.tag, batch)
        except TagstreamError as error:
            return _bare(error)

    async def taxonomy(self, model_version: str) -> str | TagstreamError:
        """The taxonomy of a model version, as JSON."""
        try:
            taxonomy = await asyncio.to_thread(self._champion.taxonomy, model_version)
        except TagstreamError as error:
            return _bare(error)
        return taxonomy.model_dump_json()

    async def ready(self) -> bool:
        return self._champion.ready()

    def check_health(self) -> None:
        if not self._champion.alive():
            raise RuntimeError("the thread that watches the champion has died")
        if self._champion.hangs(self._tag_timeout_s):  # nobody waits for the answer any more
            raise RuntimeError(f"the model is busy with one micro-batch for over {self._tag_timeout_s:g} s")

    def __del__(self) -> None:
        if hasattr(self, "_champion"):
            self._champion.close()


def _bare(error: TagstreamError) -> TagstreamError:
    """Without its cause, which may be of a library that the caller does not have."""
    return type(error)(str(error))
