"""`tagstream dead-letters`: show what failed, send it again, mark or delete it."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import typer

from tagstream.cli.show import AsJson, console, print_json, print_rows, printable
from tagstream.core.errors import BadSettings
from tagstream.ops.dead_letters import DeadLetters, Filter, Letter, parse_address
from tagstream.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Show, replay and purge the records that failed.")

_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHOWN_VALUE_CHARS = 4000


def _address(text: str) -> str:
    if (address := parse_address(text)) is None:
        raise BadSettings(f"{text!r} is not PARTITION/OFFSET")
    return "{}/{}".format(*address)


def _moment_ms(text: str) -> int | None:
    """Milliseconds since the epoch of an ISO 8601 moment, or of so long ago; None of an empty text."""
    if not text:
        return None
    if ago := re.fullmatch(r"([0-9]{1,6})([smhd])", text):
        moment = datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNIT_S[ago[2]])
        return int(moment.timestamp() * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadSettings(f"{text!r} is neither ISO 8601 nor a time ago such as 2h") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _moment(meaning: str) -> Any:
    return typer.Option(parser=_moment_ms, metavar="<str>", help=meaning)


Reason = Annotated[str, typer.Option(help="A part of the reason.")]
Stage = Annotated[str, typer.Option(help="Where it failed: decode, tag, …")]
Product = Annotated[str, typer.Option(help="The product's id.")]
Since = Annotated[
    int | None, _moment("Failed since then: ISO 8601 (UTC if it names no zone), or 2h for two hours ago.")
]
Until = Annotated[int | None, _moment("Failed before then.")]
Addresses = Annotated[list[str] | None, typer.Argument(parser=_address, metavar="[PARTITION/OFFSET]...")]


@app.command("list")
def list_letters(
    reason: Reason = "",
    stage: Stage = "",
    product: Product = "",
    since: Since = None,
    until: Until = None,
    show_all: Annotated[bool, typer.Option("--all", help="Handled ones too.")] = False,
    limit: Annotated[int, typer.Option(help="Rows of the table.", min=1)] = 100,
    as_json: AsJson = False,
) -> None:
    """The dead letters that are not handled yet."""
    dead_letters, chosen = DeadLetters(load_settings()), Filter(reason, stage, product, since, until)
    handled = dead_letters.handled()
    rows = (
        _row(letter, letter in handled)
        for letter in dead_letters.letters()
        if chosen.matches(letter) and (show_all or letter not in handled)
    )
    print_rows(rows if as_json else islice(rows, limit), as_json)
    if more := sum(1 for _ in rows):
        console.print(f"and {more:,} more: narrow it down, or --limit")


@app.command()
def show(
    address: Annotated[str, typer.Argument(parser=_address, metavar="PARTITION/OFFSET")],
    as_json: AsJson = False,
) -> None:
    """A whole dead letter; exit 1 if there is none at this address."""
    found = DeadLetters(load_settings()).find(address)
    if found is None:
        console.print(f"no dead letter at {address}")
        raise typer.Exit(1)
    letter, mark = found
    if as_json:
        print_json(_whole(letter, mark))
        return
    for name, value in _row(letter, mark is not None).items():
        print(f"{name}: {printable('' if value is None else str(value))}")
    if mark is not None:
        print(f"{printable(mark.get('how', 'handled'))} at {printable(mark.get('at', ''))}")
    print(f"timestamp: {_iso(letter.record.timestamp_ms)}\nheaders:")
    for header, content in letter.record.headers:
        print(f"  {printable(header)}: {_shortened(content)}")
    print(f"value:\n{_shortened(letter.record.value)}")


@app.command()
def replay(
    addresses: Addresses = None,
    reason: Reason = "",
    stage: Stage = "",
    product: Product = "",
    since: Since = None,
    until: Until = None,
    again: Annotated[bool, typer.Option("--again", help="Handled ones too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be replayed.")] = False,
) -> None:
    """Send dead letters to their source topic again; exit 1 if one of them cannot be.

    A replayed event keeps its place: it never overtakes a newer one of its product.
    """
    chosen = Filter(reason, stage, product, since, until, frozenset(addresses or ()))
    outcome = DeadLetters(load_settings()).replay(chosen, again=again, dry_run=dry_run, tell=_tell)
    done = "would be replayed" if dry_run else "replayed"
    console.print(
        f"{outcome.replayed:,} {done}, {outcome.already_handled:,} handled before, "
        f"{outcome.impossible:,} cannot be replayed"
    )
    if outcome.impossible:
        raise typer.Exit(1)


@app.command()
def purge(
    addresses: Addresses = None,
    reason: Reason = "",
    stage: Stage = "",
    product: Product = "",
    since: Since = None,
    until: Until = None,
    before: Annotated[int | None, _moment("Delete what failed before then, handled or not.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Mark dead letters as handled (with a filter), or delete them (with --before).

    Deletes the beginning of each partition, up to the first letter that failed later.
    """
    chosen = Filter(reason, stage, product, since, until, frozenset(addresses or ()))
    if (before is not None) == (chosen != Filter()):
        raise BadSettings("purge needs either --before, or a filter or addresses")
    dead_letters = DeadLetters(load_settings())
    if before is not None:
        first_kept, count = dead_letters.prefix(before)
        if count and _agreed(f"Delete {count:,} dead letters for good?", yes):
            dead_letters.delete_prefix(first_kept)
        console.print(f"{count:,} deleted")
        return
    count = sum(1 for _ in dead_letters.open_letters(chosen))
    if count and _agreed(f"Mark {count:,} dead letters as handled?", yes):
        count = dead_letters.purge(chosen)
    console.print(f"{count:,} marked as handled")


def _agreed(question: str, yes: bool) -> bool:
    return yes or typer.confirm(question, abort=True)


def _tell(letter: Letter, sentence: str) -> None:
    print(f"{letter.address} {printable(letter.product_id)} {printable(sentence)}", flush=True)


def _iso(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # an absurd timestamp may be why it failed
        return f"{at_ms} ms"


def _row(letter: Letter, handled: bool) -> dict[str, Any]:
    return {
        "address": letter.address,
        "when": _iso(letter.when_ms),
        "product": letter.product_id,
        "stage": letter.stage,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "handled": handled,
    }


def _whole(letter: Letter, mark: dict[str, str] | None) -> dict[str, Any]:
    """For scripts: nothing is shortened. Bytes that are not UTF-8 come as base64, as `NAME_base64`."""
    record = letter.record
    headers = [{"name": name, **_json_bytes("value", content)} for name, content in record.headers]
    return {
        **_row(letter, mark is not None),
        "mark": mark,
        "timestamp_ms": record.timestamp_ms,
        "headers": headers,
        **_json_bytes("key", record.key),
        **_json_bytes("value", record.value),
    }


def _json_bytes(name: str, content: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if content is None else content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content or b"").decode()}


def _shortened(content: bytes | None) -> str:
    if content is None:
        return "(none)"
    shown = content[: 4 * _SHOWN_VALUE_CHARS].decode(errors="backslashreplace")[:_SHOWN_VALUE_CHARS]
    more = f" … of {len(content):,} bytes, --json shows all" if len(content) > len(shown.encode()) else ""
    return printable(shown) + more
