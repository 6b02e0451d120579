"""The `tagstream` command. Wrong settings and systems that do not answer: one clear line, exit 2."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tagstream.adapters.kafka.lag import GroupWatch
from tagstream.adapters.kafka.topics import tail as tail_topic
from tagstream.cli.dead_letters import app as dead_letters_app
from tagstream.cli.models import app as models_app
from tagstream.cli.taxonomy import app as taxonomy_app
from tagstream.core.errors import BadSettings, TagstreamError
from tagstream.core.ports import OutRecord, Record
from tagstream.core.records import KeyValue
from tagstream.dataset.events import records_of
from tagstream.local.demo import run_demo
from tagstream.local.runs import last_run, note_run
from tagstream.local.stack import Stack, create_topics, local_stack, topic_admin, topic_plans
from tagstream.ops.check import run_checks
from tagstream.ops.verify import run_verify
from tagstream.settings import load_settings
from tagstream.wiring import build_publisher, build_store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tags product events from Kafka with a fused text/image model on Ray Serve.",
)
topics_app = typer.Typer(no_args_is_help=True, help="Create, list and compare the Kafka topics.")
app.add_typer(topics_app, name="topics")
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(models_app, name="models")
app.add_typer(taxonomy_app, name="taxonomy")

console = Console()
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Embedded = Annotated[bool, typer.Option(help="Start a broker and a store of its own, in memory.")]
KafkaHome = Annotated[
    Path | None, typer.Option(help="Folder of an Apache Kafka (4.0 or newer) instead of the embedded broker.")
]
Replication = Annotated[int, typer.Option(help="Replication factor meant: 3 outside a demo.", min=1)]


@app.command()
def demo(
    data: Annotated[Path | None, typer.Option(help="A products file, its folder, or a dataset.toml.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many rows of it.", min=1)] = None,
    kafka_home: KafkaHome = None,
) -> None:
    """Start everything, tag a catalogue, audit the outcome from outside, end everything."""
    with _interruptible(exit_when_told=143):
        ok = run_demo(console, data=data, limit=limit, kafka_home=kafka_home)
    raise typer.Exit(0 if ok else 1)


@app.command()
def up(
    embedded: Embedded = False,
    kafka_home: KafkaHome = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder that keeps that Kafka's log and the store for the next start.")
    ] = None,
) -> None:
    """Run the stream on this machine until Ctrl-C or SIGTERM; then drain."""
    with (
        _interruptible(exit_when_told=0),
        local_stack(
            embedded=embedded,
            tell=lambda step: console.print(f"starting {step}"),
            kafka_home=kafka_home,
            state=state,
        ) as stack,
    ):
        note = note_run(stack.folder)  # open until the folder has gone, after the drain
        _print_how_to(stack)
        try:
            threading.Event().wait()
        finally:
            console.print("draining")
    note.close()


@app.command()
def down() -> None:
    """End the `tagstream up` that was started last on this machine, and wait for it to drain."""
    run = last_run()
    if run is None:
        console.print("nothing is up")
        return
    os.kill(run.pid, signal.SIGTERM)
    while run.is_alive():
        time.sleep(0.1)
    console.print("down")


@topics_app.command("create")
def topics_create(replication: Replication = 3, partitions: int | None = None) -> None:
    """Create the missing topics, and initialise the store if the tag topic is empty."""
    created = create_topics(load_settings(), partitions=partitions, replication=replication)
    console.print(f"created {', '.join(created)}" if created else "all topics are there")


@topics_app.command("list")
def topics_list(as_json: AsJson = False) -> None:
    """The stream's topics and their partitions."""
    settings = load_settings()
    found = topic_admin(settings).partitions()
    rows = [{"topic": plan.name, "partitions": found.get(plan.name)} for plan in topic_plans(settings)]
    _print_rows(rows, as_json)


