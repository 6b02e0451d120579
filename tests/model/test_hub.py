"""Model versions travel to a hub or a folder and back, and are tried out before they are kept."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from typer.testing import CliRunner

from tagstream.adapters.registry import Registry
from tagstream.cli.models import app
from tagstream.core.errors import BadSettings, IncompatibleModel, Unavailable
from tagstream.dataset.training_set import TrainingSet
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.version import golden, hub
from tagstream.model.version.format import sha256
from tagstream.model.version.load import load
from tagstream.text.ngrams import HashedNgrams
from tagstream.training.loop import Optimisation
from tagstream.training.members import Recipe, TextTraining, train_text
from tagstream.training.recipe import fuse, threshold
from tagstream.training.release import release

REPOSITORY = "hf://shop/tagger"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_set: TrainingSet) -> Path:

    tower = HashedNgramBag(ngrams=HashedNgrams(latin_buckets=2**10, han_buckets=2**8), width=8)
    how = Optimisation(epochs=4, batch_rows=64, learning_rate=0.02)
    recipe = Recipe(text=TextTraining(tower=tower, optimisation=how), image=None)
    trained = threshold(fuse(tiny_set, recipe, train_text(tiny_set, recipe), None))
    root = tmp_path_factory.mktemp("versions")
    return release(root, tiny_set, trained, datetime(2026, 1, 2, tzinfo=UTC))[0]


class FakeHub(BaseHTTPRequestHandler):
    """The few calls of a hub that a push and a pull make. Every commit's files are kept by its number."""

    commits: list[dict[str, bytes]]
    tags: dict[str, int]
    private: bool

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.commits.append({".gitattributes": b"* text=auto\n"})
            type(self).private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self._answer({"url": "https://huggingface.co/shop/tagger"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            asked = json.loads(body)["files"]
            self._answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
                    ]
                }
            )
        elif "/commit/" in path:
            files = dict(self.commits[-1])
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "deletedFile":
                    del files[entry["value"]["path"]]
            self.commits.append(files)
            oid = _oid(len(self.commits))
            self._answer({"commitUrl": f"https://huggingface.co/shop/tagger/commit/{oid}", "commitOid": oid})
        elif "/tag/" in path:
            revision = unquote(path.rsplit("/", 1)[1])
            self.tags[json.loads(body)["tag"]] = int(revision, 16)
            self._answer({})
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        self._get(with_body=True)

    def do_HEAD(self) -> None:
        self._get(with_body=False)

    def _get(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/shop/tagger/resolve/([^/]+)/(.+)", path):
            number = self._number(match[1])
            content = self.commits[number - 1].get(match[2]) if number else None
            if content is None:
                self.send_error(404)
                return
            self._send(content, with_body, {"ETag": f'"{hash(content)}"', "X-Repo-Commit": _oid(number)})
        elif match := re.fullmatch(r"/api/models/shop/tagger/(?:revision|tree)/([^/]+)", path):
            number = self._number(match[1])
            if not number:
                self._missing("RevisionNotFound")
                return
            names = self.commits[number - 1]
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": _oid(1)}
                for name, content in names.items()
            ]
            siblings = [{"rfilename": name} for name in names]
            info = {"id": "shop/tagger", "sha": _oid(number), "siblings": siblings}
            self._send(json.dumps(tree if "/tree/" in path else info).encode(), with_body, {})
        else:
            self._missing("RepoNotFound")

    def _number(self, revision: str) -> int:
        if revision == "main":
            return len(self.commits)
        return self.tags.get(revision) or (int(revision, 16) if re.fullmatch("[0-9a-f]{40}", revision) else 0)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, content: object) -> None:
        self._send(json.dumps(content).encode(), True, {})

    def _send(self, content: bytes, with_body: bool, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


def _oid(number: int) -> str:
    return f"{number:040x}"


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    handler = type("OneHub", (FakeHub,), {"commits": [], "tags": {}, "private": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    _point_the_client_at(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def _point_the_client_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")


def test_a_version_is_pushed_to_a_hub_and_pulled_from_it(
    tmp_path: Path, saved: Path, fake_hub: type[FakeHub]
) -> None:
    assert hub.push(saved, REPOSITORY) == saved.name

    last = hub.pull(REPOSITORY, tmp_path / "last")
    by_name = hub.pull(f"{REPOSITORY}@{saved.name}", tmp_path / "by name")

    assert fake_hub.private
    for folder in (last, by_name):
        assert folder.name == saved.name
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
            p.name: p.read_bytes() for p in saved.iterdir()
        }


def test_a_version_that_changed_on_the_hub_is_refused_and_leaves_nothing(
    tmp_path: Path, saved: Path, fake_hub: type[FakeHub]
) -> None:
    hub.push(saved, REPOSITORY)
    fake_hub.commits[-1]["taxonomy.json"] += b" "

    with pytest.raises(IncompatibleModel, match="taxonomy"):
        hub.pull(REPOSITORY, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_an_unknown_version_or_repository_is_one_clear_error(
    tmp_path: Path, saved: Path, fake_hub: type[FakeHub]
) -> None:
    hub.push(saved, REPOSITORY)

    for source in (f"{REPOSITORY}@fused-of-nobody", "hf://shop/nothing"):
        with pytest.raises(BadSettings, match="no such repository or revision"):
            hub.pull(source, tmp_path)
    for address in ("hf://", "hf://a/b/c", "shop/tagger"):
        with pytest.raises(BadSettings, match="is not hf://OWNER/NAME"):
            hub.pull(address, tmp_path)


def test_a_hub_that_does_not_answer_is_unavailable(
    tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _point_the_client_at("http://127.0.0.1:9", monkeypatch)

    with pytest.raises(Unavailable, match="does not answer"):
        hub.push(saved, REPOSITORY)
    with pytest.raises(Unavailable, match="does not answer"):
        hub.pull(REPOSITORY, tmp_path)


def test_a_version_is_pushed_to_a_folder_and_pulled_from_it(tmp_path: Path, saved: Path) -> None:
    runner, registry, out = CliRunner(), tmp_path / "registry", tmp_path / "out"

    runner.invoke(app, ["push", str(saved), str(registry)], catch_exceptions=False)
    Registry(str(registry)).promote(saved.name, 0)
    pulled = runner.invoke(app, ["pull", str(registry), str(out)], catch_exceptions=False)
    again = runner.invoke(app, ["pull", str(saved), str(out)])

    tagger = load(out / saved.name, device="cpu")
    expected = load(saved, device="cpu").score(golden.batch())[0]
    np.testing.assert_array_equal(tagger.score(golden.batch())[0], expected)
    assert pulled.exit_code == 0
    assert isinstance(again.exception, BadSettings)


def test_a_version_whose_golden_batch_disagrees_is_not_kept(tmp_path: Path, saved: Path) -> None:
    changed = tmp_path / "changed" / saved.name
    shutil.copytree(saved, changed)
    with np.load(changed / "golden.npz") as stored:
        parts = dict(stored)
    parts["scores"] = 1 - parts["scores"]
    np.savez_compressed(changed / "golden.npz", **parts)
    manifest = json.loads((changed / "MANIFEST.json").read_text())
    manifest["files"]["golden.npz"] = sha256(changed / "golden.npz")
    (changed / "MANIFEST.json").write_text(json.dumps(manifest))

    with pytest.raises(IncompatibleModel, match="scores differ"):
        hub.accept(changed, tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []
