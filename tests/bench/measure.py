"""What the benchmarks of the stream share: publishing, waiting, and whose CPU and memory it was."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator

import psutil

from tagstream.adapters.kafka.lag import GroupWatch
from tagstream.core.ports import OutRecord
from tagstream.core.records import KeyValue
from tagstream.local.stack import Stack
from tagstream.wiring import build_publisher

_ROLES = {"StreamConsumer": "consumer", "Tagger": "replica"}
#: Looking costs CPU that the stream could use.
_LOOK_S = 0.2
_CHUNK_BYTES = 2**20


def roles(stack: Stack) -> Iterator[tuple[str, psutil.Process]]:
    """Every process below this Ray head, with its role: consumer, replica, or ray."""
    for process in psutil.Process(stack.ray.pid).children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        yield next((role for name, role in _ROLES.items() if f":{name}" in line), "ray"), process


def cpu_s(stack: Stack) -> Counter[str]:
    """CPU seconds so far, by role."""
    used: Counter[str] = Counter()
    for role, process in roles(stack):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used[role] += times.user + times.system
    return used


def publish_all(stack: Stack, records: Iterable[KeyValue]) -> int:
    """Publish and return how many they were."""
    publisher = build_publisher(stack.settings)
    count, chunk, chunk_bytes = 0, list[OutRecord](), 0
    for record in records:
        chunk.append(OutRecord(stack.settings.topics.events, record.key, record.value))
        chunk_bytes += len(record.value or b"")
        if chunk_bytes >= _CHUNK_BYTES:
            publisher.publish(chunk)
            count, chunk, chunk_bytes = count + len(chunk), [], 0
    publisher.publish(chunk)
    publisher.close()
    return count + len(chunk)


class Progress:
    """The stream's committed offsets, summed."""

    def __init__(self, stack: Stack) -> None:
        settings = stack.settings
        self._watch = GroupWatch(settings.kafka, settings.consumer_group, settings.topics.events)

    def done(self) -> int:
        return sum(self._watch.committed().values())

    def wait(self, count: int, timeout_s: float = 300) -> float:
        """Until `count` are done; returns the moment (monotonic seconds)."""
        deadline_s = time.monotonic() + timeout_s
        while (done := self.done()) < count:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"the stream stands still at {done} of {count}")
            time.sleep(_LOOK_S)
        return time.monotonic()
