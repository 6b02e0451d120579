"""A child process that is there and does nothing."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A server that listens and answers nothing, inside of the block."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # each thread stops by itself
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
