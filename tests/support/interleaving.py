"""Micro-batches that stop at every call they make, so that a test chooses what happens in between.

Each runs on a thread of its own, but only while the test waits in `Paused.advance`: one thread moves at a
time, so the same choices give the same run.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from queue import Empty
from typing import Any

from tagstream.core.ports import MicroBatch, OutRecord, Scores, Standing, Write
from tagstream.stream.entry import Entry
from tests.support.memory import Faults, ManualClock, MemoryBroker, MemoryPublisher, MemoryTagger
from tests.support.memory_store import MemoryStore

_here = threading.local()


class Killed(BaseException):
    """Raised in a micro-batch whose process has died."""


def caller() -> Paused | None:
    """The micro-batch that calls; None for anybody else."""
    return getattr(_here, "paused", None)


def pause(where: str) -> None:
    """A micro-batch stops here until it is told to advance; anybody else passes."""
    if (paused := caller()) is not None:
        paused.stop(where)


@contextlib.contextmanager
def pauses_around(what: str) -> Iterator[None]:
    pause(f"before {what}")
    yield
    pause(f"after {what}")


class Paused:
    """A micro-batch under way."""

    def __init__(self, owner: Any, entries: list[Entry], call: Callable[[], Any]) -> None:
        self.owner = owner
        self.entries = entries
        self.future: Future[Any] = Future()
        self.done = False
        self.where = "at its start"
        #: calls of the publisher; all but the first are repeats
        self.tries = 0
        self._call = call
        self._killed = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def advance(self) -> None:
        """Let it go to its next call, or to its end."""
        self._go.release()
        self._stopped.acquire()

    def kill(self) -> None:
        """It ends where it is."""
        self._killed = True
        self.advance()
        self._thread.join()

    def stop(self, where: str) -> None:
        self.where = where
        self._stopped.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def _run(self) -> None:
        self._go.acquire()
        _here.paused = self
        try:
            if not self._killed:
                self.future.set_result(self._call())
        except Killed:
            pass
        except BaseException as error:
            self.future.set_exception(error)
        finally:
            self.done = True
            self._stopped.release()


class PausedExecutor(Executor):
    """The micro-batches of one worker."""

    def __init__(self) -> None:
        self.owner: Any = None
        self.under_way: list[Paused] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.under_way.append(Paused(self.owner, args[0], lambda: fn(*args, **kwargs)))
        return self.under_way[-1].future

    def advance(self, index: int = 0) -> None:
        paused = self.under_way[index]
        paused.advance()
        if paused.done:
            self.under_way.remove(paused)

    def kill(self) -> None:
        while self.under_way:
            self.under_way.pop().kill()


class Returned:
    """Stands in for the worker's queue of returned micro-batches: who waits at it lets time pass, and the
    worker's own micro-batches move on meanwhile."""

    def __init__(self, executor: PausedExecutor, clock: ManualClock) -> None:
        self._items: deque[Any] = deque()
        self._executor = executor
        self._clock = clock

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not self._items and block:
            self._clock.advance(timeout or 0.0)
            if self._executor.under_way:
                self._executor.advance()
        if not self._items:
            raise Empty
        return self._items.popleft()


class PausingClock(ManualClock):
    def wait(self, timeout_s: float) -> bool:
        pause("before a retry")
        return super().wait(timeout_s)


class PausingStore(MemoryStore):
    def put(self, writes: Sequence[Write]) -> list[Standing]:
        with pauses_around("store"):
            return super().put(writes)


class PausingTagger(MemoryTagger):
    def tag(self, batch: MicroBatch) -> Scores:
        pause("before tag")
        return super().tag(batch)

    def tag_isolated(self, batch: MicroBatch) -> Scores:
        """No fault strikes here: a process of its own that dies is the event's fault."""
        pause("before tag")
        faults, self.faults = self.faults, Faults()
        try:
            return super().tag_isolated(batch)
        finally:
            self.faults = faults


#: of which micro-batch (None: of the worker's loop), and what
Publishing = Callable[[Paused | None, Sequence[OutRecord]], None]


class PausingPublisher(MemoryPublisher):
    """`on_enter` and `on_publish` are told who publishes what, when it calls and just before it happens."""

    def __init__(self, broker: MemoryBroker, on_enter: Publishing, on_publish: Publishing) -> None:
        super().__init__(broker)
        self._on_enter = on_enter
        self._on_publish = on_publish

    def publish(self, records: Sequence[OutRecord]) -> None:
        if (paused := caller()) is not None:
            paused.tries += 1
        self._on_enter(paused, records)
        with pauses_around("publish"):
            self._on_publish(caller(), records)
            super().publish(records)
