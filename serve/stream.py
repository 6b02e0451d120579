"""The `StreamConsumer` deployment: one worker a replica, all in one consumer group, scaled on lag."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingContext
from ray.serve.handle import DeploymentHandle

from tagstream.adapters.ray.replicas import RayMetrics, ReplicaTagger
from tagstream.logs import set_up_logs
from tagstream.runner import Stream, build_isolated_tagger
from tagstream.settings import load_settings
from tagstream.stream.scaling import PartitionLag, consumers_for

#: For the last commit and for leaving the group.
GOODBYE_S = 10.0


@serve.deployment
class StreamConsumer:
    """Its health is that of the loop. Trouble outside makes it not ready, never unhealthy: Serve would kill
    the replica, and what it has in memory would be lost."""

    def __init__(self, tagger: DeploymentHandle) -> None:
        self._settings = load_settings()
        set_up_logs(as_json=self._settings.log_json)
        self._stream = Stream(
            self._settings,
            ReplicaTagger(tagger, self._settings.tag_timeout_s, build_isolated_tagger),
            RayMetrics(),
        )
        self._stream.start()

    async def status(self) -> dict[str, Any]:
        status = self._stream.status()
        return {"ready": False, "reason": "the worker is starting"} if status is None else asdict(status)

    def check_health(self) -> None:
        self._stream.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Flat, because Serve carries numbers only: lag and epoch of each assigned partition."""
        status = self._stream.status()
        stats: dict[str, float] = {}
        for partition, (lag, epoch) in (status.partitions if status else {}).items():
            stats[f"lag:{partition}"] = float(lag)
            stats[f"epoch:{partition}"] = float(epoch)
        return stats

    async def __del__(self) -> None:
        """Serve calls it once at a graceful stop, within `graceful_shutdown_timeout_s`.

        The hand-over may take `revoke_timeout_s`; what is not finished then gets the same time again.
        """
        if hasattr(self, "_stream"):
            await asyncio.to_thread(self._stream.stop, 2 * self._settings.revoke_timeout_s + GOODBYE_S)


class KafkaLagPolicy:
    """A Serve autoscaling policy. Serve applies the delays and the bounds of `autoscaling_config` to it."""

    def __init__(self, lag_per_consumer: float) -> None:
        self._lag_per_consumer = lag_per_consumer

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        raw = context.raw_metrics or {}
        reports = [
            PartitionLag(int(name.split(":")[1]), lag[-1].value, epochs[-1].value)
            for name in raw
            if name.startswith("lag:")
            for replica, lag in raw[name].items()
            if lag and (epochs := raw.get(name.replace("lag:", "epoch:"), {}).get(replica))
        ]
        if not reports:
            return context.target_num_replicas, {}
        return consumers_for(reports, lag_per_consumer=self._lag_per_consumer), {}
