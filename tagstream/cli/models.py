"""`tagstream models`: list and promote versions, make children without training, move them around."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tagstream.adapters.registry import Registry
from tagstream.cli.show import say
from tagstream.core.errors import BadSettings
from tagstream.taxonomy.files import read_taxonomy

app = typer.Typer(no_args_is_help=True, help="List, promote, derive, export, push and pull model versions.")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The model version.")]
RegistryRoot = Annotated[str, typer.Argument(metavar="REGISTRY", help="A registry's folder or URI.")]


@app.command()
def derive(
    model: Annotated[Path, typer.Argument(metavar="FOLDER", help="The model version it starts from.")],
    taxonomy: Annotated[Path, typer.Option(help="Its taxonomy.json, edited by `tagstream taxonomy`.")],
    out: Annotated[Path, typer.Option(help="Where the child's folder is written.")],
    publish: Annotated[str | None, typer.Option(help="Registry to publish to; promotes nothing.")] = None,
) -> None:
    """A child version with the same weights and other thresholds, names, merged or retired values."""
    from tagstream.model.version.derive import derive as derive_version

    edited = read_taxonomy(taxonomy)
    folder, left_out = derive_version(model, edited, out, datetime.now(UTC).replace(microsecond=0))
    for sentence in left_out:
        say(f"left out: {sentence}")
    say(f"written: {folder}")
    if publish:
        say(f"published {Registry(publish).publish(folder)} to {publish}")


@app.command("export-onnx")
def export_onnx(
    model: Folder,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The graph, such as tagger.onnx.")],
) -> None:
    """The graph from prepared tensors to scores, checked against the golden batch."""
    try:
        from tagstream.model.version.onnx import TOLERANCE, export

        gap = export(model, out)
    except ImportError as error:
        raise BadSettings(f"install the extra: pip install 'tagstream[onnx]' ({error})") from error
    except ValueError as error:
        raise BadSettings(str(error)) from error
    say(f"written: {out}; scores differ by {gap:.6f} at most (allowed: {TOLERANCE})")


@app.command()
def push(
    model: Folder,
    to: Annotated[str, typer.Argument(metavar="TO", help="hf://OWNER/NAME, or a registry's folder or URI.")],
) -> None:
    """Send a model version to a Hugging Face hub or a registry; promotes nothing."""
    from tagstream.model.version import hub

    model_version = hub.push(model, to) if to.startswith(hub.SCHEME) else Registry(to).publish(model)
    say(f"pushed {model_version} to {to}")


@app.command()
def pull(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM", help="hf://OWNER/NAME[@VERSION], a model version's folder, a registry."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Gets a folder of the version's name.")],
    model_version: Annotated[
        str, typer.Option("--version", help="Of a registry; its champion if unset.")
    ] = "",
) -> None:
    """Fetch a model version and keep it if its manifest and golden batch agree."""
    from tagstream.model.version import hub
    from tagstream.model.version.format import MANIFEST

    try:
        if source.startswith(hub.SCHEME):
            folder = hub.pull(source, out)
        elif (Path(source) / MANIFEST).is_file():
            folder = hub.accept(Path(source), out)
        else:
            registry = Registry(source)
            folder = hub.accept(registry.fetch(model_version or registry.champion()[0]), out)
    except FileExistsError as error:
        raise BadSettings(str(error)) from error
    say(f"pulled: {folder}")


@app.command("list")
def list_versions(registry: RegistryRoot) -> None:
    """The versions of a registry; the champion is marked."""
    of = Registry(registry)
    champion = of.aliases()["champion"]
    for version in of.versions():
        say(f"{version}{'  champion' if version == champion else ''}")


@app.command()
def promote(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version of the registry.")],
    registry: RegistryRoot,
) -> None:
    """Make it the champion: replicas that watch the registry take it over between two micro-batches."""
    of = Registry(registry)
    generation = of.promote(version, of.aliases()["generation"])
    say(f"{version} is champion, generation {generation}")
