"""How the bundled champion must behave in both languages (Ribeiro et al. 2020, CheckList): what must not
matter, what must matter and in which direction, and what it must know at the least."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.language import language_of
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.dataset.rows import Row
from tagstream.dataset.targets import targets
from tagstream.model import tagger
from tagstream.model.members import TextMember
from tagstream.model.tagger import FusedTagger
from tagstream.model.towers import hashed
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.version import golden
from tagstream.model.version.load import load
from tagstream.training.members import pictures_of
from tagstream.training.objectives import LossConfig, TextObjective

Tags = dict[str, set[str]]


ENGLISH = [
    "Nike Men Black Running Shoes",
    "Puma Women Pink T-shirt",
    "Levis Men Blue Jeans",
    "Fabindia Women Red Printed Kurta",
    "Fossil Women Silver Watch",
]
CHINESE = ["白色纯棉T恤", "黑色牛仔阔腿裤", "碎花雪纺连衣裙", "蓝色条纹衬衫", "紫色蕾丝连衣裙"]


@pytest.fixture(scope="module")
def champion() -> FusedTagger:
    registry = Registry(str(BUNDLED))
    return load(registry.fetch(registry.champion()[0]), device="cpu")


def _tags(champion: FusedTagger, titles: list[str]) -> list[Tags]:
    """What is above its threshold, of the groups that apply to the first title's language."""
    scores = champion.score(MicroBatch([TextFields(title) for title in titles], [None] * len(titles)))[0]
    lang = language_of(titles[0])
    found = []
    for of_title in scores:
        tags: Tags = {}
        for group in champion.taxonomy.groups:
            if group.applies_to(lang):
                own = of_title[champion.taxonomy.slices[group.name]]
                places = [int(own.argmax())] if group.kind == "single" else range(len(own))
                tags[group.name] = {
                    group.values[at].value for at in places if own[at] >= group.values[at].threshold
                }
        found.append(tags)
    return found


def _score(champion: FusedTagger, title: str, group: str, value: str) -> float:
    scores = champion.score(MicroBatch([TextFields(title)], [None]))[0][0, champion.taxonomy.slices[group]]
    return float(scores[[one.value for one in champion.taxonomy.group(group).values].index(value)])


def _without_season(tags: Tags) -> Tags:
    """No title here says a season: what is known of it are habits of one shop, which any word may sway."""
    return {group: values for group, values in tags.items() if group != "season"}


# What must not matter


@pytest.mark.parametrize("title", [*ENGLISH, *CHINESE])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(str.upper, id="upper case"),
        pytest.param(str.lower, id="lower case"),
        pytest.param(lambda title: f"  {title}   ", id="spaces around"),
        pytest.param(lambda title: title.replace(" ", "   "), id="spaces between"),
        pytest.param(lambda title: f"{title}!", id="exclamation mark"),
        pytest.param(lambda title: f"{title}。", id="full stop"),
        pytest.param(lambda title: f"【{title}】", id="brackets"),
    ],
)
def test_case_spaces_and_punctuation_change_no_tag(
    champion: FusedTagger, title: str, change: Callable[[str], str]
) -> None:
    plain, changed = _tags(champion, [title, change(title)])

    assert changed == plain


@pytest.mark.parametrize(
    ("title", "changed"),
    [
        *((title, f"{title} Rs 4999") for title in ENGLISH),
        *((title, f"{title} Rs. 1,299 only") for title in ENGLISH),
        *((title, f"{title} 199元") for title in CHINESE),
        *((title, f"{title} ¥59.9") for title in CHINESE),
    ],
)
def test_a_price_changes_no_tag(champion: FusedTagger, title: str, changed: str) -> None:
    plain, priced = _tags(champion, [title, changed])

    assert _without_season(priced) == _without_season(plain)


@pytest.mark.parametrize(
    ("title", "turned"),
    [
        ("Nike Men Black Running Shoes", "Nike Black Men Running Shoes"),
        ("Puma Women Pink T-shirt", "Puma Pink Women T-shirt"),
        ("Levis Men Blue Jeans", "Levis Blue Jeans Men"),
        ("Fossil Women Silver Watch", "Fossil Silver Women Watch"),
        ("纯棉 白色 T恤", "白色 纯棉 T恤"),
        ("条纹 蓝色 衬衫", "蓝色 条纹 衬衫"),
        ("碎花 雪纺 连衣裙", "雪纺 碎花 连衣裙"),
        ("黑色 宽松 卫衣", "宽松 黑色 卫衣"),
    ],
)
def test_the_order_of_colour_material_and_gender_changes_no_tag(
    champion: FusedTagger, title: str, turned: str
) -> None:
    plain, other = _tags(champion, [title, turned])

    assert _without_season(other) == _without_season(plain)


def test_full_width_letters_are_the_same_letters(champion: FusedTagger) -> None:
    plain, wide = _tags(champion, ["白色纯棉T恤", "白色纯棉Ｔ恤"])

    assert wide == plain


# What must matter, and in which direction


