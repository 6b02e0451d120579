from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tagstream.local import application_config


def deployment(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in config["applications"][0]["deployments"] if one["name"] == name)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_tagger_takes_a_gpu_where_ray_has_found_one(on_gpu: bool) -> None:
    config, _ = application_config(None, one_consumer=False, on_gpu=on_gpu)

    assert deployment(config, "Tagger")["ray_actor_options"].get("num_gpus") == (1 if on_gpu else None)
    assert "num_gpus" not in deployment(config, "StreamConsumer")["ray_actor_options"]


def test_a_serve_file_of_ones_own_says_itself_what_a_tagger_takes(tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text("applications: [{deployments: [{name: Tagger, ray_actor_options: {num_cpus: 2}}]}]\n")

    config, _ = application_config(path, one_consumer=False, on_gpu=True)

    assert deployment(config, "Tagger")["ray_actor_options"] == {"num_cpus": 2}


def test_one_consumer_stays_one_whatever_the_lag() -> None:
    config, _ = application_config(None, one_consumer=True, on_gpu=False)

    assert deployment(config, "StreamConsumer")["autoscaling_config"]["max_replicas"] == 1
