"""`tagstream taxonomy`: make, show, check and change a taxonomy file.

Each change is written in one step and gives the taxonomy a new version, by its content. Values are never
deleted: they are replaced (rename, merge) or retired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tagstream.cli.show import AsJson, print_json, print_rows, say
from tagstream.core.errors import BadSettings
from tagstream.core.taxonomy import Group, Taxonomy, Value
from tagstream.dataset.columns import ALIASES, NO_COLUMN, Columns
from tagstream.dataset.description import FILE_NAME, DataFile, Dataset, read_dataset, write_dataset
from tagstream.dataset.induce import Finding, induce
from tagstream.dataset.names import named
from tagstream.dataset.table import read_table
from tagstream.taxonomy import edit
from tagstream.taxonomy.files import read_taxonomy, write_taxonomy
from tagstream.taxonomy.shopify import import_shopify

app = typer.Typer(no_args_is_help=True, help="Make, show, check and change a taxonomy file (JSON or YAML).")

_SHOWN_VALUES = 12


File = Annotated[Path, typer.Argument(metavar="FILE", help="The taxonomy: .json, .yaml or .yml.")]
GroupName = Annotated[str, typer.Argument(metavar="GROUP")]
ValueName = Annotated[str, typer.Argument(metavar="VALUE")]
Names = Annotated[list[str] | None, typer.Option("--name", metavar="LANG=NAME", help="A display name.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
Role = Annotated[str | None, typer.Option(help="Its column; none: there is none.")]


@app.command()
def init(
    file: File,
    data: Annotated[Path, typer.Option(help="A products file, its folder, or a dataset.toml.")],
    labels: Annotated[str | None, typer.Option(help="Comma-separated columns that are labels.")] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="Its column; none: there is none.")] = None,
    title: Role = None,
    description: Role = None,
    brand: Role = None,
    image: Role = None,
    separators: Annotated[
        str, typer.Option(help="Each of these characters separates the values of one cell.")
    ] = "|;",
    min_rows: Annotated[int, typer.Option(min=1, help="Rows that a value needs.")] = 10,
    overwrite: Overwrite = False,
) -> None:
    """Make one from labelled products, and a dataset.toml beside it; print what each column is, and why."""
    columns = Columns(
        id=id_column,
        title=title,
        description=description,
        brand=brand,
        image=image,
        labels=[name.strip() for name in labels.split(",")] if labels else None,
        separators=separators,
    )
    dataset = _read(data, columns)
    products = dataset.products[0]
    taxonomy, findings = induce(products.path, products.columns, min_rows)
    if dataset.names:
        taxonomy = named(taxonomy, dataset.names)
    _write_new(file, taxonomy, overwrite)
    order = {role: place for place, role in enumerate((*ALIASES, "label", ""))}
    print_rows(
        {"column": found.column, "taken as": found.role or "—", "why": found.why}
        for found in sorted(findings, key=lambda found: order[found.role])
    )
    used = {finding.role for finding in findings}
    if without := [role for role in ("title", "description", "image") if role not in used]:
        say(f"without {' and '.join(without)}: dataset.toml can name their columns")
    _tell(file, taxonomy)
    _describe(file, dataset, findings)


@app.command()
def show(
    file: File,
    group: Annotated[str | None, typer.Option(help="All values of this group.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print its groups, or the values of one."""
    taxonomy = read_taxonomy(file)
    if as_json:
        shown = _group_of(taxonomy, group) if group else taxonomy
        print_json(shown.model_dump(mode="json"))
    elif group:
        print_rows(map(_value_row, _group_of(taxonomy, group).values))
    else:
        print_rows(map(_group_row, taxonomy.groups))
        say(f"taxonomy version {taxonomy.taxonomy_version}")


@app.command()
def check(file: File) -> None:
    """Read it; exit 2 and name the line if something is wrong."""
    taxonomy = read_taxonomy(file)
    if taxonomy.taxonomy_version not in ("", taxonomy.content_hash()):
        say(f"{file}: changed since it was named {taxonomy.taxonomy_version}: {taxonomy.content_hash()} now")
    _tell(file, taxonomy)


@app.command()
def add(
    file: File,
    group: GroupName,
    value: ValueName,
    parent: Annotated[str | None, typer.Option(help="A value of the parent group.")] = None,
    name: Names = None,
    kind: Annotated[Literal["single", "multi"], typer.Option(help="Of a group that is new, too.")] = "single",
    parent_group: Annotated[str | None, typer.Option(help="Of a group that is new, too.")] = None,
) -> None:
    """Add a value, and its group where that is new."""
    changed = edit.add(
        read_taxonomy(file),
        group,
        value,
        parent=parent,
        names=_names(name),
        kind=kind,
        parent_group=parent_group,
    )
    _rewrite(file, changed)


@app.command()
def rename(
    file: File,
    group: GroupName,
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]")] = None,
    new: Annotated[str | None, typer.Argument(metavar="[NEW]")] = None,
    name: Names = None,
) -> None:
    """Give a value another name (the old one points to it), or display names to a value or group."""
    if new is None and not name:
        raise BadSettings("rename to what? GROUP VALUE NEW, or --name LANG=NAME")
    taxonomy = read_taxonomy(file)
    if value is not None and new is not None:
        taxonomy = edit.rename(taxonomy, group, value, new)
    if name:
        taxonomy = edit.name(taxonomy, group, new or value, _names(name))
    _rewrite(file, taxonomy)


