"""A model version as an ONNX graph says what the version itself says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tagstream.cli.models import app
from tagstream.core.errors import BadSettings, IncompatibleModel
from tagstream.core.ports import MicroBatch
from tagstream.dataset.rows import Row
from tagstream.dataset.training_set import TrainingSet, training_set
from tagstream.model.members import JointConfig
from tagstream.model.pictures import Frame
from tagstream.model.tagger import read_stored
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.towers.image import EfficientNet, TorchvisionNet
from tagstream.model.towers.sequence import Recurrent, TransformerText, WordEmbeddings
from tagstream.model.version import golden
from tagstream.text.ngrams import HashedNgrams
from tagstream.training.loop import Optimisation
from tagstream.training.members import ImageTraining, Recipe, TextTraining, train_image, train_text
from tagstream.training.recipe import fuse, threshold
from tagstream.training.release import release

pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

from tagstream.model.version.onnx import TOLERANCE, OnnxTagger, export

ONE_EPOCH = Optimisation(epochs=1, batch_rows=64, learning_rate=0.02)
HASHED = HashedNgramBag(ngrams=HashedNgrams(latin_buckets=2**10, han_buckets=2**8), width=8)
TEXT = TextTraining(tower=HASHED, optimisation=ONE_EPOCH)
IMAGE = ImageTraining(
    tower=EfficientNet(pretrained=False), frame=Frame(32, 32), optimisation=ONE_EPOCH, shift_px=1
)
Release = Callable[[Recipe], Path]


@pytest.fixture(scope="module")
def small_set(products: list[Row]) -> TrainingSet:
    return training_set(products[:130], [], seed=0)


@pytest.fixture
def released(tmp_path: Path, small_set: TrainingSet) -> Release:
    def make(recipe: Recipe) -> Path:
        text = train_text(small_set, recipe) if recipe.text else None
        image_members = train_image(small_set, recipe) if recipe.image else None
        trained = threshold(fuse(small_set, recipe, text, image_members))
        return release(tmp_path, small_set, trained, datetime(2026, 1, 2, tzinfo=UTC))[0]

    return make


def said_by_pytorch(folder: Path, batch: MicroBatch) -> np.ndarray:
    """In float32, whatever the number format of serving."""
    stored = read_stored(folder)
    for module in stored.network().values():
        module.eval()
    with torch.inference_mode():
        scores: np.ndarray = stored.fusion(stored.members.opinions(batch)[0]).numpy()
    return scores


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(
            Recipe(text=TEXT, image=IMAGE, joint=JointConfig(text=HASHED, width=8)),
            id="the default parts with a joint member",
        ),
        pytest.param(
            Recipe(
                text=TEXT.model_copy(update={"tower": TransformerText(width=8, layers=1, heads=2)}),
                image=IMAGE.model_copy(update={"tower": TorchvisionNet(frozen=True)}),
                joint=JointConfig(
                    kind="cross-attention", text=WordEmbeddings(width=8), width=8, layers=1, attention_heads=2
                ),
            ),
            id="words, a frozen ResNet, cross-attention",
        ),
        pytest.param(Recipe(text=TEXT, image=None), id="text only"),
        pytest.param(Recipe(text=None, image=IMAGE), id="pictures only"),
    ],
)
def test_the_graph_says_what_pytorch_says(
    tmp_path: Path, small_set: TrainingSet, released: Release, recipe: Recipe
) -> None:
    folder = released(recipe)
    graph = tmp_path / "out" / "tagger.onnx"

    gap = export(folder, graph)

    tagger = OnnxTagger(folder, graph)
    rows = small_set.products.test[:5]
    five = MicroBatch([row.text for row in rows], [row.encoded for row in rows])
    one = MicroBatch(five.texts[:1], [None])
    for batch in (golden.batch(), five, one):
        np.testing.assert_allclose(
            tagger.score(batch)[0], said_by_pytorch(folder, batch), rtol=0, atol=TOLERANCE
        )
    assert gap <= TOLERANCE
    assert [path.name for path in graph.parent.iterdir()] == ["tagger.onnx"]


def test_a_graph_of_another_version_is_refused(
    tmp_path: Path, small_set: TrainingSet, released: Release
) -> None:
    recipe = Recipe(text=TEXT, image=None)
    folder = released(recipe)
    export(folder, tmp_path / "tagger.onnx")
    trained = threshold(fuse(small_set, recipe, train_text(small_set, recipe), None))
    other, _ = release(tmp_path, small_set, trained, datetime(2026, 1, 3, tzinfo=UTC))

    with pytest.raises(IncompatibleModel, match=other.name):
        OnnxTagger(other, tmp_path / "tagger.onnx")


def test_a_recurrent_tower_is_one_clear_error_and_leaves_no_file(tmp_path: Path, released: Release) -> None:
    folder = released(Recipe(text=TEXT.model_copy(update={"tower": Recurrent(width=8)}), image=None))
    graph = tmp_path / "tagger.onnx"

    result = CliRunner().invoke(app, ["export-onnx", str(folder), str(graph)])

    assert isinstance(result.exception, BadSettings)
    assert "recurrent" in str(result.exception)
    assert not graph.exists()