@pytest.mark.parametrize(
    "colour", ["Red", "Blue", "Green", "Yellow", "Pink", "White", "Black", "Brown", "Purple"]
)
@pytest.mark.parametrize("title", ["Nike Men {}Shirt", "Catwalk Women {}Heels", "Baggit Women {}Handbag"])
def test_an_english_colour_word_raises_its_colour(champion: FusedTagger, title: str, colour: str) -> None:
    without = _score(champion, title.format(""), "baseColour", colour)
    with_word = _score(champion, title.format(f"{colour} "), "baseColour", colour)

    assert with_word > max(0.8, without)


@pytest.mark.parametrize("colour", ["红色", "蓝色", "绿色", "黄色", "粉色", "白色", "黑色", "灰色", "紫色"])
@pytest.mark.parametrize("title", ["{}纯棉T恤", "{}连衣裙", "{}牛仔裤"])
def test_a_chinese_colour_word_raises_its_colour(champion: FusedTagger, title: str, colour: str) -> None:
    without = _score(champion, title.format(""), "颜色", colour)
    with_word = _score(champion, title.format(colour), "颜色", colour)

    assert with_word > max(0.8, without)
    assert without < 0.5


@pytest.mark.parametrize(
    ("without", "with_word", "group", "value"),
    [
        ("Puma T-shirt", "Puma Women T-shirt", "gender", "Women"),
        ("Puma T-shirt", "Puma Men T-shirt", "gender", "Men"),
        ("Gini and Jony T-shirt", "Gini and Jony Boys T-shirt", "gender", "Boys"),
        ("Arrow Men Shirt", "Arrow Men Formal Shirt", "usage", "Formal"),
        ("宽大连衣裙", "雪纺宽大连衣裙", "材质", "雪纺"),
        ("白色衬衫", "白色纯棉衬衫", "材质", "棉"),
        ("白色衬衫", "白色条纹衬衫", "图案", "条纹"),
        ("白色连衣裙", "白色碎花连衣裙", "图案", "碎花"),
        ("白色卫衣", "白色宽松卫衣", "版型", "宽松"),
        ("白色连衣裙", "白色复古连衣裙", "风格", "复古"),
    ],
)
def test_a_word_raises_what_it_names(
    champion: FusedTagger, without: str, with_word: str, group: str, value: str
) -> None:
    before, after = (_score(champion, title, group, value) for title in (without, with_word))

    assert after > before
    assert after > 0.5


@pytest.mark.parametrize(
    ("title", "added", "group", "value"),
    [
        pytest.param(
            *("Nike Men Shirt", "Nike Men Red Shirt", "articleType", "Shirts"),
            marks=pytest.mark.xfail(strict=True, reason="torn between shirt and T-shirt, it moves by .115"),
        ),
        ("Catwalk Women Heels", "Catwalk Women Gold Heels", "gender", "Women"),
        ("纯棉T恤", "红色纯棉T恤", "材质", "棉"),
        ("碎花连衣裙", "绿色碎花连衣裙", "图案", "碎花"),
    ],
)
def test_a_colour_word_leaves_other_groups_alone(
    champion: FusedTagger, title: str, added: str, group: str, value: str
) -> None:
    before, after = (_score(champion, one, group, value) for one in (title, added))

    assert abs(after - before) < 0.1


def test_two_chinese_colours_are_both_given(champion: FusedTagger) -> None:
    (tags,) = _tags(champion, ["红色 黑色 两色可选 连衣裙"])

    assert {"红色", "黑色"} <= tags["颜色"]


