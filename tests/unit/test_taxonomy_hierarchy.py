"""No choice contradicts the tree of values, whatever the scores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tagstream.core.decide import Decider
from tagstream.core.hierarchy import Hierarchy
from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value, versioned

FASHION = Taxonomy.model_validate(
    {
        "taxonomy_version": "t",
        "groups": [
            {
                "name": "type",
                "parent_group": "category",
                "values": [
                    {"value": "Jeans", "parent": "Bottoms"},
                    {"value": "Shorts", "parent": "Bottoms"},
                    {"value": "Shirts", "parent": "Tops"},
                    {"value": "Sneakers", "parent": "Shoes"},
                ],
            },
            {"name": "colour", "values": [{"value": "Red"}, {"value": "Blue"}]},
            {"name": "master", "values": [{"value": "Apparel"}, {"value": "Footwear"}, {"value": "Home"}]},
            {
                "name": "category",
                "parent_group": "master",
                "values": [
                    {"value": "Tops", "parent": "Apparel"},
                    {"value": "Bottoms", "parent": "Apparel"},
                    {"value": "Shoes", "parent": "Footwear"},
                ],
            },
        ],
    }
)


@st.composite
def taxonomies(draw: st.DrawFn) -> Taxonomy:
    """Up to five groups in any order, each under none or one made before; with old and parentless values."""
    groups: list[Group] = []
    for number in range(draw(st.integers(1, 5))):
        above = draw(st.sampled_from([None, *groups]))
        names = [f"{number}.{at}" for at in range(draw(st.integers(1, 5)))]
        values = []
        for at, name in enumerate(names):
            parent = draw(st.sampled_from([None, *above.by_value])) if above else None
            # A successor stands further on, so that there is no circle.
            successor = draw(st.sampled_from([None, None, *names[at + 1 :]]))
            retired = successor is None and draw(st.integers(0, 4)) == 0
            threshold = draw(st.sampled_from([0.0, 0.3, 0.5, 0.9]))
            values.append(
                Value(value=name, parent=parent, replaced_by=successor, retired=retired, threshold=threshold)
            )
        kind = draw(st.sampled_from(["single", "single", "multi"]))
        groups.append(
            Group(
                name=str(number), kind=kind, parent_group=above.name if above else None, values=tuple(values)
            )
        )
    return versioned(draw(st.permutations(groups)))


@st.composite
def scored(draw: st.DrawFn) -> tuple[Taxonomy, np.ndarray]:
    taxonomy = draw(taxonomies())
    shape = (draw(st.integers(1, 4)), taxonomy.size)
    return taxonomy, draw(arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))


def live_parents(taxonomy: Taxonomy) -> Iterator[tuple[int, str, int, str]]:
    """(child column, child group, parent column, parent group) of live values, found in another way."""
    column = {
        (group.name, value.value): taxonomy.slices[group.name].start + at
        for group in taxonomy.groups
        for at, value in enumerate(group.values)
    }
    by_name = {group.name: group for group in taxonomy.groups}
    for group in taxonomy.groups:
        for value in group.values:
            if value.retired or value.replaced_by or value.parent is None:
                continue
            above = by_name[str(group.parent_group)]
            parent = next(one for one in above.values if one.value == value.parent)
            while parent.replaced_by is not None:
                parent = next(one for one in above.values if one.value == parent.replaced_by)
            if not parent.retired:
                yield (
                    column[group.name, value.value],
                    group.name,
                    column[above.name, parent.value],
                    above.name,
                )


@settings(max_examples=300, deadline=None)
@given(scored())
def test_over_any_scores_nothing_that_is_given_contradicts_another(case: tuple[Taxonomy, np.ndarray]) -> None:
    taxonomy, scores = case
    before = scores.copy()
    hierarchy = Hierarchy(taxonomy)
    settled = hierarchy.settled(scores)
    chosen, tags = hierarchy.chosen(scores), hierarchy.given(scores, settled)

    assert np.array_equal(scores, before)
    values = [value for group in taxonomy.groups for value in group.values]
    gone = [at for at, value in enumerate(values) if value.retired or value.replaced_by]
    assert not settled[:, gone].any()
    assert not tags[:, gone].any()
    assert not chosen[:, gone].any()
    for group in taxonomy.groups:
        if group.kind == "single":
            assert (tags[:, taxonomy.slices[group.name]].sum(axis=1) <= 1).all()
    kinds = {group.name: group.kind for group in taxonomy.groups}
    for child, _, parent, above in live_parents(taxonomy):
        assert (settled[:, parent] >= settled[:, child]).all()
        assert tags[tags[:, child]][:, parent].all(), "the parent of what is given is given"
        assert chosen[chosen[:, child]][:, parent].all()
        if kinds[above] == "single":
            others = chosen[:, taxonomy.slices[above]].sum(axis=1) - chosen[:, parent]
            assert not (chosen[:, child] & (others > 0)).any()
    live = np.setdiff1d(np.arange(taxonomy.size), gone)
    assert (settled[:, live] >= scores[:, live]).all()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_without_parents_each_group_gives_its_highest_score(data: st.DataObject) -> None:
    bare = versioned(
        Group(name=name, values=tuple(Value(value=f"{at}", threshold=0) for at in range(size)))
        for name, size in (("a", 3), ("b", 5))
    )
    scores = data.draw(arrays(np.float32, (4, 8), elements=st.floats(0, 1, width=32)))
    chosen = Hierarchy(bare).chosen(scores)
    for columns in bare.slices.values():
        assert (chosen[:, columns].argmax(axis=1) == scores[:, columns].argmax(axis=1)).all()


def decide(scores: dict[str, float], taxonomy: Taxonomy = FASHION, **attributes: str) -> dict[str, str]:
    """Group → value, of scores by value; the rest scores 0.01."""
    row = [scores.get(value.value, 0.01) for group in taxonomy.groups for value in group.values]
    [tags] = Decider(taxonomy).decide(np.array([row], np.float32), [TextFields("x", attributes=attributes)])
    return {tag.group: tag.value for tag in tags}


def test_a_sure_type_corrects_a_doubtful_category() -> None:
    scores = {"Footwear": 0.55, "Apparel": 0.45, "Bottoms": 0.8, "Shoes": 0.15, "Jeans": 0.9}
    assert decide(scores) == {"master": "Apparel", "category": "Bottoms", "type": "Jeans"}


def test_a_sure_category_keeps_a_doubtful_type_out() -> None:
    scores = {"Footwear": 0.99, "Apparel": 0.01, "Shoes": 0.97, "Jeans": 0.55, "Sneakers": 0.4}
    assert decide(scores) == {"master": "Footwear", "category": "Shoes"}


def test_a_value_without_children_is_no_worse_for_it() -> None:
    assert decide({"Home": 0.7, "Apparel": 0.3, "Tops": 0.6, "Shirts": 0.5}) == {"master": "Home"}


def test_what_is_given_gives_its_ancestors_whatever_their_thresholds() -> None:
    strict = FASHION.model_copy(
        update={
            "groups": tuple(
                group.model_copy(
                    update={"values": tuple(v.model_copy(update={"threshold": 0.9}) for v in group.values)}
                )
                if group.name != "type"
                else group
                for group in FASHION.groups
            )
        }
    )
    scores = {"Apparel": 0.6, "Tops": 0.6, "Shirts": 0.6}
    assert decide(scores, strict) == {"master": "Apparel", "category": "Tops", "type": "Shirts"}


def test_what_the_event_states_takes_out_what_contradicts_it_above_and_below() -> None:
    scores = {"Apparel": 0.9, "Bottoms": 0.9, "Jeans": 0.9, "Red": 0.9}
    assert decide(scores, category="Shoes") == {"category": "Shoes", "colour": "Red"}
    assert decide(scores, category="Bottoms") == decide(scores)
    assert decide(scores, type="Shorts") == decide(scores) | {"type": "Shorts"}
    assert decide(scores, master="Footwear") == {"master": "Footwear", "colour": "Red"}


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_replaced_value_counts_for_its_successor_and_a_retired_one_for_nothing(kind: str) -> None:
    taxonomy = Taxonomy.model_validate(
        {
            "taxonomy_version": "t",
            "groups": [
                {
                    "name": "colour",
                    "kind": kind,
                    "values": [
                        {"value": "Navy", "replaced_by": "Marine"},
                        {"value": "Marine", "replaced_by": "Blue"},
                        {"value": "Blue"},
                        {"value": "Multi", "retired": True, "threshold": 0},
                        {"value": "Mixed", "replaced_by": "Multi", "threshold": 0},
                    ],
                }
            ],
        }
    )
    assert decide({"Navy": 0.8, "Blue": 0.1}, taxonomy) == {"colour": "Blue"}
    assert decide({"Multi": 0.9, "Mixed": 0.9}, taxonomy) == {}
    assert decide({}, taxonomy, colour="navy") == {"colour": "Blue"}
    assert decide({}, taxonomy, colour="Multi") == {}


def test_merged_values_of_one_choice_add_up() -> None:
    values = [{"value": "Navy", "replaced_by": "Navy Blue"}, {"value": "Navy Blue"}, {"value": "Red"}]
    taxonomy = Taxonomy.model_validate(
        {"taxonomy_version": "t", "groups": [{"name": "colour", "values": values}]}
    )

    assert decide({"Navy": 0.46, "Navy Blue": 0.46, "Red": 0.08}, taxonomy) == {"colour": "Navy Blue"}
