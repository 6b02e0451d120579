"""All of tagstream on this machine: what `tagstream demo` and `tagstream up` start and end."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tagstream.adapters.kafka.topics import TopicAdmin
from tagstream.adapters.local.apache import ApacheBroker
from tagstream.adapters.local.embedded import EmbeddedBroker, EmbeddedStore, free_port
from tagstream.adapters.ray.head import Dashboard, RayHead
from tagstream.core.errors import BadSettings, Unavailable
from tagstream.ops.topics import create_topics
from tagstream.settings import Settings, load_settings
from tagstream.wiring import build_store, check_delivery

APP = "tagstream"
_DEPLOY_TIMEOUT_S = 180.0
#: The embedded broker lets a consumer wait half of this before its first record.
_EMBEDDED_SESSION_TIMEOUT_S = 6
_EMBEDDED_PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs, and how to reach it."""

    settings: Settings
    folder: Path
    ray: RayHead
    dashboard: Dashboard
    api_url: str

    @property
    def settings_file(self) -> Path:
        """For `TAGSTREAM_SETTINGS_FILE` in other terminals."""
        return self.folder / "tagstream.toml"


@contextmanager
def local_stack(
    *,
    embedded: bool,
    tell: Callable[[str], None],
    kafka_home: Path | None = None,
    state: Path | None = None,
    serve_config: Path | None = None,
    one_consumer: bool = False,
) -> Iterator[Stack]:
    """Start broker and store if `embedded`, then Ray and the Serve application; end them all again.

    Args:
        tell: called with the name of each step before it is taken.
        kafka_home: folder of an Apache Kafka, instead of the embedded broker.
        state: folder in which that Kafka and the store keep their data for the next start.
        serve_config: instead of the package's own serve/config.yaml.
        one_consumer: whatever the lag, so that one replica's books are complete.

    Raises:
        BadSettings, Unavailable: something does not start. What had started is ended.
    """
    if kafka_home and not embedded:
        raise BadSettings("--kafka-home names the broker of --embedded: give both, or neither")
    if state and not kafka_home:
        raise BadSettings("--state needs --kafka-home: the embedded broker keeps nothing")
    # Ray's sockets are in it, and their paths may have only 107 bytes.
    short = "/tmp" if os.access("/tmp", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tagstream-", dir=short))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if embedded:
            own = servers(state or folder, kafka_home=kafka_home, durable=state is not None, tell=tell)
            _use(stack.enter_context(own))
        settings = load_settings()
        reach(settings)
        if embedded:
            create_topics(settings, partitions=_EMBEDDED_PARTITIONS)
        tell("Ray")
        ray = RayHead(folder, {k: v for k, v in os.environ.items() if not k.startswith("RAY_")})
        stack.callback(ray.stop)
        dashboard = Dashboard(ray.dashboard_url, ray.token_path.read_text())
        tell("Ray Serve: tagger, stream consumer, API")
        config, api_url = application_config(serve_config, one_consumer, on_gpu=dashboard.gpus() > 0)
        dashboard.deploy(config)
        stack.callback(_drain, dashboard)
        dashboard.wait_until_running(APP, _DEPLOY_TIMEOUT_S)
        running = Stack(settings, folder, ray, dashboard, api_url)
        _write_settings_file(running)
        yield running


def reach(settings: Settings) -> None:
    """Raises Unavailable, in seconds and in one line, if Kafka or the store do not answer."""
    TopicAdmin(settings.kafka).partitions()
    check_delivery(settings)
    with closing(build_store(settings)) as store:
        store.get(["tagstream-probe"])


@contextmanager
def servers(
    folder: Path, *, kafka_home: Path | None, durable: bool, tell: Callable[[str], None]
) -> Iterator[dict[str, str]]:
    """A broker and a store on this machine; yields the environment variables that name them.

    `folder`: for their data. Started there again, Apache Kafka and a durable store find what they kept; the
    embedded broker (no `kafka_home`) keeps everything in memory. Raises BadSettings, Unavailable: one of them
    does not start, or others run in `folder`.
    """
    with ExitStack() as stack:
        stack.enter_context(_alone_in(folder))
        tell(f"Apache Kafka of {kafka_home}" if kafka_home else "Kafka broker (embedded)")
        broker = stack.enter_context(
            ApacheBroker(folder / "kafka", home=kafka_home)
            if kafka_home
            else EmbeddedBroker(folder / "broker")
        )
        tell("Valkey (embedded)")
        store = stack.enter_context(EmbeddedStore(folder / "store", durable=durable))
        yield {
            "TAGSTREAM_KAFKA_BOOTSTRAP_SERVERS": broker.address,
            "TAGSTREAM_KAFKA_CONFIG": "{}",
            "TAGSTREAM_REDIS_URL": store.url,
            "TAGSTREAM_PREFIX": "",
            "TAGSTREAM_SESSION_TIMEOUT_S": str(_EMBEDDED_SESSION_TIMEOUT_S),
        }


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two stores on one log would ruin it. Raises BadSettings: another has the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadSettings(f"{folder} is in use by another `tagstream up`") from error
        yield


def _use(embedded: Mapping[str, str]) -> None:
    """Make these the settings of this process and of all that it starts. No file may name another broker or
    store: some process would read that file, and a demo would write there."""
    for name in embedded:
        os.environ.pop(f"{name}_FILE", None)
    os.environ.pop("TAGSTREAM_SETTINGS_FILE", None)
    os.environ.update(embedded)


def application_config(path: Path | None, one_consumer: bool, on_gpu: bool) -> tuple[dict[str, Any], str]:
    """The configuration for Serve, and the API's address.

    `path`: instead of the package's own serve/config.yaml. `on_gpu`: the tagger of the package's own file
    takes half a GPU; another file names its share itself.
    """
    text = path.read_text() if path else resources.files("serve").joinpath("config.yaml").read_text()
    config: dict[str, Any] = yaml.safe_load(text)
    for deployment in config["applications"][0]["deployments"]:
        if one_consumer and deployment["name"] == "StreamConsumer":
            deployment["autoscaling_config"]["max_replicas"] = 1
        if on_gpu and not path and deployment["name"] == "Tagger":
            deployment["ray_actor_options"]["num_gpus"] = 0.5
    port = free_port()
    config["http_options"] = {**config.get("http_options", {}), "port": port}
    return config, f"http://127.0.0.1:{port}"


def _drain(dashboard: Dashboard) -> None:
    """Consumers finish, commit and leave their group before Ray goes."""
    with suppress(Unavailable):  # Ray is gone already: nothing is left to drain
        dashboard.shut_down_serve()


def _write_settings_file(stack: Stack) -> None:
    names = {"kafka_bootstrap_servers", "registry_uri", "prefix", "group"}
    values = stack.settings.model_dump(include=names)
    values["redis_url"] = stack.settings.redis_url.get_secret_value()
    stack.settings_file.touch(mode=0o600)
    stack.settings_file.write_text("".join(f"{name} = {json.dumps(values[name])}\n" for name in values))
