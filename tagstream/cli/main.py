"""The `tagstream` command. Wrong settings and systems that do not answer: one clear line, exit 2.

A command imports its work when it runs: nobody who asks for the lag waits for a model.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from tagstream.cli.show import AsJson, complain, console, print_json, print_rows, say, say_whether
from tagstream.core.errors import BadSettings, TagstreamError
from tagstream.settings import described_settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tagstream.core.ports import Record
    from tagstream.core.records import KeyValue
    from tagstream.local.stack import Stack


class _Commands(TyperGroup):
    """The commands of this file, and the groups that have files of their own."""

    groups: ClassVar = {
        "dead-letters": "tagstream.cli.dead_letters",
        "models": "tagstream.cli.models",
        "taxonomy": "tagstream.cli.taxonomy",
    }

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self.groups]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.groups:
            return super().get_command(ctx, cmd_name)
        group = typer.main.get_group(import_module(self.groups[cmd_name]).app)
        group.name = cmd_name
        return group


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tags product events from Kafka with a fused text/image model on Ray Serve.",
)
topics_app = typer.Typer(no_args_is_help=True, help="Create, list and compare the Kafka topics.")
app.add_typer(topics_app, name="topics")

KafkaHome = Annotated[
    Path | None, typer.Option(help="Folder of an Apache Kafka (4.0 or newer) instead of the embedded broker.")
]
Replication = Annotated[int, typer.Option(help="Replication factor meant: 3 outside a demo.", min=1)]


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="A products file, its folder, or a dataset.toml.")] = None,
    limit: Annotated[int | None, typer.Option(help="Most rows of it.", min=1)] = None,
    kafka_home: KafkaHome = None,
) -> None:
    """Start everything, tag a catalogue, audit the outcome from outside, end everything."""
    from tagstream.local.demo import run_demo

    with _interruptible(exit_on_sigterm=143):
        ok = run_demo(console, data=data, limit=limit, kafka_home=kafka_home)
    raise typer.Exit(0 if ok else 1)


@app.command()
def up(
    embedded: Annotated[bool, typer.Option(help="Start a broker and a store of its own, in memory.")] = False,
    kafka_home: KafkaHome = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder that keeps that Kafka's log and the store for the next start.")
    ] = None,
) -> None:
    """Run the stream on this machine until Ctrl-C or SIGTERM; then drain."""
    from tagstream.local.runs import note_run
    from tagstream.local.stack import local_stack

    with (
        _interruptible(exit_on_sigterm=0),
        local_stack(
            embedded=embedded,
            tell=lambda step: console.print(f"starting {step}"),
            kafka_home=kafka_home,
            state=state,
        ) as stack,
    ):
        note = note_run(stack.folder)  # open until the folder is gone, after the drain
        say(_how_to(stack), markup=True)
        try:
            threading.Event().wait()
        finally:
            console.print("draining")
    note.close()


@app.command()
def down() -> None:
    """End the `tagstream up` that was started last on this machine, and wait for it to drain."""
    from tagstream.local.runs import last_run

    run = last_run()
    if run is None:
        console.print("nothing is up")
        return
    run.end()
    console.print("down")


@topics_app.command("create")
def topics_create(replication: Replication = 3, partitions: int | None = None) -> None:
    """Create the missing topics, and initialise the store if the tag topic is empty."""
    from tagstream.ops.topics import create_topics

    created = create_topics(load_settings(), partitions=partitions, replication=replication)
    say(f"created {', '.join(created)}" if created else "all topics are there")


@topics_app.command("list")
def topics_list(as_json: AsJson = False) -> None:
    """The stream's topics and their partitions."""
    from tagstream.ops.topics import topic_rows

    print_rows(topic_rows(load_settings()), as_json)


@topics_app.command("check")
def topics_check(replication: Replication = 3) -> None:
    """Compare the topics with their description; exit 1 if they differ."""
    from tagstream.ops.topics import topic_differences

    differences = topic_differences(load_settings(), replication=replication)
    for difference in differences:
        say_whether(False, difference)
    if differences:
        raise typer.Exit(1)
    say_whether(True, "the topics are as described")


