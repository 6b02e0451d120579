"""A taxonomy as a JSON or YAML file, as `core.taxonomy` draws it. The end of the name says which.

In YAML every scalar is text, so that the values `No`, `2011` and `1e3` stay what they are; `null` and `~` are
nothing. `taxonomy_version` may be left out: it is the hash of the content wherever a command writes the file.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tagstream.core.errors import BadSettings
from tagstream.core.taxonomy import Taxonomy

_YAML_ENDS = (".yaml", ".yml")


class _TextLoader(yaml.SafeLoader):
    """Knows text and nothing, and refuses a key that stands twice."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012, the name and type are PyYAML's

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _first in ("~", "n", "N", ""):
    _TextLoader.yaml_implicit_resolvers[_first] = [
        pair for pair in yaml.SafeLoader.yaml_implicit_resolvers.get(_first, []) if pair[0].endswith(":null")
    ]


def read_taxonomy(path: Path) -> Taxonomy:
    """Read and check a taxonomy file.

    Raises:
        BadSettings: it cannot be read or is no taxonomy; names the line and the field.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = yaml.load(text, _TextLoader) if path.suffix in _YAML_ENDS else json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise BadSettings(f"{path}: line {error.lineno}: {error.msg}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise BadSettings(f"{path}: line {mark.line + 1 if mark else 1}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise BadSettings(f"{path}: no YAML: {error}") from error
    if not isinstance(content, dict):
        raise BadSettings(f"{path}: is no taxonomy: it needs `groups`")
    try:
        return Taxonomy.model_validate({"taxonomy_version": "", **content})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        line = _line_of(text, first["loc"])
        raise BadSettings(f"{path}: line {line}: {field}: {_plain(first['msg'])}{more}") from error


def write_taxonomy(path: Path, taxonomy: Taxonomy) -> None:
    """Replace the file in one step, or leave it as it was. Says only what differs from the defaults.

    Raises:
        BadSettings: the folder cannot be written to.
    """
    content = {
        "taxonomy_version": taxonomy.taxonomy_version,
        **taxonomy.model_dump(mode="json", exclude_unset=True, exclude={"taxonomy_version"}),
    }
    if path.suffix in _YAML_ENDS:
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=110)
    else:
        text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as part:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        os.chmod(part.name, mode)
        os.replace(part.name, path)
    except OSError as error:
        raise BadSettings(f"{path}: cannot be written: {error}") from error


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


def _line_of(text: str, loc: tuple[int | str, ...]) -> int:
    """The line on which a field stands, or the nearest thing around it that is there; JSON is YAML here."""
    node = yaml.compose(text, yaml.SafeLoader)
    line = 1
    for part in loc:
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in children if key.value == part), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(part, int) and part < len(children):
            node = children[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
