"""A child version: the same weights under an edited taxonomy."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.cli.models import app
from tagstream.core.decide import Decider
from tagstream.core.errors import IncompatibleModel
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value, versioned
from tagstream.model.tagger import read_stored
from tagstream.model.version.derive import derive, relabelled
from tagstream.model.version.format import read_manifest
from tagstream.model.version.load import load
from tagstream.taxonomy import edit
from tagstream.taxonomy.files import write_taxonomy
from tagstream.text.mentions import Mentions

BASE = versioned(
    [
        Group(name="section", values=(Value(value="Tops"), Value(value="Shoes"))),
        Group(
            name="kind",
            parent_group="section",
            values=(
                Value(value="Shirts", parent="Tops", threshold=0.7),
                Value(value="Tees", parent="Tops", threshold=0.6),
                Value(value="Sneakers", parent="Shoes"),
            ),
        ),
    ]
)
CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def columns(taxonomy: Taxonomy, group: str = "kind") -> dict[str, str | None]:
    """Each column's value → its successor, "retired", or None."""
    return {v.value: "retired" if v.retired else v.replaced_by for v in taxonomy.group(group).values}


def test_a_renamed_value_has_the_column_of_the_old_one() -> None:
    child, left_out = relabelled(BASE, edit.rename(BASE, "kind", "Tees", "T-shirts"))
    assert columns(child) == {"Shirts": None, "T-shirts": None, "Sneakers": None}
    assert child.group("kind").former == {"Tees": "T-shirts"}
    assert child.group("kind").by_value["T-shirts"].threshold == 0.6
    assert left_out == []


def test_a_value_that_was_added_hides_the_names_within_it() -> None:
    added = edit.add(BASE, "kind", "Polo Shirts", parent="Tops")
    child, left_out = relabelled(BASE, added)
    assert child.group("kind").not_learned == ("Polo Shirts",)
    assert left_out == ["kind=Polo Shirts: a value that the model has not learned"]
    again, _ = relabelled(child, edit.rename(added, "kind", "Tees", "T-shirts"))
    assert again.group("kind").not_learned == ("Polo Shirts",)


def test_a_renamed_parent_keeps_its_children() -> None:
    child, _ = relabelled(BASE, edit.rename(BASE, "section", "Tops", "Upper wear"))
    assert [value.parent for value in child.group("kind").values] == ["Upper wear", "Upper wear", "Shoes"]


def test_merged_and_retired_values_keep_their_columns() -> None:
    edited = edit.retire(edit.merge(BASE, "kind", "Tees", "Shirts"), "kind", "Sneakers")
    child, _ = relabelled(BASE, edited)
    assert columns(child) == {"Shirts": None, "Tees": "Shirts", "Sneakers": "retired"}
    assert child.size == BASE.size


def test_two_values_merged_into_a_new_one_share_the_first_one_s_column() -> None:
    edited = edit.rename(BASE, "kind", "Shirts", "Upper wear")
    child, left_out = relabelled(BASE, edit.merge(edited, "kind", "Tees", "Upper wear"))
    assert columns(child) == {"Upper wear": None, "Tees": "Upper wear", "Sneakers": None}
    assert left_out == []


def test_changes_on_changes_lead_to_the_last_name() -> None:
    first, _ = relabelled(BASE, edit.rename(BASE, "kind", "Tees", "T-shirts"))
    second, _ = relabelled(first, edit.rename(first, "kind", "T-shirts", "Tee shirts"))
    assert columns(second) == {"Shirts": None, "Tee shirts": None, "Sneakers": None}
    assert second.group("kind").former == {"Tees": "Tee shirts", "T-shirts": "Tee shirts"}
    # The file that was made before training knows the old names as values; that is the same to the model.
    whole = edit.rename(edit.rename(BASE, "kind", "Tees", "T-shirts"), "kind", "T-shirts", "Tee shirts")
    assert relabelled(first, whole)[0].group("kind").former == second.group("kind").former


