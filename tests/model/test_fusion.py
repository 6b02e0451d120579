from __future__ import annotations

import numpy as np
import pytest
import torch

from tagstream.core.taxonomy import Group, Taxonomy, Value
from tagstream.dataset.targets import targets
from tagstream.model.fusion import (
    BOTH,
    BOTH_SILENT,
    BOTH_UNNAMED,
    IMAGE,
    TEXT,
    Fusion,
    Opinions,
)
from tagstream.training.fusion import Thresholds, fit_fusion, with_thresholds

ROWS = 400
COLOURS = ("Red", "Blue", "Green")
TAXONOMY = Taxonomy(
    taxonomy_version="1",
    groups=(
        Group(name="colour", values=tuple(Value(value=name) for name in COLOURS)),
        Group(name="材质", kind="multi", values=(Value(value="棉"), Value(value="蕾丝"))),
    ),
)


def _said(text: torch.Tensor, image: torch.Tensor, has_text: bool = True, has_image: bool = True) -> Opinions:
    rows = len(text)
    logits = torch.stack([text, image, torch.zeros_like(text)])
    named = torch.ones(rows, len(TAXONOMY.groups), dtype=torch.bool)
    return Opinions(logits, torch.full((rows,), has_text), torch.full((rows,), has_image), named)


def _case(text_gain: float, image_gain: float) -> tuple[Fusion, torch.Tensor, torch.Tensor, np.ndarray]:
    """A fusion fitted on members that know the colour as well as their gain says."""
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (ROWS,), generator=rng)
    labels = [{"colour": (COLOURS[place],)} for place in truth.tolist()]
    target = targets(labels, TAXONOMY)
    known = torch.nn.functional.one_hot(truth, 3).float()
    noise = torch.randn(2, ROWS, TAXONOMY.size, generator=rng)
    text, image = noise[0], noise[1]
    text[:, :3] += text_gain * known
    image[:, :3] += image_gain * known
    fusion = fit_fusion(
        TAXONOMY,
        _said(text, image),
        target,
        ["text", "image"],
        ["colour"],
        training_target=target,
        taught=np.nan_to_num(target).sum(axis=0),
    )
    return fusion, text, image, target


def _nats(
    fusion: Fusion, text: torch.Tensor, image: torch.Tensor, target: np.ndarray, with_image: bool
) -> float:
    scores = fusion(_said(text, image, has_image=with_image))[:, :3]
    return float(-(scores.log() * torch.from_numpy(target[:, :3])).sum(dim=1).mean())


def test_a_picture_that_knows_more_is_listened_to() -> None:
    fusion, text, image, target = _case(text_gain=1.0, image_gain=4.0)

    assert fusion.weights[BOTH, 0, IMAGE] > 0.2
    assert _nats(fusion, text, image, target, True) < 0.5 * _nats(fusion, text, image, target, False)


def test_a_picture_that_knows_nothing_gets_next_to_no_weight() -> None:
    fusion, *_ = _case(text_gain=3.0, image_gain=0.0)

    assert abs(float(fusion.weights[BOTH, 0, IMAGE])) < 0.15


def test_an_absent_member_changes_nothing_whatever_its_logits_are() -> None:
    fusion, text, image, _ = _case(text_gain=2.0, image_gain=2.0)

    assert torch.equal(
        fusion(_said(text, image, has_image=False)), fusion(_said(text, image * 100, has_image=False))
    )
    assert torch.equal(
        fusion(_said(text, image, has_text=False)), fusion(_said(text * 100, image, has_text=False))
    )


def test_probabilities_of_a_choice_add_up_to_one_and_free_tags_stand_alone() -> None:
    fusion, text, image, _ = _case(text_gain=1.0, image_gain=1.0)
    scores = fusion(_said(text, image))

    torch.testing.assert_close(scores[:, :3].sum(dim=1), torch.ones(ROWS))
    assert bool(((scores > 0) & (scores < 1)).all())


def test_a_picture_has_no_vote_on_values_that_it_was_never_taught() -> None:
    fusion, _, _, _ = _case(text_gain=2.0, image_gain=2.0)
    fusion.taught[2] = 0  # Green is known from titles alone
    text = torch.zeros(1, TAXONOMY.size)
    text[0, 2] = 3.0
    image = torch.zeros(1, TAXONOMY.size)
    image[0, :3] = torch.tensor([2.0, 0.0, -20.0])

    assert fusion(_said(text, image))[0].argmax() == 2


