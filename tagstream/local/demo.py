"""`tagstream demo`: a catalogue through the whole stream, and an audit of the outcome from outside.

Two waves. The catalogue at full speed shows the throughput. A trickle of updates and deletes shows the
publish→store latency of a stream that keeps up.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from tagstream.adapters.kafka.lag import GroupWatch
from tagstream.adapters.kafka.topics import read_all
from tagstream.catalogue.built_in import history, products
from tagstream.catalogue.malformed import malformed
from tagstream.core.errors import Unavailable
from tagstream.core.events import ProductEvent, ProductTags
from tagstream.core.language import language_of
from tagstream.core.ports import OutRecord
from tagstream.core.records import KeyValue, encode
from tagstream.dataset.events import ProductEvents
from tagstream.local.stack import Stack, local_stack
from tagstream.ops.audit import Findings, StoreView, compare, expect, read_store, read_tags, unbalanced
from tagstream.ops.rebuild import batches
from tagstream.settings import Settings
from tagstream.wiring import build_publisher

_TRICKLE_PER_S = 20
_HUGE_VALUE_BYTES = 20 * 10**6
_STALLED_AFTER_S = 120.0
_SHOWN_PRODUCTS = 10


class Waves(NamedTuple):
    """What is published: `catalogue` at full speed, then `trickle` slowly."""

    name: str
    catalogue: list[KeyValue]
    trickle: list[KeyValue]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`products`: with tags, on the topic. `latencies_ms`: publish → store, of the trickle, ascending."""

    findings: Findings
    products: dict[str, ProductTags]
    latencies_ms: list[float]
    events_per_s: float
    books: dict[str, int]
    problems: list[str]

    def latency_ms(self, quantile: float) -> float:
        ordered = self.latencies_ms or [0.0]
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def run_demo(
    console: Console, *, data: Path | None, limit: int | None, kafka_home: Path | None = None
) -> bool:
    """True if the audit finds nothing wrong."""
    waves = _folder_waves(data, limit) if data else _drawn_waves()
    with console.status("starting") as status:

        def tell(step: str) -> None:
            status.update(f"starting {step}")
            console.print(f"[dim]starting {step}[/dim]")

        with local_stack(embedded=True, tell=tell, kafka_home=kafka_home, one_consumer=True) as stack:
            status.stop()
            outcome = _run(console, stack, waves)
    _show_products(console, waves, outcome.products)
    _show_summary(console, waves, outcome)
    return not outcome.problems


def _drawn_waves() -> Waves:
    everything = [encode(event) for event in history()]
    count = len(products())
    bad = [KeyValue(record.key, record.value) for record in malformed(_HUGE_VALUE_BYTES)]
    return Waves("the built-in catalogue (generated)", everything[:count] + bad, everything[count:])