def test_a_file_that_states_no_threshold_keeps_the_model_s() -> None:
    bare = versioned(
        group.model_copy(
            update={"values": tuple(Value(value=v.value, parent=v.parent) for v in group.values)}
        )
        for group in BASE.groups
    )
    assert relabelled(BASE, bare)[0] == BASE
    stated = bare.model_dump(exclude_unset=True)
    stated["groups"][1]["values"][0]["threshold"] = 0.5
    child, _ = relabelled(BASE, Taxonomy.model_validate(stated))
    assert [value.threshold for value in child.group("kind").values] == [0.5, 0.6, 0.5]


def test_what_no_column_has_learned_is_left_out_and_said() -> None:
    edited = edit.add(edit.add(BASE, "kind", "Boots", parent="Shoes"), "size", "XL")
    child, left_out = relabelled(BASE, edited)
    assert child == BASE
    assert left_out == [
        "size: a group that the model has not learned",
        "kind=Boots: a value that the model has not learned",
    ]


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        (BASE.groups[:1], "no group kind"),
        ((BASE.groups[0], BASE.groups[1].model_copy(update={"kind": "multi"})), "only training"),
        (
            (BASE.groups[0], BASE.groups[1].model_copy(update={"values": BASE.groups[1].values[:2]})),
            "no value kind=Sneakers",
        ),
    ],
)
def test_groups_and_values_cannot_just_vanish(groups: tuple[Group, ...], complaint: str) -> None:
    with pytest.raises(IncompatibleModel, match=complaint):
        relabelled(BASE, versioned(groups))


def test_a_former_name_is_still_found_in_texts() -> None:
    child, _ = relabelled(BASE, edit.rename(BASE, "kind", "Tees", "Singlets"))
    found = Mentions(child, 1000).find([TextFields("red tee"), TextFields("red singlet"), TextFields("shoe")])
    assert found[:, child.slices["kind"].start + 1].tolist() == [1, 1, 0]


def test_the_champion_s_child_has_its_weights_and_other_tags(tmp_path: Path) -> None:
    registry = Registry(str(BUNDLED))
    base = registry.fetch(registry.champion()[0])
    parts = read_stored(base)
    edited = edit.rename(parts.members.taxonomy, "baseColour", "Grey", "Gray")
    edited = edit.retire(edit.merge(edited, "baseColour", "Navy Blue", "Blue"), "baseColour", "Red")
    folder, left_out = derive(base, edited, tmp_path, CREATED)

    assert left_out == []
    assert read_manifest(folder).parent == read_manifest(base).model_version
    child, parent = load(folder), load(base)
    ours = read_stored(folder)
    weights = ours.network().state_dict()
    assert parts.network().state_dict().keys() == weights.keys()
    for name, tensor in parts.network().state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    texts = [TextFields(f"Puma Men {colour} T-shirt") for colour in ("Grey", "Navy Blue", "Red", "Green")]
    scores, _ = child.score(MicroBatch(texts, [None] * 4))
    before, _ = parent.score(MicroBatch(texts, [None] * 4))
    np.testing.assert_allclose(scores, before, atol=1e-5)
    colours = [
        [tag.value for tag in tags if tag.group == "baseColour"]
        for tags in Decider(child.taxonomy).decide(scores, texts)
    ]
    assert colours == [["Gray"], ["Blue"], [], ["Green"]]


def test_the_command_refuses_a_taxonomy_that_changes_nothing(tmp_path: Path) -> None:
    registry = Registry(str(BUNDLED))
    base = registry.fetch(registry.champion()[0])
    write_taxonomy(tmp_path / "t.json", read_stored(base).members.taxonomy)
    result = CliRunner().invoke(
        app, ["derive", str(base), "--taxonomy", str(tmp_path / "t.json"), "--out", str(tmp_path)]
    )
    assert isinstance(result.exception, IncompatibleModel)
    assert "changes nothing" in str(result.exception)