@topics_app.command("check")
def topics_check(replication: Replication = 3) -> None:
    """Compare the topics with their description; exit 1 if they differ."""
    settings = load_settings()
    plans = topic_plans(settings, replication=replication)
    differences = topic_admin(settings).describe(plans, replication=replication)
    for difference in differences:
        console.print(f"[red]✗[/red] {difference}")
    if differences:
        raise typer.Exit(1)
    console.print("[green]✓[/green] the topics are as described")


@app.command()
def publish(
    path: Annotated[
        Path,
        typer.Argument(help="Products: a file, its folder, or a dataset.toml; or a .jsonl file of events."),
    ],
    rate: Annotated[float | None, typer.Option(help="Events a second; unset: as fast as can be.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many rows of product files.", min=1)] = None,
) -> None:
    """Publish product events."""
    records = records_of(path, limit)
    settings = load_settings()
    publisher = build_publisher(settings)
    published, started_s = 0, time.monotonic()
    for chunk in _paced(iter(records), rate):
        publisher.publish([OutRecord(settings.topics.events, record.key, record.value) for record in chunk])
        published += len(chunk)
    publisher.close()
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
    settings = load_settings()
    records = tail_topic(
        settings.kafka_bootstrap_servers,
        topic or settings.topics.tags,
        from_beginning=from_beginning,
        client_config=settings.kafka_client_config,
    )
    try:
        for number, record in enumerate(records, start=1):
            print(_record_line(record, as_json), flush=True)
            if number == count:
                return
    except KeyboardInterrupt:
        return


@app.command()
def get(product_id: str, as_json: AsJson = False) -> None:
    """The tags that now stand for a product; exit 1 if there are none."""
    store = build_store(load_settings())
    standing = store.get([product_id])[0]
    store.close()
    if standing is None or standing.product is None or standing.deleted:
        _complain(f"no tags for {product_id}")
        raise typer.Exit(1)
    if as_json:
        print(standing.product.model_dump_json())
        return
    _print_rows([asdict(tag) for tag in standing.product.tags], as_json=False)


