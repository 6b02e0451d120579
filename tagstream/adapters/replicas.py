"""The Tagger port over Serve replicas, and the Metrics port over Ray's metrics.

The only file of the package that imports ray. A call that Serve accepted is not replayed when its replica
dies, and one that finds no replica waits for ever: so each call has a timeout, and the worker retries.
"""

from __future__ import annotations

from typing import Any

import grpc
from ray.serve import exceptions as serve_exceptions
from ray.serve.handle import DeploymentHandle
from ray.util import metrics as ray_metrics

from tagstream.core.errors import Overloaded, TaggingFailed, TagstreamError, Unavailable
from tagstream.core.metrics import Metric
from tagstream.core.ports import MicroBatch, Scores
from tagstream.core.taxonomy import Taxonomy


class ReplicaTagger:
    """One handle call a micro-batch; any thread may call it, but no event loop's."""

    def __init__(self, handle: DeploymentHandle[Any], timeout_s: float) -> None:
        self._handle = handle
        self._timeout_s = timeout_s

    def tag(self, batch: MicroBatch) -> Scores:
        answer = self._call("tag", batch)
        assert isinstance(answer, Scores)
        return answer

    def taxonomy(self, model_version: str) -> Taxonomy:
        return Taxonomy.model_validate_json(str(self._call("taxonomy", model_version)))

    def _call(self, method: str, argument: object) -> object:
        response = getattr(self._handle, method).remote(argument)
        try:
            answer = response.result(timeout_s=self._timeout_s)
        except TimeoutError as error:
            response.cancel()
            raise Unavailable(f"no answer from a tagger replica in {self._timeout_s:g} s") from error
        except serve_exceptions.BackPressureError as error:
            raise Overloaded("the tagger replicas' queues are full") from error
        except grpc.RpcError as error:
            if getattr(error, "code", lambda: None)() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise TaggingFailed("the micro-batch is larger than Serve's gRPC takes") from error
            raise Unavailable(f"the tagger replica is gone: {type(error).__name__}") from error
        except Exception as error:
            # The deployment hands its own errors back as values: what is raised comes from between us.
            raise Unavailable(f"the tagger replica is gone: {type(error).__name__}: {error}") from error
        if isinstance(answer, TagstreamError):  # the deployment hands errors back as values
            raise answer
        return answer


class RayMetrics:
    """Exports what `core.metrics` lists through Ray's Prometheus endpoints."""

    def __init__(self) -> None:
        self._counters: dict[Metric, ray_metrics.Counter] = {}
        self._gauges: dict[Metric, ray_metrics.Gauge] = {}
        self._histograms: dict[Metric, ray_metrics.Histogram] = {}
        for metric in Metric:
            known = metric.value
            if known.kind == "counter":
                self._counters[metric] = ray_metrics.Counter(known.name, known.meaning, known.labels)
            elif known.kind == "gauge":
                self._gauges[metric] = ray_metrics.Gauge(known.name, known.meaning, known.labels)
            else:
                self._histograms[metric] = ray_metrics.Histogram(
                    known.name, known.meaning, list(known.buckets), known.labels
                )

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        self._counters[metric].inc(amount, labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self._gauges[metric].set(value, labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self._histograms[metric].observe(value, labels)
