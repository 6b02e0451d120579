from __future__ import annotations

import base64
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.io import encode_jpeg, encode_png

from tagstream.model.pictures import IMAGE_MAX_PIXELS, Frame, decode, decode_all, pixel_count

FRAME = Frame(112, 144)
#: 24 x 30, red; lossy, lossless, and wholly transparent.
_LOSSY = "VlA4IDwAAAAQAwCdASoYAB4APm00lkekIyIhKAgAgA2JZQB2AACKtrAA/vAb3/+hRsomKf//2ln/1LP/qWf4qAAAAAA="
WEBP = {
    "lossy": "UklGRkgAAABXRUJQ" + _LOSSY,
    "lossless": "UklGRh4AAABXRUJQVlA4TBEAAAAvF0AHAAdQjyIXpf+BiOh/AAA=",
    "transparent": "UklGRmwAAABXRUJQVlA4WAoAAAAQAAAAFwAAHQAAQUxQSAkAAAABBxAREYiI/gcA" + _LOSSY,
}


def _plain(height: int, width: int, channels: int = 3, value: int = 90) -> torch.Tensor:
    return torch.full((channels, height, width), value, dtype=torch.uint8)


def _bytes(encoded: torch.Tensor) -> bytes:
    return bytes(encoded.numpy().tobytes())


def _png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(40, 50), (1, 1), (300, 20), (224, 168)])
def test_every_size_ends_in_the_frame(size: tuple[int, int]) -> None:
    for encode in (encode_jpeg, encode_png):
        encoded = _bytes(encode(_plain(*size)))

        assert pixel_count(encoded) == size[0] * size[1]
        picture = decode(encoded, FRAME)
        assert picture is not None
        assert picture.shape == (3, 144, 112)


@pytest.mark.parametrize("kind", WEBP)
def test_webp_is_read(kind: str) -> None:
    encoded = base64.b64decode(WEBP[kind])

    assert pixel_count(encoded) == 24 * 30
    assert decode(encoded, FRAME) is not None


def test_aspect_is_kept_and_the_rest_is_white() -> None:
    picture = decode(_bytes(encode_png(_plain(100, 20, value=0))), FRAME)

    assert picture is not None
    assert int(picture[:, 72, 56].max()) == 0
    assert picture[:, 72, :40].unique().tolist() == [255]


def test_grey_and_transparent_pictures_become_colour_on_white() -> None:
    grey = decode(_bytes(encode_jpeg(_plain(40, 30, channels=1))), FRAME)
    clear = decode(base64.b64decode(WEBP["transparent"]), FRAME)

    assert grey is not None
    assert grey.shape[0] == 3
    assert clear is not None
    assert clear.unique().tolist() == [255]


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    bomb = _png_claiming(50_000, 50_000)

    assert len(bomb) < 200
    assert pixel_count(bomb) == 2_500_000_000 > IMAGE_MAX_PIXELS
    assert decode(bomb, FRAME) is None


_PEAK_OF_A_DECODE = """
import resource, sys, torch
from tagstream.model.pictures import Frame, decode
torch.set_num_threads(1)
small, large = (open(path, "rb").read() for path in sys.argv[1:])
assert decode(small, Frame(112, 144)) is not None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = decode(large, Frame(112, 144))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *picture[:, 72, 56].tolist())
"""


@pytest.mark.parametrize(("bits", "most_mib"), [(8, 600), (16, 900)])
def test_a_transparent_png_of_the_most_pixels_takes_a_few_times_its_own_bytes(
    tmp_path: Path, bits: int, most_mib: int
) -> None:
    side = int(IMAGE_MAX_PIXELS**0.5)
    paths = [tmp_path / "small.png", tmp_path / "large.png"]
    for path, pixels in zip(paths, (10, side), strict=True):
        path.write_bytes(_translucent_png(pixels, bits))

    done = subprocess.run(
        [sys.executable, "-c", _PEAK_OF_A_DECODE, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )

    grown_kib, *colour = map(int, done.stdout.split())
    assert colour == [227, 142, 147], "half of it is white"
    assert grown_kib < most_mib * 1024


def _translucent_png(side: int, bits: int) -> bytes:
    row = b"\0" + b"".join(bytes([value]).ljust(bits // 8, b"\0") for value in (200, 30, 40, 128)) * side
    squeeze = zlib.compressobj(1)
    data = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, bits, 6, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + data, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe0 not really",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a\1\0\1\0",
        b"RIFF....WEBPVP8X",
        b"<svg/>",
    ],
)
def test_what_does_not_decode_is_none(broken: bytes) -> None:
    assert decode(broken, FRAME) is None


def test_half_a_picture_does_not_bring_down_the_others() -> None:
    rng = np.random.default_rng(0)
    whole = _bytes(encode_jpeg(torch.from_numpy(rng.integers(0, 255, (3, 60, 60), np.uint8))))
    headless = whole[: len(whole) // 20]

    pictures, uses = decode_all([whole, None, headless, _png_claiming(9_000, 9_000), whole], FRAME)

    assert uses == ["used", "none", "unusable", "unusable", "used"]
    assert pictures.shape == (2, 3, 144, 112)
    assert torch.equal(pictures[0], pictures[1])
