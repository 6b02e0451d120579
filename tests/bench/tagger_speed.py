"""Events a second of the bare tagger: prepared micro-batches of encoded pictures, decode included.

    python tests/bench/tagger_speed.py [--data DIR] [--events N] [--micro-batch N] [--model DIR]
        [--device cpu|cuda] [--at-once N] [--threads N]

Without --data the products are drawn in code (168 x 224 JPEG, as in DIR). `--at-once`: micro-batches scored
at the same time, as a replica does. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torchvision.io import encode_jpeg

from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.dataset.rows import read_products
from tagstream.model.version.load import load


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--threads", type=int, help="of torch, each; default: one a core")
    arguments = parser.parse_args()
    folder = arguments.model
    if folder is None:
        registry = Registry(str(BUNDLED))
        folder = registry.fetch(registry.champion()[0])
    tagger = load(folder, threads=arguments.threads, device=arguments.device)
    events = real(arguments.data, arguments.events) if arguments.data else generated(arguments.events)
    batches = [
        MicroBatch([text for text, _ in part], [image for _, image in part])
        for part in (
            events[at : at + arguments.micro_batch] for at in range(0, len(events), arguments.micro_batch)
        )
    ]
    pool = ThreadPoolExecutor(arguments.at_once)
    list(pool.map(tagger.score, 2 * arguments.at_once * batches[:1]))
    figures: dict[str, int | float | str] = {
        "device": str(tagger.device),
        "at_once": arguments.at_once,
        "events": len(events),
        "micro_batch": arguments.micro_batch,
        "threads": torch.get_num_threads(),
    }
    for name, some in (("with_pictures", batches), ("text_alone", [_without(batch) for batch in batches])):
        started, cpu = time.perf_counter(), time.process_time()
        list(pool.map(tagger.score, some))
        wall_s = time.perf_counter() - started
        figures[f"{name}_events_per_s"] = round(len(events) / wall_s)
        figures[f"{name}_cpu_ms_per_event"] = round((time.process_time() - cpu) / len(events) * 1e3, 3)
    print(json.dumps({"benchmark": "tagger_speed", "model_version": tagger.model_version, **figures}))


def real(data: Path, events: int) -> list[tuple[TextFields, bytes | None]]:
    rows = read_products(data, limit=events)
    return [(row.text, row.encoded) for row in rows]


def generated(events: int) -> list[tuple[TextFields, bytes | None]]:
    """Noisy blocks on white: about as many bytes and as costly to decode as catalogue photographs."""
    rng = np.random.default_rng(0)
    made: list[tuple[TextFields, bytes | None]] = []
    for number in range(events):
        picture = np.full((224, 168, 3), 250, np.uint8)
        picture[40:190, 40:130] = rng.integers(0, 200, 3) + rng.integers(0, 40, (150, 90, 1))
        encoded = encode_jpeg(torch.from_numpy(picture).permute(2, 0, 1).contiguous(), 85).numpy().tobytes()
        made.append((TextFields(f"Acme{number} Men Casual Blue Cotton Shirt"), encoded))
    return made


def _without(batch: MicroBatch) -> MicroBatch:
    return MicroBatch(batch.texts, [None] * len(batch))


if __name__ == "__main__":
    main()