@app.command()
def merge(
    file: File, group: GroupName, value: ValueName, into: Annotated[str, typer.Argument(metavar="INTO")]
) -> None:
    """Replace VALUE by INTO: its scores, labels and children go there."""
    _rewrite(file, edit.merge(read_taxonomy(file), group, value, into))


@app.command()
def retire(file: File, group: GroupName, value: ValueName) -> None:
    """Give VALUE no more; what was stored under it stays readable."""
    _rewrite(file, edit.retire(read_taxonomy(file), group, value))


@app.command("import-shopify")
def import_shopify_command(
    folder: Annotated[Path, typer.Argument(help="Has categories.tsv and attribute_values.tsv.")],
    file: File,
    categories: Annotated[
        list[str] | None, typer.Option("--category", help="A path such as 'Apparel & Accessories', or all.")
    ] = None,
    attributes: Annotated[
        list[str] | None, typer.Option("--attribute", help="A name such as Color, or all.")
    ] = None,
    levels: Annotated[int, typer.Option(min=1, help="Of categories, from the top.")] = 3,
    overwrite: Overwrite = False,
) -> None:
    """Take categories and attributes of the Shopify taxonomy, with English and Chinese names."""
    taxonomy = import_shopify(folder, categories=categories or (), attributes=attributes or (), levels=levels)
    _write_new(file, taxonomy, overwrite)
    _tell(file, taxonomy)


def _read(data: Path, columns: Columns) -> Dataset:
    """A data set with one products file. Raises BadSettings."""
    try:
        dataset = read_dataset(data, columns)
    except ValueError as error:
        raise BadSettings(str(error)) from error
    if len(dataset.products) > 1:
        raise BadSettings(f"{data} has {len(dataset.products)} products files: name one of them")
    return dataset


def _describe(taxonomy: Path, dataset: Dataset, findings: Sequence[Finding]) -> None:
    """Write a dataset.toml with the columns that were found, unless one is there already."""
    path = taxonomy.parent / FILE_NAME
    if path.exists():
        say(f"{path} is there already: it stays as it is")
        return
    found = {finding.role: finding.column for finding in findings if finding.role in ALIASES}
    files = tuple(replace(file, columns=_columns_in(file, found)) for file in dataset.files)
    write_dataset(path, replace(dataset, files=files, taxonomy=taxonomy))
    say(f"{path}: what --data takes instead of options")


def _columns_in(file: DataFile, found: Mapping[str, str]) -> Columns:
    """The columns as they are found in the file; those that were judged useless are "none"."""
    header = read_table(file.path).columns
    by_name = file.columns.found_in(header)
    roles: dict[str, Any] = {}
    for role in ALIASES:
        if found.get(role) in header and getattr(file.columns, role) is None:
            roles[role] = found[role]
        elif role not in found and getattr(by_name, role) != NO_COLUMN:
            roles[role] = NO_COLUMN
    return file.columns.model_copy(update={**roles, "labels": None})


def _write_new(file: Path, taxonomy: Taxonomy, overwrite: bool) -> None:
    if file.exists() and not overwrite:
        raise BadSettings(f"{file} is there already: --overwrite replaces it")
    write_taxonomy(file, taxonomy)


def _rewrite(file: Path, taxonomy: Taxonomy) -> None:
    write_taxonomy(file, taxonomy)
    _tell(file, taxonomy)


def _tell(file: Path, taxonomy: Taxonomy) -> None:
    values = [value for group in taxonomy.groups for value in group.values]
    gone = sum(not value.is_live for value in values)
    say(
        f"{file}: {len(taxonomy.groups):,} groups, {len(values) - gone:,} values"
        f"{f', {gone:,} replaced or retired' if gone else ''}, version {taxonomy.content_hash()}"
    )


def _names(given: Sequence[str] | None) -> dict[str, str]:
    names = {}
    for one in given or ():
        lang, equals, text = one.partition("=")
        if not lang or not equals:
            raise BadSettings(f"{one!r} is not LANG=NAME")
        names[lang.strip()] = text.strip()
    return names


def _group_of(taxonomy: Taxonomy, group: str) -> Group:
    try:
        return taxonomy.group(group)
    except KeyError:
        raise BadSettings(f"no group {group!r}") from None


def _group_row(group: Group) -> dict[str, object]:
    live = [value.value for value in group.values if value.is_live]
    more = f" … {len(live):,} in all" if len(live) > _SHOWN_VALUES else ""
    gone = len(group.values) - len(live)
    return {
        "group": group.name,
        "kind": group.kind,
        "under": group.parent_group,
        "values": ", ".join(live[:_SHOWN_VALUES]) + more,
        "gone": gone or None,
        "names": _listed_names(group.names),
    }


def _value_row(value: Value) -> dict[str, object]:
    return {
        "value": value.value,
        "parent": value.parent,
        "threshold": f"{value.threshold:.2f}",
        "names": _listed_names(value.names),
        "now": f"→ {value.replaced_by}" if value.replaced_by else "retired" if value.retired else "",
    }


def _listed_names(names: dict[str, str]) -> str:
    return ", ".join(f"{lang}: {name}" for lang, name in names.items())
