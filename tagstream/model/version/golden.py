"""The golden batch: inputs whose scores a loaded model version must give, or it is refused.

It covers both languages, every field, pictures alone, and pictures that do not decode. The pictures are
drawn here, so that no photograph travels with a model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torchvision.io import encode_jpeg, encode_png

from tagstream.core.errors import IncompatibleModel
from tagstream.core.events import ImageUse
from tagstream.core.ports import MicroBatch, TextFields

#: Between bf16 and fp32 scores differ by up to 0.03, between two JPEG decoders by less. Reversed colour
#: channels or a wrong mean move them by more than 0.2 (a test holds both).
TOLERANCE = 0.08

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


class Scorer(Protocol):
    def score(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float32], list[ImageUse]]: ...


def batch() -> MicroBatch:
    """Sixteen events: texts of every kind; JPEG and PNG pictures of several sizes, none, and a broken one."""
    images: list[bytes | None] = []
    for place, colour in enumerate(_COLOURS):
        images.append(None if colour is None else _drawn(place, colour))
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


def packed(texts: Sequence[TextFields]) -> npt.NDArray[np.uint8]:
    fields = [text._replace(attributes=dict(text.attributes))._asdict() for text in texts]
    return np.frombuffer(json.dumps(fields, ensure_ascii=False).encode(), np.uint8)


def unpacked(stored: npt.NDArray[np.uint8]) -> list[TextFields]:
    """Raises ValueError or TypeError for what `packed` has not made."""
    return [TextFields(**fields) for fields in json.loads(stored.tobytes())]


def write(path: Path, tagger: Scorer) -> None:
    """Inputs as bytes, so that a later encoder cannot change them, beside what `tagger` says of them.

    Raises ValueError for scores that are not finite.
    """
    inputs = batch()
    scores, uses = tagger.score(inputs)
    if not np.isfinite(scores).all():
        raise ValueError("this tagger gives scores that are no numbers")
    encoded = [image or b"" for image in inputs.images]
    np.savez_compressed(
        path,
        texts=packed(inputs.texts),
        images=np.frombuffer(b"".join(encoded), np.uint8),
        image_bytes=np.asarray([len(image) for image in encoded], np.int64),
        uses=np.frombuffer(json.dumps(uses).encode(), np.uint8),
        scores=scores.astype(np.float32),
        tolerance=np.float32(TOLERANCE),
    )


def read(path: Path) -> tuple[MicroBatch, npt.NDArray[np.float32], list[ImageUse], float]:
    """(inputs, expected scores, expected picture outcomes, tolerance). Raises IncompatibleModel."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            texts = unpacked(stored["texts"])
            ends = np.cumsum(stored["image_bytes"])
            everything = stored["images"].tobytes()
            images = [
                everything[end - length : end] if length else None
                for end, length in zip(ends, stored["image_bytes"], strict=True)
            ]
            uses = json.loads(stored["uses"].tobytes())
            return MicroBatch(texts, images), stored["scores"], uses, float(stored["tolerance"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IncompatibleModel(f"{path}: the golden batch cannot be read: {error}") from error


def check(path: Path, tagger: Scorer) -> None:
    """Raises IncompatibleModel where the tagger does not say of the golden batch what it said when saved."""
    inputs, expected, expected_uses, tolerance = read(path)
    scores, uses = tagger.score(inputs)
    if scores.shape != expected.shape:
        raise IncompatibleModel(f"{path}: scores have the shape {scores.shape}, expected {expected.shape}")
    if uses != expected_uses:
        raise IncompatibleModel(f"{path}: pictures came out as {uses}, expected {expected_uses}")
    gap = float(np.abs(scores - expected).max())
    if not gap <= tolerance:
        raise IncompatibleModel(
            f"{path}: scores differ by up to {gap:.3f} from those at saving (tolerance {tolerance}): "
            "this node computes or decodes differently"
        )