def _folder_waves(data: Path, limit: int | None) -> Waves:
    """The products; then a few of its products once more as newer versions, and some deleted."""
    catalogue = list(ProductEvents(data, limit=limit))
    whole = [event for record in catalogue if (event := _parsed(record)) is not None]
    again = [_next_version(event) for event in whole[: max(1, min(40, len(whole) // 10))]]
    gone = [
        event.model_copy(update={"type": "delete", "title": "", "image": None})
        for event in map(_next_version, whole[-max(1, min(5, len(whole) // 10)) :])
    ]
    return Waves(str(data), catalogue, [encode(event) for event in [*again, *gone]])


def _parsed(record: KeyValue) -> ProductEvent | None:
    expectation = expect([record])
    return next(iter(expectation.newest.values()), None)


def _next_version(event: ProductEvent) -> ProductEvent:
    version = (event.event_version or 0) + 1
    return event.model_copy(update={"event_version": version, "event_id": f"{event.product_id}-{version}"})


def _run(console: Console, stack: Stack, waves: Waves) -> Outcome:
    settings = stack.settings
    with (
        httpx.Client(base_url=stack.api_url, timeout=10, trust_env=False) as api,
        closing(GroupWatch(settings.kafka, settings.consumer_group, settings.topics.events)) as watch,
        closing(build_publisher(settings)) as publisher,
    ):
        _wait_until_ready(api)
        with _progress(console) as progress:
            total = len(waves.catalogue) + len(waves.trickle)
            task = progress.add_task("events", total=total, rate="", lag=0, dead=0)
            follower = _Follower(watch, api, progress, task)

            def publish(records: Sequence[KeyValue]) -> None:
                topic = settings.topics.events
                publisher.publish([OutRecord(topic, record.key, record.value) for record in records])
                follower.published += len(records)
                follower.look()

            started_s = time.monotonic()
            for chunk in batches(waves.catalogue):
                publish(chunk)
            follower.wait()
            events_per_s = len(waves.catalogue) / (time.monotonic() - started_s)
            for record in waves.trickle:
                publish([record])
                time.sleep(1 / _TRICKLE_PER_S)
            follower.wait()
        return _audit(settings, waves, events_per_s, _books(api))


def _audit(settings: Settings, waves: Waves, events_per_s: float, books: dict[str, int]) -> Outcome:
    expectation = expect([*waves.catalogue, *waves.trickle])
    store, topic = read_store(settings), read_tags(settings)
    findings = compare(settings, expectation, store, topic)
    products = {product_id: product for product_id, product in topic.last.items() if product}
    problems = [*findings.problems(), *unbalanced(expectation, books)]
    latencies_ms = _latencies_ms(settings, store)
    return Outcome(findings, products, latencies_ms, events_per_s, books, problems)


def _latencies_ms(settings: Settings, store: StoreView) -> list[float]:
    """Publish → store of the last version of each product that had more than one, ascending."""
    published_ms: dict[str, int] = {}
    versions = Counter[str]()
    for record in read_all(settings.kafka, settings.topics.events):
        product_id = (record.key or b"").decode(errors="replace")
        published_ms[product_id] = record.timestamp_ms
        versions[product_id] += 1
    return sorted(
        store.updated_at_ms[product_id] - published_ms[product_id]
        for product_id, count in versions.items()
        if count > 1 and product_id in store.updated_at_ms
    )


def _wait_until_ready(api: httpx.Client) -> None:
    """Until the model is loaded and the consumer has its partitions. Raises Unavailable."""
    deadline_s = time.monotonic() + _STALLED_AFTER_S
    while not (answer := _readiness(api)).get("ready"):
        if time.monotonic() > deadline_s:
            raise Unavailable(f"the stream does not become ready: {answer}")
        time.sleep(0.2)


def _readiness(api: httpx.Client) -> dict[str, Any]:
    """What /readyz says; why it says nothing, if so."""
    try:
        answer: dict[str, Any] = api.get("/readyz").json()
    except (httpx.HTTPError, ValueError) as error:
        return {"ready": False, "reason": f"the API does not answer: {error!r}"}
    return answer


def _books(api: httpx.Client) -> dict[str, int]:
    books: dict[str, int] = _readiness(api).get("stream", {}).get("books", {})
    return books


class _Follower:
    """Shows how far the stream is, by the group's committed offsets."""

    def __init__(self, watch: GroupWatch, api: httpx.Client, progress: Progress, task: TaskID) -> None:
        self.published = self._done = self._dead = 0
        self._watch, self._api = watch, api
        self._progress, self._task = progress, task
        self._started_s, self._looked_s = time.monotonic(), 0.0

    def look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < 0.3:
            return
        self._looked_s = now_s
        self._done = sum(self._watch.committed().values())
        self._dead = _books(self._api).get("dead_lettered", self._dead)
        rate, lag = f"{self._done / (now_s - self._started_s):,.0f}", self.published - self._done
        self._progress.update(self._task, completed=self._done, rate=rate, lag=lag, dead=self._dead)

    def wait(self) -> None:
        """Until everything published is committed. Raises Unavailable after a long time without progress."""
        moved_s, before = time.monotonic(), -1
        while self._done < self.published:
            self.look()
            if self._done != before:
                moved_s, before = time.monotonic(), self._done
            if time.monotonic() - moved_s > _STALLED_AFTER_S:
                why = _readiness(self._api)
                raise Unavailable(f"the stream is stuck at {self._done} of {self.published}: {why}")
            time.sleep(0.05)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} events/s  lag {task.fields[lag]}  dead letters {task.fields[dead]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _show_products(console: Console, waves: Waves, products: dict[str, ProductTags]) -> None:
    titles = {e.product_id: e.title for r in waves.catalogue if (e := _parsed(r)) is not None}
    table = Table(title=f"Ten products of {waves.name}", show_lines=True)
    table.add_column("title", ratio=2)
    table.add_column("tags (score)", ratio=5)
    for product_id in _shown({p: title for p, title in titles.items() if p in products}):
        tags = products[product_id].tags
        shown = "  ".join(f"[cyan]{tag.group}[/cyan] {tag.value} [dim]{tag.score:.2f}[/dim]" for tag in tags)
        table.add_row(titles[product_id] or "[dim](no title)[/dim]", shown)
    console.print(table)


def _show_summary(console: Console, waves: Waves, outcome: Outcome) -> None:
    books = outcome.books
    rows = {
        "published": len(waves.catalogue) + len(waves.trickle),
        **{name: books.get(name, 0) for name in ("tagged", "superseded", "deleted", "dead_lettered")},
        "lost": outcome.findings.lost,
        "events/s": f"{outcome.events_per_s:,.0f}",
        "publish → store": f"p50 {outcome.latency_ms(0.5):,.0f} ms, p99 {outcome.latency_ms(0.99):,.0f} ms "
        f"(the last {len(outcome.latencies_ms)} updates, at {_TRICKLE_PER_S}/s)",
    }
    table = Table(title="Summary", show_header=False)
    for name, value in rows.items():
        table.add_row(name.replace("_", "-"), str(value))
    console.print(table)
    for problem in outcome.problems:
        console.print(f"[red]✗ {problem}[/red]")
    if not outcome.problems:
        console.print(
            "[green]✓ topic, store, index and dead letters agree; the books balance; nothing was lost[/green]"
        )


def _shown(titles: dict[str, str]) -> list[str]:
    """Ten products, spread over the catalogue; half of them Chinese if there are Chinese ones."""
    chinese = [p for p, title in titles.items() if language_of(title) == "zh"]
    others = [p for p in titles if p not in set(chinese)]
    half = _SHOWN_PRODUCTS // 2 if chinese and others else _SHOWN_PRODUCTS
    return [some[n * len(some) // half] for some in (others, chinese) for n in range(min(half, len(some)))]
