"""A image member that is kept while the texts are learned anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from tagstream.core.errors import IncompatibleModel
from tagstream.core.ports import TextFields
from tagstream.dataset.rows import Row
from tagstream.dataset.training_set import TrainingSet, title_hashes, training_set
from tagstream.model.tagger import read_stored
from tagstream.model.version.format import read_manifest
from tagstream.ops.evaluate import candidate
from tagstream.training.members import Recipe, kept_pictures, train_text
from tagstream.training.recipe import fuse, threshold
from tagstream.training.release import Trained, release
from tests.model.conftest import TINY

NOW = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def version(tiny_set: TrainingSet, tiny_tagger: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("kept"), tiny_set, tiny_tagger, NOW)[0]


def test_texts_are_learned_anew_and_the_picture_member_stays_as_it_was(
    version: Path, products: list[Row], tiny_set: TrainingSet, tmp_path: Path
) -> None:
    new = Row("new", TextFields("A title of today"), products[0].labels)
    data = training_set(products, [new], seed=0)
    kept = kept_pictures(version, data, TINY)
    trained = threshold(fuse(data, TINY, train_text(data, TINY), kept.image_members, kept.taught))
    folder, metrics = release(tmp_path, data, trained, NOW.replace(hour=4), kept=kept)

    old_half, new_half = read_stored(version).members.image_members, read_stored(folder).members.image_members
    assert old_half is not None
    assert new_half is not None
    stays = new_half.state_dict()
    assert all(torch.equal(tensor, stays[name]) for name, tensor in old_half.state_dict().items())
    assert torch.equal(read_stored(folder).fusion.taught, read_stored(version).fusion.taught)
    assert read_manifest(folder).parent == version.name
    assert version.name in (folder / "README.md").read_text()
    assert metrics["test"]["both"]["mean_accuracy"] > 0.8
    titles = np.load(folder / "training_groups.npy")
    assert set(title_hashes(tiny_set.titles_trained_on)) <= set(titles)
    assert set(title_hashes([new])) <= set(titles)


def test_evaluation_says_how_many_of_its_rows_the_version_has_learned_or_was_fitted_on(
    version: Path, tiny_set: TrainingSet
) -> None:
    parts = tiny_set.products
    one = candidate(version)
    assert one.trained_on(parts.test) == 0
    assert one.trained_on([*parts.test, *parts.train[:3], *parts.validation[:2]]) == 5
    another_shop = replace(parts.validation[0], text=TextFields("What has the same number elsewhere"))
    assert one.trained_on([another_shop]) == 0


def test_a_member_that_has_learned_what_is_held_out_now_is_refused(
    version: Path, products: list[Row]
) -> None:
    other_split = training_set(products, [], seed=1)
    with pytest.raises(ValueError, match=r"has learned \d+ of the products that are held out"):
        kept_pictures(version, other_split, TINY)


def test_a_member_that_knows_other_values_is_refused(version: Path, products: list[Row]) -> None:
    renamed = [
        replace(row, labels={**row.labels, "baseColour": ("Teal",)})
        if row.labels["baseColour"] == ("Blue",)
        else row
        for row in products
    ]
    with pytest.raises(ValueError, match="other groups or values"):
        kept_pictures(version, training_set(renamed, [], seed=0), TINY)


def test_a_member_of_another_frame_or_none_is_refused(
    version: Path, tiny_set: TrainingSet, recipe: Callable[..., Recipe]
) -> None:
    assert TINY.image is not None
    larger = TINY.image.model_copy(update={"frame": TINY.image.frame._replace(width=64)})
    with pytest.raises(ValueError, match="not of the recipe's tower, frame"):
        kept_pictures(version, tiny_set, recipe(image=larger))
    with pytest.raises(ValueError, match="must both have an image member"):
        kept_pictures(version, tiny_set, recipe(image=None))


def test_a_damaged_version_is_refused(version: Path, tiny_set: TrainingSet, tmp_path: Path) -> None:
    copy = tmp_path / version.name
    copy.mkdir()
    for file in version.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "config.json").write_text("{}")
    with pytest.raises(IncompatibleModel, match="sha256 differs"):
        kept_pictures(copy, tiny_set, TINY)
