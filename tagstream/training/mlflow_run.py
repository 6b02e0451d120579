"""A training run in MLflow. The client comes with the `mlflow` extra and is imported when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train

EXPERIMENT = "tagstream"


class MlflowRun(ray.train.UserCallback):
    """Logs what the workers report; lives in the driver and, as a copy, in Ray Train's controller."""

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri, self.run_id = uri, run_id
        self._step = 0

    @classmethod
    def start(cls, uri: str, name: str | None, parameters: Mapping[str, Any]) -> MlflowRun:
        """Begin a run in the experiment `tagstream`.

        Raises:
            ValueError: mlflow is not installed.
        """
        client = _client(uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = found.experiment_id if found else client.create_experiment(EXPERIMENT)
        run_id = client.create_run(experiment_id, run_name=name).info.run_id
        for key, value in parameters.items():
            if value is not None:
                client.log_param(run_id, key, value)
        return cls(uri, run_id)

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """One report is one epoch: the first worker's figures."""
        client = _client(self.uri)
        for name, value in metrics[0].items():
            client.log_metric(self.run_id, name, float(value), step=self._step)
        self._step += 1

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        _client(self.uri).set_terminated(self.run_id, "FAILED")

    def finish(self, folder: Path) -> None:
        """Log the model version's folder and end the run."""
        client = _client(self.uri)
        client.log_artifacts(self.run_id, str(folder), "model")
        client.set_terminated(self.run_id, "FINISHED")


def _client(uri: str) -> Any:
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ValueError("--mlflow needs the `mlflow` extra: pip install 'tagstream[mlflow]'") from error
    return MlflowClient(uri)