def test_a_text_that_names_no_colour_leaves_more_to_the_picture() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (ROWS,), generator=rng)
    target = targets([{"colour": (COLOURS[place],)} for place in truth.tolist()], TAXONOMY)
    known = torch.nn.functional.one_hot(truth, 3).float()
    text, image = torch.randn(2, ROWS, TAXONOMY.size, generator=rng)
    named = torch.arange(ROWS) % 2 == 0
    text[:, :3] += 4 * known * named[:, None]
    image[:, :3] += 2 * known
    said = _said(text, image)._replace(named=torch.stack([named, torch.ones_like(named)], dim=1))
    fusion = fit_fusion(
        TAXONOMY, said, target, ["text", "image"], ["colour"], target, np.nan_to_num(target).sum(axis=0)
    )

    assert fusion.weights[BOTH_UNNAMED, 0, TEXT] < 0.3 < 0.7 < fusion.weights[BOTH, 0, TEXT]
    silent = said._replace(named=torch.zeros_like(said.named))
    assert bool((silent.settings() == BOTH_SILENT).all())
    assert bool((said.settings()[~named, 0] == BOTH_UNNAMED).all())


def test_a_group_without_picture_head_answers_a_lone_picture_with_its_class_shares() -> None:
    target = targets([{"材质": ("棉",)}] * 3 + [{"材质": ("蕾丝",)}], TAXONOMY)
    said = _said(torch.zeros(4, TAXONOMY.size), torch.zeros(4, TAXONOMY.size))
    fusion = fit_fusion(
        TAXONOMY,
        said,
        target,
        ["text", "image"],
        ["colour"],
        training_target=target,
        taught=np.nan_to_num(target).sum(axis=0),
    )
    alone = said.take(torch.tensor([0]))._replace(has_text=torch.tensor([False]))

    np.testing.assert_allclose(fusion(alone)[0, 3:].numpy(), [0.7, 0.3], atol=1e-6)


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


def doubtful_red(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Red is right above .8 and wrong half of the time below; Blue is always right."""
    red = [(score, n % 2 == 0 or score > 0.8) for n in range(rows) for score in (0.6, 0.85)]
    scores = [[score, 1 - score, 0.0] for score, _ in red] + [[0.3, 0.7, 0.0]] * 100
    labels = [("Red",) if right else ("Blue",) for _, right in red] + [("Blue",)] * 100
    colour = Taxonomy(taxonomy_version="1", groups=TAXONOMY.groups[:1])
    return np.float32(scores), targets([{"colour": label} for label in labels], colour)


@pytest.mark.parametrize(("rows", "low", "high"), [(100, 0.61, 0.85), (1, 0.5, 0.6)])
def test_a_value_gets_a_threshold_of_its_own_once_it_has_rows_enough(
    rows: int, low: float, high: float
) -> None:
    colour = Taxonomy(taxonomy_version="1", groups=TAXONOMY.groups[:1])
    scores, target = doubtful_red(rows)
    red, blue, _ = with_thresholds(colour, scores, target, Thresholds(beta=0.5)).groups[0].values
    assert low <= red.threshold <= high
    assert blue.threshold <= 0.7


def test_a_precision_target_sets_the_lowest_threshold_that_reaches_it() -> None:
    colour = Taxonomy(taxonomy_version="1", groups=TAXONOMY.groups[:1])
    how = Thresholds(precision=0.95, highest=0.99, pseudo_rows=0.1)
    red, blue, _ = with_thresholds(colour, *doubtful_red(100), how).groups[0].values
    assert red.threshold == 0.61
    assert blue.threshold == 0.5


def test_a_precision_that_no_threshold_reaches_asks_for_the_highest() -> None:
    colour = Taxonomy(taxonomy_version="1", groups=TAXONOMY.groups[:1])
    rng = np.random.default_rng(0)
    scores = rng.dirichlet([1.0] * 3, 300).astype(np.float32) * np.float32(0.7)
    labels = [{"colour": (COLOURS[at],)} for at in rng.integers(0, 3, 300)]
    how = Thresholds(precision=0.95, highest=0.99)
    decided = with_thresholds(colour, scores, targets(labels, colour), how)
    assert {value.threshold for value in decided.groups[0].values} == {0.99}


def test_a_setting_without_rows_takes_all_that_its_sibling_has_learned() -> None:
    fusion, text, image, _ = _case(text_gain=1.0, image_gain=3.0)
    said = _said(text, image)
    unnamed = said._replace(named=torch.stack([~said.named[:, 0], said.named[:, 1]], dim=1))

    torch.testing.assert_close(fusion(said)[:, :3], fusion(unnamed)[:, :3])


def test_free_tags_that_a_text_does_not_name_are_weighed_as_those_that_it_names() -> None:
    fusion, text, image, _ = _case(text_gain=1.0, image_gain=1.0)
    said = _said(text, image)
    silent = said._replace(named=torch.zeros_like(said.named))
    fusion.weights[BOTH_SILENT] = 0.1

    torch.testing.assert_close(fusion(said)[:, 3:], fusion(silent)[:, 3:])
    assert not torch.allclose(fusion(said)[:, :3], fusion(silent)[:, :3])
