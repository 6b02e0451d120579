"""Breaks the promise on purpose and says which test notices: python tests/mutants.py [NAME …]

Each mutant is a few lines of the code that keep a part of the promise, replaced. The tree is copied, the
copy is broken, and the named tests run there. Exit 1 if one survives or no longer fits the code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKER = "tagstream/stream/worker.py"
CARRY = "tagstream/stream/carry.py"
UNIT = (
    "tests/unit/test_worker.py",
    "tests/unit/test_worker_ownership.py",
    "tests/unit/test_worker_dead_letters.py",
    "tests/unit/test_worker_model.py",
)
STORE = ("tests/contract/test_store.py",)
_TIMEOUT_S = 280


@dataclass(frozen=True)
class Mutant:
    """`old` stands once in `file`. `tests` must notice when `new` stands there."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = UNIT


MUTANTS = [
    Mutant(
        "commits before store and publish",
        WORKER,
        "            self._in_flight[number] = entries\n",
        "            self._in_flight[number] = entries\n"
        "            for entry in entries:\n"
        "                self._delivery.trackers[entry.record.source].done(entry.record.offset)\n",
    ),
    Mutant(
        "the store's script ignores the event's version",
        "tagstream/adapters/redis/put_tags.lua",
        "    for i = 1, 2 do\n",
        "    for i = 2, 2 do\n",
        STORE,
    ),
    Mutant(
        "the store's script ignores which of two equal versions came later",
        "tagstream/adapters/redis/put_tags.lua",
        "    for i = 1, 2 do\n",
        "    for i = 1, 1 do\n",
        STORE,
    ),
    Mutant(
        "nothing is tried again",
        CARRY,
        "            except (Unavailable, Overloaded) as error:\n",
        "            except (Unavailable, Overloaded) as error:\n"
        "                raise _PartitionsLost from error\n",
    ),
    Mutant(
        "a repeated event is not published",
        CARRY,
        'if entry.standing.verdict == "stale":',
        'if entry.standing.verdict != "applied":',
    ),
    Mutant(
        "a superseded event is done before its successor",
        WORKER,
        "                self._batcher.add(entry, entry.size_bytes, self._ports.clock.monotonic_s())\n\n",
        "                self._batcher.add(entry, entry.size_bytes, self._ports.clock.monotonic_s())\n"
        "            for older in entry.overtaken:\n"
        "                tracker.done(older.record.offset)\n\n",
    ),
    Mutant(
        "a poison event takes what it superseded with it",
        "tagstream/stream/lanes.py",
        'if entry.outcome == "dead_lettered":',
        "if False:",
    ),
    Mutant(
        "the epoch is not checked",
        "tagstream/stream/entry.py",
        "return [entry for entry in entries if self.epochs.get(entry.record.source) == entry.epoch]",
        "return list(entries)",
    ),
    Mutant(
        "a lost partition raises no suspicion",
        "tagstream/stream/handover.py",
        "self._leave(dict.fromkeys(partitions, 0))\n        self._suspect_leaving()\n",
        "self._leave(dict.fromkeys(partitions, 0))\n",
    ),
    Mutant(
        "a hand-over leaves undone what lies before a published record",
        "tagstream/stream/delivery.py",
        "return max([tracker.published_until, *flying])",
        "return 0",
    ),
    Mutant(
        "a commit passes what is not done",
        "tagstream/stream/offsets.py",
        "while self._open and self._open[0] in self._done:",
        "while self._open and (self._open[0] in self._done or offset > self._open[0]):",
    ),
    Mutant(
        "a dead letter is not awaited",
        CARRY,
        "        if records:\n",
        "        if records and all(entry.standing for entry in entries):\n",
    ),
]


def main() -> int:
    wanted = sys.argv[1:]
    mutants = [mutant for mutant in MUTANTS if not wanted or any(part in mutant.name for part in wanted)]
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = copied_tree(Path(folder))
        for tests in sorted({mutant.tests for mutant in mutants}):
            broken = failures(copy, tests)
            if broken:
                print(f"without a mutant {' '.join(tests)} should pass, but: {'; '.join(broken)}")
                return 1
        for mutant in mutants:
            verdict = tried(mutant, copy)
            bad += verdict.startswith(("SURVIVED", "DOES NOT FIT"))
            print(f"{mutant.name:<66} {verdict}", flush=True)
    print(f"{len(mutants) - bad} of {len(mutants)} mutants caught")
    return 1 if bad else 0


def copied_tree(folder: Path) -> Path:
    copy = folder / "tree"
    unwanted = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build")
    shutil.copytree(ROOT, copy, ignore=unwanted, symlinks=True)
    found = subprocess.run(
        [sys.executable, "-c", "import tagstream; print(tagstream.__file__)"],
        env=environment(copy),
        cwd=copy,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(found).is_relative_to(copy):
        raise SystemExit(f"the copy is not what Python imports: {found}")
    return copy


def environment(copy: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(copy), os.environ.get("PYTHONPATH"))))
    # A counterexample is enough here; nobody reads it.
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "TAGSTREAM_TEST_SHRINK": "no"}


def tried(mutant: Mutant, copy: Path) -> str:
    path = copy / mutant.file
    sound = path.read_text()
    if sound.count(mutant.old) != 1:
        return (
            f"DOES NOT FIT: {mutant.file} has its text {sound.count(mutant.old)} times: mend tests/mutants.py"
        )
    path.write_text(sound.replace(mutant.old, mutant.new))
    try:
        found = failures(copy, mutant.tests)
    finally:
        path.write_text(sound)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"caught by {', '.join(found[:3])}{more}" if found else "SURVIVED"


def failures(copy: Path, tests: tuple[str, ...]) -> list[str]:
    """The tests that fail, or how else the run ended."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--show-capture=no", "-p", "no:logging"]
    command += ["--timeout", "60"]  # one that would never end is named too
    command += ["-p", "no:cacheprovider", *tests]
    try:
        run = subprocess.run(
            command, cwd=copy, env=environment(copy), capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return ["never ending"]
    if run.returncode == 0:
        return []
    return re.findall(r"^(?:FAILED|ERROR) \S*/(\S+)", run.stdout, re.MULTILINE) or [run.stdout[-300:]]


if __name__ == "__main__":
    sys.exit(main())
