"""A data set's description, dataset.toml, which commands take in place of options. Paths are relative to it.

    taxonomy = "taxonomy.json"      # without one a taxonomy is induced from the labels
    names = "names.yaml"            # display names of an induced taxonomy's groups and values
    short_titles = "titles.yaml"    # how short titles are made of long copy: `variants.ShortTitles`

    [[files]]
    path = "products.csv"
    role = "products"               # or "titles": trained on only, never measured
    id = "sku"                      # and title, description, brand, image: columns; "none": there is none
    lang = "en"                     # of the rows without a language; `lang_column` is the column
    labels = ["colour", "use"]      # the groups; by default those of the taxonomy
    labels_from = "tags"            # the column of objects, {group: values}, that has them
    separators = "|;"
    strip = ["<UNK>"]               # marks that are taken out of texts

Columns that are not named are found by their names. Without a description, a products file and the titles
files in its folder are a data set too.
"""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tagstream.dataset.columns import NO_COLUMN, Columns
from tagstream.dataset.table import ENDINGS, products_file

FILE_NAME = "dataset.toml"
Role = Literal["products", "titles"]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of labelled rows. `role`: products are cut into training, validation and test part; titles are
    trained on only."""

    path: Path
    role: Role = "products"
    columns: Columns = field(default_factory=Columns)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Files of labelled rows, and how to read them.

    Without `taxonomy` one is induced from the labels, with the display names in the file `names`.
    `short_titles`: how short titles are made of long copy, for training.
    """

    files: tuple[DataFile, ...]
    taxonomy: Path | None = None
    names: Path | None = None
    short_titles: Path | None = None

    @property
    def products(self) -> tuple[DataFile, ...]:
        return tuple(file for file in self.files if file.role == "products")

    @property
    def titles(self) -> tuple[DataFile, ...]:
        return tuple(file for file in self.files if file.role == "titles")


def read_dataset(source: Path, columns: Columns | None = None) -> Dataset:
    """The data set at a path: a dataset.toml, a folder with one, a products file, or a folder with one.

    A folder without description also has its titles files. `columns`: from a command line; where there
    is a description, they go before those of its products files.

    Raises:
        ValueError: there is no such file, or the description is wrong; its file and key are named.
    """
    description = source / FILE_NAME if source.is_dir() else source
    if description.suffix == ".toml" and description.is_file():
        return _described(description, columns or Columns())
    columns = columns or Columns()
    files = [DataFile(products_file(source), "products", columns)]
    if columns.title != NO_COLUMN:
        without_pictures = columns.model_copy(update={"image": NO_COLUMN})
        endings = tuple(f".{end}" for end in ENDINGS)
        titles = (path for path in sorted(source.glob("[!.]*")) if "titles" in path.name and path.is_file())
        files += [
            DataFile(path, "titles", without_pictures) for path in titles if path.name.endswith(endings)
        ]
    return Dataset(tuple(files))


def write_dataset(path: Path, dataset: Dataset) -> None:
    """The description as a file; paths are written relative to its folder."""
    lines = []
    for name in _NAMED_FILES:
        file = getattr(dataset, name)
        lines += [f"{name} = {_toml(_relative(file, path))}"] if file else []
    for data_file in dataset.files:
        columns = data_file.columns.model_dump(exclude_defaults=True)
        lines += ["", "[[files]]", f"path = {_toml(_relative(data_file.path, path))}"]
        lines += [f'role = "{data_file.role}"', *(f"{key} = {_toml(one)}" for key, one in columns.items())]
    path.write_text("\n".join([*lines, ""]).lstrip("\n"), encoding="utf-8")


#: Keys and fields of a data set that name a file.
_NAMED_FILES = ("taxonomy", "names", "short_titles")


class _File(Columns):
    path: str
    role: Role = "products"


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid")

    taxonomy: str | None = None
    names: str | None = None
    short_titles: str | None = None
    files: list[_File]


def _described(path: Path, columns: Columns) -> Dataset:
    try:
        found = _Description.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: {_key(first['loc'])}: {first['msg']}") from error
    except ValueError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    files = []
    for number, file in enumerate(found.files, 1):
        own = Columns(**file.model_dump(exclude={"path", "role"}))
        own = own.changed_by(columns) if file.role == "products" else own
        files.append(DataFile(_existing(path, f"files[{number}].path", file.path), file.role, own))
    if not any(file.role == "products" for file in files):
        raise ValueError(f'{path}: files: none has the role "products"')
    named = {key: name for key in _NAMED_FILES if (name := getattr(found, key)) is not None}
    return Dataset(tuple(files), **{key: _existing(path, key, name) for key, name in named.items()})


def _key(location: tuple[str | int, ...]) -> str:
    """files[2].role"""
    parts = (f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _existing(description: Path, key: str, name: str) -> Path:
    file = description.parent / name
    if not file.is_file():
        raise ValueError(f"{description}: {key}: no such file: {name}")
    return file


def _relative(path: Path, description: Path) -> str:
    return Path(os.path.relpath(path.resolve(), description.parent.resolve())).as_posix()


def _toml(content: str | list[str]) -> str:
    """JSON's strings and lists of strings are TOML's too."""
    return json.dumps(content, ensure_ascii=False)
