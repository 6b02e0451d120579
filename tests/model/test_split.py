from __future__ import annotations

import json
import random
from pathlib import Path

from tagstream.core.ports import TextFields
from tagstream.dataset.description import read_dataset
from tagstream.dataset.rows import Row, read_products
from tagstream.dataset.split import class_lists, near_duplicate_groups, part_of, permitted
from tagstream.dataset.training_set import cut, read_training_set, training_set


def _rows(titles: list[str]) -> list[Row]:
    return [Row(str(place), TextFields(title), {"colour": ("Red",)}) for place, title in enumerate(titles)]


def test_titles_that_differ_by_case_width_or_spaces_share_a_group() -> None:
    names = near_duplicate_groups(["Red  Cap", "ｒｅｄ cap ", "Blue Cap"], [None] * 3)

    assert names[0] == names[1] != names[2]


def test_equal_pictures_link_rows_of_different_titles_into_one_chain() -> None:
    titles = ["a", "b", "b", "c", ""]
    pictures = ["p1", "p1", "p2", "p2", None]
    names = near_duplicate_groups(titles, pictures)

    assert len(set(names[:4])) == 1
    assert names[4] != names[0]


def test_rows_without_title_and_picture_stay_apart_from_others() -> None:
    names = near_duplicate_groups(["", "", "a"], ["p1", "p2", None])

    assert len(set(names)) == 3


def test_no_near_duplicate_group_crosses_parts() -> None:
    rng = random.Random(1)
    rows = _rows([f"product {rng.randrange(300)}" for _ in range(1000)])
    parted = cut(rows, seed=3)
    titles = [{row.text.title for row in part} for part in (parted.train, parted.validation, parted.test)]

    assert not titles[0] & titles[1]
    assert not titles[0] & titles[2]
    assert not titles[1] & titles[2]
    assert sum(map(len, (parted.train, parted.validation, parted.test))) == 1000


def test_new_rows_do_not_move_old_ones_to_another_part() -> None:
    old = _rows([f"product {number}" for number in range(200)])
    new = [
        Row(f"new {row.product_id}", row.text._replace(title=f"new {row.text.title}"), row.labels)
        for row in old
    ]
    before, after = cut(old, seed=0), cut([*new, *old], seed=0)

    assert {row.product_id for row in before.test} <= {row.product_id for row in after.test}
    assert part_of("product 1", 0) == part_of("product 1", 0)
    assert {part_of(f"product {n}", 0) for n in range(200)} == {"train", "validation", "test"}


def test_at_least_fifteen_in_a_hundred_groups_are_for_testing() -> None:
    parts = [part_of(f"product {number}", 0) for number in range(5000)]

    assert parts.count("test") / len(parts) >= 0.15


def test_a_row_that_shares_id_or_title_with_a_held_out_row_is_not_permitted() -> None:
    assert permitted(["1", "2", "3"], ["new", "RED  cap", "other"], ["1"], ["Red Cap"]) == [
        False,
        False,
        True,
    ]


def test_an_empty_title_is_nobodys_duplicate() -> None:
    assert permitted(["1"], [""], ["2"], [""]) == [True]


def test_planted_extra_titles_are_left_out_and_counted(catalogue: Path) -> None:
    products = read_products(catalogue)
    held = cut(products, seed=0)
    planted = [
        Row("planted 1", TextFields(held.test[0].text.title.upper()), held.test[0].labels),
        Row("planted 2", TextFields(f"  {held.validation[0].text.title} "), held.validation[0].labels),
        Row(held.test[1].product_id, TextFields("another title"), held.test[1].labels),
    ]
    honest = Row("honest", TextFields("Acme Women Red Shirts"), held.train[0].labels)
    data = training_set(products, [*planted, honest, held.train[0]], seed=0)

    assert data.left_out == 3
    assert data.extra == [honest]
    assert held.train[0] in data.products.train  # a title of a training product is not trained on twice


def test_classes_with_few_rows_are_not_listed() -> None:
    labels = [{"colour": ("Red",)}] * 10 + [{"colour": ("Blue",)}] * 9

    assert class_lists(labels) == {"colour": ("Red",)}


def test_the_spec_changes_its_hash_with_its_content(catalogue: Path) -> None:
    products = read_products(catalogue)
    first, again = (training_set(products, [], seed=0).spec for _ in range(2))
    other = training_set(products, [], seed=1).spec

    assert first.content_hash() == again.content_hash() != other.content_hash()


def test_every_group_is_in_the_test_part_of_exactly_one_fold() -> None:
    names = [f"group {n}" for n in range(500)]
    parts = [[part_of(name, 0, (fold, 5)) for name in names] for fold in range(5)]
    assert all(of_name.count("test") == 1 for of_name in zip(*parts, strict=True))
    assert all(80 < part.count("test") < 120 and part.count("validation") > 40 for part in parts)


CHINESE = """
short_titles = "titles.yaml"
[[files]]
path = "products.csv"
[[files]]
path = "copy.jsonl"
lang = "zh"
"""


def test_long_copy_in_another_language_is_cut_too_and_leaves_the_products_as_they_were(
    catalogue: Path, tmp_path: Path
) -> None:
    (tmp_path / "products.csv").write_bytes((catalogue / "products.csv").read_bytes())
    alone, _ = read_training_set(read_dataset(tmp_path), seed=0)
    colours = [["红色"], ["蓝色"], ["红色", "蓝色"]]
    texts = [(f"第{n}件上衣，面料舒适", {"颜色": colours[n % 3]}) for n in range(200)]
    lines = [{"id": f"z{n}", "text": text, "tags": tags} for n, (text, tags) in enumerate(texts)]
    copy = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "copy.jsonl").write_text(copy, encoding="utf-8")
    vocabulary = {"lang": "zh", "keywords": ["颜色"], "noun_group": "", "garment_group": "", "nouns": {}}
    (tmp_path / "titles.yaml").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "dataset.toml").write_text(CHINESE, encoding="utf-8")

    data, _ = read_training_set(read_dataset(tmp_path), seed=0)

    assert data.titles == alone.products
    assert data.spec == alone.spec
    copies = data.copies
    assert {row.text.lang for row in copies.train} == {"zh"}
    assert sum(map(len, (copies.train, copies.validation, copies.test))) == 200
    assert min(map(len, (copies.train, copies.validation, copies.test))) > 0
    assert data.taxonomy.group("颜色").kind == "multi"
    assert {group.name: group.langs for group in data.taxonomy.groups} == {
        **{group.name: ("en",) for group in alone.taxonomy.groups},
        "颜色": ("zh",),
    }
