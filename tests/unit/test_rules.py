"""Rules: what they find, what they overrule, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tagstream.core.errors import BadSettings
from tagstream.core.ports import TextFields
from tagstream.core.rules import TEXT_MAX_CHARS, Rules
from tagstream.settings import load_settings
from tagstream.wiring import build_rules

PLACES = {"kafka_bootstrap_servers": "k:9092", "redis_url": "redis://r:6379/0"}


def rules(pattern: str, **more: object) -> Rules:
    rule = {"field": "title", "pattern": pattern, "group": "material", "value": "Gore-Tex", **more}
    return Rules.read({"rules": [rule]})


def fits(found: Rules, text: TextFields, lang: str = "en") -> bool:
    return list(found.fitting(text, lang)) == [("material", "Gore-Tex")]


@pytest.mark.parametrize("title", ["Gore-Tex boots", "GORETEX", "ｇｏｒｅ－ｔｅｘ boots"])
def test_a_rule_finds_its_pattern_in_any_case_and_width(title: str) -> None:
    assert fits(rules(r"\bgore-?tex\b"), TextFields(title))


@pytest.mark.parametrize("title", ["", "boots", "🥾🥾", "\ud83e\udd7e \udd7e", "gore\x00tex"])
def test_a_title_without_the_pattern_is_left_alone(title: str) -> None:
    assert not fits(rules(r"\bgore-?tex\b"), TextFields(title))


def test_a_rule_reads_only_its_field() -> None:
    found = rules("gore", field="description")
    assert fits(found, TextFields("x", description="with Gore-Tex"))
    assert not fits(found, TextFields("Gore-Tex"))
    assert not fits(found, TextFields("Gore-Tex", brand="Gore"))


def test_a_rule_of_one_language_is_silent_in_others() -> None:
    found = rules("加绒", lang="zh")
    assert fits(found, TextFields("加绒外套"), "zh")
    assert not fits(found, TextFields("加绒 coat", lang="en"), "en")


def test_a_rule_reads_no_further_than_its_bound() -> None:
    assert fits(rules("gore"), TextFields("x" * (TEXT_MAX_CHARS - 4) + "gore"))
    assert not fits(rules("gore"), TextFields("x" * (TEXT_MAX_CHARS - 3) + "gore"))


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)*b",
        "(a|ab)+c",
        "(a?){50}b",
        ".*.*.*x",
        r"(\w+\s?)*$",
        "a?" * 30 + "b",
        "(?:(?:a*)b?)*c",
        "(?:[a-z]?[a-z0-9]?){9}-x",
        r"(?:[A-Z]?){18}\d",
        "(a?){19}b",
        "(?:(?=a)){9999999}b",
    ],
)
def test_a_pattern_that_a_hostile_title_makes_expensive_is_refused(pattern: str) -> None:
    with pytest.raises(BadSettings, match="too long"):
        rules(pattern)


@pytest.mark.parametrize(
    "pattern",
    [r"\b(red|navy blue|green)\b", ".*a.*b", r"\d+\s*(ml|l)\b", "(?:ab)+", "(?i:x)", r"(a)\1", "[ab]+c"],
)
def test_ordinary_patterns_pass(pattern: str) -> None:
    assert rules(pattern).rules[0].pattern == pattern


@pytest.mark.parametrize("pattern", ["a*a*b", "(a?){12}b", "a{0,250}a{0,250}b"])
@pytest.mark.timeout(20)
def test_the_worst_patterns_that_pass_end_on_the_worst_title(pattern: str) -> None:
    assert not fits(rules(pattern), TextFields("a" * 10_000))


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "(?P<x>a)(?P<x>b)", "a{99999999999}", "*a", ""])
def test_a_pattern_that_is_none_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(BadSettings, match=r"rules\.0\.pattern"):
        rules(pattern)


@pytest.mark.parametrize("raw", [None, [], "x", {"rule": []}, {"rules": [{}]}, {"rules": {"a": 1}}])
def test_a_file_that_holds_no_rules_is_refused(raw: object) -> None:
    with pytest.raises(BadSettings):
        Rules.read(raw)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(BadSettings, match=r"rules\.0\.field"):
        rules("a", field="price")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rules.json", '{"rules": [{"field": "title", "pattern": "a\\\\b", "group": "g", "value": "v"}]}'),
        ("rules.yaml", "rules:\n  - {field: title, pattern: 'a\\b', group: g, value: v}\n"),
    ],
)
def test_rules_are_read_from_json_and_yaml(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    found = build_rules(load_settings(**PLACES, rules_file=tmp_path / name))
    assert list(found.fitting(TextFields("a"), "en")) == [("g", "v")]


@pytest.mark.parametrize("content", [b"rules: [", b"\xff\xfe", b"{}}", b"rules: [{pattern: '('}]", None])
def test_a_file_that_cannot_be_read_starts_nothing(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "rules.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadSettings, match="TAGSTREAM_RULES_FILE"):
        build_rules(load_settings(**PLACES, rules_file=path))


def test_without_a_file_there_are_no_rules() -> None:
    assert not build_rules(load_settings(**PLACES))
