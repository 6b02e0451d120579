"""`tagstream down` ends a running `up` of this user, and nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tagstream.local import runs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runs, "_notes", lambda: list(tmp_path.glob("*/up.pid")))
    (tmp_path / "tagstream-x").mkdir()
    return tmp_path / "tagstream-x"


def test_a_run_is_alive_while_its_note_is_held(folder: Path) -> None:
    note = runs.note_run(folder)
    run = runs.last_run()
    assert run is not None
    assert run.pid == os.getpid()
    note.close()
    assert not run.is_alive()
    assert runs.last_run() is None


@pytest.mark.parametrize("text", ["1", "-1", "", "junk", "our own"])
def test_a_note_that_nobody_holds_names_nobody(folder: Path, text: str) -> None:
    (folder / "up.pid").write_text(str(os.getpid()) if text == "our own" else text)
    assert runs.last_run() is None
