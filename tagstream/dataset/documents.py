"""A JSON or YAML file as plain values; the end of its name says which.

In YAML every scalar is text, so that the values `No`, `2011` and `1e3` stay what they are. `null` and `~` are
nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tagstream.core.errors import BadSettings

YAML_ENDS = (".yaml", ".yml")
_Model = TypeVar("_Model", bound=BaseModel)


class _TextLoader(yaml.SafeLoader):
    """Knows text and nothing, and refuses a key that is there twice."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012, the name and type are PyYAML's

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"{key.value!r} is there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _first in ("~", "n", "N", ""):
    _TextLoader.yaml_implicit_resolvers[_first] = [
        pair for pair in yaml.SafeLoader.yaml_implicit_resolvers.get(_first, []) if pair[0].endswith(":null")
    ]


def read_document(path: Path, model: type[_Model], needs: str, **defaults: Any) -> _Model:
    """The file's content as a checked model. `needs`: a key that such a file has.

    Raises:
        BadSettings: the file cannot be read or is wrong; names the line and the field.
    """
    text, content = _parsed(path)
    if not isinstance(content, dict):
        raise BadSettings(f"{path}: is no {model.__name__.lower()}: it needs `{needs}`")
    try:
        return model.model_validate({**defaults, **content})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise BadSettings(f"{path}: line {_line_of(text, first['loc'])}: {where}: {message}{more}") from error


def _parsed(path: Path) -> tuple[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        return text, yaml.load(text, _TextLoader) if path.suffix in YAML_ENDS else json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise BadSettings(f"{path}: line {error.lineno}: {error.msg}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise BadSettings(f"{path}: line {mark.line + 1 if mark else 1}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise BadSettings(f"{path}: no YAML: {error}") from error


def _line_of(text: str, location: tuple[int | str, ...]) -> int:
    """The line of a field, or of the nearest thing around it that is there; JSON is YAML here."""
    node = yaml.compose(text, yaml.SafeLoader)
    line = 1
    for part in location:
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
