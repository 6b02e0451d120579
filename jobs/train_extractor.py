"""Train an extractor of product and brand terms, and measure its exact span F1.

    python jobs/train_extractor.py --data train.jsonl --test dev.jsonl --out DIR
    python jobs/train_extractor.py --data products.csv --out DIR         # English, from weak labels
    python jobs/train_extractor.py --data train.jsonl --test dev.jsonl --out DIR --encoder FOLDER

A .jsonl file has labelled titles (see `dataset.titles`), a .csv or .csv.gz file has the columns title and
articleType, from which labels are made (see `dataset.weak`). Without --test about 12 % of the titles are
held out, near-duplicates on one side. `TAGSTREAM_EXTRACTOR=DIR` serves what is written.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from tagstream.dataset.titles import Title, cut, read_titles
from tagstream.dataset.weak import read_weakly_labelled
from tagstream.model.extraction.pretrained import Pretrained
from tagstream.model.version.load import load_extractor
from tagstream.training.extraction import ExtractionRecipe, measure, train_extractor
from tagstream.training.progress import Run

GROUPS = ("product", "brand")


def main(
    data: Annotated[Path, typer.Option(help="labelled titles (.jsonl), or products (.csv)")],
    out: Annotated[Path, typer.Option(help="folder to be written")],
    test: Annotated[Path | None, typer.Option(help="titles to measure on; never trained on")] = None,
    lang: Annotated[str, typer.Option(help="language of the titles that it will read; unset: all")] = "",
    encoder: Annotated[
        str | None, typer.Option(help="Hugging Face encoder, by folder or name; unset: from scratch")
    ] = None,
    encoder_learning_rate: Annotated[float, typer.Option(help="0 leaves the encoder as it is")] = 0.0,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    seed: Annotated[int, typer.Option()] = 0,
    threads: Annotated[int | None, typer.Option(help="of torch; unset: one a core")] = None,
) -> None:
    """Train an extractor of product and brand terms, and measure its exact span F1."""
    if out.exists():
        raise typer.BadParameter(f"{out} is there already", param_hint="--out")
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        titles = _read(data)
        learn, measured = (titles, _read(test)) if test is not None else cut(titles, seed=0)
        how = ExtractionRecipe().optimisation.model_copy(update={"epochs": epochs})
        recipe = ExtractionRecipe(optimisation=how, seed=seed, pretrained_learning_rate=encoder_learning_rate)
        extractor = train_extractor(
            learn,
            GROUPS,
            recipe,
            langs=(lang,) if lang else (),
            pretrained=Pretrained.read(encoder) if encoder is not None else None,
            hooks=Run().hooks("extractor", how),
        )
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    digest = hashlib.sha256(data.read_bytes()).hexdigest()[:16]
    extractor.save(out, model_version=out.name, dataset_id=f"{data.name} {digest}")
    figures = measure(load_extractor(out), measured)
    print(f"exact span F1 on {len(measured)} titles that were not trained on")
    for group, of in figures.items():
        print(f"  {group:<8} {json.dumps({name: round(value, 4) for name, value in of.to_json().items()})}")


def _read(path: Path) -> list[Title]:
    return read_titles(path) if path.suffix == ".jsonl" else read_weakly_labelled(path)


if __name__ == "__main__":
    typer.run(main)
