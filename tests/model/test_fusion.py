from __future__ import annotations

import numpy as np
import torch

from tagstream.core.taxonomy import Group, Taxonomy, Value
from tagstream.model.fusion import BOTH, IMAGE, TEXT, Fusion, fit_fusion
from tagstream.model.losses import targets
from tagstream.model.tags import build_taxonomy, with_thresholds

ROWS = 400
COLOURS = ("Red", "Blue", "Green")
TAXONOMY = Taxonomy(
    taxonomy_version="1",
    groups=(
        Group(name="colour", values=tuple(Value(value=name) for name in COLOURS)),
        Group(name="材质", kind="multi", values=(Value(value="棉"), Value(value="蕾丝"))),
    ),
)


def _case(text_gain: float, image_gain: float) -> tuple[Fusion, torch.Tensor, torch.Tensor, np.ndarray]:
    """A fusion fitted on halves that know the colour as well as their gain says."""
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (ROWS,), generator=rng)
    labels = [{"colour": (COLOURS[place],)} for place in truth.tolist()]
    target = targets(labels, TAXONOMY)
    known = torch.nn.functional.one_hot(truth, 3).float()
    noise = torch.randn(2, ROWS, TAXONOMY.size, generator=rng)
    text, image = noise[0], noise[1]
    text[:, :3] += text_gain * known
    image[:, :3] += image_gain * known
    there = np.ones(ROWS, bool)
    fusion = fit_fusion(
        TAXONOMY, text, image, target, there, there, ["colour"], training_target=target, picture_target=target
    )
    return fusion, text, image, target


def _nats(
    fusion: Fusion, text: torch.Tensor, image: torch.Tensor, target: np.ndarray, with_image: bool
) -> float:
    yes = torch.ones(len(text), dtype=torch.bool)
    scores = fusion(text, image, yes, yes if with_image else ~yes)[:, :3]
    return float(-(scores.log() * torch.from_numpy(target[:, :3])).sum(dim=1).mean())


def test_a_picture_that_knows_more_is_listened_to() -> None:
    fusion, text, image, target = _case(text_gain=1.0, image_gain=4.0)

    assert fusion.weights[BOTH, 0, 1] > 0.5
    assert _nats(fusion, text, image, target, True) < 0.5 * _nats(fusion, text, image, target, False)


def test_a_picture_that_knows_nothing_gets_next_to_no_weight() -> None:
    fusion, *_ = _case(text_gain=3.0, image_gain=0.0)

    assert abs(float(fusion.weights[BOTH, 0, 1])) < 0.15


def test_an_absent_half_changes_nothing_whatever_its_logits_are() -> None:
    fusion, text, image, _ = _case(text_gain=2.0, image_gain=2.0)
    yes, no = torch.ones(ROWS, dtype=torch.bool), torch.zeros(ROWS, dtype=torch.bool)

    assert torch.equal(fusion(text, image, yes, no), fusion(text, image * 100, yes, no))
    assert torch.equal(fusion(text, image, no, yes), fusion(text * 100, image, no, yes))
    assert fusion.weights[TEXT, :, 1].tolist() == fusion.weights[IMAGE, :, 0].tolist() == [0, 0]


def test_probabilities_of_a_choice_add_up_to_one_and_free_tags_stand_alone() -> None:
    fusion, text, image, _ = _case(text_gain=1.0, image_gain=1.0)
    yes = torch.ones(ROWS, dtype=torch.bool)
    scores = fusion(text, image, yes, yes)

    torch.testing.assert_close(scores[:, :3].sum(dim=1), torch.ones(ROWS))
    assert bool(((scores > 0) & (scores < 1)).all())


def test_a_picture_has_no_vote_on_values_that_it_was_never_taught() -> None:
    fusion, _, _, _ = _case(text_gain=2.0, image_gain=2.0)
    fusion.seen[2] = 0  # Green is known from titles alone
    text = torch.zeros(1, TAXONOMY.size)
    text[0, 2] = 3.0
    image = torch.zeros(1, TAXONOMY.size)
    image[0, :3] = torch.tensor([2.0, 0.0, -20.0])
    yes = torch.ones(1, dtype=torch.bool)

    assert fusion(text, image, yes, yes)[0].argmax() == 2


def test_a_group_without_picture_head_answers_a_lone_picture_with_its_class_shares() -> None:
    target = targets([{"材质": ("棉",)}] * 3 + [{"材质": ("蕾丝",)}], TAXONOMY)
    logits, there = torch.zeros(4, TAXONOMY.size), np.ones(4, bool)
    fusion = fit_fusion(
        TAXONOMY,
        logits,
        logits,
        target,
        there,
        there,
        ["colour"],
        training_target=target,
        picture_target=target,
    )
    yes, no = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)

    np.testing.assert_allclose(fusion(logits[:1], logits[:1], no, yes)[0, 3:].numpy(), [0.7, 0.3], atol=1e-6)


def test_a_threshold_makes_a_doubtful_group_abstain() -> None:
    rng = np.random.default_rng(0)
    sure = np.tile(np.float32([0.9, 0.05, 0.05]), (50, 1))
    unsure = np.tile(np.float32([0.4, 0.3, 0.3]), (50, 1))
    labels = [{"colour": ("Red",)}] * 50 + [{"colour": (COLOURS[place],)} for place in rng.integers(1, 3, 50)]
    colour = Taxonomy(taxonomy_version="1", groups=TAXONOMY.groups[:1])

    decided = with_thresholds(colour, np.concatenate([sure, unsure]), targets(labels, colour))

    threshold = decided.groups[0].values[0].threshold
    assert 0.4 < threshold <= 0.9
    assert decided.taxonomy_version != colour.taxonomy_version


def test_parents_are_what_most_rows_say() -> None:
    classes = {"masterCategory": ("Apparel", "Footwear"), "subCategory": ("Shoes", "Topwear")}
    labels = [{"masterCategory": ("Footwear",), "subCategory": ("Shoes",)}] * 3
    labels += [{"masterCategory": ("Apparel",), "subCategory": ("Shoes",)}]
    taxonomy = build_taxonomy(classes, labels)

    shoes, topwear = taxonomy.group("subCategory").values
    assert shoes.parent == "Footwear"
    assert topwear.parent is None
    assert shoes.names == {"zh": "鞋"}
    assert taxonomy.group("subCategory").applies_to("en")
    assert not taxonomy.group("subCategory").applies_to("zh")
