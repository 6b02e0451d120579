"""Train a generator of tags, measure it, beside classification heads if they are named, and write it.

    python jobs/train_generator.py --data DIR --out DIR [--extra FILE_OR_DIR …] [--heads FOLDER]

DIR as for jobs/retrain.py, which cuts the products in the same way, so that the test part is one that the
heads have not seen either; heads with another test part are refused. One process, titles only.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.rows import Row
from tagstream.dataset.split import EvaluationSpec
from tagstream.dataset.targets import targets
from tagstream.dataset.training_set import title_hashes
from tagstream.evaluation.figures import score_rows
from tagstream.evaluation.writing import (
    TagSet,
    as_sets,
    labelled,
    likeliest,
    set_figures,
    writing_figures,
)
from tagstream.model.generation.generator import Generator, save
from tagstream.model.version.load import load
from tagstream.training.generation import GeneratorTraining, fit_generator
from tagstream.training.sources import Sources
from tagstream.training.thresholds import with_thresholds

DEFAULTS = GeneratorTraining()


def main(
    data: Annotated[Path, typer.Option(help="as for jobs/retrain.py")],
    out: Annotated[Path, typer.Option(help="where the generator's folder is written")],
    extra: Annotated[list[Path] | None, typer.Option(help="as for jobs/retrain.py")] = None,
    heads: Annotated[Path | None, typer.Option(help="folder of the model version to compare with")] = None,
    pretrained: Annotated[Path | None, typer.Option(help="a causal language model to start from")] = None,
    seed: Annotated[int, typer.Option(help="of the training")] = 0,
    split_seed: Annotated[int, typer.Option(help="of the cut into training, validation and test")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="each with the tags in another order")] = DEFAULTS.epochs,
    rows_max: Annotated[
        int | None, typer.Option(min=1, help="train on so many titles, drawn by the seed")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, help="hypotheses a title; 1 is greedy")] = DEFAULTS.beams,
    threads: Annotated[int, typer.Option(help="torch's")] = 1,
) -> None:
    """Train a generator of tags and write it as a folder."""
    torch.set_num_threads(threads)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    cut, found = Sources(str(data), tuple(map(str, extra or ()))).read(split_seed)
    for line in found:
        say(line)
    test = cut.products.test
    truths = labelled(test, [group.name for group in cut.taxonomy.groups])
    metrics: dict[str, Any] = {"spec_hash": cut.spec.content_hash(), "seed": seed}
    if heads is not None:  # first, so that heads that do not fit cost no training
        said = _said_by_heads(heads, cut.spec, test, cut.taxonomy)
        metrics["heads"] = set_figures(truths, said, cut.taxonomy)
        say(f"heads, titles alone: {_shown(metrics['heads'])}")

    rows = _drawn(cut.titles_trained_on, rows_max, seed)
    say(f"{len(rows)} titles to train, {len(test)} to test; taxonomy: {cut.taxonomy.size} values")
    recipe = GeneratorTraining(seed=seed, epochs=epochs, pretrained=pretrained, beams=beams)
    cpu_started_s = time.process_time()
    generator = fit_generator(
        rows,
        cut.taxonomy,
        recipe,
        on_epoch=lambda epoch, loss: say(f"epoch {epoch + 1}/{epochs}, loss {loss:.3f}"),
    )
    metrics |= {"training_rows": len(rows), "training_cpu_s": round(time.process_time() - cpu_started_s)}
    generator.taxonomy = _with_thresholds(generator, cut.products.validation)
    metrics |= _measured(generator, test, truths)
    for name in ("constrained", "unconstrained"):
        say(f"{name}: {_shown(metrics[name])}, {metrics[name]['writing']}")

    now = datetime.now(UTC).replace(microsecond=0)
    model_version = f"generator-{now:%Y%m%d-%H%M%S}-{cut.dataset_id()[:6]}"
    save(
        out / model_version,
        generator,
        model_version=model_version,
        dataset_id=cut.dataset_id(),
        created=now.isoformat(),
        training_groups=len(title_hashes(rows)),
        metrics=metrics,
    )
    load(out / model_version)
    say(f"written: {out / model_version}")


def _drawn(rows: Sequence[Row], rows_max: int | None, seed: int) -> list[Row]:
    return random.Random(seed).sample(rows, min(rows_max or len(rows), len(rows)))


def _said_by_heads(
    folder: Path, spec: EvaluationSpec, test: Sequence[Row], taxonomy: Taxonomy
) -> list[TagSet]:
    """Raises ValueError where the heads were tested on other rows, and so may have learned from ours."""
    theirs = EvaluationSpec.model_validate_json((folder / "evaluation_spec.json").read_bytes())
    if set(theirs.test_ids) != set(spec.test_ids):
        raise ValueError(f"{folder}: its test part is another one; cut the same products with its split seed")
    return likeliest(load(folder), test, [group.name for group in taxonomy.groups])


def _with_thresholds(generator: Generator, validation: Sequence[Row]) -> Taxonomy:
    scores = score_rows(generator, validation, "text")
    return with_thresholds(
        generator.taxonomy, scores, targets([row.labels for row in validation], generator.taxonomy)
    )


def _measured(generator: Generator, test: Sequence[Row], truths: Sequence[TagSet]) -> dict[str, Any]:
    """Figures of what is written within the taxonomy and without its constraint."""
    taxonomy, texts = generator.taxonomy, [row.text for row in test]
    cpu_started_s = time.process_time()
    tags = generator.generate(texts)
    cpu_ms = (time.process_time() - cpu_started_s) / len(test) * 1000
    freely = generator.generate_freely(texts)
    free_sets = [frozenset((group, value) for group, value in row if value is not None) for row in freely]
    return {
        "cpu_ms_a_title": round(cpu_ms, 2),
        "constrained": {
            **set_figures(truths, as_sets(tags), taxonomy),
            "writing": writing_figures([[(tag.group, tag.value) for tag in row] for row in tags], taxonomy),
        },
        "unconstrained": {
            **set_figures(truths, free_sets, taxonomy),
            "writing": writing_figures(freely, taxonomy),
        },
    }


def _shown(figures: dict[str, Any]) -> str:
    names = ("set_f1", "exact", "edit_distance")
    groups = " ".join(f"{group} {f1:.3f}" for group, f1 in figures["f1_of_group"].items())
    return f"{' '.join(f'{name} {figures[name]:.4f}' for name in names)} ({groups})"


if __name__ == "__main__":
    typer.run(main)
