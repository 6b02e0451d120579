"""Stream ÷ bare tagger, with the bundled model on 2,000 products.

    python tests/bench/throughput.py [--data DIR] [--events 2000]

Bare: prepared micro-batches of encoded pictures through the model, decode included, in one process that does
nothing else, with the stream's micro-batch size and threads. Stream: the same products published to the
broker; their rate is that of the writes to the store, from the end of the first micro-batch to the last.
Bare runs before and after the stream, because machines drift; prints one JSON line.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support

import redis
from measure import Progress, publish_all

from tagstream.core.events import ProductEvent
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.records import KeyValue
from tagstream.dataset.events import ProductEvents
from tagstream.local.stack import Stack, local_stack
from tests.support.load import events as drawn_events

_MICRO_BATCH_EVENTS = 64


def products(data: Path | None, count: int) -> list[KeyValue]:
    """Each product once, with its picture inline."""
    if data is None:
        return list(drawn_events(count, distinct_products=count))
    return list(islice(ProductEvents(data, limit=count), count))


def bare_events_per_s(records: list[KeyValue]) -> float:
    """In a process of its own, so that nothing of it stays in memory beside the stream."""
    code = "import sys, throughput; throughput.print_bare()"
    lines = b"\n".join(record.value or b"" for record in records)
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code], input=lines, stdout=subprocess.PIPE, cwd=here, check=True
    )
    return float(done.stdout)


def print_bare() -> None:
    from tagstream.adapters.registry import BUNDLED, Registry
    from tagstream.model.version.load import load
    from tagstream.runner import tagger_threads

    registry = Registry(str(BUNDLED))
    tagger = load(registry.fetch(registry.champion()[0]), threads=1)
    events = [ProductEvent.model_validate_json(line) for line in sys.stdin.buffer.read().splitlines()]
    batches = []
    for start in range(0, len(events), _MICRO_BATCH_EVENTS):
        part = events[start : start + _MICRO_BATCH_EVENTS]
        texts = [TextFields(e.title, e.brand, e.description, e.attributes, e.lang) for e in part]
        pictures = [base64.b64decode(e.image.data) if e.image and e.image.data else None for e in part]
        batches.append(MicroBatch(texts, pictures))
    with ThreadPoolExecutor(tagger_threads(on_gpu=tagger.device.type == "cuda")) as threads:
        list(threads.map(tagger.score, batches[:4]))
        started_s = time.perf_counter()
        list(threads.map(tagger.score, batches))
    print(len(events) / (time.perf_counter() - started_s))


def stream_events_per_s(records: list[KeyValue]) -> float:
    os.environ["TAGSTREAM_MICRO_BATCH_MAX_EVENTS"] = str(_MICRO_BATCH_EVENTS)
    with local_stack(embedded=True, tell=lambda _: None) as stack:
        progress = Progress(stack)
        warm_up = list(drawn_events(4 * _MICRO_BATCH_EVENTS, seed=5, distinct_products=1000))
        publish_all(stack, warm_up)
        progress.wait(len(warm_up))
        publish_all(stack, records)
        progress.wait(len(warm_up) + len(records))
        return store_rate_per_s(stack, {record.key or b"" for record in records})


def store_rate_per_s(stack: Stack, keys: set[bytes]) -> float:
    client: Any = redis.Redis.from_url(stack.settings.redis_url.get_secret_value())
    found = [key for key in client.scan_iter("*:product:*", count=1000) if key.split(b":product:")[1] in keys]
    moments_ms = sorted(int(client.hget(key, "updated_at_ms")) for key in found)
    assert len(moments_ms) == len(keys), "some are not in the store"
    return (len(keys) - _MICRO_BATCH_EVENTS) / (moments_ms[-1] - moments_ms[_MICRO_BATCH_EVENTS - 1]) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--events", type=int, default=2000)
    arguments = parser.parse_args()
    records = products(arguments.data, arguments.events)
    before = bare_events_per_s(records)
    stream = stream_events_per_s(records)
    after = bare_events_per_s(records)
    bare = (before + after) / 2
    figures = {
        "bench": "throughput",
        "stream_over_bare": round(stream / bare, 3),
        "target_ratio": 0.85,
        "stream_events_per_s": round(stream, 1),
        "target_events_per_s": 150,
        "bare_events_per_s": [round(before, 1), round(after, 1)],
        "events": len(records),
        "products": str(arguments.data.name) if arguments.data else "drawn",
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
