"""Which `tagstream up` runs on this machine. Each holds a lock on a note of its own. A note that nobody holds
is left over, and another process may have its number by now."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
import time
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

    def end(self) -> None:
        """Ask it to drain and end, and wait until it has."""
        os.kill(self.pid, signal.SIGTERM)
        while self.is_alive():
            time.sleep(0.1)


def note_run(folder: Path) -> TextIO:
    """Record that this process runs the stack in `folder`, for as long as the returned file stays open."""
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
