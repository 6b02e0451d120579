"""The registry of model versions: a root folder on any file system that pyarrow reaches.

    <root>/versions/<model_version>/…     immutable
    <root>/aliases.json                   {"champion": …, "challenger": …, "generation": n}

`generation` grows by 1 at every change, rollback included. On a local file system a change is a true
compare-and-swap: a lock file and an atomic rename. Object stores have neither through pyarrow. There two
promotions in the same instant can lose one of them, so promote from one place.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from tagstream.core.errors import IncompatibleModel, Unavailable
from tagstream.core.taxonomy import Taxonomy

#: The registry that ships with the package; read only.
BUNDLED = Path(__file__).resolve().parent.parent / "bundled"

ALIASES = "aliases.json"
VERSIONS = "versions"
MANIFEST = "MANIFEST.json"


class PromotedMeanwhile(Unavailable):
    """Somebody else changed the aliases. Look at the champion now; promote again if that is right."""


class Registry:
    """Implements the Models port. Any thread may call it."""

    def __init__(self, uri: str, cache: Path | None = None) -> None:
        """Touches no network. `uri`: a local path, or what `pyarrow.fs.FileSystem.from_uri` takes; `cache`:
        the folder for versions of a remote registry."""
        if "://" in uri:
            self._fs, self._root = fs.FileSystem.from_uri(uri)
        else:
            self._fs, self._root = fs.LocalFileSystem(), str(Path(uri).expanduser().resolve())
        self._local = isinstance(self._fs, fs.LocalFileSystem)
        self._cache = cache or Path(tempfile.gettempdir()) / f"tagstream-models-{os.getuid()}"
        self._taxonomies: dict[str, Taxonomy] = {}

    def champion(self) -> tuple[str, int]:
        """(model_version, model_generation) that answers now. Raises Unavailable, also if there is none."""
        aliases = self.aliases()
        if not aliases.get("champion"):
            raise Unavailable(f"{self._root}: no champion yet; promote a model version")
        return str(aliases["champion"]), int(aliases["generation"])

    def aliases(self) -> dict[str, Any]:
        """The content of aliases.json; generation 0 and no champion if it does not exist."""
        raw = self._read(ALIASES, missing=b'{"champion": null, "challenger": null, "generation": 0}')
        try:
            aliases = json.loads(raw)
            int(aliases["generation"])
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"{self._root}/{ALIASES} is damaged: {error}") from error
        return dict(aliases)

    def versions(self) -> list[str]:
        """All model versions, sorted by name."""
        with self._reaching():
            selector = fs.FileSelector(self._path(VERSIONS), allow_not_found=True)
            return sorted(info.base_name for info in self._fs.get_file_info(selector))

    def taxonomy(self, model_version: str) -> Taxonomy:
        """Raises IncompatibleModel for an unknown version or a damaged taxonomy, Unavailable otherwise."""
        if model_version not in self._taxonomies:
            raw = self._read(f"{VERSIONS}/{_checked(model_version)}/taxonomy.json")
            try:
                self._taxonomies[model_version] = Taxonomy.model_validate_json(raw)
            except ValueError as error:
                raise IncompatibleModel(f"{model_version}: its taxonomy.json is damaged: {error}") from error
        return self._taxonomies[model_version]

    def fetch(self, model_version: str) -> Path:
        """The version's folder on this machine, downloaded to the cache if the registry is remote.

        Raises Unavailable, IncompatibleModel: there is no such version.
        """
        self._read(f"{VERSIONS}/{_checked(model_version)}/{MANIFEST}")
        if self._local:
            return Path(self._path(f"{VERSIONS}/{model_version}"))
        target = self._cache / model_version
        if not (target / MANIFEST).is_file():
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._cache) as part, self._reaching():
                (Path(part) / model_version).mkdir()
                fs.copy_files(
                    self._path(f"{VERSIONS}/{model_version}"),
                    str(Path(part) / model_version),
                    source_filesystem=self._fs,
                    destination_filesystem=fs.LocalFileSystem(),
                )
                _rename_unless_there(Path(part) / model_version, target)
        return target

    def publish(self, folder: Path) -> str:
        """Copy a model version into the registry; it is not used before it is promoted.

        Raises IncompatibleModel: no manifest, or the registry has other content under this version's name.
        """
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            model_version = _checked(str(manifest["model_version"]))
        except (OSError, ValueError, KeyError) as error:
            raise IncompatibleModel(f"{folder}: no valid {MANIFEST}: {error}") from error
        place = f"{VERSIONS}/{model_version}"
        present = self._read(f"{place}/{MANIFEST}", missing=b"")
        if present:
            if present != (folder / MANIFEST).read_bytes():
                raise IncompatibleModel(f"{model_version} is already in {self._root} with other content")
            return model_version
        with self._reaching():
            self._fs.create_dir(self._path(place), recursive=True)
            # The manifest goes last: a version without it does not exist.
            names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
            for name in (*names, MANIFEST):
                self._write(f"{place}/{name}", (folder / name).read_bytes())
        return model_version

    def promote(self, model_version: str, expect_generation: int) -> int:
        """Make it the champion if the generation is still `expect_generation`; returns the new generation.

        Raises Unavailable, PromotedMeanwhile: it is another one, IncompatibleModel: there is no such version.
        """
        self._read(f"{VERSIONS}/{_checked(model_version)}/{MANIFEST}")
        with self._locked():
            aliases = self.aliases()
            if aliases["generation"] != expect_generation:
                raise PromotedMeanwhile(f"generation is {aliases['generation']}, not {expect_generation}")
            aliases.update(champion=model_version, generation=expect_generation + 1)
            self._write(ALIASES, json.dumps(aliases, indent=1).encode() + b"\n")
        return expect_generation + 1

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _read(self, name: str, missing: bytes | None = None) -> bytes:
        """The file's bytes; `missing` if there is no such file. Raises IncompatibleModel if that is None."""
        with self._reaching():
            try:
                with self._fs.open_input_stream(self._path(name)) as file:
                    return bytes(file.read())
            except FileNotFoundError as error:
                if missing is None:
                    raise IncompatibleModel(f"the registry {self._root} has no {name}") from error
                return missing

    def _write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        with self._reaching():
            if self._local:
                scratch = Path(f"{path}.{os.getpid()}.part")
                scratch.write_bytes(content)
                os.replace(scratch, path)
            else:
                with self._fs.open_output_stream(path) as file:
                    file.write(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._local:
            yield
            return
        with self._reaching(), Path(self._path("aliases.lock")).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise Unavailable(f"the registry {self._root} does not answer: {error}") from error


def _checked(model_version: str) -> str:
    if not model_version or model_version.startswith(".") or "/" in model_version or "\\" in model_version:
        raise IncompatibleModel(f"{model_version!r} is no model version's name")
    return model_version


def _rename_unless_there(source: Path, target: Path) -> None:
    """Two processes may have downloaded the same version: the first one's stays."""
    try:
        source.rename(target)
    except OSError:
        if not (target / MANIFEST).is_file():
            shutil.rmtree(target, ignore_errors=True)
            source.rename(target)
