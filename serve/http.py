"""The `Api` deployment, and the application of all three.

serve deploy serve/config.yaml
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from ray import serve

from serve.stream import StreamConsumer
from serve.tagging import Tagger
from tagstream.adapters.ray.replicas import ReplicaTagger
from tagstream.api.app import build_api
from tagstream.logs import set_up_logs
from tagstream.settings import load_settings
from tagstream.wiring import build_images, build_rules, build_store

_READINESS_TIMEOUT_S = 5.0


def build_app() -> FastAPI:
    """Called once in each replica of `Api`."""
    settings = load_settings()
    set_up_logs(as_json=settings.log_json)
    app_name = serve.get_replica_context().app_name
    tagger = serve.get_deployment_handle("Tagger", app_name)
    consumer = serve.get_deployment_handle("StreamConsumer", app_name)

    async def readiness() -> tuple[bool, dict[str, Any]]:
        try:
            async with asyncio.timeout(_READINESS_TIMEOUT_S):
                model_loaded, stream = await asyncio.gather(tagger.ready.remote(), consumer.status.remote())
        except Exception as error:  # whatever Ray raises for a replica that is gone or late
            return False, {"reason": f"no answer from the replicas: {type(error).__name__}"}
        return bool(model_loaded and stream["ready"]), {"model_loaded": model_loaded, "stream": stream}

    return build_api(
        ReplicaTagger(tagger, settings.tag_timeout_s),
        build_store(settings),
        build_images(settings),
        readiness,
        settings.api_key_hashes,
        rules=build_rules(settings),
        requests_per_s=settings.api_requests_per_s,
    )


Api = serve.deployment(serve.ingress(build_app)(), name="Api")

tagger = Tagger.bind()
app = Api.bind(tagger, StreamConsumer.bind(tagger))
