"""CPU outside the model, an event: null tagger, 6 KB events, saturated. Broker and store are not counted.

    python tests/bench/overhead.py [--events 20000]

Prints one JSON line: µs of CPU an event over consumer, replica and Ray's own processes, and its split.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support

import yaml
from measure import Progress, cpu_s, publish_all

from tagstream.local.stack import local_stack
from tests.support.load import events

ROOT = Path(__file__).resolve().parents[2]
_VALUE_BYTES = 6000
_WARM_UP_EVENTS = 2000
_TARGET_US = 250


def null_config(folder: Path) -> Path:
    """serve/config.yaml with the null tagger in it, and without its Api."""
    config = yaml.safe_load((ROOT / "serve/config.yaml").read_text())
    [application] = config["applications"]
    application["import_path"] = "tests.bench.null_tagger:app"
    application["deployments"] = [d for d in application["deployments"] if d["name"] != "Api"]
    path = folder / "null.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--data", type=Path, help="not used here")
    count = parser.parse_args().events
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ.setdefault("TAGSTREAM_MICRO_BATCH_MAX_EVENTS", "128")
    os.environ.setdefault("TAGSTREAM_MAX_UNCOMMITTED_EVENTS", "4000")
    with (
        tempfile.TemporaryDirectory() as folder,
        local_stack(embedded=True, tell=lambda _: None, serve_config=null_config(Path(folder))) as stack,
    ):
        progress = Progress(stack)
        publish_all(stack, events(_WARM_UP_EVENTS, seed=1, value_bytes=_VALUE_BYTES))
        progress.wait(_WARM_UP_EVENTS)
        before, started_s = cpu_s(stack), time.monotonic()
        publish_all(stack, events(count, distinct_products=count, value_bytes=_VALUE_BYTES))
        ended_s = progress.wait(_WARM_UP_EVENTS + count)
        used = cpu_s(stack) - before
    split_us = {role: round(seconds / count * 1e6, 1) for role, seconds in sorted(used.items())}
    figures = {
        "bench": "overhead",
        "cpu_us_per_event": round(sum(split_us.values()), 1),
        "target_us": _TARGET_US,
        "split_us": split_us,
        "events": count,
        "events_per_s": round(count / (ended_s - started_s)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
