"""The files for real clusters, as far as they can be held true without Docker, a cloud or Grafana."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from serve.stream import GOODBYE_S
from tagstream.catalogue.built_in import history
from tagstream.core.metrics import Metric
from tagstream.core.records import encode
from tagstream.settings import Settings

ROOT = Path(__file__).parents[2]


def _yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def _settings_names(names: list[str]) -> list[str]:
    """What of `names` reaches no setting, though it looks like one."""
    known = {f"TAGSTREAM_{field.upper()}" for field in Settings.model_fields} | {"TAGSTREAM_SETTINGS_FILE"}
    return [
        n
        for n in names
        if n.startswith("TAGSTREAM_") and n not in known and n.removesuffix("_FILE") not in known
    ]


# ray_cluster.yaml


def test_ray_accepts_the_cluster_file_as_written_and_with_its_defaults() -> None:
    cluster = _yaml("ray_cluster.yaml")
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    validate_config(prepare_config(cluster))


def test_a_cluster_file_with_an_unknown_field_would_be_refused() -> None:
    cluster = _yaml("ray_cluster.yaml") | {"consumers": 3}
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(cluster))


def test_the_cluster_has_a_group_for_each_kind_of_work_within_its_limit() -> None:
    cluster = _yaml("ray_cluster.yaml")
    groups = cluster["available_node_types"]
    assert set(groups) == {"head", "consumers", "taggers", "trainers"}
    assert groups["head"]["resources"]["CPU"] == 0
    assert groups["taggers"]["resources"]["GPU"]
    assert groups["trainers"]["resources"]["GPU"]
    assert "GPU" not in groups["consumers"]["resources"]
    workers = [group for name, group in groups.items() if name != "head"]
    assert sum(group["max_workers"] for group in workers) <= cluster["max_workers"]
    assert all(group["min_workers"] <= group["max_workers"] for group in workers)


def test_the_cluster_file_carries_no_secret() -> None:
    text = (ROOT / "ray_cluster.yaml").read_text()
    assert not re.search(r"(TOKEN|PASSWORD|API_KEY|SECRET\w*)=\S*[A-Za-z0-9]", text)
    assert any("--env-file" in option for option in _yaml("ray_cluster.yaml")["docker"]["run_options"])


# infra/compose.yaml


@pytest.fixture(scope="module")
def compose() -> Any:
    return _yaml("infra/compose.yaml")


def test_the_compose_file_follows_the_compose_specification(compose: Any) -> None:
    # check-jsonschema ships the specification's own schema.
    folder = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.validate(compose)
    broken = compose | {"services": {"kafka": {"imagee": "apache/kafka"}}}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(broken)


def test_services_wait_for_services_that_can_fulfil_the_condition(compose: Any) -> None:
    services = compose["services"]
    for name, service in services.items():
        for awaited, how in service.get("depends_on", {}).items():
            assert awaited in services, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[awaited], f"{name} waits for the health of {awaited}"
            if how["condition"] == "service_completed_successfully":
                assert services[awaited].get("restart") != "unless-stopped", awaited


def test_networks_volumes_and_secrets_of_services_are_declared(compose: Any) -> None:
    for name, service in compose["services"].items():
        assert set(service.get("networks", [])) <= set(compose["networks"]), name
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(compose["volumes"]), (
            name
        )


def test_compose_publishes_ports_on_loopback_only(compose: Any) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_sets_only_settings_that_exist_and_points_them_at_its_own_services(compose: Any) -> None:
    environment = compose["services"]["ray-head"]["environment"]
    assert _settings_names(list(environment)) == []
    broker = environment["TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS"].split(":")[0]
    assert broker in compose["services"]
    assert environment["TAGSTREAM_REDIS_URL"].removeprefix("redis://").split(":")[0] in compose["services"]
    for service in ("ray-worker", "topics", "deploy"):
        assert compose["services"][service]["environment"] == environment


def test_the_store_of_compose_never_evicts_and_keeps_a_log(compose: Any) -> None:
    command = " ".join(compose["services"]["redis"]["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command


def test_the_deploy_service_opens_the_address_that_the_serve_file_closes(compose: Any) -> None:
    script = compose["services"]["deploy"]["command"][-1]
    closed, opened = re.search(r"sed 's/(.+?)/(.+?)/'", script).groups()  # type: ignore[union-attr]
    text = (ROOT / "serve/config.yaml").read_text()
    assert text.count(closed) == 1
    assert yaml.safe_load(text.replace(closed, opened))["http_options"]["host"] == "0.0.0.0"


# infra/Dockerfile


def _instructions() -> list[tuple[str, str]]:
    text = (ROOT / "infra/Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def test_the_image_has_instructions_that_docker_knows_and_starts_from_one_base() -> None:
    words = [word for word, _ in _instructions()]
    assert set(words) <= {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}
    assert words[0] == "FROM"
    assert words.count("FROM") == 1


def test_everything_that_the_image_copies_is_in_the_repository_and_not_ignored() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [s for word, rest in _instructions() if word == "COPY" for s in rest.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), f"COPY {source}"
        assert source in kept, f".dockerignore keeps {source} out of the build"


def test_the_image_runs_without_root_and_only_with_a_token() -> None:
    instructions = _instructions()
    assert [rest for word, rest in instructions if word == "USER"] == ["ray"]
    environment = " ".join(rest for word, rest in instructions if word == "ENV")
    assert "RAY_AUTH_MODE=token" in environment
    assert _settings_names(re.findall(r"(\w+)=", environment)) == []


def test_serve_gives_a_consumer_the_time_that_a_stop_may_take() -> None:
    deployments = _yaml("serve/config.yaml")["applications"][0]["deployments"]
    [consumer] = [one for one in deployments if one["name"] == "StreamConsumer"]
    limits = Settings.model_fields["revoke_timeout_s"].metadata
    [longest_s] = [limit.le for limit in limits if hasattr(limit, "le")]

    assert consumer["graceful_shutdown_timeout_s"] > 2 * longest_s + GOODBYE_S


def test_the_images_serve_variables_are_those_of_the_serve_file() -> None:
    environment = " ".join(rest for word, rest in _instructions() if word == "ENV").split()
    for application in _yaml("serve/config.yaml")["applications"]:
        for name, setting in application["runtime_env"]["env_vars"].items():
            assert f"{name}={setting}" in environment


# infra/schemas


def _exporter() -> Any:
    spec = importlib.util.spec_from_file_location("export", ROOT / "infra/schemas/export.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_schemas_are_those_of_the_contracts() -> None:
    for name, content in _exporter().schemas().items():
        committed = (ROOT / "infra/schemas" / name).read_text()
        assert committed == content, f"{name} is out of date: python infra/schemas/export.py"


def test_events_of_the_built_in_catalogue_follow_the_committed_schema() -> None:
    schema = json.loads((ROOT / "infra/schemas/product-events.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    events = history()
    for event in [*events[:20], *events[-5:]]:
        validator.validate(json.loads(encode(event).value or b""))
    assert not validator.is_valid({"product_id": "p-1", "title": "no version, no time"})


# infra/dashboards


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads((ROOT / "infra/dashboards/tagstream.json").read_text())[
        "panels"
    ]
    return panels


def test_the_dashboard_shows_only_metrics_that_exist_in_the_way_of_their_kind() -> None:
    kinds = {f"ray_{metric.value.name}": metric.value.kind for metric in Metric}
    for panel in _panels():
        for target in panel["targets"]:
            names = re.findall(r"\bray_\w+", target["expr"])
            assert names, panel["title"]
            for name in names:
                base = re.sub(r"_(bucket|sum|count)$", "", name)
                kind = kinds.get(name) or kinds.get(base)
                assert kind, f"{panel['title']}: {name} is in no list"
                assert (kind == "histogram") == (name != base), f"{panel['title']}: {name} is a {kind}"


def test_the_dashboard_groups_only_by_labels_that_the_metric_has() -> None:
    labels = {f"ray_{metric.value.name}": {*metric.value.labels, "le"} for metric in Metric}
    for panel in _panels():
        for target in panel["targets"]:
            grouped = {
                label.strip() for by in re.findall(r"by \((.*?)\)", target["expr"]) for label in by.split(",")
            }
            for name in re.findall(r"\bray_\w+", target["expr"]):
                assert grouped <= labels[re.sub(r"_(bucket|sum|count)$", "", name)], panel["title"]


def test_every_metric_has_its_place_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in _panels() for target in panel["targets"])
    assert [metric.value.name for metric in Metric if f"ray_{metric.value.name}" not in shown] == []
