"""Faults on real processes, audited from outside: a table, and JSON on request.

    python tests/faults/run.py [--broker embedded|apache] [--kafka HOST:PORT --redis URL] [--faults a,b]
                               [--seeds 1,2,3] [--delivery at_least_once|exactly_once] [--parallel N]
                               [--outage-s 20] [--json FILE] [--list]

Exit 1 if a promise was broken. recovery s: from the end of the cause until every partition that lagged then
has committed more (0.1 s or less: the stream was not held up, or all was done before the cause ended).
still s: the longest that a partition with lag has gone without a commit, of all partitions, outage included.
settled s: until all is committed, nothing is in flight and every zombie has healed. A skipped fault says why.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cell import Fault, Options, Outcome, run_cell
from faults import FAULTS

COLUMNS = ("lost", "stale", "reordered", "not healed", "duplicates", "recovery s", "settled s", "still s")


def run_all(
    faults: Iterable[Fault], seeds: Iterable[int], options: Options, folder: Path, parallel: int
) -> list[Outcome]:
    """Each cell on a thread, broker and store of its own. What they leave behind lies in `folder`."""
    cells = [(fault, seed) for seed in seeds for fault in faults]
    with ThreadPoolExecutor(max(1, parallel)) as pool:
        done = [
            pool.submit(_run_and_tell, fault, seed, options, folder / f"{fault.name}-{seed}")
            for fault, seed in cells
        ]
        return [future.result() for future in done]


def _run_and_tell(fault: Fault, seed: int, options: Options, folder: Path) -> Outcome:
    outcome = run_cell(fault, seed, options, folder)
    told = (outcome.skipped and f"skipped: {outcome.skipped}") or ("ok" if outcome.ok else "FAILED")
    print(f"{fault.name} seed {seed}: {told} ({outcome.wall_s:.0f} s)", file=sys.stderr, flush=True)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    lines = [f"{'fault':36}{'seed':>5}" + "".join(f"{name:>12}" for name in COLUMNS)]
    for outcome in outcomes:
        head = f"{outcome.fault:36}{outcome.seed:>5}"
        if outcome.skipped:
            lines.append(f"{head}  skipped: {outcome.skipped}")
            continue
        lines.append(head + "".join(f"{value:>12}" for value in _row(outcome)))
        lines += [f"    ! {problem}" for problem in outcome.problems]
    return "\n".join(lines)


def _row(outcome: Outcome) -> list[str]:
    found = outcome.findings
    counts = (found.lost, found.stale, found.reordered, found.not_healed, found.repeated)
    waits = (outcome.recovery_s, outcome.settled_s, max(outcome.stood_still_s.values(), default=0.0))
    return [*map(str, counts), *("never" if wait_s is None else f"{wait_s:.1f}" for wait_s in waits)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--broker", choices=("embedded", "apache"), default="embedded")
    parser.add_argument("--kafka", default="", metavar="HOST:PORT")
    parser.add_argument("--redis", default="", metavar="URL")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--delivery", choices=("at_least_once", "exactly_once"), default="at_least_once")
    parser.add_argument("--parallel", type=int, default=1, metavar="N")
    parser.add_argument("--outage-s", type=float, default=Options.outage_s)
    parser.add_argument("--products", type=int, default=Options.products)
    parser.add_argument("--versions", type=int, default=Options.versions)
    parser.add_argument("--folder", type=Path, help="keep logs and states there")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--list", action="store_true", help="the faults' names")
    given = parser.parse_args()
    if given.list:
        print("\n".join(FAULTS))
        return 0
    names = given.faults.split(",")
    if unknown := set(names) - FAULTS.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    if bool(given.kafka) != bool(given.redis):
        parser.error("--kafka and --redis go together")
    options = Options(
        given.broker,
        given.kafka,
        given.redis,
        given.delivery,
        given.outage_s,
        given.products,
        given.versions,
    )
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as scratch:
        outcomes = run_all(
            [FAULTS[name] for name in names],
            [int(seed) for seed in given.seeds.split(",")],
            options,
            given.folder or Path(scratch),
            given.parallel,
        )
    print(table(outcomes))
    if given.json:
        given.json.write_text(json.dumps([outcome.as_json() for outcome in outcomes], indent=1) + "\n")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
