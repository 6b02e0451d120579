"""The faults, one small function each. A function returns when its cause has ended; see cell.py."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis
from cell import POLL_S, ROOT, SESSION_S, Cell, Consumer, Fault, Skipped

from tagstream.ops.audit import read_tags

#: At most so long a zombie sleeps; its session ends long before.
_ZOMBIE_MAX_S = 4 * SESSION_S

FAULTS: dict[str, Fault] = {}


def fault(name: str, **how: Any) -> Callable[[Callable[[Cell], None]], Callable[[Cell], None]]:
    def register(inject: Callable[[Cell], None]) -> Callable[[Cell], None]:
        FAULTS[name] = Fault(name, inject, **how)
        return inject

    return register


# ------------------------------------------------------------------ consumers


@fault("consumer-killed")
def consumer_killed(cell: Cell) -> None:
    """kill -9 in mid-batch; another one is started at once, as Serve would."""
    victim = cell.any_consumer()
    cell.must(bool(victim.state().get("in_flight")), "nothing was in flight at the consumer")
    victim.signal(signal.SIGKILL)
    victim.process.wait()
    cell.start_consumer()


@fault("consumer-zombie", reorders=True)
def consumer_zombie(cell: Cell) -> None:
    """Frozen between store and publish for longer than its session, until the other one has done its work."""
    victim = cell.any_consumer()
    (cell.folder / f"freeze-{victim.name}").touch()
    if cell.wait_until(lambda: victim.stopped, "the consumer freezes between store and publish"):
        cell.last_for(SESSION_S + 1)
        waited = [0.0]

        def overtaken() -> bool:
            waited[0] += POLL_S
            return cell.finished() or waited[0] > _ZOMBIE_MAX_S

        cell.wait_until(overtaken, "the others have done its work", timeout_s=3 * _ZOMBIE_MAX_S)
        cell.must(cell.finished(), "the others did not take over while it was frozen")
    victim.signal(signal.SIGCONT)


@fault("consumer-joins-and-another-leaves", tagger_delay_s=1.0, holds_back=0.5)
def partitions_revoked(cell: Cell) -> None:
    """Partitions are revoked in mid-batch, twice. The second time all three have work."""
    leaver = cell.any_consumer()
    newcomer = cell.start_consumer()
    cell.wait_until(lambda: bool(newcomer.state().get("partitions")), "the third consumer has a partition")
    cell.publish_rest()
    cell.wait_until(lambda: bool(leaver.state().get("in_flight")), "the one that leaves is in mid-batch")
    leaver.signal(signal.SIGTERM)


@fault("ten-joins-and-leaves", tagger_delay_s=1.0)
def churn(cell: Cell) -> None:
    """Ten in a minute."""
    if cell.options.broker == "embedded" and cell.broker:
        raise Skipped("the embedded broker can leave such a group without an assignment for ever")
    pause_s = cell.options.join_interval_s / 2
    left: list[Consumer] = []
    for _ in range(cell.options.joins):
        newcomer = cell.start_consumer()
        cell.last_for(pause_s)
        stayed = [one for one in cell.living() if one.state() and one not in left]
        left.append(cell.rng.choice(stayed or [newcomer]))
        left[-1].signal(signal.SIGTERM)
        cell.last_for(pause_s)


# ------------------------------------------------------------------ the store


@fault("store-down")
def store_down(cell: Cell) -> None:
    store = cell.own_store()
    store.kill()
    cell.last_for(cell.options.outage_s)
    store.restart()


@fault("store-frozen")
def store_frozen(cell: Cell) -> None:
    _freeze(cell, cell.own_store())


@fault("store-emptied")
def store_emptied(cell: Cell) -> None:
    """It comes back with nothing: writes are refused until it has been refilled from product-tags."""
    store, job = cell.own_store(), ROOT / "jobs/rebuild_store.py"
    if not job.exists():
        raise Skipped("jobs/rebuild_store.py is not there")
    store.kill()
    for path in store.folder.glob("appendonlydir*"):
        shutil.rmtree(path)
    store.restart()
    cell.wait_until(
        lambda: any("StoreNotInitialised" in one.state().get("reason", "") for one in cell.living()),
        "a consumer says that the store is not initialised",
    )
    done = subprocess.run(
        [sys.executable, str(job)], env=cell.env, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    cell.must(done.returncode == 0, f"rebuild_store ended with {done.returncode}: {done.stderr[-500:]}")


@fault("store-refuses-writes")
def store_full(cell: Cell) -> None:
    """No memory left."""
    with _client(cell) as client:
        client.config_set("maxmemory", 1)
        cell.last_for(cell.options.outage_s)
        client.config_set("maxmemory", 0)


@fault("store-read-only")
def store_read_only(cell: Cell) -> None:
    """It became a replica, as in a fail-over, of a primary that is not there."""
    with _client(cell) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        cell.last_for(cell.options.outage_s)
        client.execute_command("REPLICAOF", "NO", "ONE")


# ------------------------------------------------------------------ the broker


@fault("broker-frozen", reorders=True)
def broker_frozen(cell: Cell) -> None:
    _freeze(cell, cell.own_broker())


@fault("broker-killed", reorders=True)
def broker_killed(cell: Cell) -> None:
    """kill -9, and again on the same log."""
    broker = cell.own_broker()
    if cell.options.broker == "embedded":
        raise Skipped("the embedded broker keeps everything in memory")
    broker.kill()
    cell.last_for(cell.options.outage_s / 2)
    broker.restart()


@fault("broker-disk-full", reorders=True, disk_mib=300)
def broker_disk_full(cell: Cell) -> None:
    """Not a byte left: the broker gives its log up and ends. Room is made, and it is started again."""
    broker = cell.own_broker()
    if cell.options.broker == "embedded":
        raise Skipped("the embedded broker keeps everything in memory")
    ballast = broker.folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    cell.wait_until(lambda: not broker.is_running(), "the broker ends for want of room")
    cell.last_for(cell.options.outage_s / 2)
    ballast.unlink()
    broker.restart()


# ------------------------------------------------------------------ pictures


def _picture_host(mode: str) -> Callable[[Cell], None]:
    def misbehave(cell: Cell) -> None:
        asked = cell.host.asked
        cell.host.mode = mode
        cell.last_for(cell.options.outage_s)
        cell.must(cell.host.asked > asked, "nobody asked the picture host")
        cell.host.mode = "well"

    return misbehave


for _mode in ("hangs", "drips", "fails", "redirects", "floods"):
    fault(f"picture-host-{_mode}", pictures=True)(_picture_host(_mode))


# ------------------------------------------------------------------ the model


@fault("model-swapped")
def model_swapped(cell: Cell) -> None:
    """Under load; the cause has ended when the first tags of the new generation are out."""
    (cell.folder / "generation.new").write_text("2")
    os.replace(cell.folder / "generation.new", cell.folder / "generation")

    def is_out() -> bool:
        return any(
            product and product.model_generation == 2 for product in read_tags(cell.settings).last.values()
        )

    cell.wait_until(is_out, "tags of the new generation are on the topic")


@fault("crash-poison", poison=True)
def crash_poison(cell: Cell) -> None:
    """Some titles kill the tagger's process; they are in the past already. The findings tell."""


# ------------------------------------------------------------------ helpers


def _freeze(cell: Cell, server: Any) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    cell.last_for(cell.options.outage_s)
    os.kill(server.pid, signal.SIGCONT)


def _client(cell: Cell) -> Any:
    return redis.Redis.from_url(cell.own_store().url)
