"""Train a tagger and write it as a model version.

    python jobs/retrain.py --data DIR --out DIR [--taxonomy FILE] [--extra FILE_OR_DIR …] [--zh FILE]
    python jobs/retrain.py --data DIR --out DIR --run-name NAME --storage DIR [--checkpoint-steps 200]
    python jobs/retrain.py --data DIR --out DIR --keep-pictures-of VERSION_FOLDER      # texts alone: minutes
    ray job submit --working-dir . -- python jobs/retrain.py --data DIR --out DIR --publish s3://…/registry

Starts a local Ray where there is no cluster. The image member trains on all workers (DDP), the rest on
the first. With more than one node, every DIR must be visible on each. About 16 minutes on 2 idle cores for
4,300 pictures and 33,000 further titles.

A run with a name goes on where it was killed, when it is started again with the same settings: on a CPU it
ends with the bytes of an unbroken run. A member that the data cannot teach is left out, and the run says so.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import ray
import ray.train
import ray.train.torch
import torch
import typer
from ray.train.collective import broadcast_from_rank_zero
from torch import nn

from tagstream.adapters.registry import Registry
from tagstream.core.errors import TagstreamError
from tagstream.dataset.columns import columns_of
from tagstream.dataset.rows import unknown_labels
from tagstream.dataset.training_set import TrainingSet
from tagstream.training.batch_size import batch_that_fits
from tagstream.training.card import UNDESCRIBED
from tagstream.training.checkpoints import Checkpoints
from tagstream.training.kept import kept_pictures
from tagstream.training.loop import Hooks, Optimisation, Share, TrainingDiverged
from tagstream.training.mlflow_run import MlflowRun
from tagstream.training.recipe import Recipe, join, retaught, train_image, train_text
from tagstream.training.release import release, write_training_report
from tagstream.training.sources import Sources
from tagstream.training.validation import Validation

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a training run needs to know, as plain values that travel to the workers.

    `keep_pictures_of`: the folder of a model version whose image member is not learned anew. `report`: a
    folder for the training report. `run_folder`: where the checkpoints of a named run lie.
    `gpu_memory_gib`: the recipe's picture batch is made smaller until a step takes no more of a GPU.
    """

    sources: Sources
    out: str
    recipe: str = Recipe().model_dump_json()
    keep_pictures_of: str | None = None
    report: str | None = None
    provenance: str | None = None
    threads: int = 1
    run_folder: str | None = None
    checkpoint_steps: int = 0
    gpu_memory_gib: float | None = None
    code_revision: str | None = None


def train(config: dict[str, Any]) -> str | None:
    """Runs on every Ray Train worker; the first one writes the model version and returns its folder.

    `config`: {"options": Options}.
    """
    options, started = config["options"], time.monotonic()
    torch.set_num_threads(options.threads)
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    share = Share(context.get_world_rank(), context.get_world_size(), _wrapped)

    def say(text: str) -> None:
        if share.rank == 0:
            print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    recipe = Recipe.model_validate_json(options.recipe)
    data, unused = options.sources.read(recipe.seed)
    recipe, left_out = suited(recipe, data)
    for line in (*described(data), *unused, *left_out):
        say(line)
    kept = None
    if options.keep_pictures_of is not None:
        kept = kept_pictures(Path(options.keep_pictures_of), data, recipe)
        say(f"pictures: kept from {kept.model_version}")
    if options.gpu_memory_gib is not None and recipe.image is not None and kept is None:
        rows = batch_that_fits(data, recipe, device, options.gpu_memory_gib, share.world)
        recipe = with_image(recipe, batch_rows=broadcast_from_rank_zero(rows))
        say(f"pictures: {rows} rows a step")
    curves: list[dict[str, Any]] = []
    hooks = _hooks(options, recipe, data, share, device, say, curves)
    image_members = kept.image_members if kept else None
    if kept is None and recipe.image is not None:
        how = recipe.image.optimisation
        image_members = train_image(data, recipe, share=share, hooks=hooks("image", how), device=device).cpu()
    if share.rank != 0:
        return None
    text = None
    if recipe.text is not None:
        text = train_text(data, recipe, hooks=hooks("text", recipe.text.optimisation), device=device).cpu()
    say(
        "members ready: "
        + " and ".join(name for name, member in (("text", text), ("image", image_members)) if member)
    )
    trained = join(data, recipe, text, image_members, kept.taught if kept else None)
    trained = retaught(trained, data, hooks=partial(hooks, "text_again"), device=device)
    now = datetime.now(UTC).replace(microsecond=0)
    folder, metrics = release(
        Path(options.out),
        data,
        trained,
        now,
        options.code_revision,
        options.provenance or UNDESCRIBED,
        kept,
    )
    if options.report is not None:
        say(f"report: {write_training_report(Path(options.report), folder.name, data, trained, curves)}")
    for modalities, figures in metrics["test"].items():
        accuracy, f1 = figures["mean_accuracy"], figures["mean_macro_f1"]
        if accuracy is not None:
            say(f"test, {modalities}: accuracy {accuracy:.4f}, macro-F1 {f1:.4f}")
    say(f"written: {folder}")
    return str(folder)


