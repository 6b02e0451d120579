from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from tagstream.adapters.ray.head import Dashboard
from tagstream.local.stack import application_config
from tagstream.runner import tagger_device, tagger_threads


def deployment(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in config["applications"][0]["deployments"] if one["name"] == name)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_tagger_takes_a_gpu_where_ray_has_found_one(on_gpu: bool) -> None:
    config, _ = application_config(None, one_consumer=False, on_gpu=on_gpu)

    assert deployment(config, "Tagger")["ray_actor_options"].get("num_gpus") == (0.5 if on_gpu else None)
    assert "num_gpus" not in deployment(config, "StreamConsumer")["ray_actor_options"]


def test_a_serve_file_of_ones_own_says_itself_what_a_tagger_takes(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("applications: [{deployments: [{name: Tagger, ray_actor_options: {num_cpus: 2}}]}]\n")

    config, _ = application_config(path, one_consumer=False, on_gpu=True)

    assert deployment(config, "Tagger")["ray_actor_options"] == {"num_cpus": 2}


def test_one_consumer_stays_one_whatever_the_lag() -> None:
    config, _ = application_config(None, one_consumer=True, on_gpu=False)

    assert deployment(config, "StreamConsumer")["autoscaling_config"]["max_replicas"] == 1


@contextmanager
def dashboard_that_says(*answers: list[dict[str, Any]]) -> Iterator[Dashboard]:
    """Of the nodes: one answer after the other."""
    left = list(answers)

    class Nodes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": {"result": {"result": left.pop(0)}}}).encode())

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Nodes)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Dashboard(f"http://127.0.0.1:{server.server_port}", "token")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_gpus_are_counted_when_the_first_node_is_there_and_dead_nodes_have_none() -> None:
    alive = {"state": "ALIVE", "resources_total": {"CPU": 16.0, "GPU": 2.0}}
    dead = {"state": "DEAD", "resources_total": {"GPU": 4.0}}
    with dashboard_that_says([], [dead], [dead, alive, {"state": "ALIVE", "resources_total": {}}]) as ray:
        assert ray.gpus() == 2


def test_a_replica_without_a_gpu_of_its_own_computes_on_the_processor_whatever_torch_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for torch_sees, has_gpu, device in (
        (True, True, "cuda"), (True, False, "cpu"), (False, True, "cpu"), (False, False, "cpu"),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, "is_available", lambda sees=torch_sees: sees)
        assert tagger_device(has_gpu=has_gpu) == device


def test_a_tagger_scores_a_micro_batch_a_core_at_once_and_two_on_a_gpu() -> None:
    assert tagger_threads(on_gpu=False) == len(os.sched_getaffinity(0))
    assert tagger_threads(on_gpu=True) == 2
