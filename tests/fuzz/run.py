"""Fuzzes decode → decide, and the API: python tests/fuzz/run.py --inputs 1000000 --seed 1 [--api 20000]

Prints a JSON line a target: inputs, events, invalid, crashes, hangs, unaccounted, inputs a second. What fails
is made smaller and kept in tests/fuzz/corpus/, which the tests replay. Exit 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from http_api import fuzz_api
from mutation import Mutator
from specimens import Specimen, seeds
from verdicts import BATCH, Tally, judge, judge_one, minimised

_SHARE = 20_000
#: So many failures are kept; more say nothing new.
_KEPT = 20


def share(task: tuple[int, int]) -> Tally:
    """`task`: (seed, inputs)."""
    seed, inputs = task
    mutator, rng = Mutator(seeds(), random.Random(seed)), np.random.default_rng(seed)
    tally = Tally()
    for start in range(0, inputs, BATCH):
        tally.add(judge([mutator.next() for _ in range(min(BATCH, inputs - start))], rng))
    return tally


def fuzz_decoding(inputs: int, seed: int, processes: int) -> Tally:
    tasks = [(seed * 1_000_003 + n, min(_SHARE, inputs - n)) for n in range(0, inputs, _SHARE)]
    tally = judge(seeds(), np.random.default_rng(seed))
    tally.events = tally.invalid = 0  # the seeds are not counted
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for part in pool.imap_unordered(share, tasks):
            tally.add(part)
    return tally


def keep(tally: Tally) -> None:
    """Store the failures, made smaller."""
    for specimen, why in (tally.crashes + tally.hangs)[:_KEPT]:
        kind = why.split(":")[0]

        def fails(candidate: Specimen, kind: str = kind) -> bool:
            found = judge_one(candidate, np.random.default_rng(0))
            return any(said.startswith(kind) for _, said in found.crashes + found.hangs)

        small = minimised(specimen, fails) if fails(specimen) else specimen
        print(f"{why}\n  kept as {small.store(why)}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--api", type=int, default=0, help="requests to the API")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    failed = 0
    started_s = time.monotonic()
    tally = fuzz_decoding(given.inputs, given.seed, given.processes)
    keep(tally)
    unaccounted = given.inputs - tally.accounted
    failed += len(tally.crashes) + len(tally.hangs) + unaccounted
    report(
        "decode → decide",
        started_s,
        inputs=given.inputs,
        seed=given.seed,
        events=tally.events,
        invalid=tally.invalid,
        crashes=len(tally.crashes),
        hangs=len(tally.hangs),
        unaccounted=unaccounted,
    )
    if given.api:
        started_s = time.monotonic()
        api = fuzz_api(given.api, given.seed)
        for request, why in api.failures[:_KEPT]:
            print(f"{why}\n  {request!r}"[:2000], file=sys.stderr)
        failed += len(api.failures)
        report(
            "api",
            started_s,
            inputs=given.api,
            seed=given.seed,
            statuses=dict(sorted(api.statuses.items())),
            failures=len(api.failures),
            unaccounted=given.api - api.statuses.total() - len(api.failures),
        )
    return 1 if failed else 0


def report(target: str, started_s: float, *, inputs: int, **found: object) -> None:
    took_s = time.monotonic() - started_s
    print(
        json.dumps(
            {
                "target": target,
                "inputs": inputs,
                **found,
                "seconds": round(took_s, 1),
                "inputs_per_s": round(inputs / took_s),
            },
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