def described(data: TrainingSet) -> Iterator[str]:
    """What was read and what of it teaches nothing, line by line."""
    parts = data.products
    yield f"products: {len(parts.train)} train, {len(parts.validation)} validate, {len(parts.test)} test"
    yield f"extra rows: {len(data.extra)}; pictures to learn from: {len(data.with_pictures)}"
    yield f"Chinese copies: {len(data.zh.train)} to train; taxonomy: {data.taxonomy.size} values"
    learned = {group.name for group in data.taxonomy.groups}
    labelled = {group for row in data.titles_trained_on for group in row.labels}
    if not data.not_learned:
        for group in sorted(labelled - learned):
            yield f"{group} is not learned: it has fewer than two values with enough rows"
    if scarce := unknown_labels(data.titles_trained_on, data.taxonomy):
        yield f"{len(scarce)} values are not learned: too few rows, {sum(scarce.values())} together"


def suited(recipe: Recipe, data: TrainingSet) -> tuple[Recipe, list[str]]:
    """The recipe without the members that the data cannot teach, and a sentence on each of them.

    Raises:
        ValueError: there is nothing to train.
    """
    parts, said = recipe.model_dump(), []
    if recipe.image is not None and not any(row.has_picture for row in data.with_pictures):
        parts |= {"image": None, "joint": None}
        said.append("no training row has a picture: the image member is left out")
    if recipe.text is not None and not any(
        row.text.title or row.text.description for row in data.titles_trained_on
    ):
        parts |= {"text": None, "joint": None}
        said.append("no training row has a title: the text member is left out")
    if parts["text"] is None and parts["image"] is None:
        raise ValueError(f"there is nothing to train: {'; '.join(said)}")
    return Recipe.model_validate(parts), said


def identity(data: TrainingSet) -> str:
    """Sixteen hex digits over every row of every part: texts, labels and pictures."""
    digest = hashlib.sha256()
    parts = (data.products, data.zh)
    held = [row for part in parts for row in (*part.validation, *part.test)]
    for row in (*data.titles_trained_on, *held):
        fields = (row.product_id, row.text, sorted(row.labels.items()), row.picture_hash)
        digest.update(repr(fields).encode(errors="replace"))
    return digest.hexdigest()[:16]


def _hooks(
    options: Options,
    recipe: Recipe,
    data: TrainingSet,
    share: Share,
    device: torch.device,
    say: Say,
    curves: list[dict[str, Any]],
) -> Callable[[str, Optimisation], Hooks]:
    """What each member tells and keeps. Raises ValueError if the run's name belongs to another run."""
    checkpoints = None
    if options.run_folder is not None:
        checkpoints = Checkpoints(Path(options.run_folder), options.checkpoint_steps, share.rank == 0)
        checkpoints.claim(
            {
                "recipe": recipe.model_dump(mode="json"),
                "data": identity(data),
                "taxonomy": data.taxonomy.content_hash(),
                "kept_pictures": options.keep_pictures_of,
                "workers": share.world,
                "threads": options.threads,
                "device": device.type,
                "torch": torch.__version__,
            }
        )
    validation = Validation(data, recipe)

    def hooks(member: str, how: Optimisation) -> Hooks:
        together = member == "image"
        validate = partial(getattr(validation, member)) if how.patience else None
        on_epoch = _Teller(member, how.epochs, validate, share, together, say, curves)
        if checkpoints is None:
            return Hooks(on_epoch=on_epoch)
        found = checkpoints.hooks(member, on_epoch)
        if found.saved is not None:
            say(f"{member}: goes on after step {found.saved['progress']['step']}")
            for epoch, (loss, figure) in enumerate(found.saved["progress"]["epochs"], 1):
                curves.append(_point(member, epoch, loss, figure))
        return found

    return hooks


