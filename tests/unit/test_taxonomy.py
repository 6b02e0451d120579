"""Taxonomies: what is refused, files, changes, the import, and the commands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tagstream.cli.taxonomy import app
from tagstream.core.errors import BadSettings
from tagstream.core.taxonomy import Group, Taxonomy, Value, versioned
from tagstream.taxonomy import edit
from tagstream.taxonomy.files import read_taxonomy, write_taxonomy
from tagstream.taxonomy.shopify import import_shopify

COLOURS = """\
groups:
- name: colour
  names: {zh: 颜色}
  values:
  - value: Navy
    threshold: 0.7
    names: {zh: 藏青}
  - value: Blue
  - value: No
  - value: 2011
- name: shade
  parent_group: colour
  values:
  - value: Midnight
    parent: Navy
  - value: Sky
    parent: Blue
"""

#: A YAML file to which something wrong is added.
ONE = "groups:\n- name: a\n  values:\n  - value: x\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "colours.yaml"
    path.write_text(COLOURS, encoding="utf-8")
    return path


def values(taxonomy: Taxonomy, group: str = "colour") -> dict[str, str | None]:
    """Value → its successor, "retired", or None."""
    return {v.value: "retired" if v.retired else v.replaced_by for v in taxonomy.group(group).values}


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ({"values": [{"value": "a", "replaced_by": "b"}]}, "successor b is unknown"),
        ({"values": [{"value": "a", "replaced_by": "a"}]}, "circle"),
        ({"values": [{"value": "a", "replaced_by": "b"}, {"value": "b", "replaced_by": "a"}]}, "circle"),
        ({"values": [{"value": "a"}, {"value": "b", "retired": True, "replaced_by": "a"}]}, "exclude"),
        ({"values": [{"value": "a"}, {"value": "a"}]}, "'a' is listed twice"),
        ({"values": [{"value": "a", "parent": "x"}]}, "parent x is unknown"),
        ({"values": [{"value": "a"}], "parent_group": "g"}, "circle"),
        ({"values": [{"value": "a"}], "parent_group": "h"}, "parent group h is unknown"),
        ({"values": [{"value": "a"}], "former": {"old": "b"}}, "former value old"),
        ({"values": [{"value": "a" * 65}]}, "at most 64"),
        ({"values": []}, "at least 1"),
    ],
)
def test_what_contradicts_itself_is_refused(group: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Taxonomy.model_validate({"taxonomy_version": "t", "groups": [{"name": "g", **group}]})


def test_groups_cannot_be_above_each_other() -> None:
    groups = [
        {"name": one, "parent_group": other, "values": [{"value": "v"}]}
        for one, other in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    with pytest.raises(ValueError, match="parents in a circle"):
        Taxonomy.model_validate({"taxonomy_version": "t", "groups": groups})


def test_every_spelling_means_the_value_that_is_given_now() -> None:
    group = Group(
        name="colour",
        former={"Marine": "Navy"},
        values=(
            Value(value="Navy", replaced_by="Blue", names={"zh": "藏青"}),
            Value(value="Blue", names={"zh": "蓝", "xx": "Red"}),
            Value(value="Red"),
            Value(value="Multi", retired=True),
        ),
    )
    assert group.spoken == {"marine": "Blue", "navy": "Blue", "蓝": "Blue", "red": "Red", "blue": "Blue"}
    assert [group.current(value) for value in ("Marine", "Red", "Multi")] == ["Blue", "Red", None]
    assert group.value_name_in("Navy", ("zh",)) == "藏青", "a stored old tag can still be read"
    with pytest.raises(KeyError):
        group.current("Mauve")


def test_a_copy_with_other_values_knows_them() -> None:
    group = Group(name="colour", values=(Value(value="Red"),))
    assert list(group.spoken) == ["red"]
    assert list(group.model_copy(update={"values": (Value(value="Blue"),)}).spoken) == ["blue"]


def test_a_taxonomy_that_was_stored_before_loads_and_no_new_field_changes_its_hash() -> None:
    value = {"value": "Red", "threshold": 0.5, "parent": None, "names": {}}
    group = {"name": "c", "kind": "single", "langs": ["en"], "parent_group": None, "names": {}}
    stored = Taxonomy.model_validate({"taxonomy_version": "t", "groups": [{**group, "values": [value]}]})
    made = versioned([Group(name="c", langs=("en",), values=(Value(value="Red"),))])
    assert stored.content_hash() == made.taxonomy_version


def test_yaml_scalars_stay_text_and_both_formats_say_the_same(file: Path) -> None:
    taxonomy = read_taxonomy(file)
    assert list(values(taxonomy)) == ["Navy", "Blue", "No", "2011"]
    assert taxonomy.group("colour").values[0].threshold == 0.7
    as_json = file.with_suffix(".json")
    write_taxonomy(as_json, taxonomy)
    assert read_taxonomy(as_json) == taxonomy
    assert "retired" not in as_json.read_text(), "a file says what was said, not the defaults"


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("t.yaml", "groups: [", "line 1: "),
        ("t.yaml", "groups:\n- name: a\n  name: b\n", "line 3: 'name' is there twice"),
        ("t.yaml", "- 1\n", "needs `groups`"),
        ("t.yaml", f"{ONE}    treshold: 1\n", "line 5: groups.0.values.0.treshold"),
        ("t.yaml", f"{ONE}  - value: y\n    threshold: 2\n", "line 6: groups.0.values.1.threshold"),
        ("t.yaml", f"{ONE}- name: b\n  values:\n  - {{value: y, replaced_by: z}}\n", "line 5: groups.1: b=y"),
        ("t.json", '{"groups": [\n{"name": "a"\n', "line 3: "),
        ("t.json", '{"groups": [\n{"name": "a",\n"values": [{"value": 3}]}]}', "line 3: groups.0.values.0"),
        ("t.json", '{"groups": []}', "line 1: groups"),
        ("missing.json", None, "cannot be read"),
        ("t.json", b"\xff\xfe", "cannot be read"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_by_line_and_field(
    tmp_path: Path, name: str, text: str | bytes | None, complaint: str
) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadSettings) as caught:
        read_taxonomy(tmp_path / name)
    assert complaint in str(caught.value)


def test_a_renamed_value_keeps_what_it_had_and_the_old_one_points_to_it(file: Path) -> None:
    renamed = edit.rename(read_taxonomy(file), "colour", "Navy", "Dark blue")
    assert values(renamed) == {"Dark blue": None, "Blue": None, "No": None, "2011": None, "Navy": "Dark blue"}
    new = renamed.group("colour").by_value["Dark blue"]
    assert (new.threshold, new.names) == (0.7, {"zh": "藏青"})
    assert renamed.group("shade").by_value["Midnight"].parent == "Dark blue"
    again = edit.rename(renamed, "colour", "Dark blue", "Marine")
    assert again.group("colour").current("Navy") == "Marine"


def test_a_former_name_can_be_taken_up_again(file: Path) -> None:
    before = read_taxonomy(file)
    back = edit.rename(edit.rename(before, "colour", "Navy", "Marine"), "colour", "Marine", "Navy")
    assert values(back) == {"Navy": None, "Blue": None, "No": None, "2011": None, "Marine": "Navy"}
    assert back.group("colour").by_value["Navy"] == before.group("colour").by_value["Navy"]
    trained = versioned([Group(name="colour", former={"Navy": "Marine"}, values=(Value(value="Marine"),))])
    again = edit.rename(trained, "colour", "Marine", "Navy").group("colour")
    assert (again.former, again.current("Marine")) == ({}, "Navy")


def test_a_merged_value_gives_its_children_away_and_a_retired_one_stays_known(file: Path) -> None:
    merged = edit.merge(read_taxonomy(file), "colour", "Navy", "Blue")
    assert merged.group("shade").by_value["Midnight"].parent == "Blue"
    retired = edit.retire(merged, "colour", "Blue")
    assert values(retired) == {"Navy": "Blue", "Blue": "retired", "No": None, "2011": None}
    assert len({one.taxonomy_version for one in (read_taxonomy(file), merged, retired)}) == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("merge", "colour", "Navy", "Navy"), "cannot replace itself"),
        (("merge", "colour", "Navy", "Mauve"), "no value 'Mauve'"),
        (("merge", "size", "S", "M"), "no group 'size'"),
        (("rename", "colour", "Navy", "Blue"), "merge Navy into it"),
        (("rename", "colour", "Navy", "Navy"), "is there already"),
        (("rename", "colour", "Navy"), "rename to what"),
        (("rename", "colour", "Navy", "--name", "zh"), "not LANG=NAME"),
        (("retire", "colour", "Mauve"), "no value"),
        (("add", "colour", "Blue"), "'Blue' is listed twice"),
        (("add", "shade", "Pale", "--parent", "Mauve"), "parent Mauve is unknown"),
        (("add", "colour", "x" * 65), "at most 64"),
        (("show", "--group", "size"), "no group 'size'"),
    ],
)
def test_a_refused_change_leaves_the_file_as_it_was(
    file: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    before = file.read_bytes()
    result = run(arguments[0], file, *arguments[1:])
    assert isinstance(result.exception, BadSettings)
    assert complaint in str(result.exception)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]


def test_merging_in_a_circle_is_refused(file: Path) -> None:
    assert run("merge", file, "colour", "Navy", "Blue").exit_code == 0
    result = run("merge", file, "colour", "Blue", "Navy")
    assert "Navy is replaced by Blue already" in str(result.exception)


def test_each_command_changes_the_file_and_its_version(file: Path) -> None:
    commands = [
        ("add", "colour", "Red", "--name", "zh=红", "--name", "en=Red"),
        ("add", "season", "Summer", "--kind", "multi"),
        ("rename", "colour", "Navy", "Dark blue", "--name", "de=Dunkelblau"),
        ("rename", "colour", "--name", "en=Colour"),
        ("merge", "colour", "Dark blue", "Blue"),
        ("retire", "colour", "2011"),
    ]
    versions = []
    for command, *arguments in commands:
        result = run(command, file, *arguments)
        assert result.exit_code == 0, result.exception
        taxonomy = read_taxonomy(file)
        assert taxonomy.taxonomy_version == taxonomy.content_hash()
        versions.append(taxonomy.taxonomy_version)
    assert len(set(versions)) == len(commands)
    assert taxonomy.group("season").kind == "multi"
    assert taxonomy.group("colour").names == {"zh": "颜色", "en": "Colour"}
    assert taxonomy.group("colour").by_value["Dark blue"].names == {"zh": "藏青", "de": "Dunkelblau"}
    assert values(taxonomy)["Navy"] == "Dark blue"
    assert taxonomy.group("colour").current("Navy") == "Blue"


def test_show_and_check_tell_what_stands(file: Path) -> None:
    run("retire", file, "colour", "No")
    shown = run("show", file).output
    assert "colour" in shown
    assert "Midnight" in run("show", file, "--group", "shade").output
    assert "retired" in run("show", file, "--group", "colour").output
    assert json.loads(run("show", file, "--json").output)["groups"][0]["names"] == {"zh": "颜色"}
    assert "5 values, 1 replaced or retired" in run("check", file).output
    file.write_text(file.read_text().replace("Sky", "Pale"))
    assert "changed since it was named" in " ".join(run("check", file).output.split())


def run(command: str, file: Path, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [command, str(file), *arguments])


CATEGORIES = """\
gid\ten\tzh
a\tApparel & Accessories\t服饰
a1\tApparel & Accessories > Shoes\t服饰 > 鞋
a2\tApparel & Accessories > Bags\t服饰 > 包
a11\tApparel & Accessories > Shoes > Care\t服饰 > 鞋 > 护理
a21\tApparel & Accessories > Bags > Care\t服饰 > 包 > 护理
b\tToys\t玩具
"""
ATTRIBUTES = """\
gid\tvalue_en\tattribute_en\tvalue_zh\tattribute_zh
1\tBlue\tColor\t蓝色\t颜色
2\tRed\tColor\t红色\t颜色
3\t"11"" x 14"\tPaper size\t"11"" x 14"\t纸张尺寸
"""


@pytest.fixture
def shopify(tmp_path: Path) -> Path:
    folder = tmp_path / "shopify"
    folder.mkdir()
    (folder / "categories.tsv").write_text(CATEGORIES, encoding="utf-8")
    (folder / "attribute_values.tsv").write_text(ATTRIBUTES, encoding="utf-8")
    return folder


def test_the_shopify_taxonomy_becomes_levels_and_groups(shopify: Path) -> None:
    taxonomy = import_shopify(shopify, categories=["Apparel & Accessories"], attributes=["all"])
    assert [group.name for group in taxonomy.groups] == [
        "category_1", "category_2", "category_3", "Color", "Paper size",
    ]  # fmt: skip
    leaves = taxonomy.group("category_3")
    parents = {value.value: value.parent for value in leaves.values}
    assert parents == {"Care (Shoes)": "Shoes", "Care (Bags)": "Bags"}
    assert (leaves.parent_group, leaves.value_name_in("Care (Bags)", ("zh",))) == ("category_2", "护理")
    assert list(values(taxonomy, "category_1")) == ["Apparel & Accessories"]
    assert taxonomy.group("Color").by_value["Blue"].names == {"en": "Blue", "zh": "蓝色"}
    assert list(values(taxonomy, "Paper size")) == ['11" x 14']
    under = import_shopify(shopify, categories=["Apparel & Accessories > Bags"], levels=2)
    assert list(values(under, "category_2")) == ["Bags"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "choose --category or --attribute"),
        (("--category", "Food"), "no category 'Food'"),
        (("--attribute", "Colour"), "no attribute 'Colour'"),
    ],
)
def test_an_import_of_what_is_not_there_is_refused(
    shopify: Path, tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    result = run("import-shopify", shopify, str(tmp_path / "t.json"), *arguments)
    assert complaint in str(result.exception)
    assert not (tmp_path / "t.json").exists()
