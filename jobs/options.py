"""What the training jobs have in common on the command line: the labelled data and the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tagstream.training.recipe import Sources

Data = Annotated[Path, typer.Option(help="dataset.toml, or a products file, or a folder with one of them")]
Extra = Annotated[
    list[Path] | None, typer.Option(help="further labelled products or titles, to train on; repeat it")
]
TaxonomyFile = Annotated[
    Path | None, typer.Option(help="groups and values, .json or .yaml; default: from the data")
]
RecipeFile = Annotated[
    Path | None, typer.Option(help="the model's parts and their training, .json; see jobs/recipes/")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value of the recipe, such as image.optimisation.epochs=3; repeat it"),
]


def sources(data: Path, extra: list[Path] | None = None, taxonomy: Path | None = None) -> Sources:
    """With paths that mean the same on every worker."""
    return Sources(
        data=str(data.resolve()),
        extra=tuple(str(path.resolve()) for path in extra or ()),
        taxonomy=str(taxonomy.resolve()) if taxonomy else None,
    )
