"""Resident memory of one consumer with 1 MB pictures and a backlog of 2,000 events.

    python tests/bench/memory.py [--events 2000]

The null tagger is closed until all are published, so that the backlog is whole; then it is drained.
Prints one JSON line with the peak of both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support

import psutil
from measure import Progress, publish_all, roles
from overhead import ROOT, null_config

from tagstream.local.stack import Stack, local_stack
from tests.support.load import events

_PICTURE_BYTES = 2**20
_VALUE_BYTES = _PICTURE_BYTES * 4 // 3
_SAMPLE_S = 0.1


class Peak(threading.Thread):
    """Samples the consumer's resident memory until `stop`."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._stopping = threading.Event()
        self._consumer = next(process for role, process in roles(stack) if role == "consumer")

    def run(self) -> None:
        while not self._stopping.wait(_SAMPLE_S):
            try:
                self.peak_bytes = max(self.peak_bytes, self._consumer.memory_info().rss)
            except psutil.NoSuchProcess:
                return

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def peak_of(count: int, gate: Path, config: Path) -> int:
    with local_stack(embedded=True, tell=lambda _: None, serve_config=config) as stack:
        peak = Peak(stack)
        peak.start()
        publish_all(stack, events(count, distinct_products=count, value_bytes=_VALUE_BYTES))
        progress = Progress(stack)
        assert progress.done() == 0, "the backlog is not whole"
        gate.touch()
        progress.wait(count, timeout_s=600)
        peak.stop()
        return peak.peak_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--data", type=Path, help="not used here")
    count = parser.parse_args().events
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "open"
        os.environ["NULL_TAGGER_GATE"] = str(gate)
        peak_bytes = peak_of(count, gate, null_config(Path(folder)))
    figures = {
        "bench": "memory",
        "consumer_peak_mb": round(peak_bytes / 2**20),
        "target_mb": 600,
        "events": count,
        "picture_mb": 1,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
