"""Which `tagstream up` runs on this machine. Each holds a lock on a note of its own; a note that nobody holds
is left over, and its process number may be somebody else's by now."""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

_NOTE = "up.pid"


@dataclass(frozen=True, slots=True)
class Run:
    note: Path
    pid: int

    def is_alive(self) -> bool:
        """Whether its note is still held."""
        try:
            with self.note.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def note_run(folder: Path) -> TextIO:
    """Say that this process runs the stack in `folder`, for as long as what this returns stays open."""
    note = (folder / _NOTE).open("w")
    fcntl.flock(note, fcntl.LOCK_EX)
    note.write(str(os.getpid()))
    note.flush()
    return note


def last_run() -> Run | None:
    """The newest of this user's that is alive."""
    notes = sorted(_notes(), key=lambda note: note.stat().st_mtime, reverse=True)
    runs = (Run(note, int(text)) for note in notes if (text := note.read_text()).isdigit())
    return next((run for run in runs if run.pid > 1 and run.is_alive()), None)


def _notes() -> list[Path]:
    roots = {Path("/tmp"), Path(tempfile.gettempdir())}
    found = [note for root in roots for note in root.glob(f"tagstream-*/{_NOTE}")]
    return [note for note in found if note.stat().st_uid == os.getuid()]
