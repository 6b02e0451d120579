"""Every record becomes an event with valid tags or a dead letter with a reason; every request is answered.

A few seconds of what `run.py` does for minutes, the same inputs every time, and all that ever failed.
"""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

sys.path.insert(0, str(Path(__file__).parent))
from http_api import Asked, ask, fuzz_api
from mutation import Mutator
from specimens import Specimen, corpus, seeds
from strategies import specimens
from verdicts import Hang, Tally, at_most, judge, judge_one, minimised

from tagstream.core.errors import InvalidEvent


def assert_all_accounted(tally: Tally, inputs: int) -> None:
    assert tally.crashes == []
    assert tally.hangs == []
    assert tally.accounted == inputs


def test_everything_that_ever_failed_and_every_seed_is_accounted_for() -> None:
    kept = [*corpus(), *seeds()]
    tally = Tally()
    for specimen in kept:
        tally.add(judge_one(specimen, np.random.default_rng(0)))
    assert_all_accounted(tally, len(kept))


def test_2000_mutated_records_are_accounted_for() -> None:
    mutator = Mutator([*seeds(), *corpus()], random.Random(20))
    tally = judge([mutator.next() for _ in range(2000)], np.random.default_rng(20))
    assert_all_accounted(tally, 2000)
    assert tally.events > 200, "mutations that only break the JSON reach nothing behind it"


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(specimens())
def test_records_by_the_grammar_are_accounted_for(specimen: Specimen) -> None:
    assert_all_accounted(judge_one(specimen, np.random.default_rng(0)), 1)


def test_500_odd_requests_are_answered() -> None:
    answers = fuzz_api(500, 20)
    assert answers.failures == []
    assert answers.statuses.total() == 500
    assert answers.statuses[200] > 50


@pytest.mark.parametrize(
    "body",
    [b'{"title": NaN}', b'{"title": "\\ud800"}', b'{"attributes": {"\\ud800": 1}}', b"[" * 100_000, b"\xff"],
)
def test_what_no_parser_likes_is_the_caller_s_fault(body: bytes) -> None:
    answers = ask([Asked("POST", "/v1/tag", body)])
    assert answers.failures == []
    assert answers.statuses[400] + answers.statuses[422] == 1


def test_a_crash_is_seen_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_on_b(value: bytes) -> None:
        if b"B" in value:
            raise ZeroDivisionError
        raise InvalidEvent("fine")

    monkeypatch.setattr("tagstream.stream.decode._parse", fails_on_b)
    big = Specimen(b"p1", b"aaaaaaaaBaaaa", (("x", b"y"),))
    tally = judge([big], np.random.default_rng(0))
    assert [said for _, said in tally.crashes] == ["ZeroDivisionError: "]
    small = minimised(big, lambda s: bool(judge_one(s, np.random.default_rng(0)).crashes))
    assert (small.value, small.headers) == (b"B", ())


def test_a_hang_is_ended() -> None:
    with pytest.raises(Hang), at_most(0.01):
        for _ in itertools.count():
            pass