@app.command()
def find(
    tag: Annotated[str, typer.Argument(help="GROUP=VALUE, such as baseColour=Blue.")],
    limit: Annotated[int, typer.Option(min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """Products with a tag, the highest score first."""
    group, found, value = tag.partition("=")
    if not found:
        raise BadSettings(f"{tag!r} is not GROUP=VALUE")
    store = build_store(load_settings())
    rows = [{"product_id": p, "score": score} for p, score in store.find(group, value, limit)]
    store.close()
    _print_rows(rows, as_json)


@app.command()
def lag(as_json: AsJson = False) -> None:
    """Records between the committed and the newest offset, by partition."""
    settings = load_settings()
    watch = GroupWatch(
        settings.kafka_bootstrap_servers,
        settings.consumer_group,
        settings.topics.events,
        client_config=settings.kafka_client_config,
    )
    try:
        rows = [
            {"partition": p.partition, "committed": p.committed, "end": p.end, "lag": p.lag}
            for p in watch.progress()
        ]
    finally:
        watch.close()
    _print_rows(rows, as_json)


@app.command()
def resume() -> None:
    """Let consumers go on that halted because too many events failed."""
    store = build_store(load_settings())
    reason = store.halted()
    resumed = store.resume()
    store.close()
    console.print(f"resumed; it was halted by {reason}" if resumed else "nothing is halted")


@app.command()
def verify(
    repair: Annotated[bool, typer.Option(help="Publish or restore what stands where they differ.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the tag topic with the store, product by product; exit 1 if they differ."""
    with console.status("comparing") as status:
        report = run_verify(load_settings(), repair=repair, tell=status.update)
    if as_json:
        print(json.dumps(asdict(report), ensure_ascii=False))
    else:
        for sentence in report.sentences():
            console.print(sentence, soft_wrap=True, highlight=False)
    if report.differences:
        raise typer.Exit(1)


@app.command("api-key")
def api_key() -> None:
    """Make a key for the API, and the hash of it that the nodes are given."""
    key = secrets.token_urlsafe(32)
    console.print(f"key (for the caller; it is stored nowhere)  {key}", soft_wrap=True, highlight=False)
    digest = hashlib.sha256(key.encode()).hexdigest()
    console.print(f"TAGSTREAM_API_KEY_SHA256={digest}", soft_wrap=True, highlight=False)


@app.command()
def check(replication: Replication = 3) -> None:
    """Settings, connections, topics, store policy and rights: one line each; exit 1 if one is wrong."""
    all_well = True
    for result in run_checks(load_settings(), replication=replication):
        all_well &= result.ok
        mark = "[green]✓[/green]" if result.ok else "[red]✗[/red]"
        console.print(f"{mark} {result.subject}: {result.sentence}", soft_wrap=True)
    if not all_well:
        raise typer.Exit(1)


def main() -> None:
    """The entry point: errors of ours become one line and exit 2."""
    try:
        app()
    except TagstreamError as error:
        _complain(f"{type(error).__name__}: {error}")
        sys.exit(2)


def _complain(sentence: str) -> None:
    print(f"tagstream: {' '.join(sentence.split())}", file=sys.stderr)


class _Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGHUP, taken as Ctrl-C so that what was started is ended."""


class _interruptible:  # noqa: N801, a context manager used like a function
    """SIGTERM, SIGHUP and Ctrl-C end the block in order."""

    def __init__(self, *, exit_when_told: int) -> None:
        self._exit_when_told = exit_when_told  # for SIGTERM: the normal end of `up`, none of a demo

    def __enter__(self) -> None:
        self._before = {s: signal.signal(s, self._raise) for s in (signal.SIGTERM, signal.SIGHUP)}

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(self._exit_when_told if isinstance(error, _Interrupted) else 130)

    @staticmethod
    def _raise(signum: int, frame: object) -> None:
        raise _Interrupted


def _print_how_to(stack: Stack) -> None:
    console.print(
        f"""
[bold green]tagstream is up.[/bold green] In another terminal:

  export TAGSTREAM_SETTINGS_FILE={stack.settings_file}
  tagstream publish FOLDER_OR_FILE        product events in
  tagstream tail                          tags out
  tagstream get PRODUCT_ID                what stands for a product
  tagstream find GROUP=VALUE              products with a tag
  tagstream lag

  API        {stack.api_url}/docs
  Kafka      {stack.settings.kafka_bootstrap_servers}
  dashboard  {stack.ray.dashboard_url}  (token in {stack.ray.token_path})
  jobs       RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={stack.ray.token_path} \\
             ray job submit --address {stack.ray.dashboard_url} --working-dir . -- python jobs/retrain.py …

Ctrl-C, or `tagstream down`, drains and ends it.""",
        soft_wrap=True,
        highlight=False,
    )


def _paced(records: Iterator[KeyValue], rate: float | None) -> Iterator[list[KeyValue]]:
    """Chunks of at most a tenth of a second's worth, each sent when it is due."""
    size = 500 if rate is None else max(1, int(rate / 10))
    started_s, sent = time.monotonic(), 0
    while chunk := [record for _, record in zip(range(size), records, strict=False)]:
        yield chunk
        sent += len(chunk)
        if rate is not None:
            time.sleep(max(0.0, started_s + sent / rate - time.monotonic()))


def _record_line(record: Record, as_json: bool) -> str:
    key = (record.key or b"").decode(errors="replace")
    value = (record.value or b"").decode(errors="replace")
    if not as_json:
        return f"{record.partition}/{record.offset} {key} {value or '(deleted)'}"
    headers = {name: (content or b"").decode(errors="replace") for name, content in record.headers}
    line = {"partition": record.partition, "offset": record.offset, "key": key, "headers": headers}
    return json.dumps({**line, "value": value or None}, ensure_ascii=False)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    if not rows:
        console.print("none")
        return
    table = Table()
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row.values()))
    console.print(table)
