"""Settings come from the environment, from files and from TOML; wrong ones are one clear line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tagstream.cli.main import app
from tagstream.core.errors import BadSettings
from tagstream.ops.topics import topic_plans
from tagstream.settings import Settings, load_settings
from tagstream.stream.decode import Decoder
from tagstream.stream.limits import WorkerLimits

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS", "k1:9092,k2:9092")
    monkeypatch.setenv("TAGSTREAM_REDIS_URL", "redis://:hush@r:6379/0")


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSTREAM_PREFIX", "staging.")
    monkeypatch.setenv("TAGSTREAM_KAFKA_CONFIG", '{"sasl.password": "hush", "socket.timeout.ms": 9}')
    settings = load_settings()
    assert settings.topics.dead_letters == "staging.product-events.dead"
    assert settings.consumer_group == "staging.tagstream"
    assert settings.kafka.client_config == {"sasl.password": "hush", "socket.timeout.ms": 9}


def test_secrets_are_hidden_when_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSTREAM_KAFKA_CONFIG", '{"sasl.password": "hush"}')
    settings = load_settings()
    assert "hush" not in f"{settings} {settings!r} {settings.model_dump_json()}"


def test_a_secret_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TAGSTREAM_REDIS_URL")
    (tmp_path / "url").write_text("redis://:from-file@r:6379/0\n")
    monkeypatch.setenv("TAGSTREAM_REDIS_URL_FILE", str(tmp_path / "url"))
    assert load_settings().redis_url.get_secret_value() == "redis://:from-file@r:6379/0"


def test_the_api_s_keys_are_given_as_hashes_several_while_they_are_rotated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAGSTREAM_API_KEY_SHA256", f"{'a' * 64},{'b' * 64}")
    assert load_settings().api_key_hashes == {"a" * 64, "b" * 64}
    monkeypatch.setenv("TAGSTREAM_API_KEY_SHA256", "the key itself")
    with pytest.raises(BadSettings, match="TAGSTREAM_API_KEY_SHA256"):
        load_settings()


def test_the_environment_wins_over_the_toml_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text('group = "from-file"\nprefix = "from-file."\n')
    monkeypatch.setenv("TAGSTREAM_SETTINGS_FILE", str(tmp_path / "t.toml"))
    monkeypatch.setenv("TAGSTREAM_PREFIX", "env.")
    settings = load_settings()
    assert (settings.group, settings.prefix) == ("from-file", "env.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "nowhere"),
        ("REDIS_URL", "http://x"),
        ("MICRO_BATCH_MAX_EVENTS", "0"),
        ("DELIVERY", "at_most_once"),
        ("KAFKA_CONFIG", "{broken"),
        ("SETTINGS_FILE", "/does/not/exist.toml"),
        ("REDIS_URL_FILE", "/does/not/exist"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"TAGSTREAM_{name}", value)
    with pytest.raises(BadSettings) as error:
        load_settings()
    said = str(error.value)
    assert name.split("_", maxsplit=1)[0].lower() in said.lower() or value in said
    assert "hush" not in said


def test_every_setting_is_explained_on_a_page_that_the_command_prints() -> None:
    page = CliRunner().invoke(app, ["settings", "--markdown"]).output
    assert page == (ROOT / "infra" / "notes" / "settings.md").read_text(), "tagstream settings --markdown"
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"`TAGSTREAM_{name.upper()}`" in page, name


def test_each_setting_is_a_line_of_json_on_request() -> None:
    lines = CliRunner().invoke(app, ["settings", "--json"]).output.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["setting"] for row in rows] == [f"TAGSTREAM_{name.upper()}" for name in Settings.model_fields]
    assert rows[0]["default"] == "required"


def test_a_stream_without_settings_has_the_same_bounds() -> None:
    settings = load_settings()
    assert settings.worker_limits == WorkerLimits()
    assert settings.decoder == Decoder()


def test_the_names_of_topics_come_from_their_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAGSTREAM_PREFIX", "staging.")
    settings = load_settings()
    described = {plan.name for plan in topic_plans(settings)}
    assert set(asdict(settings.topics).values()) == described
    assert settings.topics.handled_letters == "staging.product-events.dead.handled"


def test_every_client_gets_the_client_settings_and_nothing_prints_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAGSTREAM_KAFKA_CONFIG", '{"sasl.password": "hush"}')
    kafka = load_settings().kafka
    assert kafka.config == {"sasl.password": "hush", "bootstrap.servers": "k1:9092,k2:9092"}
    assert "hush" not in repr(kafka)


def test_a_table_may_lie_in_a_file_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "kafka.json").write_text('{"sasl.password": "hush"}')
    monkeypatch.setenv("TAGSTREAM_KAFKA_CONFIG_FILE", str(tmp_path / "kafka.json"))
    assert load_settings().kafka.client_config == {"sasl.password": "hush"}
