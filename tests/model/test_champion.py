"""What the bundled champion must know, in both languages, and how it must behave."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.errors import IncompatibleModel
from tagstream.core.language import language_of
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.model import tagger
from tagstream.model.tagger import FusedTagger
from tagstream.model.towers.hashed import HashedNgramTower
from tagstream.model.towers.image import EfficientNetTower
from tagstream.model.version import golden
from tagstream.model.version.format import read_manifest
from tagstream.model.version.load import load


@pytest.fixture(scope="module")
def champion() -> FusedTagger:
    registry = Registry(str(BUNDLED))
    return load(registry.fetch(registry.champion()[0]), device="cpu")


def _tags(champion: FusedTagger, text: TextFields, image: bytes | None = None) -> dict[str, set[str]]:
    """What is above its threshold, of the groups that apply to the text's language."""
    scores = champion.score(MicroBatch([text], [image]))[0][0]
    tags: dict[str, set[str]] = {}
    for group in champion.taxonomy.groups:
        if group.applies_to(language_of(text.title, text.lang)):
            of_group = scores[champion.taxonomy.slices[group.name]]
            places = [int(of_group.argmax())] if group.kind == "single" else range(len(of_group))
            tags[group.name] = {
                group.values[place].value
                for place in places
                if of_group[place] >= group.values[place].threshold
            }
    return tags


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        (
            "Nike Men Black Running Shoes",
            {"gender": "Men", "masterCategory": "Footwear", "baseColour": "Black"},
        ),
        ("Puma Women Pink T-shirt", {"gender": "Women", "articleType": "Tshirts", "baseColour": "Pink"}),
        ("Levis Men Blue Jeans", {"subCategory": "Bottomwear", "articleType": "Jeans", "baseColour": "Blue"}),
        ("Titan Men Silver Watch", {"masterCategory": "Accessories", "articleType": "Watches"}),
        (
            "Fabindia Women Red Printed Kurta",
            {"articleType": "Kurtas", "baseColour": "Red", "usage": "Ethnic"},
        ),
        ("白色纯棉T恤", {"类型": "上衣", "颜色": "白色", "材质": "棉"}),
        ("纯棉宽松白色短袖T恤 夏季新款", {"类型": "上衣", "颜色": "白色", "材质": "棉", "版型": "宽松"}),
        ("黑色牛仔阔腿裤", {"类型": "裤", "颜色": "黑色", "材质": "牛仔布"}),
        ("碎花雪纺连衣裙 收腰显瘦", {"类型": "裙", "图案": "碎花", "材质": "雪纺", "版型": "显瘦"}),
        ("条纹针织开衫", {"类型": "上衣", "图案": "条纹", "材质": "针织"}),
        ("字母印花连帽卫衣", {"类型": "上衣", "图案": "印花", "衣样式": "卫衣"}),
    ],
)
def test_the_champion_tags_plain_titles(champion: FusedTagger, title: str, expected: dict[str, str]) -> None:
    tags = _tags(champion, TextFields(title))

    assert {group: value for group, value in expected.items() if value not in tags[group]} == {}, tags


@pytest.mark.parametrize("title", ["不锈钢保温杯 500ml", "无线蓝牙耳机", "白色T恤"])
def test_the_champion_does_not_invent_free_tags_that_nobody_said(champion: FusedTagger, title: str) -> None:
    tags = _tags(champion, TextFields(title))

    assert tags["材质"] == tags["图案"] == tags["风格"] == set()


def test_a_colour_word_raises_its_colour(champion: FusedTagger) -> None:
    colours = champion.taxonomy.slices["baseColour"]
    names = [value.value for value in champion.taxonomy.group("baseColour").values]
    texts = [
        TextFields("Nike Men Shirt"),
        TextFields("Nike Men Red Shirt"),
        TextFields("Nike Men Shirt", description="red"),
    ]
    without, title, described = champion.score(MicroBatch(texts, [None] * 3))[0][:, colours][
        :, names.index("Red")
    ]

    assert title > 0.8 > without
    assert described > without + 0.2


def test_case_and_price_hardly_matter(champion: FusedTagger) -> None:
    texts = [TextFields("Nike Men Black Running Shoes"), TextFields("NIKE MEN BLACK RUNNING SHOES")]
    texts.append(TextFields("Nike Men Black Running Shoes Rs 4999"))
    plain, upper, priced = champion.score(MicroBatch(texts, [None] * 3))[0]

    np.testing.assert_allclose(plain, upper, atol=1e-6)
    colour = champion.taxonomy.slices["baseColour"]
    assert priced[colour].argmax() == plain[colour].argmax()


def test_one_by_one_and_together_the_scores_are_the_same(champion: FusedTagger) -> None:
    inputs = golden.batch()
    together, uses = champion.score(inputs)
    alone = [
        champion.score(MicroBatch([text], [image]))
        for text, image in zip(inputs.texts, inputs.images, strict=True)
    ]

    assert [use for _, (use,) in alone] == uses
    # bf16 sums in another order for another batch size.
    np.testing.assert_allclose(np.concatenate([scores for scores, _ in alone]), together, atol=0.05)


def test_an_unusable_picture_leaves_the_text_and_an_empty_title_leaves_the_picture(
    champion: FusedTagger,
) -> None:
    picture = golden.batch().images[0]
    text, nothing = TextFields("Nike Men Black Running Shoes"), TextFields("")
    scores, uses = champion.score(
        MicroBatch([text, text, nothing, nothing], [None, b"\x89PNG\r\n\x1a\n broken", picture, None])
    )

    assert uses == ["none", "unusable", "used", "none"]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[2] - scores[3]).max() > 0.05
    assert bool(np.isfinite(scores).all())


def test_an_empty_micro_batch_is_answered(champion: FusedTagger) -> None:
    scores, uses = champion.score(MicroBatch([], []))

    assert scores.shape == (0, champion.taxonomy.size)
    assert uses == []


def test_the_folder_is_small_and_whole() -> None:
    registry = Registry(str(BUNDLED))
    folder = registry.fetch(registry.champion()[0])

    assert read_manifest(folder).model_version == folder.name
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000


def _swapped(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.flip(1)


@pytest.mark.parametrize("wrong", ["channels", "mean", "seed"])
def test_the_golden_batch_catches_wrong_preprocessing(
    champion: FusedTagger, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(str(BUNDLED))
    path = registry.fetch(registry.champion()[0]) / "golden.npz"
    golden.check(path, champion)

    if wrong == "channels":
        decode = tagger.decode_all
        monkeypatch.setattr(
            tagger, "decode_all", lambda *args: (_swapped(decode(*args)[0]), decode(*args)[1])
        )
    elif wrong == "mean":
        monkeypatch.setattr(EfficientNetTower, "MEAN", 0.0)
    else:
        member = champion._members.text
        assert member is not None
        tower = member.tower
        assert isinstance(tower, HashedNgramTower)
        monkeypatch.setattr(tower, "ngrams", tower.ngrams.model_copy(update={"seed": 1}))

    with pytest.raises(IncompatibleModel, match="scores differ"):
        golden.check(path, champion)


def test_several_threads_may_score_at_once(champion: FusedTagger) -> None:
    batches = [
        MicroBatch([TextFields(f"Puma Women {colour} T-shirt"), TextFields("白色纯棉T恤")], [None, None])
        for colour in ("Pink", "Black", "Blue", "Red", "White", "Green")
    ]
    alone = [champion.score(batch)[0] for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        together = [scores for scores, _ in threads.map(champion.score, batches * 5)]
    for number, scores in enumerate(together):
        np.testing.assert_allclose(scores, alone[number % len(batches)], atol=1e-5)
