"""A training run on Ray Train: the workers, how they agree, and the run's log in MLflow."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train.collective import broadcast_from_rank_zero
from torch import nn

from tagstream.core.errors import TagstreamError
from tagstream.training.loop import Share
from tagstream.training.progress import Run, timed
from tagstream.training.recipe import Order, make_version

EXPERIMENT = "tagstream"


def retrain(order: Order, workers: int, use_gpu: bool, mlflow: MlflowRun | None = None) -> Path:
    """Train on the Ray that is connected; returns the new model version's folder.

    Raises:
        ValueError: the data, the recipe or the run's name cannot be used, or the loss is not a number any
            more; the message says why.
        OSError, TagstreamError: a file cannot be read or written.
    """
    callbacks: Any = [mlflow] if mlflow else None
    with tempfile.TemporaryDirectory(prefix="tagstream-train-") as storage:
        # The type of `ray.train` is that of its first version, which 2.60 no longer runs.
        start: Any = ray.train.torch.TorchTrainer
        trainer = start(
            work,
            train_loop_config={"order": order, "threads": max(1, (os.cpu_count() or 1) // workers)},
            scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=ray.train.RunConfig(storage_path=storage, callbacks=callbacks),
        )
        try:
            result = trainer.fit()
        except ray.train.WorkerGroupError as error:
            for cause in error.worker_failures.values():
                if isinstance(cause, (ValueError, OSError, TagstreamError)):
                    raise cause from error
            raise
    return Path(result.return_value)


def work(config: dict[str, Any]) -> str | None:
    """Runs on every Ray Train worker; the first one returns the folder of the model version.

    `config`: {"order": Order, "threads": of torch}.
    """
    torch.set_num_threads(config["threads"])
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    share = Share(context.get_world_rank(), context.get_world_size(), _wrapped, broadcast_from_rank_zero)
    say = timed() if share.rank == 0 else lambda text: None
    folder = make_version(config["order"], Run(say, share, ray.train.report), device)
    return None if folder is None else str(folder)


def _wrapped(model: nn.Module) -> nn.Module:
    """DDP where there are several workers. It looks for unused parameters, because some towers have parts
    that the joint member does not use, and because its buckets then stay as they are: a sum over workers has
    the same order of terms after a resumption."""
    wrapped: nn.Module = ray.train.torch.prepare_model(
        model, parallel_strategy_kwargs={"find_unused_parameters": True}
    )
    return wrapped


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
