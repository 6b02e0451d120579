"""The Tagger port over Serve replicas, and the Metrics port over Ray's metrics.

Serve does not replay a call whose replica dies, and a call that finds no replica waits without end. So each
call has a timeout, and the worker retries. A slow replica looks like one that an event has blocked: silence
counts as death.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import ray
from ray.serve import exceptions as serve_exceptions
from ray.serve.handle import DeploymentHandle
from ray.util import metrics as ray_metrics

from tagstream.core.errors import Overloaded, ReplicaDied, TaggingFailed, TagstreamError, Unavailable
from tagstream.core.metrics import Metric
from tagstream.core.ports import MicroBatch, Scores
from tagstream.core.taxonomy import Taxonomy

#: A process of its own first imports torch and loads a model.
_ISOLATED_START_TIMEOUT_S = 180.0
#: That process holds a whole model: it ends so long after its last event.
_ISOLATED_IDLE_S = 120.0
#: By then Ray knows whether a process out of reach has died.
_DEATH_KNOWN_TIMEOUT_S = 10.0
#: How Ray reports that the other end is gone, not late or busy.
_DEATHS = (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError)


class Isolated(Protocol):
    """What runs in a process that serves nobody else. Built there."""

    def tag(self, batch: MicroBatch) -> Scores: ...


class ReplicaTagger:
    """One handle call a micro-batch. Any thread may call it, except one that runs an event loop."""

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        timeout_s: float,
        isolated: Callable[[], Isolated] | None = None,
    ) -> None:
        """`timeout_s`: of one call. `isolated`: makes the tagger of `tag_isolated`, in its process."""
        self._handle = handle
        self._timeout_s = timeout_s
        self._isolated = isolated
        self._actor: Any = None
        self._actor_lock = threading.Lock()
        self._idle = threading.Timer(0, self._end_isolated)

    def tag(self, batch: MicroBatch) -> Scores:
        """See the port."""
        answer = self._call("tag", batch)
        assert isinstance(answer, Scores)
        return answer

    def tag_isolated(self, batch: MicroBatch) -> Scores:
        """See the port. One call at a time, so it is known which batch killed the process."""
        if self._isolated is None:
            raise Unavailable("this tagger has no process of its own to isolate events in")
        with self._actor_lock:
            self._idle.cancel()
            if self._actor is None:
                self._actor = _started(self._isolated)
            try:
                answer = ray.get(self._actor.tag.remote(batch), timeout=self._timeout_s)
            except ray.exceptions.RayError as error:
                actor, self._actor = self._actor, None
                late = isinstance(error, ray.exceptions.GetTimeoutError)
                dead = late or _is_dead(actor)  # out of reach is not dead: the event is not blamed
                ray.kill(actor)
                what = f"no answer in {self._timeout_s:g} s" if late else type(error).__name__
                reason = f"{what} in a process of its own"
                raise (ReplicaDied if dead else Unavailable)(reason) from error
            self._idle = threading.Timer(_ISOLATED_IDLE_S, self._end_isolated)
            self._idle.daemon = True
            self._idle.start()
        if isinstance(answer, TagstreamError):
            raise answer
        assert isinstance(answer, Scores)
        return answer

    def taxonomy(self, model_version: str) -> Taxonomy:
        return Taxonomy.model_validate_json(str(self._call("taxonomy", model_version)))

    def _end_isolated(self) -> None:
        with self._actor_lock:
            if self._actor is not None:
                ray.kill(self._actor)
                self._actor = None

    def _call(self, method: str, argument: object) -> object:
        try:
            response = getattr(self._handle, method).remote(argument)
        except Exception as error:
            raise Unavailable(f"the tagger's replicas are not known: {type(error).__name__}") from error
        try:
            answer = response.result(timeout_s=self._timeout_s)
        except TimeoutError as error:
            response.cancel()
            raise ReplicaDied(f"no answer from a tagger replica in {self._timeout_s:g} s") from error
        except serve_exceptions.BackPressureError as error:
            raise Overloaded("the tagger replicas' queues are full") from error
        except grpc.RpcError as error:
            if getattr(error, "code", lambda: None)() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise TaggingFailed("the micro-batch is larger than Serve's gRPC takes") from error
            raise ReplicaDied(f"the tagger replica is gone: {type(error).__name__}") from error
        except _DEATHS as error:
            raise ReplicaDied(f"the tagger replica is gone: {type(error).__name__}") from error
        except Exception as error:
            # The deployment returns its own errors as values: what is raised here is Serve's.
            raise Unavailable(f"the tagger replica is gone: {type(error).__name__}: {error}") from error
        if isinstance(answer, TagstreamError):
            raise answer
        return answer


def _started(make: Callable[[], Isolated]) -> Any:
    """The actor, its model loaded: no event is to blame for a failure until then. Raises Unavailable."""
    # Never restarted by itself, and no share of the planned CPUs: it is rarely there.
    actor: Any = ray.remote(num_cpus=0, max_restarts=0)(_IsolatedActor).remote(make)
    try:
        ray.get(actor.ready.remote(), timeout=_ISOLATED_START_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        ray.kill(actor)
        raise Unavailable(f"no process of its own: {type(error).__name__}") from error
    return actor


def _is_dead(actor: Any) -> bool:
    """Ray may first report a process that has just died as out of reach."""
    try:
        ray.get(actor.ready.remote(), timeout=_DEATH_KNOWN_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        return isinstance(error, ray.exceptions.ActorDiedError)
    return False


class _IsolatedActor:
    """Returns errors that the caller knows as values: Ray would wrap them."""

    def __init__(self, make: Callable[[], Isolated]) -> None:
        self._tagger = make()

    def ready(self) -> bool:
        return True

    def tag(self, batch: MicroBatch) -> Scores | TagstreamError:
        try:
            return self._tagger.tag(batch)
        except TagstreamError as error:
            return type(error)(str(error))
        except Exception as error:  # whatever the libraries raise, this event is the cause
            return TaggingFailed(f"{type(error).__name__}: {error}")


class RayMetrics:
    """Exports what `core.metrics` lists through Ray's Prometheus endpoints."""

    def __init__(self) -> None:
        self._exported: dict[Metric, Any] = {}
        for metric in Metric:
            kind, of = metric.value.kind, metric.value
            if kind == "histogram":
                buckets = list(of.buckets)
                self._exported[metric] = ray_metrics.Histogram(of.name, of.meaning, buckets, of.labels)
            else:
                make = ray_metrics.Counter if kind == "counter" else ray_metrics.Gauge
                self._exported[metric] = make(of.name, of.meaning, of.labels)

    def add(self, metric: Metric, amount: float = 1, **labels: str) -> None:
        self._exported[metric].inc(amount, labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self._exported[metric].set(value, labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self._exported[metric].observe(value, labels)
