"""Search the text member's hyper-parameters and write the best recipe for jobs/retrain.py.

    python jobs/search.py --data DIR --out best.json [--trials 12] [--recipe FILE]
    python jobs/retrain.py --data DIR --out DIR --recipe best.json

A trial trains the text member, takes one CPU and is judged on the validation part; see training/search.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import ray
import typer

from jobs.options import Data, Extra, RecipeFile, Settings, TaxonomyFile, sources
from tagstream.core.errors import TagstreamError
from tagstream.training.members import Recipe
from tagstream.training.search import search


def main(
    data: Data,
    out: Annotated[Path, typer.Option(help="the best recipe is written here, .json")],
    taxonomy: TaxonomyFile = None,
    extra: Extra = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="of split, training and search")] = None,
    trials: Annotated[int, typer.Option(min=1)] = 12,
) -> None:
    """Search the text member's hyper-parameters and write the best recipe."""
    try:
        start = Recipe.read(recipe, settings or (), seed)
        rows, found = sources(data, extra, taxonomy).read(start.seed, start.limit)
        for line in found:
            print(line)
        ray.init(ignore_reinit_error=True)
        best, trials_table = search(rows, start, trials)
    except (ValueError, OSError, TagstreamError) as error:
        raise SystemExit(f"nothing was written: {error}") from None
    out.write_text(best.model_dump_json(indent=1) + "\n", encoding="utf-8")
    print(f"{trials_table}\nwritten: {out}")


if __name__ == "__main__":
    typer.run(main)
