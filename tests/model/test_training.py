from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value
from tagstream.model.evaluate import accuracy
from tagstream.model.fields import spread_over_fields
from tagstream.model.image import ImageTower, ImageTraining, TrainingDiverged, augment, fit_image
from tagstream.model.losses import loss_of, targets
from tagstream.model.rows import Row
from tagstream.model.shorten import short_titles
from tagstream.model.text import TextTraining, fit_text
from tagstream.model.train import Recipe, Trained, TrainingSet, half_logits

PAIR = Taxonomy(
    taxonomy_version="1",
    groups=(
        Group(name="colour", values=(Value(value="Red"), Value(value="Blue"))),
        Group(
            name="材质", kind="multi", values=(Value(value="棉"), Value(value="蕾丝"), Value(value="羊毛"))
        ),
    ),
)


def _majority(truth: list[str]) -> float:
    return Counter(truth).most_common(1)[0][1] / len(truth)


@pytest.mark.parametrize(("half", "margin"), [("text", 0.4), ("image", 0.2)])
def test_each_half_learns_more_than_the_majority_from_a_tiny_slice(
    half: str, margin: float, tiny_set: TrainingSet, tiny_tagger: Trained, recipe: Callable[..., Recipe]
) -> None:
    if half == "image" and not recipe().pretrained:
        pytest.skip("needs the pretrained weights of the `train` extra")
    rows, taxonomy = tiny_set.products.test, tiny_set.taxonomy
    text, _, image, _ = half_logits(
        rows, taxonomy, tiny_tagger.image_groups, tiny_tagger.text, tiny_tagger.image, recipe()
    )
    logits = (text if half == "text" else image)[:, taxonomy.slices["baseColour"]]
    names = [value.value for value in taxonomy.group("baseColour").values]
    truth = [row.labels["baseColour"][0] for row in rows]

    assert bool(logits.isfinite().all())
    assert accuracy(truth, [names[place] for place in logits.argmax(dim=1)]) > _majority(truth) + margin


def test_a_loss_that_is_no_number_stops_the_picture_half() -> None:
    tower = ImageTower(2)
    with torch.no_grad():
        tower.heads.weight.fill_(float("nan"))
    colour = PAIR.model_copy(update={"groups": PAIR.groups[:1]})
    target = targets([{"colour": ("Red",)}] * 4, colour)

    with pytest.raises(TrainingDiverged, match="epoch 0"):
        fit_image(
            tower, torch.zeros(4, 3, 32, 32, dtype=torch.uint8), target, colour, ImageTraining(epochs=1)
        )


def test_a_loss_that_is_no_number_stops_the_text_half(recipe: Callable[..., Recipe]) -> None:
    texts = [TextFields("red cap"), TextFields("blue cap")] * 4
    target = targets([{"colour": ("Red",)}, {"colour": ("Blue",)}] * 4, PAIR)

    with pytest.raises(TrainingDiverged):
        fit_text(texts, target, PAIR, recipe().ngrams, TextTraining(learning_rate=float("inf"), epochs=3))


@pytest.mark.parametrize("epochs", [1, 2, 5, 10])
def test_even_a_handful_of_steps_trains(epochs: int, recipe: Callable[..., Recipe]) -> None:
    colour = PAIR.model_copy(update={"groups": PAIR.groups[:1]})
    texts, target = (
        [TextFields("red"), TextFields("blue")],
        targets([{"colour": ("Red",)}, {"colour": ("Blue",)}], colour),
    )
    tower = fit_image(
        ImageTower(2),
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        target,
        colour,
        ImageTraining(epochs=epochs),
    )
    text = fit_text(texts, target, colour, recipe().ngrams, TextTraining(width=4, epochs=epochs))

    assert bool(tower.heads.weight.isfinite().all())
    assert bool(text.heads.weight.isfinite().all())


def test_unknown_labels_have_no_part_in_the_loss() -> None:
    target = torch.from_numpy(targets([{"colour": ("Red",)}, {}, {"colour": ("Green",)}], PAIR))
    logits = torch.randn(3, PAIR.size, requires_grad=True)

    loss_of(logits, target, PAIR).backward()

    assert logits.grad is not None
    assert bool((logits.grad[0, :2] != 0).all())
    assert bool((logits.grad[1:] == 0).all())
    assert bool((logits.grad[:, 2:] == 0).all())


def test_a_free_tag_that_a_short_title_does_not_say_is_unknown_not_negative() -> None:
    matrix = targets([{"材质": ("棉",)}], PAIR, [{"材质": ("蕾丝",)}])

    np.testing.assert_array_equal(matrix[0], [np.nan, np.nan, 1, np.nan, 0])


def test_short_titles_keep_only_the_free_tags_that_they_say() -> None:
    labels = {"类型": ("上衣",), "材质": ("棉", "蕾丝"), "颜色": ("白色",)}
    copy = Row("1", TextFields("这款纯棉上衣很舒适，白色的设计百搭。袖口拼接蕾丝，透气。", lang="zh"), labels)

    short = short_titles([copy], per_row=20, seed=0)

    assert short == short_titles([copy], per_row=20, seed=0)
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

    changed = augment(pictures, torch.Generator().manual_seed(0), shift_px=3)

    assert not torch.equal(changed, pictures)
    for before, after in zip(pictures, changed, strict=True):
        assert Counter(map(tuple, before.flatten(1).T.tolist())) == Counter(
            map(tuple, after.flatten(1).T.tolist())
        )


def test_the_same_seed_trains_the_same_text_half(
    tiny_set: TrainingSet, recipe: Callable[..., Recipe]
) -> None:
    rows = tiny_set.products.train[:100]
    texts, target = [row.text for row in rows], targets([row.labels for row in rows], tiny_set.taxonomy)
    how = replace(recipe().text, epochs=2)
    first, again = (fit_text(texts, target, tiny_set.taxonomy, recipe().ngrams, how) for _ in range(2))

    assert torch.equal(first.heads.weight, again.heads.weight)
    assert torch.equal(first.bag.weight, again.bag.weight)