class _Teller:
    """Says after each epoch how a member gets on, and what it reaches on the validation part.

    `together`: all workers train this member. They share the first one's figure, so that all stop at once.
    """

    def __init__(
        self,
        member: str,
        epochs: int,
        validate: Callable[[Any], float] | None,
        share: Share,
        together: bool,
        say: Say,
        curves: list[dict[str, Any]],
    ) -> None:
        self._member, self._epochs, self._validate, self._say = member, epochs, validate, say
        self._curves = curves
        self._share, self._together = share, together
        self._started, self._epochs_here = time.monotonic(), 0

    def __call__(self, epoch: int, loss: float, module: nn.Module) -> float | None:
        self._epochs_here += 1
        left = self._epochs - epoch - 1
        left_s = (time.monotonic() - self._started) / self._epochs_here * left
        said, metrics = "", {f"{self._member}_epoch": epoch, f"{self._member}_loss": loss}
        figure = None
        if self._validate is not None:
            figure = self._validate(module) if self._share.rank == 0 else None
            if self._together:
                figure = broadcast_from_rank_zero(figure)
            assert figure is not None
            said = f", validation macro-F1 {figure:.4f}"
            metrics[f"{self._member}_macro_f1"] = figure
        self._curves.append(_point(self._member, epoch + 1, loss, figure))
        self._say(
            f"{self._member}: epoch {epoch + 1}/{self._epochs}, loss {loss:.3f}{said}, "
            f"about {left_s:.0f} s to go"
        )
        # A report waits for all workers, and only the first one trains the text member.
        if self._together or self._share.world == 1:
            ray.train.report(metrics)
        return figure


def _point(member: str, epoch: int, loss: float, figure: float | None) -> dict[str, Any]:
    """Of a learning curve, as the report draws it."""
    point = {"part": member, "epoch": epoch, "loss": loss}
    return point if figure is None else {**point, "macro_f1": figure}


def _wrapped(model: nn.Module) -> nn.Module:
    """DDP where there are several workers. It looks for unused parameters, because some towers have parts
    that the joint member does not use, and because its buckets then stay as they are: a sum over workers has
    the same order of terms after a resumption."""
    wrapped: nn.Module = ray.train.torch.prepare_model(
        model, parallel_strategy_kwargs={"find_unused_parameters": True}
    )
    return wrapped


def retrain(options: Options, workers: int, use_gpu: bool, mlflow: MlflowRun | None = None) -> Path:
    """Train on the Ray that is connected; returns the new model version's folder under `options.out`.

    Raises:
        ValueError: the data, the recipe or the run's name cannot be used; the message says why.
        TrainingDiverged: the loss is not a number any more.
    """
    # A report waits until Ray Train has taken the one before, by default every 2 s: an epoch may be shorter.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    with tempfile.TemporaryDirectory(prefix="tagstream-train-") as storage:
        trainer = ray.train.torch.TorchTrainer(
            train,
            train_loop_config={"options": options},
            scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            run_config=ray.train.RunConfig(storage_path=storage, callbacks=[mlflow] if mlflow else None),
        )
        try:
            result = trainer.fit()
        except ray.train.WorkerGroupError as error:
            for cause in error.worker_failures.values():
                if isinstance(cause, (ValueError, OSError, TrainingDiverged, TagstreamError)):
                    raise cause from error
            raise
    return Path(result.return_value)


