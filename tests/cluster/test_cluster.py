"""The whole path on Ray: deployed by `serve deploy`, killed in mid-stream, trained by `ray job submit`."""

from __future__ import annotations

import base64
import csv
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from tagstream.adapters.kafka.lag import GroupWatch
from tagstream.catalogue.built_in import history, listed
from tagstream.catalogue.malformed import malformed
from tagstream.core.ports import OutRecord
from tagstream.core.records import KeyValue, encode
from tagstream.ops.audit import examine, expect, unbalanced
from tagstream.settings import Settings
from tagstream.wiring import build_publisher
from tests.support.load import events

PATIENCE_S = 120.0

#: All that was sent to the shared cluster so far: an audit looks at everything.
SENT: list[KeyValue] = []


def publish(cluster: Any, records: list[KeyValue]) -> None:
    publisher = build_publisher(cluster.settings)
    publisher.publish([OutRecord(cluster.settings.topics.events, r.key, r.value) for r in records])
    publisher.close()
    SENT.extend(records)


def committed(cluster: Any) -> int:
    settings = cluster.settings
    watch = GroupWatch(settings.kafka, settings.consumer_group, settings.topics.events)
    try:
        return sum(watch.committed().values())
    finally:
        watch.close()


def wait_committed(cluster: Any, count: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while (done := committed(cluster)) < count:
        assert time.monotonic() < deadline_s, f"{done} of {count}: {readiness(cluster)}"
        time.sleep(0.1)


def readiness(cluster: Any) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{cluster.api_url}/readyz", timeout=20, trust_env=False).json()
    return answer


@pytest.fixture(scope="module", autouse=True)
def catalogue(cluster: Any) -> None:
    """The built-in one, with updates, deletes and bad records, is through."""
    records = [encode(event) for event in history()]
    records += [KeyValue(bad.key, bad.value) for bad in malformed()]
    publish(cluster, records)
    wait_committed(cluster, len(SENT))


def problems_of(settings: Settings, sent: list[KeyValue], books: dict[str, int]) -> list[str]:
    """What the audit finds wrong, a sentence each."""
    expectation = expect(sent)
    return [*examine(settings, expectation).problems(), *unbalanced(expectation, books)]


def test_the_deployed_application_tags_a_catalogue_and_the_audit_finds_nothing_wrong(cluster: Any) -> None:
    assert problems_of(cluster.settings, SENT, readiness(cluster)["stream"]["books"]) == []


def test_the_dashboard_counts_the_gpus_that_ray_has_found(cluster: Any) -> None:
    assert cluster.dashboard.gpus() == torch.cuda.device_count()


def test_the_api_tags_on_demand_and_looks_up(cluster: Any) -> None:
    with httpx.Client(base_url=cluster.api_url, timeout=20, trust_env=False) as api:
        picture = base64.b64encode(listed()[0].image).decode()
        answer = api.post(
            "/v1/tag", json={"title": "Nike Men Black Running Shoes", "image": {"data": picture}}
        )
        assert answer.status_code == 200, answer.text
        tags = {tag["group"]: tag["value"] for tag in answer.json()["tags"]}
        assert (tags["baseColour"], tags["gender"]) == ("Black", "Men")
        assert answer.json()["image"] == "used"
        known = next(event.product_id for event in history() if event.lang != "zh")
        product = api.get(f"/v1/products/{known}/tags").json()
        tag = product["tags"][0]
        found = api.get(f"/v1/tags/{tag['group']}/{tag['value']}/products?limit=1000").json()
        assert known in {hit["product_id"] for hit in found}
        assert api.get("/v1/products/nobody/tags").status_code == 404
        assert api.post("/v1/tag", json={"title": " "}).status_code == 422
        assert api.get("/healthz").json() == {"status": "ok"}
        assert "/v1/tag" in api.get("/openapi.json").json()["paths"]


def test_ray_s_prometheus_endpoint_shows_the_metrics(cluster: Any) -> None:
    wanted = (
        "tagstream_records_total",
        "tagstream_lag_records",
        "tagstream_step_seconds",
        "tagstream_model_info",
    )
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        text = httpx.get(cluster.ray.metrics_url, timeout=10, trust_env=False).text
        if all(f"ray_{name}" in text for name in wanted):
            return
        assert time.monotonic() < deadline_s, "the metrics do not appear"
        time.sleep(0.5)


def test_a_consumer_killed_in_mid_stream_loses_nothing(cluster: Any) -> None:
    before = committed(cluster)
    records = list(events(1200, seed=9, distinct_products=600))
    publish(cluster, records[:600])
    deadline_s = time.monotonic() + PATIENCE_S
    while committed(cluster) < before + 50:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    [consumer] = replicas_of(cluster, "StreamConsumer")
    os.kill(consumer.pid, signal.SIGKILL)
    assert committed(cluster) < before + 600, "it was killed too late to prove anything"
    publish(cluster, records[600:])
    wait_committed(cluster, len(SENT))
    problems = problems_of(cluster.settings, SENT, readiness(cluster)["stream"]["books"])
    assert [p for p in problems if "consumed" not in p] == [], "the new consumer's books begin anew"
    assert replicas_of(cluster, "StreamConsumer")[0].pid != consumer.pid


def replicas_of(cluster: Any, deployment: str) -> list[psutil.Process]:
    children = psutil.Process(cluster.ray.pid).children(recursive=True)
    return [process for process in children if f":{deployment}" in " ".join(process.cmdline())]


@pytest.fixture
def small_folder(tmp_path: Path) -> Path:
    """Drawn products with the labels that they were drawn from, in the form of a data folder."""
    (tmp_path / "images").mkdir()
    with (tmp_path / "products.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "title", "articleType", "baseColour", "image"])
        for product in (p for p in listed() if p.lang == "en"):
            name = f"images/{product.product_id}.jpg"
            (tmp_path / name).write_bytes(product.image)
            rows.writerow([product.product_id, product.title, product.shape, product.colour, name])
    return tmp_path


def test_a_retraining_job_submitted_to_the_cluster_writes_a_model_version(
    cluster: Any, small_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = ["job", "submit", "--working-dir", ".", "--", "python", "jobs/retrain.py"]
    job += ["--set", "image.optimisation.epochs=1"]
    said = cluster.run("ray", *job, "--data", str(small_folder), "--out", str(out), timeout_s=280)
    assert "succeeded" in said
    [folder] = out.iterdir()
    written = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "taxonomy.json", "golden.npz", "MANIFEST.json"} <= written
