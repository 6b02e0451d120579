from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value, versioned
from tagstream.dataset.documents import read_document
from tagstream.dataset.rows import Row
from tagstream.dataset.targets import targets
from tagstream.dataset.training_set import TrainingSet
from tagstream.dataset.variants import ShortTitles, short_titles, spread_over_fields, swapped
from tagstream.model.fusion import MEMBERS
from tagstream.model.members import ImageMember, ImageMembers, TextMember
from tagstream.model.towers.image import EfficientNet
from tagstream.training.loop import Hooks, Optimisation, TrainingDiverged, fit
from tagstream.training.members import Recipe, train_text
from tagstream.training.objectives import (
    HeadLoss,
    ImageObjective,
    LossConfig,
    TextObjective,
    asymmetric,
    augment,
)
from tagstream.training.recipe import retaught
from tagstream.training.release import Trained
from tests.support.plain_figures import accuracy

PAIR = Taxonomy(
    taxonomy_version="1",
    groups=(
        Group(name="colour", values=(Value(value="Red"), Value(value="Blue"))),
        Group(
            name="材质", kind="multi", values=(Value(value="棉"), Value(value="蕾丝"), Value(value="羊毛"))
        ),
    ),
)
CLOTHING = versioned(
    Group(name=name, kind="single" if name == "类型" else "multi", values=(Value(value="…"),))
    for name in ("类型", "材质", "颜色", "图案")
)
ROOT = Path(__file__).resolve().parents[2]


def _majority(truth: list[str]) -> float:
    return Counter(truth).most_common(1)[0][1] / len(truth)


@pytest.mark.parametrize(("member", "margin"), [("text", 0.4), ("image", 0.2)])
def test_each_member_learns_more_than_the_majority_from_a_tiny_slice(
    member: str, margin: float, tiny_set: TrainingSet, tiny_tagger: Trained, recipe: Callable[..., Recipe]
) -> None:
    if member == "image" and not recipe().image.tower.pretrained:
        pytest.skip("needs the pretrained weights of the `train` extra")
    rows, taxonomy = tiny_set.products.test, tiny_set.taxonomy
    batch = MicroBatch([row.text for row in rows], [row.encoded for row in rows])
    said = tiny_tagger.members.opinions(batch)[0]
    logits = said.logits[MEMBERS.index(member)][:, taxonomy.slices["baseColour"]]
    names = [value.value for value in taxonomy.group("baseColour").values]
    truth = [row.labels["baseColour"][0] for row in rows]

    assert bool(logits.isfinite().all())
    assert accuracy(truth, [names[place] for place in logits.argmax(dim=1)]) > _majority(truth) + margin


COLOUR = PAIR.model_copy(update={"groups": PAIR.groups[:1]})


