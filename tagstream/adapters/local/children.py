"""Child processes that end with the thread that started them (on Linux)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Asks Linux to end this process with its parent, then becomes the command. A launcher instead of
# `preexec_fn`, which may deadlock in a process with threads.
_LAUNCHER = """\
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(sys.argv[2]))
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent has gone")
os.execv(sys.argv[3], sys.argv[3:])
"""


def spawn(
    command: Sequence[str],
    *,
    log_path: Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start `command` (an absolute path and its arguments) in `folder`, its output appended to `log_path`.

    In a session of its own: Ctrl-C reaches us first, and we drain before the children go.
    """
    launcher = [sys.executable, "-S", "-E", "-c", _LAUNCHER, str(os.getpid()), str(int(death_signal))]
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [*launcher, *command],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
