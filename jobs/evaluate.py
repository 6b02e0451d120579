"""Measure model versions on labelled products, side by side.

    python jobs/evaluate.py --data DATA --model champion [--model FOLDER …] [--json FILE] [--report DIR]

DATA: dataset.toml, products.csv (columns id, title, image and one a group), or a folder with one of them.
The slices are both, text, image, and both and text with the words that name labels hidden (masked-both,
masked-text). Every one that the data has is measured, and each language on its own. Without --spec the class
lists come from the first model's training counts. The highest score of a group is its answer: no abstention.
A .jsonl file of titles with `entities` measures extractors by exact span F1: each --model is one's folder.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.errors import TagstreamError
from tagstream.evaluation.comparison import SLICES
from tagstream.ops.evaluate import run_evaluation

Named = StrEnum("Named", {name: name for name in SLICES})  # type: ignore[misc]


def main(
    data: Annotated[
        Path, typer.Option(help="dataset.toml, or a products file, or a folder with one of them")
    ],
    model: Annotated[
        list[str] | None, typer.Option(help="`champion`, a version in the registry, or a folder; repeat it")
    ] = None,
    registry: Annotated[
        str, typer.Option(envvar="TAGSTREAM_REGISTRY_URI", help="whose champion and versions are meant")
    ] = str(BUNDLED),
    slices: Annotated[list[Named] | None, typer.Option(help="only this slice; repeat it")] = None,
    spec: Annotated[Path | None, typer.Option(help="evaluation spec: its test ids and class lists")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
    report: Annotated[Path | None, typer.Option(help="write HTML and PNG into this folder")] = None,
) -> None:
    """Measure model versions on labelled products, side by side."""
    try:
        run_evaluation(data, model or (), Registry(registry), slices or (), spec, json_out, report)
    except (TagstreamError, ValueError, OSError) as error:
        typer.echo(f"evaluate: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
