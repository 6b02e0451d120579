"""The Shopify product taxonomy (MIT) as our own: https://github.com/Shopify/product-taxonomy

    categories.tsv        gid, en, zh; "Apparel & Accessories > Clothing > Activewear"
    attribute_values.tsv  gid, value_en, attribute_en, value_zh, attribute_zh

Categories become the single-choice groups category_1, category_2, …, one a level. Each has the one above as
its parent group. An attribute becomes a multi group. A value is the English name, which is its name in `en`
too. The names in `zh` are partly translated by machine: review them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from tagstream.core.errors import BadSettings
from tagstream.core.taxonomy import VALUE_MAX_CHARS, Group, Taxonomy, Value, versioned
from tagstream.dataset.table import read_table

#: In place of names: all of them.
ALL = "all"
_BETWEEN = " > "


def import_shopify(
    folder: Path, *, categories: Collection[str] = (), attributes: Collection[str] = (), levels: int = 3
) -> Taxonomy:
    """These categories with all below them, and these attributes, by their English names.

    Args:
        folder: has the .tsv files.
        categories: paths such as "Apparel & Accessories" or "Apparel & Accessories > Shoes"; "all" for all.
        attributes: names such as "Color"; "all" for all.
        levels: the depth of categories, from the top.

    Raises:
        BadSettings: a name is unknown, a file cannot be read, or nothing was chosen.
    """
    groups: list[Group] = []
    try:
        if categories:
            groups += _categories(folder / "categories.tsv", categories, levels)
        if attributes:
            groups += _attributes(folder / "attribute_values.tsv", attributes)
    except (ValueError, OSError) as error:
        raise BadSettings(str(error)) from error
    if not groups:
        raise BadSettings("choose --category or --attribute, by name or all")
    return versioned(groups)


def _categories(path: Path, wanted: Collection[str], levels: int) -> list[Group]:
    lines = read_table(path).lines()
    paths = {tuple(line.text("en").split(_BETWEEN)): line.text("zh").split(_BETWEEN)[-1] for line in lines}
    roots = [()] if ALL in wanted else [tuple(one.split(_BETWEEN)) for one in wanted]
    for root in roots:
        if root and root not in paths:
            tops = ", ".join(sorted(one[0] for one in paths if len(one) == 1))
            raise BadSettings(f"{path}: no category {_BETWEEN.join(root)!r}; the top ones are: {tops}")
    kept = [
        one
        for one in paths
        if len(one) <= levels and any(one[: len(root)] == root or root[: len(one)] == one for root in roots)
    ]
    leaves = Counter((len(one), one[-1]) for one in kept)
    # A leaf that is not the only one of its name has the name above it too.
    called = {
        one: one[-1] if leaves[len(one), one[-1]] == 1 else f"{one[-1]} ({one[-2]})"[:VALUE_MAX_CHARS]
        for one in kept
    }
    groups = []
    for level in range(1, max(map(len, kept)) + 1):
        values = []
        for one in kept:
            if len(one) == level:
                above = {"parent": called[one[:-1]]} if level > 1 else {}
                values.append(Value(value=called[one], names={"en": one[-1], "zh": paths[one]}, **above))
        names = {"en": f"Category {level}", "zh": f"类目 {level}"}
        over = {"parent_group": f"category_{level - 1}"} if level > 1 else {}
        groups.append(Group(name=f"category_{level}", names=names, values=tuple(values), **over))
    return groups


def _attributes(path: Path, wanted: Collection[str]) -> list[Group]:
    lines = list(read_table(path).lines())
    known = dict.fromkeys(line.text("attribute_en") for line in lines)
    if missing := [name for name in wanted if name != ALL and name not in known]:
        raise BadSettings(f"{path}: no attribute {missing[0]!r}; there are {len(known):,}, such as Color")
    groups = []
    for name in known if ALL in wanted else wanted:
        own = [line for line in lines if line.text("attribute_en") == name]
        named = [{"en": line.text("value_en"), "zh": line.text("value_zh")} for line in own]
        values = tuple(Value(value=names["en"], names=names) for names in named)
        names = {"en": name, "zh": own[0].text("attribute_zh")}
        groups.append(Group(name=name, kind="multi", names=names, values=values))
    return groups