@app.command()
def publish(
    path: Annotated[
        Path,
        typer.Argument(help="Products: a file, its folder, or a dataset.toml; or a .jsonl file of events."),
    ],
    rate: Annotated[float | None, typer.Option(help="Events a second; unset: as fast as can be.")] = None,
    limit: Annotated[int | None, typer.Option(help="Most rows of product files.", min=1)] = None,
) -> None:
    """Publish product events."""
    from tagstream.core.ports import OutRecord
    from tagstream.dataset.events import records_of
    from tagstream.wiring import build_publisher

    records = records_of(path, limit)
    settings = load_settings()
    published, started_s, topic = 0, time.monotonic(), settings.topics.events
    with closing(build_publisher(settings)) as publisher:
        for chunk in _paced(iter(records), rate):
            publisher.publish([OutRecord(topic, record.key, record.value) for record in chunk])
            published += len(chunk)
    elapsed_s = max(time.monotonic() - started_s, 1e-6)
    console.print(f"published {published} events, {published / elapsed_s:,.0f} a second")


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="Topic; the tag topic if not given.")] = "",
    from_beginning: Annotated[bool, typer.Option(help="Old records first.")] = False,
    count: Annotated[int | None, typer.Option(help="Stop after so many records.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Show records as they come."""
    from tagstream.adapters.kafka import topics

    settings = load_settings()
    records = topics.tail(settings.kafka, topic or settings.topics.tags, from_beginning=from_beginning)
    with suppress(KeyboardInterrupt):
        for record in islice(records, count):
            _print_record(record, as_json)


@app.command()
def get(product_id: str, as_json: AsJson = False) -> None:
    """A product's present tags; exit 1 if it has none."""
    from tagstream.wiring import build_store

    with closing(build_store(load_settings())) as store:
        standing = store.get([product_id])[0]
    if standing is None or standing.product is None or standing.deleted:
        complain(f"no tags for {product_id}")
        raise typer.Exit(1)
    if as_json:
        print_json(standing.product.model_dump(mode="json"))
    else:
        print_rows(asdict(tag) for tag in standing.product.tags)


@app.command()
def find(
    tag: Annotated[str, typer.Argument(help="GROUP=VALUE, such as baseColour=Blue.")],
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Products with a tag, the highest score first."""
    from tagstream.wiring import build_store

    group, equals, value = tag.partition("=")
    if not equals:
        raise BadSettings(f"{tag!r} is not GROUP=VALUE")
    with closing(build_store(load_settings())) as store:
        found = store.find(group, value, limit)
    print_rows(({"product_id": product_id, "score": score} for product_id, score in found), as_json)


@app.command()
def lag(as_json: AsJson = False) -> None:
    """Records between the committed and the newest offset, by partition."""
    from tagstream.adapters.kafka.lag import GroupWatch

    settings = load_settings()
    with closing(GroupWatch(settings.kafka, settings.consumer_group, settings.topics.events)) as watch:
        progress = watch.progress()
    print_rows(map(asdict, progress), as_json)


@app.command()
def resume() -> None:
    """Let consumers go on that halted because too many events failed."""
    from tagstream.wiring import build_store

    with closing(build_store(load_settings())) as store:
        reason = store.halted()
        resumed = store.resume()
    console.print(f"resumed; it was halted by {reason}" if resumed else "nothing is halted")


@app.command()
def verify(
    repair: Annotated[bool, typer.Option(help="Publish or restore what differs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the tag topic with the store, product by product; exit 1 if they differ."""
    from tagstream.ops.verify import run_verify

    with console.status("comparing") as status:
        report = run_verify(load_settings(), repair=repair, tell=status.update)
    if as_json:
        print_json(asdict(report))
    else:
        for sentence in report.sentences():
            say(sentence)
    if report.differences:
        raise typer.Exit(1)


@app.command("api-key")
def api_key() -> None:
    """Make a key for the API, and its hash for the nodes."""
    import hashlib
    import secrets

    key = secrets.token_urlsafe(32)
    say(f"key (for the caller; it is stored nowhere)  {key}")
    say(f"TAGSTREAM_API_KEY_SHA256={hashlib.sha256(key.encode()).hexdigest()}")


@app.command()
def check(replication: Replication = 3) -> None:
    """Settings, connections, topics, store policy and rights: one line each; exit 1 if one is wrong."""
    from tagstream.ops.check import run_checks

    all_well = True
    for result in run_checks(load_settings(), replication=replication):
        all_well &= result.ok
        say_whether(result.ok, f"{result.subject}: {result.sentence}")
    if not all_well:
        raise typer.Exit(1)


@app.command()
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a page of documentation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Every setting, its default and its meaning."""
    rows = [
        {"setting": name, "default": default, "meaning": meaning}
        for name, default, meaning in described_settings()
    ]
    if not markdown:
        print_rows(rows, as_json)
        return
    print(_SETTINGS_PAGE, end="")
    for row in rows:
        print(f"| `{row['setting']}` | {row['meaning']} | {row['default']} |")


_SETTINGS_PAGE = """\
# Settings

Each is an environment variable. `<NAME>_FILE` may name a file with the value instead, for secrets. The TOML
file that `TAGSTREAM_SETTINGS_FILE` names may hold it too, without the prefix and in lower case. The first of
these wins. This page is the output of `tagstream settings --markdown`.

| setting | meaning | default |
|---|---|---|
"""


def main() -> None:
    """The entry point: errors of ours become one line and exit 2."""
    try:
        app()
    except TagstreamError as error:
        complain(f"{type(error).__name__}: {error}")
        sys.exit(2)


class _Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGHUP, taken as Ctrl-C so that what was started is ended."""


@contextmanager
def _interruptible(*, exit_on_sigterm: int) -> Iterator[None]:
    """SIGTERM, SIGHUP and Ctrl-C end the block in order. SIGTERM is the normal end of `up`, not of a demo."""

    def interrupt(signum: int, frame: object) -> None:
        raise _Interrupted

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt as error:
        raise typer.Exit(exit_on_sigterm if isinstance(error, _Interrupted) else 130) from error
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _how_to(stack: Stack) -> str:
    return f"""
[bold green]tagstream is up.[/bold green] In another terminal:

  export TAGSTREAM_SETTINGS_FILE={stack.settings_file}
  tagstream publish FOLDER_OR_FILE        product events in
  tagstream tail                          tags out
  tagstream get PRODUCT_ID                a product's present tags
  tagstream find GROUP=VALUE              products with a tag
  tagstream lag

  API        {stack.api_url}/docs
  Kafka      {stack.settings.kafka_bootstrap_servers}
  dashboard  {stack.ray.dashboard_url}  (token in {stack.ray.token_path})
  jobs       RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={stack.ray.token_path} \\
             ray job submit --address {stack.ray.dashboard_url} --working-dir . -- python jobs/retrain.py …

Ctrl-C, or `tagstream down`, drains and ends it."""


def _paced(records: Iterator[KeyValue], rate: float | None) -> Iterator[list[KeyValue]]:
    """Chunks of at most a tenth of a second's worth, each sent when it is due."""
    size = 500 if rate is None else max(1, int(rate / 10))
    started_s, sent = time.monotonic(), 0
    while chunk := list(islice(records, size)):
        yield chunk
        sent += len(chunk)
        if rate is not None:
            time.sleep(max(0.0, started_s + sent / rate - time.monotonic()))


def _print_record(record: Record, as_json: bool) -> None:
    key = (record.key or b"").decode(errors="replace")
    value = (record.value or b"").decode(errors="replace")
    if not as_json:
        print(f"{record.partition}/{record.offset} {key} {value or '(deleted)'}", flush=True)
        return
    headers = {name: (content or b"").decode(errors="replace") for name, content in record.headers}
    line = {"partition": record.partition, "offset": record.offset, "key": key, "headers": headers}
    print_json({**line, "value": value or None})
