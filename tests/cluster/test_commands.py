"""What a user types: `tagstream demo`, and `tagstream up` with the commands beside it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tagstream.catalogue.built_in import history
from tagstream.core.records import encode

TAGSTREAM = str(Path(sys.executable).parent / "tagstream")
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("TAGSTREAM_", "RAY_"))}


def test_the_demo_ends_with_exit_0_and_leaves_nothing_behind() -> None:
    demo = subprocess.Popen(
        [TAGSTREAM, "demo"], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = demo.communicate(timeout=240)
    finally:
        demo.kill()
    assert demo.returncode == 0, output[-3000:]
    assert re.search(r"lost\W+0\b", output)


@pytest.fixture(scope="module")
def up() -> Iterator[tuple[subprocess.Popen[str], dict[str, str], str]]:
    """A running `tagstream up --embedded`, the environment that it says to use, and what it said."""
    process = subprocess.Popen(
        [TAGSTREAM, "up", "--embedded"],
        env={**ENV, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "tagstream down" in line:
            break
    found = re.search(r"export TAGSTREAM_SETTINGS_FILE=(\S+)", said)
    assert found, said
    yield process, {**ENV, "TAGSTREAM_SETTINGS_FILE": found[1]}, said
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def run(env: dict[str, str], *command: str, expect_exit: int = 0) -> str:
    done = subprocess.run(
        [TAGSTREAM, *command], env=env, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == expect_exit, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def objects(printed: str) -> list[dict[str, Any]]:
    """What `--json` prints: one object a line."""
    return [json.loads(line) for line in printed.splitlines()]


def test_published_products_can_be_tailed_got_and_found(
    up: tuple[subprocess.Popen[str], dict[str, str], str], tmp_path: Path
) -> None:
    _, env, _ = up
    products = history()[:30]
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(encode(event).value or b"" for event in products))
    assert "published 30 events" in run(env, "publish", str(file), "--rate", "200")
    lines = run(env, "tail", "--from-beginning", "--count", "30", "--json").splitlines()
    tagged = {json.loads(line)["key"]: json.loads(json.loads(line)["value"]) for line in lines}
    assert tagged.keys() == {event.product_id for event in products}
    product_id, product = next((p, t) for p, t in tagged.items() if t["tags"])
    assert json.loads(run(env, "get", product_id, "--json")) == product
    tag = product["tags"][0]
    found = objects(run(env, "find", f"{tag['group']}={tag['value']}", "--limit", "100", "--json"))
    assert product_id in {hit["product_id"] for hit in found}
    run(env, "get", "nobody", expect_exit=1)
    assert len(objects(run(env, "lag", "--json"))) == 4


def test_check_and_topics_say_how_things_stand(up: tuple[subprocess.Popen[str], dict[str, str], str]) -> None:
    _, env, _ = up
    assert "champion" in run(env, "check", "--replication", "1", expect_exit=1)
    assert "partitions" in run(env, "topics", "check", "--replication", "1", expect_exit=1)
    listed = objects(run(env, "topics", "list", "--json"))
    assert {row["topic"]: row["partitions"] for row in listed} == {
        "product-events": 4,
        "product-tags": 4,
        "product-events.dead": 4,
        "product-events.dead.handled": 4,
    }
    assert "all topics are there" in run(env, "topics", "create", "--replication", "1")


def test_down_drains_and_ends_every_process(up: tuple[subprocess.Popen[str], dict[str, str], str]) -> None:
    process, env, _ = up
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) > 5
    assert "down" in run(env, "down")
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert not Path(env["TAGSTREAM_SETTINGS_FILE"]).exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS"),
        ({"TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS": "nowhere"}, "is not host:port"),
        ({"TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "broker"),
    ],
)
def test_wrong_settings_are_one_clear_line_and_exit_2(changes: dict[str, str], words: str) -> None:
    env = {**ENV, "TAGSTREAM_REDIS_URL": "redis://127.0.0.1:2", **changes}
    done = subprocess.run([TAGSTREAM, "up"], env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert words in line
