"""All settings of tagstream, and the only reader of the environment.

Each field is set by `TAGSTREAM_<FIELD>`, by `TAGSTREAM_<FIELD>_FILE` (a path, for secrets), or in the
TOML file that `TAGSTREAM_SETTINGS_FILE` names; the first of these wins. Secrets are not printed. Defaults and
descriptions are here, and nowhere else: `tagstream settings` prints them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tagstream.core.errors import BadSettings
from tagstream.core.ports import KafkaAddress, Topics
from tagstream.stream.batching import MicroBatchLimits
from tagstream.stream.decode import Decoder
from tagstream.stream.halting import DeadLetterLimits
from tagstream.stream.limits import WorkerLimits

_PREFIX = "TAGSTREAM_"
_JSON_FIELDS = ("kafka_config", "image_hosts", "image_file_roots")
#: serve/config.yaml lets Serve's gRPC between replicas accept 64 MiB; stay well below.
_MICRO_BATCH_CEILING_BYTES = 48 * 2**20
#: A part of the stream without settings has the same bounds.
_LIMITS, _DECODER = WorkerLimits(), Decoder()


@cache
def described_topics() -> Mapping[str, Mapping[str, Any]]:
    """`ops/topics.yaml`: role → name, partitions, config."""
    text = resources.files("tagstream.ops").joinpath("topics.yaml").read_text("utf-8")
    topics: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return topics


class Settings(BaseSettings):
    """One frozen object, read once."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    # where things are
    kafka_bootstrap_servers: str = Field(description="host:port of the brokers, comma-separated")
    kafka_config: dict[str, SecretStr | str | int | bool] = Field(
        default={}, repr=False, description="JSON table handed to librdkafka: SASL, TLS, sizes"
    )
    redis_url: SecretStr = Field(description="redis:// or rediss:// URL of Redis or Valkey")
    registry_uri: str = Field(default="", description="root of the model registry; empty: the bundled one")
    champion_watch_interval_s: float = Field(
        default=5.0, gt=0, description="how often replicas look for a new champion, in seconds"
    )
    extractor: Path | None = Field(
        default=None, description="folder of an extractor; unset: titles are not searched for tags"
    )
    rules_file: Path | None = Field(
        default=None, description="JSON or YAML file of rules; a rule overrules the model"
    )
    prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="goes before the names of topics, group and store keys: one per environment",
    )
    group: str = Field(default="tagstream", description="consumer group")

    # what is promised
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        default="at_least_once", description="at_least_once, or exactly_once on Apache Kafka"
    )
    event_version_from: Literal["field", "timestamp"] = Field(
        default=_DECODER.event_version_from,
        description="where an event's version comes from: field, or timestamp of the record",
    )
    delete_marker_ttl_s: int = Field(
        default=30 * 86400,
        ge=60,
        description="how long the store remembers a deleted product, in seconds",
    )

    # bounds
    event_max_bytes: int = Field(
        default=_DECODER.event_max_bytes, ge=1024, description="a larger value is a dead letter"
    )
    micro_batch_max_events: int = Field(
        default=_LIMITS.micro_batch.max_events, ge=1, le=4096, description="most events in a micro-batch"
    )
    micro_batch_max_bytes: int = Field(
        default=_LIMITS.micro_batch.max_bytes,
        ge=1024,
        le=_MICRO_BATCH_CEILING_BYTES,
        description="most bytes in a micro-batch",
    )
    flush_timeout_s: float = Field(
        default=_LIMITS.micro_batch.flush_timeout_s,
        ge=0,
        le=60,
        description="longest wait of an event for its micro-batch to fill, in seconds",
    )
    max_in_flight: int = Field(
        default=_LIMITS.max_in_flight, ge=1, le=64, description="micro-batches at once, per consumer"
    )
    max_uncommitted_events: int = Field(
        default=_LIMITS.max_uncommitted_events,
        ge=1,
        description="most events taken and not committed, per consumer",
    )
    held_max_bytes: int = Field(
        default=_LIMITS.held_max_bytes,
        ge=2**20,
        description="most bytes of records in memory, per consumer",
    )
    commit_interval_s: float = Field(
        default=_LIMITS.commit_interval_s,
        ge=0.05,
        description="offsets are committed at least this often, in seconds",
    )
    session_timeout_s: float = Field(
        default=45.0,
        ge=1,
        description="a consumer that is silent for so long loses its partitions, in seconds; with KIP-848 "
        "the broker's own setting counts",
    )
    revoke_timeout_s: float = Field(
        default=_LIMITS.revoke_timeout_s,
        ge=0,
        le=30,
        description="how long a consumer may spend finishing its work before it hands a partition over, in "
        "seconds",
    )
    tagger_threads: int | None = Field(
        default=None,
        ge=1,
        description="micro-batches that a tagger replica scores at once; unset: one per core, two on a GPU",
    )
    tag_timeout_s: float = Field(
        default=60.0, gt=0, description="longest wait for one answer of the tagger, in seconds"
    )

    dead_letters_max_run: int = Field(
        default=_LIMITS.dead_letters.max_run,
        ge=1,
        description="more dead letters in a row halt the stream until `tagstream resume`",
    )
    dead_letters_max_ratio: float = Field(
        default=_LIMITS.dead_letters.max_ratio,
        gt=0,
        le=1,
        description="a larger share of the last 1,000 events halts it too",
    )

    # pictures
    image_max_bytes: int = Field(
        default=8 * 2**20, ge=1024, description="a larger encoded picture is unusable"
    )
    image_timeout_s: float = Field(
        default=5.0, gt=0, description="time to fetch a picture, retries included, in seconds"
    )
    image_allow_private: bool = Field(default=False, description="allow picture hosts on private networks")
    image_hosts: tuple[str, ...] = Field(
        default=(), description="JSON list of picture hosts, `*.example.com` too; empty: any public one"
    )
    image_file_roots: tuple[Path, ...] = Field(
        default=(), description="JSON list of folders for file:// URLs; empty: none"
    )

    # the API and the logs
    api_key_sha256: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64}(,[0-9a-f]{64})*)?$",
        description="hashes of the API's keys (`tagstream api-key`), comma-separated; empty: loopback only",
    )
    api_requests_per_s: float = Field(
        default=50.0,
        gt=0,
        description="requests per second, per API key (per client address where no key is set), on each Api "
        "replica",
    )
    log_json: bool = Field(default=False, description="log lines as JSON")

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _is_host_and_port(cls, value: str) -> str:
        for server in value.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{server!r} is not host:port")
        return value

    @field_validator("dead_letters_max_run")
    @classmethod
    def _holds_a_micro_batch(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("micro_batch_max_events", 0):
            raise ValueError(
                "must not be below micro_batch_max_events: one micro-batch would halt every resume"
            )
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        path = os.environ.get(_PREFIX + "SETTINGS_FILE")
        return (*sources, TomlConfigSettingsSource(settings_cls, Path(path))) if path else sources

    # what the parts are built from

    @property
    def topics(self) -> Topics:
        names = {role: self.prefix + topic["name"] for role, topic in described_topics().items()}
        return Topics(**{role: names[role] for role in Topics.__slots__})

    @property
    def api_key_hashes(self) -> frozenset[str]:
        return frozenset(self.api_key_sha256.split(",")) - {""}

    @property
    def consumer_group(self) -> str:
        return self.prefix + self.group

    @property
    def decoder(self) -> Decoder:
        return Decoder(self.event_version_from, self.event_max_bytes)

    @property
    def worker_limits(self) -> WorkerLimits:
        micro_batch = MicroBatchLimits(
            self.micro_batch_max_events, self.micro_batch_max_bytes, self.flush_timeout_s
        )
        return WorkerLimits(
            micro_batch=micro_batch,
            max_in_flight=self.max_in_flight,
            max_uncommitted_events=self.max_uncommitted_events,
            held_max_bytes=self.held_max_bytes,
            commit_interval_s=self.commit_interval_s,
            revoke_timeout_s=self.revoke_timeout_s,
            dead_letters=DeadLetterLimits(self.dead_letters_max_run, self.dead_letters_max_ratio),
        )

    @property
    def kafka(self) -> KafkaAddress:
        """With the secrets of `kafka_config` in the clear, for librdkafka alone."""
        config = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self.kafka_config.items()
        }
        return KafkaAddress(self.kafka_bootstrap_servers, config)


