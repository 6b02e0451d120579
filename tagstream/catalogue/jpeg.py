"""The size of an encoded picture, made to order."""

from __future__ import annotations

import io
import random

from PIL import Image

_COMMENT = b"\xff\xfe"
_COMMENT_MAX_BYTES = 65_533  # a segment's length field counts itself: 2 + 65,533 = 0xFFFF
_QUALITIES = (85, 60, 40, 25, 12)
_SCALES = (1.0, 0.7, 0.5, 0.35)


def sized(jpeg: bytes, size_bytes: int) -> bytes:
    """The picture as a JPEG of `size_bytes`, or a few bytes less where no comment segment fits.

    Too large a picture is encoded again, worse and then smaller; what is left is filled with comment
    segments of noise after the start marker, which decoders skip and compression cannot shrink.

    Raises:
        ValueError: not even the smallest picture fits.
    """
    fitting = jpeg if len(jpeg) <= size_bytes else _shrunk(jpeg, size_bytes)
    start, rest = fitting[:2], fitting[2:]
    missing = size_bytes - len(fitting)
    noise = random.Random(missing)
    segments = []
    while missing >= 4:
        filling = min(_COMMENT_MAX_BYTES, missing - 4)
        segments.append(_COMMENT + (filling + 2).to_bytes(2, "big") + noise.randbytes(filling))
        missing -= filling + 4
    return start + b"".join(segments) + rest


def _shrunk(jpeg: bytes, size_bytes: int) -> bytes:
    with Image.open(io.BytesIO(jpeg)) as picture:
        for scale in _SCALES:
            small = picture.resize((round(picture.width * scale), round(picture.height * scale)))
            for quality in _QUALITIES:
                out = io.BytesIO()
                small.save(out, "JPEG", quality=quality)
                if out.tell() <= size_bytes:
                    return out.getvalue()
    raise ValueError(f"no picture fits into {size_bytes} bytes")
