"""A taxonomy as a JSON or YAML file, as `core.taxonomy` draws it.

`taxonomy_version` may be left out: a command that writes the file sets it to the hash of the content.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import yaml

from tagstream.core.errors import BadSettings
from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.documents import YAML_ENDS, read_document


def read_taxonomy(path: Path) -> Taxonomy:
    """Read and check a taxonomy file.

    Raises:
        BadSettings: it cannot be read or is no taxonomy; names the line and the field.
    """
    return read_document(path, Taxonomy, "groups", taxonomy_version="")


def write_taxonomy(path: Path, taxonomy: Taxonomy) -> None:
    """Replace the file in one step, or leave it as it was. Writes only what differs from the defaults.

    Raises:
        BadSettings: the folder cannot be written to.
    """
    content = {
        "taxonomy_version": taxonomy.taxonomy_version,
        **taxonomy.model_dump(mode="json", exclude_unset=True, exclude={"taxonomy_version"}),
    }
    if path.suffix in YAML_ENDS:
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
