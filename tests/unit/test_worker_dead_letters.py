"""What cannot become tags is a dead letter as it came, and its neighbours are tagged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tagstream.core.errors import InvalidEvent, Unavailable
from tagstream.core.ports import MicroBatch, Record, Scores, Span
from tagstream.stream.outgoing import dead_letter
from tests.support.memory import After
from tests.support.stage import Stage, event, headers


def test_a_superseded_event_is_tagged_after_all_when_its_successor_is_a_dead_letter() -> None:
    stage = Stage(inline=False)
    stage.tagger.poison = {"poison"}
    stage.send("p1", event("p1", 1))
    stage.turn()
    stage.send("p1", event("p1", 2, title="good"))
    stage.send("p1", event("p1", 3, title="better"))
    stage.send("p1", event("p1", 4, title="poison"))
    stage.turn()
    while stage.executor.waiting:
        stage.executor.step()
        stage.turn()
    assert stage.books == {"consumed": 4, "tagged": 2, "superseded": 1, "dead_lettered": 1}
    assert [headers(r)["event_version"] for r in stage.tags] == ["1", "3"]
    assert stage.committed == 4


def test_what_cannot_be_decoded_is_a_dead_letter_exactly_as_it_came() -> None:
    stage = Stage()
    stage.send("p1", b"{broken", headers=(("h", b"\x00\xff"), ("tagstream.attempts", b"9")), timestamp_ms=123)
    stage.send("p2", event("p2"))
    stage.turn()
    [letter] = stage.dead
    assert (letter.key, letter.value, letter.timestamp_ms) == (b"p1", b"{broken", 123)
    assert dict(letter.headers)["h"] == b"\x00\xff"
    assert "JSON" in headers_of(letter)["__connect.errors.exception.message"]
    assert headers_of(letter)["__connect.errors.topic"] == "product-events"
    assert headers_of(letter)["__connect.errors.offset"] == "0"
    assert [name for name, _ in letter.headers].count("tagstream.attempts") == 1
    assert stage.books == {"consumed": 2, "tagged": 1, "dead_lettered": 1}
    assert stage.committed == 2


def headers_of(record: object) -> dict[str, str]:
    return {n: (v or b"").decode("utf-8", "replace") for n, v in record.headers}  # type: ignore[attr-defined]


def test_an_unacknowledged_dead_letter_holds_the_commit_back() -> None:
    stage = Stage(inline=False)
    stage.publisher.faults.append(After(Unavailable("no acknowledgement")))
    stage.send("p1", b"{broken")
    stage.turn()
    assert stage.committed == 0
    stage.executor.step()
    stage.turn()
    assert stage.committed == 1
    assert len(stage.dead) == 2, "at least once: the first may have arrived"


def test_an_event_on_which_the_model_raises_is_a_dead_letter_and_its_neighbours_are_tagged() -> None:
    stage = Stage()
    stage.tagger.poison = {"poison"}
    for n in range(4):
        stage.send(f"p{n}", event(f"p{n}", title="poison" if n == 2 else "fine"))
    stage.turn()
    assert stage.books == {"consumed": 4, "tagged": 3, "dead_lettered": 1}
    assert [r.key for r in stage.dead] == [b"p2"]
    assert headers(stage.dead[0])["__connect.errors.stage"] == "tag"
    assert headers(stage.dead[0])["tagstream.event_version"] == "1"


@pytest.mark.parametrize(
    ("image", "use"),
    [
        (None, "none"),
        ({"data": "AAAA"}, "used"),
        ({"data": "!!"}, "unusable"),
        ({"url": "https://gone"}, "unusable"),
    ],
)
def test_the_picture_s_outcome_is_told_and_never_a_dead_letter(
    image: dict[str, str] | None, use: str
) -> None:
    stage = Stage()
    stage.send("p1", event("p1", image=image))
    stage.turn()
    standing = stage.standing("p1")
    assert standing is not None
    assert standing.image == use


@pytest.mark.parametrize(
    ("value", "more"),
    [
        (None, {"headers": (("event_version", b"9" * 5000),)}),
        (event("p1", schema_version="\U00011bf1.0"), {}),
        (event("x" * 100_000), {}),
    ],
)
def test_odd_records_are_dead_letters_with_short_reasons_and_the_loop_goes_on(
    value: bytes | None, more: dict[str, object]
) -> None:
    stage = Stage()
    stage.send("p1", value, **more)
    stage.send("p2", event("p2"))
    stage.turn()
    assert stage.books == {"consumed": 2, "tagged": 1, "dead_lettered": 1}
    assert len(headers(stage.dead[0])["__connect.errors.exception.message"]) <= 500


def test_a_defect_of_the_decoder_is_a_dead_letter_not_a_crash_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    monkeypatch.setattr("tagstream.stream.decode._parse", lambda value: 1 / 0)
    stage.send("p1", event("p1"))
    stage.turn()
    assert stage.books == {"consumed": 1, "dead_lettered": 1}
    assert "defect" in headers(stage.dead[0])["__connect.errors.exception.message"]


def test_a_dead_letter_too_large_for_its_topic_goes_without_its_value() -> None:
    stage = Stage()
    stage.send("p1", b"{" + b" " * 26_000_000)
    stage.turn()
    [letter] = stage.dead
    assert letter.value is None
    assert headers(letter)["tagstream.value_omitted_bytes"] == "26000001"


def test_an_event_with_more_tags_than_a_record_takes_is_a_dead_letter_and_its_neighbours_are_tagged() -> None:
    stage = Stage()
    tag = stage.tagger.tag

    def wordy(batch: MicroBatch) -> Scores:
        spans = [
            tuple(Span("line", f"{n:06}" * 5, 0.9, 0, 1) for n in range(2000 if text.title == "wordy" else 2))
            for text in batch.texts
        ]
        return replace(tag(batch), spans=spans)

    stage.tagger.tag = wordy  # type: ignore[method-assign]
    for n in range(3):
        stage.send(f"p{n}", event(f"p{n}", title="wordy" if n == 1 else "fine"))
    stage.turn()
    [letter] = stage.dead
    assert letter.key == b"p1"
    assert headers(letter)["__connect.errors.stage"] == "decide"
    assert "2,002 tags" in headers(letter)["__connect.errors.exception.message"]
    assert stage.books == {"consumed": 3, "tagged": 2, "dead_lettered": 1}


@pytest.mark.parametrize(
    ("value_mib", "headers_mib", "keeps_value"),
    [(20, 6, False), (1, 26, True), (26, 26, False), (24, 0, True)],
)
def test_a_dead_letter_always_fits_its_topic(value_mib: int, headers_mib: int, keeps_value: bool) -> None:
    own = (("huge", b"x" * (headers_mib * 2**20)),)
    record = Record("product-events", 0, 7, b"p1", b"{" + b" " * (value_mib * 2**20 - 1), own)
    letter = dead_letter(
        "dead", record, InvalidEvent("é" * 500), attempts=1, event_version=2**53 - 1, now_ms=2**41
    )
    assert letter.size_bytes < 25 * 2**20
    assert (letter.value is not None) == keeps_value
