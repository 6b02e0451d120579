"""Encoded pictures → equally sized uint8 tensors. The same code runs in training and at serving.

A picture is fitted into the frame, its aspect kept, and centred on white, as shop photographs are;
transparency becomes white too.

The size of a picture is limited here, by `IMAGE_MAX_PIXELS` (pixels) in `_within_limit`: the header is read
before anything is decoded, because a small file can claim gigapixels. The bytes of a file are limited where
it is fetched (`image_max_bytes` of the settings).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, decode_jpeg
from torchvision.transforms.v2.functional import resize

from tagstream.core.events import ImageUse

#: Width x height of a picture, as its header states it. A larger one is never decoded: see `_within_limit`.
IMAGE_MAX_PIXELS = 40_000_000
WHITE = 255
_BAND_PIXELS = 1_000_000
_JPEG = b"\xff\xd8"


class Frame(NamedTuple):
    """The size, in pixels, that every picture is fitted into."""

    width: int
    height: int


def pixel_count(encoded: bytes) -> int | None:
    """Width x height from the header of a JPEG, PNG or WebP; None when it is none of them or is cut off."""
    try:
        if encoded.startswith(b"\x89PNG\r\n\x1a\n") and encoded[12:16] == b"IHDR":
            width, height = struct.unpack(">II", encoded[16:24])
        elif encoded.startswith(_JPEG):
            width, height = _jpeg_size(encoded)
        elif encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
            width, height = _webp_size(encoded)
        else:
            return None
    except (struct.error, IndexError, ValueError):
        return None
    return int(width) * int(height)


def _jpeg_size(encoded: bytes) -> tuple[int, int]:
    at = 2
    while True:
        while encoded[at] != 0xFF:
            at += 1
        while encoded[at] == 0xFF:
            at += 1
        marker = encoded[at]
        at += 1
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", encoded[at + 3 : at + 7])
            return width, height
        if marker in (0xD8, 0x01) or 0xD0 <= marker <= 0xD7:
            continue
        if marker in (0xD9, 0xDA):
            raise ValueError("no frame header before the picture's data")
        (length,) = struct.unpack(">H", encoded[at : at + 2])
        at += max(length, 2)


def _webp_size(encoded: bytes) -> tuple[int, int]:
    kind = encoded[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(encoded[24:27], "little"), 1 + int.from_bytes(encoded[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", encoded[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", encoded[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError(f"unknown WebP chunk {kind!r}")


def decode(encoded: bytes, frame: Frame) -> Tensor | None:
    """(3, height, width) uint8, or None if the picture does not decode or has too many pixels."""
    if not _within_limit(encoded):
        return None
    try:
        if encoded.startswith(_JPEG):
            return fit(decode_image(_buffer(encoded), ImageReadMode.RGB, apply_exif_orientation=True), frame)
        return fit(_on_white(decode_image(_buffer(encoded), ImageReadMode.RGB_ALPHA)), frame)
    except RuntimeError:
        return None  # torchvision raises it for every kind of damage


def _within_limit(encoded: bytes) -> bool:
    """Whether the header states a size, of at most `IMAGE_MAX_PIXELS`. Every decoder asks this first."""
    pixels = pixel_count(encoded)
    return pixels is not None and 0 < pixels <= IMAGE_MAX_PIXELS


def _buffer(encoded: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(encoded, np.uint8).copy())


def _on_white(rgba: Tensor) -> Tensor:
    """(4, h, w) uint8, or uint16 of a 16-bit PNG → (3, h, w) uint8; a band of rows at a time, because the
    blend is in floats, which would take seven times the picture's bytes."""
    _, h, w = rgba.shape
    rgb = torch.empty((3, h, w), dtype=torch.uint8)
    rows = max(1, _BAND_PIXELS // w)
    for top in range(0, h, rows):
        band = rgba[:, top : top + rows]
        if band.dtype == torch.uint16:
            band = (band.to(torch.int32) >> 8).to(torch.uint8)
        alpha = band[3:].float() / 255
        blended = band[:3] * alpha + WHITE * (1 - alpha)
        rgb[:, top : top + rows] = blended.round().to(torch.uint8)
    return rgb


def fit(rgb: Tensor, frame: Frame) -> Tensor:
    """(3, h, w) uint8 of any size → (3, frame.height, frame.width), aspect kept, centred on white."""
    _, h, w = rgb.shape
    scale = min(frame.width / w, frame.height / h)
    width, height = max(1, round(w * scale)), max(1, round(h * scale))
    if (h, w) != (height, width):
        rgb = resize(rgb, [height, width], antialias=True)
    if (height, width) == (frame.height, frame.width):
        return rgb
    top, left = (frame.height - height) // 2, (frame.width - width) // 2
    canvas = torch.full((3, frame.height, frame.width), WHITE, dtype=torch.uint8, device=rgb.device)
    canvas[:, top : top + height, left : left + width] = rgb
    return canvas


def decode_all(
    encoded: Sequence[bytes | None], frame: Frame, device: torch.device | None = None
) -> tuple[Tensor, list[ImageUse]]:
    """The pictures that decode, stacked as (used, 3, height, width) uint8, and what became of each one. On a
    CUDA device JPEGs are decoded by the card, all in one call (without their EXIF orientation)."""
    ready = _decode_on_card(encoded, frame, device) if device and device.type == "cuda" else {}
    pictures: list[Tensor] = []
    uses: list[ImageUse] = []
    for place, one in enumerate(encoded):
        picture = ready.get(place)
        if picture is None and one is not None:
            picture = decode(one, frame)
        uses.append("none" if one is None else "unusable" if picture is None else "used")
        if picture is not None:
            pictures.append(picture if device is None else picture.to(device))
    if not pictures:
        return torch.empty((0, 3, frame.height, frame.width), dtype=torch.uint8, device=device), uses
    return torch.stack(pictures), uses


def _decode_on_card(encoded: Sequence[bytes | None], frame: Frame, device: torch.device) -> dict[int, Tensor]:
    """Place → picture of the JPEGs. Empty when the card refuses one of them: then the processor decodes."""
    jpegs = {
        place: one
        for place, one in enumerate(encoded)
        if one is not None and one.startswith(_JPEG) and _within_limit(one)
    }
    if not jpegs:
        return {}
    try:
        decoded = decode_jpeg([_buffer(one) for one in jpegs.values()], ImageReadMode.RGB, device=device)
    except RuntimeError:
        return {}
    return {place: fit(one, frame) for place, one in zip(jpegs, decoded, strict=True)}
