"""Train a generator of tags, measure it, beside classification heads if they are named, and write it.

    python jobs/train_generator.py --data DIR --out DIR [--extra FILE_OR_DIR …] [--heads FOLDER]

DIR as for jobs/retrain.py, which cuts the products in the same way, so that the test part is one that the
heads have not seen either; heads with another test part are refused. One process, titles only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from jobs.options import Data, Extra, sources
from tagstream.core.errors import TagstreamError
from tagstream.training.generation import GenerationRecipe, make_generator
from tagstream.training.progress import Run

DEFAULTS = GenerationRecipe()


def main(
    data: Data,
    out: Annotated[Path, typer.Option(help="where the generator's folder is written")],
    extra: Extra = None,
    heads: Annotated[Path | None, typer.Option(help="folder of the model version to compare with")] = None,
    pretrained: Annotated[Path | None, typer.Option(help="a causal language model to start from")] = None,
    seed: Annotated[int, typer.Option(help="of the training")] = 0,
    split_seed: Annotated[int, typer.Option(help="of the cut into training, validation and test")] = 0,
    epochs: Annotated[
        int, typer.Option(min=1, help="each with the tags in another order")
    ] = DEFAULTS.optimisation.epochs,
    rows_max: Annotated[
        int | None, typer.Option(min=1, help="train on so many titles, drawn by the seed")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, help="hypotheses a title; 1 is greedy")] = DEFAULTS.beams,
    threads: Annotated[int, typer.Option(help="torch's")] = 1,
) -> None:
    """Train a generator of tags and write it as a folder."""
    torch.set_num_threads(threads)
    run = Run()
    how = DEFAULTS.optimisation.model_copy(update={"epochs": epochs})
    recipe = GenerationRecipe(seed=seed, optimisation=how, pretrained=pretrained, beams=beams)
    try:
        rows, found = sources(data, extra).read(split_seed)
        for line in found:
            run.say(line)
        run.say(f"written: {make_generator(rows, recipe, out, run, heads=heads, rows_max=rows_max)}")
    except (ValueError, OSError, TagstreamError) as error:
        raise SystemExit(f"nothing was written: {error}") from None


if __name__ == "__main__":
    typer.run(main)