def _pictures_to_learn(rows: int, member: ImageMember) -> ImageObjective:
    target = targets([{"colour": ("Red",)}, {"colour": ("Blue",)}] * (rows // 2), COLOUR)
    pictures = torch.zeros(rows, 3, 32, 32, dtype=torch.uint8)
    return ImageObjective(
        ImageMembers(member, None),
        pictures,
        [],
        target,
        COLOUR,
        LossConfig(),
        shift_px=1,
        feature_dropout=0,
        seed=0,
    )


def _texts_to_learn(recipe: Recipe, rows: int) -> TextObjective:
    assert recipe.text is not None
    texts = [TextFields("red cap"), TextFields("blue cap")] * (rows // 2)
    target = targets([{"colour": ("Red",)}, {"colour": ("Blue",)}] * (rows // 2), PAIR)
    tower = recipe.text.tower.build()
    tower.learn(texts, 0)
    return TextObjective(
        TextMember(tower, PAIR.size), texts, target, PAIR, LossConfig(), feature_dropout=0.4, decay=1e-5
    )


def _member() -> ImageMember:
    return ImageMember(EfficientNet(pretrained=False).build(), 2)


def test_a_loss_that_is_no_number_stops_the_picture_half() -> None:
    member = _member()
    with torch.no_grad():
        member.heads.weight.fill_(float("nan"))

    with pytest.raises(TrainingDiverged, match="epoch 0"):
        fit(_pictures_to_learn(4, member), Optimisation(epochs=1, batch_rows=4, learning_rate=1e-3), 0)


def test_a_loss_that_is_no_number_stops_the_text_half(recipe: Callable[..., Recipe]) -> None:
    member = _texts_to_learn(recipe(), 8)

    with pytest.raises(TrainingDiverged):
        fit(member, Optimisation(epochs=3, batch_rows=8, learning_rate=float("inf")), 0)


@pytest.mark.parametrize("epochs", [1, 2, 5, 10])
def test_even_a_handful_of_steps_trains(epochs: int, recipe: Callable[..., Recipe]) -> None:
    how = Optimisation(epochs=epochs, batch_rows=64, learning_rate=1e-3)
    image_members, text = (
        fit(_pictures_to_learn(2, _member()), how, 0),
        fit(_texts_to_learn(recipe(), 2), how, 0),
    )

    for trained in (image_members, text):
        assert all(bool(weight.isfinite().all()) for weight in trained.parameters())


def test_unknown_labels_have_no_part_in_the_loss() -> None:
    target = torch.from_numpy(targets([{"colour": ("Red",)}, {}, {"colour": ("Green",)}], PAIR))
    logits = torch.randn(3, PAIR.size, requires_grad=True)

    HeadLoss(LossConfig(), target.numpy(), PAIR)(logits, target).backward()

    assert logits.grad is not None
    assert bool((logits.grad[0, :2] != 0).all())
    assert bool((logits.grad[1:] == 0).all())
    assert bool((logits.grad[:, 2:] == 0).all())


def test_a_free_tag_that_a_short_title_does_not_say_is_unknown_not_negative() -> None:
    matrix = targets([{"材质": ("棉",)}], PAIR, [{"材质": ("蕾丝",)}])

    np.testing.assert_array_equal(matrix[0], [np.nan, np.nan, 1, np.nan, 0])


def test_copy_comes_again_with_one_free_tag_s_name_and_label_exchanged() -> None:
    def copy(n: int, title: str, **labels: tuple[str, ...]) -> Row:
        return Row(f"z{n}", TextFields(title, lang="zh"), labels)

    white = copy(0, "白色竖条纹棉衬衫", 颜色=("白色",), 图案=("竖条纹", "条纹"), 材质=("棉",))
    others = [copy(1, "红色裙子", 颜色=("红色",)), copy(2, "没有说", 颜色=("红色",))]
    [again, red] = swapped([white, *others], CLOTHING, share=1.0, seed=0)
    assert (again.text.title, again.labels["颜色"]) == ("红色竖条纹棉衬衫", ("红色",))
    assert again.labels["图案"] == white.labels["图案"]
    assert (red.text.title, red.labels) == ("白色裙子", {"颜色": ("白色",)})
    assert swapped([white, *others], CLOTHING, share=0.0, seed=0) == []


def test_short_titles_keep_only_the_free_tags_that_they_say() -> None:
    labels = {"类型": ("上衣",), "材质": ("棉", "蕾丝"), "颜色": ("白色",)}
    copy = Row("1", TextFields("这款纯棉上衣很舒适，白色的设计百搭。袖口拼接蕾丝，透气。", lang="zh"), labels)

    how = read_document(ROOT / "jobs" / "recipes" / "chinese_titles.yaml", ShortTitles, "lang")
    short = short_titles([copy], how, CLOTHING, per_row=20, seed=0)

    assert short == short_titles([copy], how, CLOTHING, per_row=20, seed=0)
    assert short_titles([copy], None, CLOTHING, per_row=20, seed=0) == []
    assert all(len(row.text.title) <= 60 and row.labels["类型"] == ("上衣",) for row in short)
    for row in short:
        for group, stems in (("材质", {"棉": "棉", "蕾丝": "蕾丝"}), ("颜色", {"白色": "白"})):
            for value, stem in stems.items():
                assert (value in row.labels.get(group, ())) == (stem in row.text.title)
                assert (value in row.unsaid.get(group, ())) == (stem not in row.text.title)


def test_words_move_to_other_fields_and_none_is_lost() -> None:
    rows = [Row(str(n), TextFields(f"Acme Men Red Shirt {n}"), {"colour": ("Red",)}) for n in range(400)]
    spread = spread_over_fields(rows, seed=0)
    moved = spread[len(rows) :]

    assert spread[: len(rows)] == rows
    assert 20 < len(moved) < 120
    for row in moved:
        fields = (row.text.title, row.text.brand, row.text.description, *row.text.attributes.values())
        words = " ".join(field for field in fields if field).split()
        assert sorted(words) == sorted(f"Acme Men Red Shirt {row.product_id}".split())
        assert len([field for field in fields[1:] if field]) == 1


def test_augmentation_moves_and_flips_but_keeps_colours() -> None:
    pictures = torch.full((16, 3, 20, 20), 255, dtype=torch.uint8)
    pictures[:, :, 8:12, 6:9] = torch.tensor([200, 30, 10], dtype=torch.uint8)[:, None, None]

    changed = augment(pictures, np.arange(16), (0, 0), shift_px=3)

    assert not torch.equal(changed, pictures)
    for before, after in zip(pictures, changed, strict=True):
        assert Counter(map(tuple, before.flatten(1).T.tolist())) == Counter(
            map(tuple, after.flatten(1).T.tolist())
        )


def test_the_same_seed_trains_the_same_text_half(recipe: Callable[..., Recipe]) -> None:
    how = Optimisation(epochs=2, batch_rows=8, learning_rate=0.02)
    trained = []
    for _ in range(2):
        torch.manual_seed(0)
        trained.append(fit(_texts_to_learn(recipe(), 40), how, 0).state_dict())

    assert all(torch.equal(ours, trained[1][name]) for name, ours in trained[0].items())


def test_a_text_member_learns_the_validation_rows_once_fusion_has_been_fitted_on_them(
    tiny_set: TrainingSet, tiny_tagger: Trained
) -> None:
    more = replace(tiny_set, products=tiny_set.products.all_but_test())
    again = retaught(tiny_tagger, tiny_set)

    rows = {row.product_id for row in more.products.train}
    assert rows == {row.product_id for row in (*tiny_set.products.train, *tiny_set.products.validation)}
    assert _weights(again) == _weights_of(train_text(more, tiny_tagger.recipe)) != _weights(tiny_tagger)
    assert again.fusion is tiny_tagger.fusion
    assert again.members.image_members is tiny_tagger.members.image_members


def test_a_text_member_that_the_validation_rows_have_stopped_does_not_learn_them(
    tiny_set: TrainingSet, tiny_tagger: Trained
) -> None:
    text = tiny_tagger.recipe.text
    assert text is not None
    early = text.model_copy(update={"optimisation": text.optimisation.model_copy(update={"patience": 2})})
    trained = replace(tiny_tagger, recipe=tiny_tagger.recipe.model_copy(update={"text": early}))

    def hooks(how: Optimisation) -> Hooks:
        raise AssertionError("it learns again")

    assert retaught(trained, tiny_set, hooks=hooks) is trained


def _weights(trained: Trained) -> bytes:
    assert trained.members.text is not None
    return _weights_of(trained.members.text)


def _weights_of(member: TextMember) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in member.state_dict().values())


@pytest.mark.parametrize(
    "loss",
    [
        LossConfig(resampling=0.5),
        LossConfig(class_weights="balanced", label_smoothing=0.05),
        LossConfig(logit_adjustment=1.0, free_tags="asymmetric"),
    ],
)
def test_every_remedy_for_scarce_values_trains(loss: LossConfig, recipe: Callable[..., Recipe]) -> None:
    assert recipe().text is not None
    torch.manual_seed(0)
    texts = [TextFields("scarlet cap")] * 9000 + [TextFields("navy cap")] * 7
    target = targets([{"colour": ("Red",)}] * 9000 + [{"colour": ("Blue",), "材质": ("棉",)}] * 7, PAIR)
    tower = recipe().text.tower.build()
    tower.learn(texts, 0)
    member = TextMember(tower, PAIR.size)
    objective = TextObjective(member, texts, target, PAIR, loss, feature_dropout=0, decay=0)
    fit(objective, Optimisation(epochs=8, batch_rows=1024, learning_rate=0.05), 0)

    prepared = member.tower.prepare([TextFields("scarlet cap"), TextFields("navy cap")])
    logits = member(prepared, torch.zeros(2, PAIR.size))[:, :2]
    assert logits.argmax(dim=1).tolist() == [0, 1]


def test_the_asymmetric_loss_is_that_of_its_paper() -> None:
    """Ridnik et al. 2021: p = .5 and .9, gammas 4 and 1, clip .05, by hand."""
    logits, truth = torch.tensor([0.0, 0.0, 2.1972246]), torch.tensor([1.0, 0.0, 0.0])
    shifted = [0.45, 0.85]
    expected = [0.5 * 0.693147, *(-(p**4) * np.log(1 - p) for p in shifted)]

    np.testing.assert_allclose(asymmetric(logits, truth), expected, rtol=1e-4)
