"""The golden batch: a loaded model version must answer it as it did when it was saved, or it is refused.

It covers both languages, every field, pictures alone, and pictures that do not decode. The pictures are
drawn here, so that no photograph travels with a model. Each model chooses what is compared (`Answering`):
a tagger its scores, a generator the probability of each first piece, an extractor those of the classes of
each character.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torchvision.io import encode_jpeg, encode_png

from tagstream.core.errors import IncompatibleModel
from tagstream.core.events import ImageUse
from tagstream.core.ports import MicroBatch, TextFields

TEXTS = (
    TextFields("Nike Men Black Running Shoes"),
    TextFields("Women Red Printed Cotton Kurta", brand="Fabindia"),
    TextFields("Fossil Men Brown Leather Wallet", attributes={"colour": "brown", "size": "M"}),
    TextFields("Girls White Floral Dress", description="A light summer dress with short sleeves."),
    TextFields("Ray-Ban Unisex Aviator Sunglasses"),
    TextFields("Puma Boys Navy Blue T-shirt"),
    TextFields("白色纯棉T恤 夏季新款", lang="zh"),
    TextFields("黑色牛仔阔腿裤", brand="优衣库", lang="zh"),
    TextFields("碎花雪纺连衣裙", description="收腰的版型显瘦，清新的碎花印花。", lang="zh"),
    TextFields("Titan Women Silver Watch"),
    TextFields(""),
    TextFields(""),
    TextFields("Lotto Men Grey Track Pants"),
    TextFields("Baggit Women Pink Handbag"),
    TextFields("Wrangler Men Checked Blue Shirt"),
    TextFields("Ⅻ ＦＵＬＬ－ＷＩＤＴＨ café Straße 123"),
)
_COLOURS = (
    (20, 20, 25), (190, 30, 40), (110, 70, 40), None, (40, 40, 40), (20, 30, 80), (240, 240, 238), None,
    (220, 160, 190), (180, 180, 185), (30, 90, 170), (200, 40, 60), None, (240, 120, 170), (60, 100, 180),
    (90, 140, 60),
)  # fmt: skip


#: Numbers to compare, and what became of each picture.
Answers = tuple[npt.NDArray[np.floating[Any]], list[ImageUse]]


class Answering(Protocol):
    """A model whose answers can be compared: `tolerance` is how far one may be from what it was at saving."""

    @property
    def tolerance(self) -> float: ...

    def answers(self, batch: MicroBatch) -> Answers: ...


def batch() -> MicroBatch:
    """Sixteen events: texts of every kind; JPEG and PNG pictures of several sizes, none, and a broken one."""
    images = [colour and _drawn(place, colour) for place, colour in enumerate(_COLOURS)]
    images[12] = b"\xff\xd8 this is no picture"
    return MicroBatch(list(TEXTS), images)


def _drawn(place: int, colour: tuple[int, int, int]) -> bytes:
    height, width = 120 + 17 * place, 100 + 11 * (place % 5)
    y, x = np.mgrid[0:height, 0:width]
    inside = ((y / height - 0.5) / 0.4) ** 2 + ((x / width - 0.5) / (0.15 + 0.02 * place)) ** 2 < 1
    shade = (0.75 + 0.25 * np.cos((x + y * (place % 3)) / 9.0))[..., None]
    picture = np.where(inside[..., None], np.asarray(colour) * shade, 252).astype(np.uint8)
    encode = encode_png if place % 4 == 1 else encode_jpeg
    encoded: npt.NDArray[np.uint8] = encode(torch.from_numpy(picture).permute(2, 0, 1).contiguous()).numpy()
    return encoded.tobytes()


def write(path: Path, model: Answering) -> None:
    """Inputs as bytes, so that a later encoder cannot change them, beside the model's answers. Raises
    ValueError for answers that are not finite."""
    inputs = batch()
    answers, uses = model.answers(inputs)
    if not np.isfinite(answers).all():
        raise ValueError("this model's answers are not finite numbers")
    texts = [text._replace(attributes=dict(text.attributes))._asdict() for text in inputs.texts]
    encoded = [image or b"" for image in inputs.images]
    np.savez_compressed(
        path,
        texts=_packed(texts),
        images=np.frombuffer(b"".join(encoded), np.uint8),
        image_bytes=np.asarray([len(image) for image in encoded], np.int64),
        uses=_packed(uses),
        scores=answers,
        tolerance=np.float32(model.tolerance),
    )


def read(path: Path) -> tuple[MicroBatch, Answers, float | None]:
    """(inputs, expected answers, tolerance). Raises IncompatibleModel."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            texts = [TextFields(**fields) for fields in _unpacked(stored["texts"])]
            if "expected" in stored:  # a generator up to format 2: titles alone, one tolerance for all
                answers: Answers = stored["expected"], ["none"] * len(texts)
                return MicroBatch(texts, [None] * len(texts)), answers, None
            ends, everything = np.cumsum(stored["image_bytes"]), stored["images"].tobytes()
            images = [
                everything[end - length : end] if length else None
                for end, length in zip(ends, stored["image_bytes"], strict=True)
            ]
            answers = stored["scores"], _unpacked(stored["uses"])
            return MicroBatch(texts, images), answers, float(stored["tolerance"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IncompatibleModel(f"{path}: the golden batch cannot be read: {error}") from error


def check(path: Path, model: Answering) -> None:
    """Raises IncompatibleModel where the model does not answer the golden batch as it did when saved."""
    inputs, (expected, expected_uses), stated = read(path)
    found, uses = model.answers(inputs)
    if found.shape != expected.shape:
        raise IncompatibleModel(f"{path}: scores have the shape {found.shape}, expected {expected.shape}")
    if uses != expected_uses:
        raise IncompatibleModel(f"{path}: pictures came out as {uses}, expected {expected_uses}")
    tolerance = model.tolerance if stated is None else stated
    gap = float(np.abs(found - expected.astype(np.float32)).max())
    if not gap <= tolerance:
        raise IncompatibleModel(
            f"{path}: scores differ by up to {gap:.3f} from those at saving (tolerance {tolerance:.2f}): "
            "this node computes or decodes differently"
        )


def _packed(content: object) -> npt.NDArray[np.uint8]:
    return np.frombuffer(json.dumps(content, ensure_ascii=False).encode(), np.uint8)


def _unpacked(stored: npt.NDArray[np.uint8]) -> Any:
    return json.loads(stored.tobytes())
