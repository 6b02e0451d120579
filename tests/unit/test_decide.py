"""Who is believed about a group: rule > event > extracted > model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tagstream.core.decide import Decider
from tagstream.core.events import Tag
from tagstream.core.ports import MicroBatch, Scores, Span, TextFields
from tagstream.core.rules import Rules
from tagstream.core.taxonomy import Taxonomy
from tests.support.memory import MemoryTagger
from tests.support.stage import TAXONOMY as STAGE_TAXONOMY
from tests.support.stage import Stage, event

TAXONOMY = Taxonomy.model_validate(
    {
        "taxonomy_version": "t",
        "groups": [
            {"name": "family", "values": [{"value": "Apparel"}, {"value": "Footwear"}]},
            {
                "name": "kind",
                "parent_group": "family",
                "values": [
                    {"value": "Shirt", "parent": "Apparel", "names": {"zh": "衬衫"}},
                    {"value": "Shoe", "parent": "Footwear"},
                    {"value": "Tee", "retired": True},
                ],
            },
            {"name": "style", "kind": "multi", "values": [{"value": "Retro"}, {"value": "Plain"}]},
        ],
    }
)
SHIRT = [0.9, 0.1, 0.9, 0.1, 0.0, 0.1, 0.9]


def rule(group: str, value: str, pattern: str = "x") -> dict[str, str]:
    return {"field": "title", "pattern": pattern, "group": group, "value": value}


def span(group: str, value: str, score: float = 0.8) -> Span:
    return Span(group, value, score, 0, 1)


def decide(
    *spans: Span, rules: tuple[dict[str, str], ...] = (), attributes: dict[str, str] | None = None
) -> list[Tag]:
    decider = Decider(TAXONOMY, Rules.read({"rules": rules}))
    text = TextFields("x", attributes=attributes or {})
    return list(decider.decide(np.array([SHIRT], np.float32), [text], [spans])[0])


def said(tags: list[Tag]) -> list[tuple[str, str, str]]:
    return [(tag.group, tag.value, tag.source) for tag in tags]


MODEL = [("family", "Apparel", "model"), ("kind", "Shirt", "model"), ("style", "Plain", "model")]


def test_a_span_of_a_group_outside_the_taxonomy_becomes_a_tag_behind_it() -> None:
    tags = decide(span("brand", "飞利浦"), span("product", "理发器"))
    assert said(tags) == [*MODEL, ("brand", "飞利浦", "extracted"), ("product", "理发器", "extracted")]
    assert tags[-1].score == 0.8


def test_a_value_that_is_named_twice_is_one_tag_with_the_higher_score() -> None:
    tags = decide(span("brand", "nike", 0.6), span("brand", "nike", 0.9))
    assert tags[-1] == Tag("brand", "nike", 0.9, "extracted")
    assert len(tags) == 4


def test_an_extracted_value_of_the_taxonomy_overrules_the_model_and_is_spelled_as_there() -> None:
    assert said(decide(span("style", "RETRO"))) == [*MODEL[:2], ("style", "Retro", "extracted")]
    assert said(decide(span("kind", "衬衫")))[1] == ("kind", "Shirt", "extracted")


def test_an_extracted_value_outside_a_group_of_the_taxonomy_is_left_out() -> None:
    assert said(decide(span("kind", "cutlery"))) == MODEL


def test_a_retired_value_comes_back_neither_by_rule_nor_from_the_title() -> None:
    assert said(decide(span("kind", "tee"), rules=(rule("kind", "Tee"),))) == MODEL


def test_of_a_single_choice_group_the_surest_span_and_the_first_rule_count() -> None:
    assert said(decide(span("kind", "shoe", 0.6), span("kind", "shirt", 0.7)))[1][1] == "Shirt"
    assert ("kind", "Shoe", "rule") in said(decide(rules=(rule("kind", "Shoe"), rule("kind", "Shirt"))))


def test_a_multi_choice_group_takes_all_spans() -> None:
    tags = said(decide(span("style", "plain"), span("style", "retro")))
    assert [tag for tag in tags if tag[0] == "style"] == [
        ("style", "Plain", "extracted"),
        ("style", "Retro", "extracted"),
    ]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"rules": (rule("kind", "Shoe"),), "attributes": {"kind": "Shirt"}}, ("kind", "Shoe", "rule")),
        ({"attributes": {"kind": "Shoe"}}, ("kind", "Shoe", "event")),
        ({}, ("kind", "Shirt", "extracted")),
    ],
)
def test_rule_goes_before_event_before_extracted_before_model(
    given: dict[str, object], wanted: tuple[str, str, str]
) -> None:
    assert wanted in said(decide(span("kind", "shirt"), **given))  # type: ignore[arg-type]


def test_what_contradicts_a_rule_in_the_tree_is_left_out() -> None:
    tags = said(decide(span("family", "apparel"), rules=(rule("kind", "Shoe"),)))
    assert tags == [("kind", "Shoe", "rule"), ("style", "Plain", "model")]


def test_a_rule_may_open_a_group_of_its_own() -> None:
    assert said(decide(rules=(rule("promotion", "Sale"),)))[-1] == ("promotion", "Sale", "rule")
    assert said(decide(rules=(rule("promotion", "Sale", "nowhere"),))) == MODEL


class ExtractingTagger(MemoryTagger):
    """Finds the first word of every title to be a brand."""

    def tag(self, batch: MicroBatch) -> Scores:
        scores = super().tag(batch)
        spans = [tuple(Span("brand", t.title.split()[0], 0.75, 0, 1) for _ in "x") for t in batch.texts]
        return Scores(scores.model_version, scores.model_generation, scores.values, scores.image, spans)


def test_an_extracted_tag_reaches_the_topic_and_the_store_through_the_worker() -> None:
    stage = Stage(tagger=ExtractingTagger(STAGE_TAXONOMY))
    stage.send("p", event("p", title="飞利浦 理发器"))
    stage.turn()
    published = json.loads(stage.tags[0].value or b"")["tags"]
    wanted = {"group": "brand", "value": "飞利浦", "score": 0.75, "source": "extracted"}
    assert published[-1] == wanted
    standing = stage.standing("p")
    assert standing is not None
    assert standing.tags[-1] == Tag("brand", "飞利浦", 0.75, "extracted")
    assert stage.store.find("brand", "飞利浦", 10) == [("p", 0.75)]


@pytest.mark.parametrize("source", ["rule", "event", "extracted"])
def test_what_one_source_says_twice_is_kept_only_as_far_as_it_agrees(source: str) -> None:
    stated = {"kind": "Shoe", "family": "Apparel"}
    tags = {
        "rule": lambda: decide(rules=tuple(rule(*pair) for pair in stated.items())),
        "event": lambda: decide(attributes=stated),
        "extracted": lambda: decide(span("kind", "Shoe", 0.9), span("family", "Apparel", 0.8)),
    }[source]()

    assert said(tags) == [("kind", "Shoe", source), ("style", "Plain", "model")]
