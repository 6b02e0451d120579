"""Skirts and trousers, laid flat: each function draws one kind on a canvas."""

from __future__ import annotations

from collections.abc import Callable

from tagstream.catalogue.canvas import (
    Canvas,
    Point,
    box,
    contrast,
    darker,
    lighter,
    mirrored,
    oval,
)


def flared(c: Canvas, top_y: float, hem_y: float, top_half: float, hem_half: float) -> None:
    """A skirt from half its width at the top to half its width at the hem."""
    c.cut(mirrored([(84 - top_half, top_y), (84 - hem_half, hem_y - 6), (84 - hem_half * 0.5, hem_y)]))
    for share in (-0.75, -0.45, -0.15, 0.2, 0.5, 0.8):
        start, end = (84 + share * top_half, top_y + 3), (84 + share * hem_half, hem_y - 4)
        c.line([start, end], darker(c.colour, 0.25), 0.7)


def skirt(c: Canvas) -> None:
    flared(c, 46, 186, 30, 60)
    c.cut([(53, 42), (115, 42), (116, 52), (52, 52)], tone=0.85)


def short_skirt(c: Canvas) -> None:
    c.cut(mirrored([(52, 60), (38, 164), (60, 168)]), shade=0.4)
    c.cut([(52, 58), (116, 58), (117, 69), (51, 69)], tone=0.9)
    for x, far in ((56, 66), (112, 102)):
        c.stitch([(x, 72), (far, 84), (far, 71)], lighter(c.colour, 0.5))
    c.line([(84, 70), (84, 104)], darker(c.colour, 0.4), 0.8)
    c.fill(oval(84, 63, 2.4, 2.4), (198, 164, 96))


def pleated_skirt(c: Canvas) -> None:
    flared(c, 50, 192, 29, 58)
    for step in range(-6, 7):
        share = step / 6.5
        c.line([(84 + share * 29, 54), (84 + share * 58, 188)], darker(c.colour, 0.45), 1.1)
        c.line([(85.5 + share * 29, 54), (86.5 + share * 58, 188)], lighter(c.colour, 0.2), 0.8)
    c.cut([(54, 44), (114, 44), (115, 55), (53, 55)], tone=0.85)


def _legs(c: Canvas, hem_y: float, hem_half: float, spread: float = 21, waist_y: float = 18) -> None:
    """Two legs; `hem_half` is half a leg's width at its end, whose middle is `spread` from the axis."""
    for side in (-1, 1):
        foot = 84 + side * spread
        outer, inner = foot + side * hem_half, foot - side * hem_half
        knee_y = (waist_y + 62 + hem_y) / 2
        thigh = 84 + side * (36 + max(0, hem_half - 15) * 0.4)
        hip: list[Point] = [(84, waist_y + 4), (84 + side * 30, waist_y + 4), (thigh, waist_y + 48)]
        leg: list[Point] = [
            (outer, knee_y + 20),
            (outer, hem_y),
            (inner, hem_y),
            (84 + side * 2, waist_y + 62),
        ]
        c.cut([*hip, *leg], tone=1.0 if side < 0 else 0.95, shade=0.5)
    c.cut([(53, waist_y), (115, waist_y), (116, waist_y + 11), (52, waist_y + 11)], tone=0.88, shade=0.4)
    c.line([(84, waist_y + 10), (84, waist_y + 60)], darker(c.colour, 0.45), 0.9)


def _pockets(c: Canvas, thread: tuple[int, int, int]) -> None:
    for side in (-1, 1):
        c.line([(84 + side * 20, 30), (84 + side * 33, 50)], darker(c.colour, 0.4), 1.2)
    c.stitch([(87, 30), (92, 52), (85, 62)], thread)
    c.fill(oval(84, 23.5, 2.2, 2.2), (196, 170, 110))
    for x in (58, 72, 96, 110):
        c.line([(x, 17), (x, 30)], darker(c.colour, 0.3), 1.6)


def jeans(c: Canvas) -> None:
    _legs(c, 210, 14)
    _pockets(c, (214, 164, 92))
    for near, far in ((49, 77), (91, 119)):
        c.stitch([(near, 205), (far, 205)], (214, 164, 92))


def trousers(c: Canvas) -> None:
    _legs(c, 210, 14)
    _pockets(c, darker(c.colour, 0.3))
    for x in (63, 105):
        c.line([(x, 36), (x, 206)], lighter(c.colour, 0.16), 0.9)


def wide_trousers(c: Canvas) -> None:
    _legs(c, 210, 26, 29)
    for x in (60, 66, 102, 108):
        c.line([(x, 30), (x + (x - 84) * 0.2, 70)], darker(c.colour, 0.35), 1)


def track_pants(c: Canvas) -> None:
    _legs(c, 206, 12)
    for side in (-1, 1):
        stripe = [(84 + side * x, y) for x, y in ((30, 30), (34, 68), (31, 165), (31, 204))]
        c.line(stripe, contrast(c.colour), 2.2)
        c.line([(84 + side * 3, 28), (84 + side * 4, 48)], contrast(c.colour), 1.2)


def harem_trousers(c: Canvas) -> None:
    for side in (-1, 1):
        leg: list[Point] = [(84, 24), (84 + side * 30, 24), (84 + side * 50, 90), (84 + side * 46, 150)]
        c.cut([*leg, (84 + side * 32, 194), (84 + side * 14, 194), (84, 122)], tone=1 + side * 0.03)
        cuff = (84 + side * 23 - 10, 192, 84 + side * 23 + 10, 206)
        c.cut(box(*cuff, 2), tone=0.82)
        c.line(
            [(84 + side * 22, 32), (84 + side * 36, 120), (84 + side * 28, 190)], darker(c.colour, 0.3), 0.8
        )
    c.cut([(54, 20), (114, 20), (115, 31), (53, 31)], tone=0.85)


def shorts(c: Canvas) -> None:
    for side in (-1, 1):
        leg: list[Point] = [(84, 50), (84 + side * 32, 50), (84 + side * 46, 146), (84 + side * 6, 152)]
        c.cut([*leg, (84 + side * 1, 104)], tone=1.0 if side < 0 else 0.95, shade=0.5)
        c.line([(84 + side * 24, 60), (84 + side * 36, 82)], darker(c.colour, 0.4), 1.2)
        c.stitch([(84 + side * 45, 142), (84 + side * 7, 147)], lighter(c.colour, 0.4))
    c.cut([(51, 46), (117, 46), (118, 58), (50, 58)], tone=0.88)
    for x in (80, 88):
        c.line([(x, 56), (x - (84 - x) * 0.6, 74)], contrast(c.colour), 1.2)


def dungarees(c: Canvas) -> None:
    for side in (-1, 1):
        c.line([(84 + side * 14, 12), (84 + side * 19, 44)], darker(c.colour, 0.3), 5)
    _legs(c, 216, 15, 22, waist_y=78)
    c.cut([(62, 38), (106, 38), (114, 82), (54, 82)], shade=0.5)
    for x in (66, 102):
        c.fill(oval(x, 43, 2.8, 2.8), (206, 174, 108))
    c.cut(box(72, 50, 96, 70, 3), tone=1.12, shade=0.8)
    for near, far in ((47, 77), (91, 121)):
        c.stitch([(near, 211), (far, 211)], (214, 164, 92))


BOTTOMS: dict[str, Callable[[Canvas], None]] = {
    shape.__name__: shape
    for shape in (
        skirt, short_skirt, pleated_skirt, jeans, trousers, wide_trousers, track_pants, harem_trousers,
        shorts, dungarees,
    )
}  # fmt: skip
