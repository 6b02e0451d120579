"""Model versions on a Hugging Face hub: one repository for a line of models, a tag for each version.

    hf://owner/name                 the version that was pushed last
    hf://owner/name@fused-2026…     this one

HF_TOKEN and HF_ENDPOINT are read by the client, as everywhere. What comes back is taken only after its
manifest and its golden batch agree.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tagstream.core.errors import BadSettings, Unavailable
from tagstream.model.version.format import MANIFEST, read_manifest
from tagstream.model.version.load import load_any

SCHEME = "hf://"


def push(folder: Path, target: str) -> str:
    """Upload a model version and tag the commit with its name, which is returned. The repository is made,
    private, where there is none.

    Raises:
        IncompatibleModel: the folder is no valid model version.
        BadSettings: `target` is no repository's name, or there is no right to write to it.
        Unavailable: the hub does not answer.
    """
    from huggingface_hub import HfApi

    repository, revision = _parsed(target)
    if revision is not None:
        raise BadSettings(f"{target}: a push takes no @revision, its tag is the model version's name")
    manifest = read_manifest(folder)
    with _reaching(target):
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=manifest.model_version,
            allow_patterns=[MANIFEST, *manifest.files],
            delete_patterns="*",  # a file of the version before is none of this one's
        )
        api.create_tag(repository, tag=manifest.model_version, revision=commit.oid, exist_ok=True)
    return manifest.model_version


def pull(source: str, root: Path) -> Path:
    """Download a model version, try it out, and put it at `root/<model_version>`, which is returned.

    Raises:
        IncompatibleModel: manifest, format or golden batch disagree; nothing is left in `root`.
        BadSettings: there is no such repository or revision, or no right to read it.
        Unavailable: the hub does not answer.
        FileExistsError: the version is there already.
    """
    from huggingface_hub import snapshot_download

    repository, revision = _parsed(source)
    with tempfile.TemporaryDirectory() as scratch:
        with _reaching(source):
            snapshot_download(repository, revision=revision, local_dir=scratch)
        return accept(Path(scratch), root)


def accept(folder: Path, root: Path) -> Path:
    """Copy what a folder's manifest lists to `root/<model_version>` if it loads and passes its golden batch.
    Raises IncompatibleModel where it does not, FileExistsError where the version is there already."""
    manifest = read_manifest(folder)
    target = root / manifest.model_version
    if target.exists():
        raise FileExistsError(f"{target} is there already; a model version is never edited")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".part-") as part:
        copied = Path(part) / manifest.model_version
        copied.mkdir()
        for name in (*manifest.files, MANIFEST):
            shutil.copyfile(folder / name, copied / name)
        load_any(copied)
        copied.rename(target)
    return target


def _parsed(address: str) -> tuple[str, str | None]:
    repository, _, revision = address.removeprefix(SCHEME).partition("@")
    if not address.startswith(SCHEME) or repository.count("/") > 1 or not repository:
        raise BadSettings(f"{address!r} is not hf://OWNER/NAME or hf://OWNER/NAME@VERSION")
    return repository, revision or None


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise BadSettings(f"{address}: there is no such repository or revision for you: {error}") from error
    except errors.LocalTokenNotFoundError as error:
        raise BadSettings(f"{address}: log in first (HF_TOKEN): {error}") from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise BadSettings(f"{address}: no right to do that: {error}") from error
        raise Unavailable(f"{address}: the hub does not answer as it should: {error}") from error
    # The client's own HTTPError: which HTTP library it is of differs between versions of the client.
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise Unavailable(f"{address}: the hub does not answer: {error}") from error
