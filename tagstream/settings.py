"""All settings of tagstream, and the only reader of the environment.

Each field is set by `TAGSTREAM_<FIELD>`, by `TAGSTREAM_<FIELD>_FILE` (a path, for secrets), or in the
TOML file that `TAGSTREAM_SETTINGS_FILE` names; the first of these wins. Secrets stay hidden in print.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tagstream.core.errors import BadSettings
from tagstream.core.ports import Topics
from tagstream.stream.batching import MicroBatchLimits
from tagstream.stream.decode import Decoder
from tagstream.stream.halting import DeadLetterLimits
from tagstream.stream.limits import WorkerLimits

_PREFIX = "TAGSTREAM_"
_JSON_FIELDS = ("kafka_config", "image_hosts", "image_file_roots")
#: What Serve's gRPC between replicas accepts is set to 64 MiB in serve/config.yaml; stay well below.
_MICRO_BATCH_CEILING_BYTES = 48 * 2**20


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
        default=5.0, gt=0, description="how often replicas look for a new champion"
    )
    extractor: Path | None = Field(
        default=None, description="folder of an extractor; unset: no tags are read out of titles"
    )
    rules_file: Path | None = Field(default=None, description="JSON or YAML file of rules; they overrule")
    prefix: str = Field(
        default="", pattern=r"^[A-Za-z0-9._-]*$", description="before topics, group and store keys"
    )
    group: str = Field(default="tagstream", description="consumer group")

    # what is promised
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        default="at_least_once", description="delivery guarantee: at_least_once or exactly_once"
    )
    event_version_from: Literal["field", "timestamp"] = Field(
        default="field", description="where an event's version comes from"
    )
    delete_marker_ttl_s: int = Field(
        default=30 * 86400, ge=60, description="how long a deleted product is remembered"
    )

    # bounds
    event_max_bytes: int = Field(default=12 * 2**20, ge=1024, description="a larger value is a dead letter")
    micro_batch_max_events: int = Field(default=64, ge=1, le=4096, description="events in a micro-batch")
    micro_batch_max_bytes: int = Field(
        default=4 * 2**20, ge=1024, le=_MICRO_BATCH_CEILING_BYTES, description="bytes in a micro-batch"
    )
    flush_timeout_s: float = Field(default=0.05, ge=0, le=60, description="a micro-batch waits no longer")
    max_in_flight: int = Field(default=4, ge=1, le=64, description="micro-batches at once, a consumer")
    max_uncommitted_events: int = Field(default=2000, ge=1, description="events taken and not committed")
    held_max_bytes: int = Field(default=48 * 2**20, ge=2**20, description="bytes of records held, a consumer")
    commit_interval_s: float = Field(
        default=1.0, ge=0.05, description="offsets are committed at least this often"
    )
    session_timeout_s: float = Field(default=45.0, ge=1, description="a silent consumer is out after this")
    revoke_timeout_s: float = Field(
        default=30.0,
        ge=0,
        le=30,
        description="to finish at a revoke what is in flight and what lies before it",
    )
    tagger_threads: int | None = Field(
        default=None,
        ge=1,
        description="micro-batches that a tagger replica scores at once; unset: one a core, two on a GPU",
    )
    tag_timeout_s: float = Field(default=60.0, gt=0, description="one call of the tagger")

    dead_letters_max_run: int = Field(
        default=200, ge=1, description="more dead letters in a row halt the stream until `tagstream resume`"
    )
    dead_letters_max_ratio: float = Field(
        default=0.5, gt=0, le=1, description="a higher share of 1,000 events halts it too"
    )

    # pictures
    image_max_bytes: int = Field(default=8 * 2**20, ge=1024, description="an encoded picture")
    image_timeout_s: float = Field(default=5.0, gt=0, description="to fetch a picture, retries included")
    image_allow_private: bool = Field(default=False, description="allow picture hosts on private networks")
    image_hosts: tuple[str, ...] = Field(
        default=(), description="JSON list of picture hosts, `*.example.com` too; empty: any public one"
    )
    image_file_roots: tuple[Path, ...] = Field(default=(), description="JSON list: folders for file:// URLs")

    # the API and the logs
    api_key_sha256: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64}(,[0-9a-f]{64})*)?$",
        description="hashes of the API's keys (`tagstream api-key`), comma-separated; empty: loopback only",
    )
    api_requests_per_s: float = Field(default=50.0, gt=0, description="a key, or an address without one")
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
        names = Topics()
        return Topics(self.prefix + names.events, self.prefix + names.tags, self.prefix + names.dead_letters)

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
    def kafka_client_config(self) -> dict[str, Any]:
        """`kafka_config` with its secrets in the clear, for librdkafka alone."""
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self.kafka_config.items()
        }


def load_settings(**given: object) -> Settings:
    """Read the settings, `given` before the environment before the file.

    Raises:
        BadSettings: one line that names each wrong setting, without its value.
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