def main(
    data: Annotated[Path, typer.Option(help="products file, or the folder with it and *titles* files")],
    out: Annotated[Path, typer.Option(help="where the model version's folder is written")],
    taxonomy: Annotated[
        Path | None, typer.Option(help="groups and values, .json or .yaml; default: from the data")
    ] = None,
    extra: Annotated[
        list[Path] | None, typer.Option(help="further labelled products or titles, to train on; repeat it")
    ] = None,
    zh: Annotated[Path | None, typer.Option(help="labelled Chinese copy, items.jsonl")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="the model's parts and their training, .json; see jobs/recipes/")
    ] = None,
    keep_pictures_of: Annotated[
        Path | None, typer.Option(help="folder of a model version whose image member is not learned anew")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of the split and of the training")] = None,
    epochs: Annotated[int | None, typer.Option(help="of the image member")] = None,
    workers: Annotated[int, typer.Option(help="Ray Train workers")] = 1,
    use_gpu: Annotated[bool, typer.Option(help="one GPU a worker")] = False,
    fit_batch_to_gpu_memory: Annotated[
        float | None, typer.Option(help="GiB of a GPU that a step may take; the picture batch is made to fit")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="read only so many rows of each file")] = None,
    id: Annotated[str | None, typer.Option(help="column of the ids; found by its name by default")] = None,
    title: Annotated[str | None, typer.Option(help="column of the titles; `none`: there is none")] = None,
    description: Annotated[str | None, typer.Option(help="column of the descriptions, or `none`")] = None,
    image: Annotated[str | None, typer.Option(help="column of the pictures' paths, or `none`")] = None,
    labels: Annotated[str | None, typer.Option(help="columns that are groups, comma-separated")] = None,
    brand: Annotated[str | None, typer.Option(help="column of the brands, or `none`")] = None,
    separators: Annotated[str, typer.Option(help="between several values in a cell")] = "|;",
    report: Annotated[Path | None, typer.Option(help="folder for a training report, HTML and PNG")] = None,
    provenance: Annotated[
        Path | None, typer.Option(help="Markdown for the model card: the data's licences and limits")
    ] = None,
    run_name: Annotated[
        str | None, typer.Option(help="of a run that can be killed and started again")
    ] = None,
    storage: Annotated[Path | None, typer.Option(help="where named runs keep their checkpoints")] = None,
    checkpoint_steps: Annotated[
        int, typer.Option(help="steps between checkpoints; 0: one after each epoch", min=0)
    ] = 0,
    mlflow: Annotated[str | None, typer.Option(help="MLflow tracking URI that the run is logged to")] = None,
    publish: Annotated[str | None, typer.Option(help="registry to publish to; promotes nothing")] = None,
) -> None:
    """Train a tagger and write it as a model version."""
    if (run_name is None) != (storage is None):
        raise typer.BadParameter("--run-name and --storage belong together")
    if fit_batch_to_gpu_memory is not None and not use_gpu:
        raise typer.BadParameter("--fit-batch-to-gpu-memory needs --use-gpu")
    try:
        options = Options(
            sources=Sources(
                data=str(data.resolve()),
                extra=tuple(str(path.resolve()) for path in extra or ()),
                zh=str(zh.resolve()) if zh else None,
                taxonomy=str(taxonomy.resolve()) if taxonomy else None,
                columns=columns_of(id, title, description, brand, image, labels, separators),
                limit=limit,
            ),
            out=str(out.resolve()),
            recipe=chosen(recipe, seed, epochs).model_dump_json(),
            keep_pictures_of=str(keep_pictures_of.resolve()) if keep_pictures_of else None,
            report=str(report.resolve()) if report else None,
            provenance=provenance.read_text(encoding="utf-8") if provenance else None,
            threads=max(1, (os.cpu_count() or 1) // workers),
            run_folder=str(storage.resolve() / run_name) if storage and run_name else None,
            checkpoint_steps=checkpoint_steps,
            gpu_memory_gib=fit_batch_to_gpu_memory,
            code_revision=_code_revision(),
        )
        logged = MlflowRun.start(mlflow, run_name, asdict(options)) if mlflow else None
        ray.init(ignore_reinit_error=True)
        folder = retrain(options, workers, use_gpu, logged)
    except (ValueError, OSError, TrainingDiverged, TagstreamError) as error:
        raise SystemExit(f"nothing was written: {error}") from None
    if logged is not None:
        logged.finish(folder)
    if publish:
        print(f"published {Registry(publish).publish(folder)} to {publish}")


def chosen(file: Path | None, seed: int | None, epochs: int | None) -> Recipe:
    """The recipe of a file, or the default one, with what the command line changes.

    Raises:
        ValueError: the file is no recipe.
    """
    recipe = Recipe.model_validate_json(file.read_bytes()) if file else Recipe()
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    return with_image(recipe, epochs=epochs) if epochs is not None else recipe


def with_image(recipe: Recipe, **changes: int) -> Recipe:
    """The recipe with another optimisation of the image member, if it has one."""
    if recipe.image is None:
        return recipe
    how = recipe.image.optimisation.model_copy(update=changes)
    return recipe.model_copy(update={"image": recipe.image.model_copy(update={"optimisation": how})})


def _code_revision() -> str | None:
    """The commit that trains, None outside a repository."""
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None if answer.returncode == 0 else None


if __name__ == "__main__":
    typer.run(main)
