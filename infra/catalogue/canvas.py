"""A small picture of one product on white: parts are cut from one cloth, shaded at their edges and folds.

Coordinates are pixels of the finished picture, 168 wide and 224 high, which is drawn at twice that size.
The same seed and calls give the same bytes with the same Pillow.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
Colour = tuple[int, int, int]

WIDTH, HEIGHT = 168, 224
_SCALE = 2
_SIZE = (WIDTH * _SCALE, HEIGHT * _SCALE)


def mirrored(left: Sequence[Point]) -> list[Point]:
    """The closed outline whose left half is `left`, from top to bottom; the axis is the picture's middle."""
    return [*left, *((WIDTH - x, y) for x, y in reversed(left))]


def rounded(outline: Sequence[Point], cuts: int = 2) -> list[Point]:
    """The outline with its corners cut `cuts` times (Chaikin), which reads as a curve."""
    points = list(outline)
    for _ in range(cuts):
        pairs = zip(points, points[1:] + points[:1], strict=True)
        points = [
            near
            for (ax, ay), (bx, by) in pairs
            for near in (
                (0.75 * ax + 0.25 * bx, 0.75 * ay + 0.25 * by),
                (0.25 * ax + 0.75 * bx, 0.25 * ay + 0.75 * by),
            )
        ]
    return points


def oval(cx: float, cy: float, rx: float, ry: float) -> list[Point]:
    steps = 40
    turns = [2 * math.pi * step / steps for step in range(steps)]
    return [(cx + rx * math.cos(turn), cy + ry * math.sin(turn)) for turn in turns]


def box(left: float, top: float, right: float, bottom: float, radius: float = 6) -> list[Point]:
    """A rectangle with round corners."""
    corners = ((right, bottom, 0.0), (left, bottom, 0.5), (left, top, 1.0), (right, top, 1.5))
    outline = []
    for x, y, turn in corners:
        cx = x - radius if x == right else x + radius
        cy = y - radius if y == bottom else y + radius
        for step in range(5):
            angle = math.pi * (turn + step / 8)
            outline.append((cx + radius * math.cos(angle), cy + radius * math.sin(angle)))
    return outline


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """`colour` with a `share` (0 … 1) of `other` in it."""
    r, g, b = (round(a + (c - a) * share) for a, c in zip(colour, other, strict=True))
    return r, g, b


def darker(colour: Colour, share: float = 0.3) -> Colour:
    return mixed(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    return mixed(colour, (255, 255, 255), share)


def contrast(colour: Colour) -> Colour:
    """What stands out on `colour`: near white on dark, a deep shade of it on light."""
    r, g, b = colour
    return (238, 236, 230) if 0.3 * r + 0.59 * g + 0.11 * b < 140 else darker(colour, 0.6)


class Canvas:
    """One picture in the making. `cloth` paints the pattern on the uncut cloth."""

    def __init__(self, seed: int, colour: Colour, cloth: Callable[[Cloth], None] | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.colour = colour
        self._picture = Image.new("RGB", _SIZE, (255, 255, 255))
        pattern = Cloth(colour, self.rng)
        if cloth is not None:
            cloth(pattern)
        self._cloth = pattern.image
        self._folds = self._field((4, 7), 0.13) + self._field((18, 22), 0.045) + self._grain()

    def cut(self, outline: Sequence[Point], tone: float = 1.0, shade: float = 0.45) -> None:
        """A part of the cloth. `tone` scales its brightness, `shade` is the darkening towards its edge."""
        self._lay(self._cloth, outline, tone, shade, folds=1.0)

    def fill(self, outline: Sequence[Point], colour: Colour, shade: float = 0.3, folds: float = 0.4) -> None:
        """A part of another material."""
        self._lay(Image.new("RGB", _SIZE, colour), outline, 1.0, shade, folds)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1.0) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        ImageDraw.Draw(self._picture).line(scaled, fill=colour, width=round(width * _SCALE), joint="curve")

    def stitch(self, points: Sequence[Point], colour: Colour) -> None:
        """A dashed seam."""
        for (ax, ay), (bx, by) in pairwise(points):
            steps = max(1, round(math.hypot(bx - ax, by - ay) / 4))
            for step in range(steps):
                at, to = step / steps, (step + 0.55) / steps
                start = (ax + (bx - ax) * at, ay + (by - ay) * at)
                self.line([start, (ax + (bx - ax) * to, ay + (by - ay) * to)], colour, 0.6)

    def jpeg(self, quality: int = 85) -> bytes:
        small = self._picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, "JPEG", quality=quality)
        return out.getvalue()

    def _lay(
        self, source: Image.Image, outline: Sequence[Point], tone: float, shade: float, folds: float
    ) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in outline]
        xs, ys = [x for x, _ in scaled], [y for _, y in scaled]
        box = (
            max(0, int(min(xs)) - 1),
            max(0, int(min(ys)) - 1),
            min(_SIZE[0], int(max(xs)) + 2),
            min(_SIZE[1], int(max(ys)) + 2),
        )
        mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        ImageDraw.Draw(mask).polygon([(x - box[0], y - box[1]) for x, y in scaled], fill=255)
        # How far inside a point lies: half at the edge, one in the middle. It makes flat shapes look stuffed.
        padded = Image.new("L", (mask.width + 40, mask.height + 40))
        padded.paste(mask, (20, 20))
        blurred = padded.filter(ImageFilter.BoxBlur(9)).crop((20, 20, 20 + mask.width, 20 + mask.height))
        inside = np.asarray(blurred, np.float32) / 255
        light = (
            tone * (1 - shade * (1 - inside)) * (1 + folds * self._folds[box[1] : box[3], box[0] : box[2]])
        )
        lit = np.asarray(source.crop(box), np.float32) * light[..., None]
        self._picture.paste(Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)), box[:2], mask)

    def _field(self, cells: tuple[int, int], strength: float) -> npt.NDArray[np.float32]:
        coarse = self.rng.uniform(-strength, strength, (cells[1], cells[0])).astype(np.float32)
        return np.asarray(Image.fromarray(coarse).resize(_SIZE, Image.Resampling.BICUBIC), np.float32)

    def _grain(self) -> npt.NDArray[np.float32]:
        return self.rng.uniform(-0.035, 0.035, (_SIZE[1], _SIZE[0])).astype(np.float32)


class Cloth:
    """The uncut cloth that a pattern is drawn on. Same coordinates as the picture."""

    def __init__(self, colour: Colour, rng: np.random.Generator) -> None:
        self.colour = colour
        self.rng = rng
        self.image = Image.new("RGB", _SIZE, colour)
        self._draw = ImageDraw.Draw(self.image)

    def shape(self, outline: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([(x * _SCALE, y * _SCALE) for x, y in outline], fill=colour)

    def line(self, start: Point, end: Point, colour: Colour, width: float) -> None:
        ends = [(x * _SCALE, y * _SCALE) for x, y in (start, end)]
        self._draw.line(ends, fill=colour, width=max(1, round(width * _SCALE)))
