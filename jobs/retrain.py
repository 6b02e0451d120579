"""Train a tagger and write it as a model version.

    python jobs/retrain.py --data DIR --out DIR [--recipe FILE] [--set image.optimisation.epochs=3 …]
    python jobs/retrain.py --data DIR --out DIR --run-name NAME --storage DIR
    python jobs/retrain.py --data DIR --out DIR --set image.kept_from=VERSION_FOLDER   # texts alone: minutes
    ray job submit --working-dir . -- python jobs/retrain.py --data DIR --out DIR --publish s3://…/registry

Starts a local Ray where there is no cluster. The image member trains on all workers (DDP), the rest on
the first. With more than one node, every DIR must be visible on each. About 16 minutes on 2 idle cores for
4,300 pictures and 33,000 further titles. What can be `--set`: `training/members.py`, `Recipe`.

A run with a name goes on where it was killed, when it is started again with the same settings: on a CPU it
ends with the bytes of an unbroken run. A member that the data cannot teach is left out, and the run says so.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated

import ray
import typer

from jobs.options import Data, Extra, RecipeFile, Settings, TaxonomyFile, sources
from tagstream.adapters.registry import Registry
from tagstream.core.errors import TagstreamError
from tagstream.training.members import Recipe
from tagstream.training.on_ray import MlflowRun, retrain
from tagstream.training.recipe import Order


def main(
    data: Data,
    out: Annotated[Path, typer.Option(help="where the model version's folder is written")],
    taxonomy: TaxonomyFile = None,
    extra: Extra = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="of the split and of the training")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Ray Train workers")] = 1,
    use_gpu: Annotated[bool, typer.Option(help="one GPU a worker")] = False,
    report: Annotated[Path | None, typer.Option(help="folder for a training report, HTML and PNG")] = None,
    run_name: Annotated[
        str | None, typer.Option(help="of a run that can be killed and started again")
    ] = None,
    storage: Annotated[Path | None, typer.Option(help="where named runs keep their checkpoints")] = None,
    mlflow: Annotated[str | None, typer.Option(help="MLflow tracking URI that the run is logged to")] = None,
    publish: Annotated[str | None, typer.Option(help="registry to publish to; promotes nothing")] = None,
) -> None:
    """Train a tagger and write it as a model version."""
    if (run_name is None) != (storage is None):
        raise typer.BadParameter("--run-name and --storage belong together")
    try:
        order = Order(
            sources=sources(data, extra, taxonomy),
            out=str(out.resolve()),
            recipe=Recipe.read(recipe, settings or (), seed),
            report=str(report.resolve()) if report else None,
            run_folder=str(storage.resolve() / run_name) if storage and run_name else None,
            code_revision=_code_revision(),
        )
        if order.recipe.image and order.recipe.image.gpu_memory_gib and not use_gpu:
            raise ValueError("image.gpu_memory_gib needs --use-gpu")
        logged = MlflowRun.start(mlflow, run_name, vars(order)) if mlflow else None
        # A report waits until Ray Train took the one before, by default every 2 s. An epoch may be shorter.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        ray.init(ignore_reinit_error=True)
        folder = retrain(order, workers, use_gpu, logged)
    except (ValueError, OSError, TagstreamError) as error:
        raise SystemExit(f"nothing was written: {error}") from None
    if logged is not None:
        logged.finish(folder)
    if publish:
        print(f"published {Registry(publish).publish(folder)} to {publish}")


def _code_revision() -> str | None:
    """The commit that trains, None outside a repository."""
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None if answer.returncode == 0 else None


if __name__ == "__main__":
    typer.run(main)