def load_settings(**given: object) -> Settings:
    """Read the settings, `given` before the environment before the file.

    Raises BadSettings: one line that names each wrong setting, without its value.
    """
    path = os.environ.get(_PREFIX + "SETTINGS_FILE")
    if path and not Path(path).is_file():
        raise BadSettings(f"{_PREFIX}SETTINGS_FILE: {path} is not a file")
    try:
        return Settings(**{**_from_files(), **given})
    except ValidationError as error:
        wrong = [
            f"{_PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors(include_input=False)
        ]
        raise BadSettings("; ".join(wrong)) from None
    except (OSError, ValueError) as error:
        raise BadSettings(str(error)) from error


def _from_files() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in Settings.model_fields:
        path = os.environ.get(f"{_PREFIX}{name.upper()}_FILE")
        if path:
            text = Path(path).read_text().strip()
            found[name] = json.loads(text) if name in _JSON_FIELDS else text
    return found


def described_settings() -> Iterator[tuple[str, str, str]]:
    """Environment variable, default and meaning of each setting."""
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else _in_words(name, field.default)
        yield _PREFIX + name.upper(), default, field.description or ""


def _in_words(name: str, default: object) -> str:
    if default in (None, "", (), {}):
        return ""
    if isinstance(default, int) and name.endswith("_bytes"):
        return f"{default} ({default // 2**20} MiB)"
    if isinstance(default, int) and name.endswith("_ttl_s"):
        return f"{default} ({default // 86400} days)"
    return str(default)
