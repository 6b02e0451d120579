"""The stream around a tagger that does nothing: what is left is the stream's own cost.

NULL_TAGGER_GATE names a file: while it is missing, the tagger is unavailable.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from ray import serve

from serve.stream import StreamConsumer
from tagstream.core.errors import Unavailable
from tagstream.core.ports import MicroBatch, Scores
from tagstream.core.taxonomy import Taxonomy

#: As many groups as the bundled taxonomy, so that as many tags are decided, stored and published.
TAXONOMY = Taxonomy.model_validate(
    {
        "taxonomy_version": "null",
        "groups": [
            {"name": f"group{g}", "values": [{"value": f"value{v}"} for v in range(20)]} for g in range(7)
        ],
    }
)


@serve.deployment(name="Tagger")
class NullTagger:
    async def tag(self, batch: MicroBatch) -> Scores | Unavailable:
        gate = os.environ.get("NULL_TAGGER_GATE")
        if gate and not Path(gate).exists():
            return Unavailable("the gate is closed")
        values = np.zeros((len(batch), TAXONOMY.size), np.float32)
        values[:, ::20] = 0.9
        return Scores("null", 1, values, ["used" if image else "none" for image in batch.images])

    async def taxonomy(self, model_version: str) -> str:
        return TAXONOMY.model_dump_json()


@serve.deployment(name="Front")
class Front:
    """The ingress; answers the consumer's status."""

    def __init__(self, consumer: object) -> None:
        self._consumer = consumer

    async def __call__(self, request: object) -> dict[str, object]:
        return {"stream": await self._consumer.status.remote()}  # type: ignore[attr-defined]


app = Front.bind(StreamConsumer.bind(NullTagger.bind()))