# What it must know at the least


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        (
            "Adidas Women White Sneakers",
            {"gender": "Women", "masterCategory": "Footwear", "baseColour": "White"},
        ),
        ("Wrangler Men Grey Jeans", {"articleType": "Jeans", "baseColour": "Grey"}),
        ("Ray-Ban Unisex Brown Sunglasses", {"gender": "Unisex", "articleType": "Sunglasses"}),
        ("Casio Men Digital Watch", {"articleType": "Watches", "masterCategory": "Accessories"}),
        ("Gini and Jony Boys Green T-shirt", {"gender": "Boys", "articleType": "Tshirts"}),
        ("Barbie Girls Pink Dress", {"gender": "Girls", "articleType": "Dresses", "baseColour": "Pink"}),
        ("Lakme Red Lipstick", {"articleType": "Lipstick", "masterCategory": "Personal Care"}),
        ("Baggit Women Black Handbag", {"articleType": "Handbags", "baseColour": "Black"}),
        ("Van Heusen Men Blue Formal Shirt", {"articleType": "Shirts", "usage": "Formal"}),
        ("Catwalk Women Gold Heels", {"articleType": "Heels", "baseColour": "Gold"}),
        ("Biba Women Yellow Kurta", {"articleType": "Kurtas", "usage": "Ethnic", "baseColour": "Yellow"}),
        ("Puma Men Cap", {"articleType": "Caps", "masterCategory": "Accessories"}),
        ("Jockey Men White Briefs", {"articleType": "Briefs", "subCategory": "Innerwear"}),
        ("Reebok Men Track Pants", {"articleType": "Track Pants", "subCategory": "Bottomwear"}),
        ("Fastrack Men Leather Belt", {"articleType": "Belts", "subCategory": "Belts"}),
        ("Wildcraft Unisex Blue Backpack", {"articleType": "Backpacks", "baseColour": "Blue"}),
        ("Tommy Hilfiger Men Brown Wallet", {"articleType": "Wallets", "baseColour": "Brown"}),
        ("Aneri Women Orange Saree", {"articleType": "Sarees", "usage": "Ethnic", "baseColour": "Orange"}),
        ("红色连衣裙", {"类型": "裙", "颜色": "红色"}),
        ("黑色牛仔裤", {"类型": "裤", "颜色": "黑色", "材质": "牛仔布"}),
        ("蓝色条纹衬衫", {"类型": "上衣", "颜色": "蓝色", "图案": "条纹", "衣样式": "衬衫"}),
        ("粉色碎花雪纺裙", {"类型": "裙", "颜色": "粉色", "材质": "雪纺", "图案": "碎花"}),
        ("绿色格子外套", {"类型": "上衣", "颜色": "绿色", "图案": "格子", "衣样式": "外套"}),
        ("灰色羊毛毛衣", {"类型": "上衣", "颜色": "灰色", "材质": "羊毛", "衣样式": "毛衣"}),
        ("紫色蕾丝连衣裙", {"类型": "裙", "颜色": "紫色", "材质": "蕾丝"}),
        ("修身西装", {"类型": "上衣", "版型": "显瘦", "衣样式": "西装"}),
        ("复古波点半身裙", {"类型": "裙", "图案": "波点", "风格": "复古"}),
        ("卡通印花T恤", {"类型": "上衣", "图案": "卡通"}),
        ("真丝衬衫", {"类型": "上衣", "材质": "蚕丝", "衣样式": "衬衫"}),
        ("黄色针织衫", {"类型": "上衣", "颜色": "黄色", "材质": "针织"}),
        ("简约风衣", {"类型": "上衣", "风格": "简约", "衣样式": "风衣"}),
        ("黑色皮衣", {"类型": "上衣", "颜色": "黑色"}),
        ("白色阔腿裤", {"类型": "裤", "颜色": "白色"}),
        ("亚麻宽松长裤", {"类型": "裤", "材质": "亚麻", "版型": "宽松"}),
        ("刺绣棒球外套", {"类型": "上衣", "图案": "刺绣", "衣样式": "外套"}),
    ],
)
def test_a_plain_title_gets_the_tags_that_it_names(
    champion: FusedTagger, title: str, expected: dict[str, str]
) -> None:
    (tags,) = _tags(champion, [title])

    assert {group: value for group, value in expected.items() if value not in tags[group]} == {}, tags


# One preprocessing, one result


def test_training_and_serving_read_a_picture_into_equal_tensors(
    champion: FusedTagger, products: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = products[:8]
    served: list[torch.Tensor] = []

    def recorded(*arguments: Any) -> Any:
        pictures, uses = decode_all(*arguments)
        served.append(pictures)
        return pictures, uses

    decode_all = tagger.decode_all
    monkeypatch.setattr(tagger, "decode_all", recorded)
    champion.score(MicroBatch([row.text for row in rows], [row.encoded for row in rows]))
    taught, of_rows = pictures_of(rows, champion.frame)

    assert of_rows == rows
    assert torch.equal(torch.cat(served), taught)


def test_training_and_serving_read_a_text_into_equal_features(
    champion: FusedTagger, products: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = products[:8]
    read: list[Any] = []

    def recorded(*arguments: Any) -> Any:
        read.append(featurise(*arguments))
        return read[-1]

    featurise = hashed.featurise
    monkeypatch.setattr(hashed, "featurise", recorded)
    texts, taxonomy = [row.text for row in rows], champion.taxonomy
    member = TextMember(HashedNgramBag(width=2).build(), taxonomy.size)
    target = targets([row.labels for row in rows], taxonomy)
    TextObjective(member, texts, target, taxonomy, LossConfig(), feature_dropout=0.4, decay=0)
    champion.score(MicroBatch(texts, [None] * len(texts)))
    taught, served = read

    for name in ("buckets", "counts", "starts"):
        np.testing.assert_array_equal(getattr(taught, name), getattr(served, name))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_and_the_processor_agree(champion: FusedTagger, products: list[Row]) -> None:
    registry = Registry(str(BUNDLED))
    on_gpu = load(registry.fetch(registry.champion()[0]), device="cuda")
    inputs, rows = golden.batch(), products[:100]
    batches = [
        inputs,
        MicroBatch([row.text for row in rows], [row.encoded for row in rows]),
        MicroBatch([TextFields("")] * len(rows), [row.encoded for row in rows]),
        MicroBatch([TextFields(title) for title in (*ENGLISH, *CHINESE)], [None] * 10),
    ]
    for batch in batches:
        (ours, uses), (theirs, their_uses) = on_gpu.score(batch), champion.score(batch)
        assert uses == their_uses
        # Both may compute in bf16, and a JPEG decoder on the card rounds in another way.
        np.testing.assert_allclose(ours, theirs, atol=0.05)
