from __future__ import annotations

import numpy as np

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value, versioned
from tagstream.text.mentions import Mentions, longer_names
from tagstream.text.ngrams import HashedNgrams, featurise

SMALL = HashedNgrams(latin_buckets=1000, han_buckets=1000)


def _of(text: TextFields, how: HashedNgrams = SMALL) -> list[int]:
    return featurise([text], how).buckets.tolist()


def test_hashes_are_the_same_on_every_platform() -> None:
    bags = featurise([TextFields("Nike Men"), TextFields("白T恤", brand="Nike")], SMALL)

    assert bags.buckets[:6].tolist() == [0, 45, 68, 135, 147, 211]
    assert bags.buckets[bags.starts[1] :].tolist() == [
        13, 88, 93, 103, 142, 180, 188, 313, 437, 438, 562, 578, 608, 662, 741, 917, 933, 944, 982,
        1392, 1905,
    ]  # fmt: skip


def test_a_text_has_the_same_features_alone_and_among_others() -> None:
    texts = [
        TextFields("Nike Men Running Shoes", description="light and fast"),
        TextFields(""),
        TextFields("白色纯棉T恤 夏季", brand="优衣库"),
        TextFields("a b", attributes={"colour": "red"}),
    ]
    together = featurise(texts, SMALL)
    ends = [*together.starts[1:], len(together.buckets)]

    for text, start, end in zip(texts, together.starts, ends, strict=True):
        assert together.buckets[start:end].tolist() == _of(text)


def test_every_field_marks_its_features() -> None:
    wide = HashedNgrams(latin_buckets=2**40)
    title, brand = set(_of(TextFields("nike"), wide)), set(_of(TextFields("", brand="nike"), wide))
    described = set(_of(TextFields("", description="nike"), wide))
    attribute = set(_of(TextFields("", attributes={"": "nike"}), wide))

    assert len(title) == len(brand) == len(described) == len(attribute)
    assert len(title | brand | described | attribute) == 4 * len(title)


def test_words_do_not_pair_across_fields_or_products() -> None:
    wide = HashedNgrams(latin_buckets=2**40, word_sizes=(2,), character_sizes=())

    assert _of(TextFields("red", brand="shirt"), wide) == []
    assert featurise([TextFields("red"), TextFields("shirt")], wide).buckets.tolist() == []
    assert len(_of(TextFields("red shirt"), wide)) == 1


def test_width_case_and_compatibility_forms_do_not_matter() -> None:
    assert _of(TextFields("ＮＩＫＥ Ⅻ")) == _of(TextFields("nike xii"))


def test_han_text_becomes_runs_of_up_to_three_characters() -> None:
    wide = HashedNgrams(latin_buckets=1, han_buckets=2**40)

    assert len(_of(TextFields("纯棉短袖"), wide)) == 4 + 3 + 2
    assert len(_of(TextFields("纯棉 短袖"), wide)) == 4 + 2


def test_text_without_letters_has_no_features() -> None:
    for text in ("", "   ", "!!! — ???"):
        assert _of(TextFields(text)) == []


def test_what_follows_the_bound_is_not_read() -> None:
    how = HashedNgrams(max_characters=8)

    assert _of(TextFields("red shoe and more"), how) == _of(TextFields("red shoe"), how)


def test_bags_can_be_taken_in_any_order() -> None:
    bags = featurise([TextFields("red shirt"), TextFields(""), TextFields("cap")], SMALL)
    taken = bags.take(np.array([2, 0, 1]))

    assert taken.buckets[: taken.starts[1]].tolist() == _of(TextFields("cap"))
    assert taken.buckets[taken.starts[1] : taken.starts[2]].tolist() == _of(TextFields("red shirt"))
    assert taken.starts[2] == len(taken.buckets)


def test_longer_names_hide_shorter_ones_and_a_final_s_does_not_matter() -> None:
    values = {"colour": ("Blue", "Navy Blue"), "kind": ("Watches", "Dress"), "颜色": ("白色", "米白色")}
    taxonomy = Taxonomy(
        taxonomy_version="1",
        groups=tuple(
            Group(name=name, values=tuple(Value(value=value) for value in of)) for name, of in values.items()
        ),
    )
    mentions = Mentions(taxonomy, 2000)

    def named(title: str) -> list[str]:
        row = mentions.find([TextFields(title)])[0]
        every = [value.value for group in taxonomy.groups for value in group.values]
        return [name for name, is_named in zip(every, row, strict=True) if is_named]

    assert named("navy-blue watch") == ["Watches"]  # a hyphen joins: the name is two words
    assert named("Navy Blue watch") == ["Navy Blue", "Watches"]
    assert named("blue dresses") == ["Blue", "Dress"]
    assert named("米白色T恤") == ["米白色"]
    assert named("米白拼接") == ["米白色"]
    assert named("白T恤") == []
    assert named("bluebell") == []


def test_a_longer_name_that_is_not_learned_hides_the_ones_within_it() -> None:
    values = {"colour": ("Green", "Black"), "颜色": ("绿色", "白色")}
    others = {
        "colour": ["Sea Green", "Teal", "Evergreen", "Greens", "Black / Green", "Green\ud800", "Green " * 20],
        "颜色": ["墨绿色", "米白色", "驼色"],
    }
    longer = {group: longer_names(values[group], others[group]) for group in values}
    assert longer == {"colour": ("Sea Green",), "颜色": ("墨绿色", "米白色")}
    taxonomy = versioned(
        [
            Group(name=name, not_learned=longer[name], values=tuple(Value(value=value) for value in of))
            for name, of in values.items()
        ]
    )
    every = [value.value for group in taxonomy.groups for value in group.values]

    def named(title: str) -> list[str]:
        row = Mentions(taxonomy).find([TextFields(title)])[0]
        return [name for name, is_named in zip(every, row, strict=True) if is_named]

    assert named("Sea Green shirt") == []
    assert named("Green shirt by the sea") == ["Green"]
    assert named("Black / Sea Green shirt") == ["Black"]
    assert named("墨绿色连衣裙") == named("墨绿连衣裙") == []
    assert named("墨绿色和绿色") == ["绿色"]


def test_of_several_choices_the_last_is_meant_and_of_joined_ones_the_first() -> None:
    taxonomy = Taxonomy(
        taxonomy_version="1",
        groups=(
            Group(name="colour", values=tuple(Value(value=v) for v in ("Black", "Grey", "Red", "Navy Blue"))),
            Group(name="kind", values=(Value(value="Bra"), Value(value="Tshirts"), Value(value="Socks"))),
            Group(name="trim", kind="multi", values=(Value(value="Lace"), Value(value="Fur"))),
        ),
    )
    every = [value.value for group in taxonomy.groups for value in group.values]

    def named(title: str) -> list[str]:
        row = Mentions(taxonomy).find([TextFields(title)])[0]
        return [name for name, is_named in zip(every, row, strict=True) if is_named]

    assert named("Amante grey Tshirt bra") == ["Grey", "Bra"]
    assert named("Red Rose black & grey socks") == ["Black", "Socks"]
    assert named("navy-blue Kalenji black/grey/red") == ["Black"]
    assert named("Red and Navy Blue sock") == ["Red", "Socks"]
    assert named("red sock, and navy blue") == ["Navy Blue", "Socks"]
    assert named("lace and fur") == ["Lace", "Fur"]
