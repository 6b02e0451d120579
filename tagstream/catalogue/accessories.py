"""Bags and the small things: each function draws one kind on a canvas."""

from __future__ import annotations

import math
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
    rounded,
)

_STEEL = (186, 190, 196)


def handbag(c: Canvas) -> None:
    for reach in (0, 7):
        c.line(
            [(56, 100), (58, 62 + reach), (72, 44 + reach), (96, 44 + reach), (110, 62 + reach), (112, 100)],
            darker(c.colour, 0.1 + 0.04 * reach),
            4,
        )
    c.cut(rounded(mirrored([(40, 92), (30, 110), (24, 178), (34, 190)]), 1), shade=0.55)
    c.cut(rounded(mirrored([(42, 92), (36, 108), (38, 134), (70, 140)]), 1), tone=1.12, shade=0.6)
    c.line([(36, 96), (132, 96)], _STEEL, 1.6)
    c.stitch([(30, 182), (138, 182)], contrast(c.colour))
    c.fill([(76, 128), (92, 128), (92, 148), (76, 148)], (206, 176, 106), 0.4)
    for x in (54, 114):
        c.fill(oval(x, 102, 4, 4), (206, 176, 106), 0.4)


def backpack(c: Canvas) -> None:
    c.line([(72, 40), (74, 22), (94, 22), (96, 40)], darker(c.colour, 0.3), 4)
    for side in (-1, 1):
        c.fill(
            rounded(
                [(84 + side * 46, 70), (84 + side * 60, 96), (84 + side * 58, 180), (84 + side * 48, 190)], 2
            ),
            darker(c.colour, 0.5),
        )
    c.cut(rounded(mirrored([(60, 34), (36, 62), (32, 180), (48, 204)]), 2), shade=0.55)
    c.cut(rounded(mirrored([(52, 124), (44, 136), (44, 186), (54, 192)]), 2), tone=1.14, shade=0.7)
    c.line([(44, 108), (48, 74), (64, 56), (104, 56), (120, 74), (124, 108)], (60, 60, 64), 1.8)
    c.line([(50, 146), (118, 146)], (60, 60, 64), 1.8)
    c.line([(112, 146), (112, 158)], _STEEL, 2)
    c.fill([(74, 84), (94, 84), (94, 94), (74, 94)], contrast(c.colour), 0.3)


def wallet(c: Canvas) -> None:
    c.fill(box(26, 82, 144, 155), darker(c.colour, 0.5), 0.2)
    c.cut(box(24, 78, 144, 150), shade=0.55)
    c.stitch([(29, 83), (139, 83), (139, 145), (29, 145), (29, 83)], lighter(c.colour, 0.45))
    c.line([(24, 114), (144, 114)], darker(c.colour, 0.3), 1)
    c.cut(box(104, 102, 147, 126, 8), tone=1.16, shade=0.7)
    c.fill(oval(113, 114, 4.5, 4.5), (208, 180, 112), 0.4)


def watch(c: Canvas) -> None:
    for sign in (-1, 1):
        strap: list[Point] = [(68, 112 + sign * 30), (100, 112 + sign * 30), (97, 112 + sign * 102)]
        c.cut([*strap, (71, 112 + sign * 102)], shade=0.55)
        c.stitch([(72, 112 + sign * 36), (74, 112 + sign * 98)], contrast(c.colour))
        c.stitch([(96, 112 + sign * 36), (94, 112 + sign * 98)], contrast(c.colour))
    c.fill([(60, 74), (108, 74), (108, 150), (60, 150)], _STEEL, 0.4)
    c.fill(oval(84, 112, 40, 40), _STEEL, 0.6)
    c.fill([(123, 107), (130, 107), (130, 117), (123, 117)], (150, 154, 160))
    dial = lighter(c.colour, 0.1)
    c.fill(oval(84, 112, 33, 33), dial, 0.3)
    for hour in range(12):
        turn = hour * math.pi / 6
        x, y = math.sin(turn), -math.cos(turn)
        c.line(
            [(84 + 26 * x, 112 + 26 * y), (84 + 30 * x, 112 + 30 * y)],
            contrast(dial),
            2 if hour % 3 == 0 else 1,
        )
    c.line([(84, 112), (68, 98)], contrast(dial), 2.2)
    c.line([(84, 112), (94, 90)], contrast(dial), 1.6)
    c.fill(oval(84, 112, 2.5, 2.5), (206, 70, 54))


def cap(c: Canvas) -> None:
    c.fill(
        rounded([(30, 142), (84, 132), (138, 142), (148, 160), (84, 152), (20, 160)], 2),
        darker(c.colour, 0.45),
    )
    c.cut(rounded(mirrored([(80, 68), (46, 80), (34, 118), (34, 146)]), 2), shade=0.5)
    for points in ([(84, 70), (84, 140)], [(80, 70), (58, 96), (52, 140)], [(88, 70), (110, 96), (116, 140)]):
        c.stitch(points, darker(c.colour, 0.4))
    c.cut(
        rounded([(30, 138), (84, 126), (138, 138), (152, 158), (84, 146), (16, 158)], 2), tone=0.85, shade=0.5
    )
    c.fill(oval(84, 69, 4, 2.6), darker(c.colour, 0.2))
    c.fill([(74, 100), (94, 100), (90, 116), (78, 116)], contrast(c.colour), 0.3)


def sunglasses(c: Canvas) -> None:
    for side in (-1, 1):
        c.line([(84 + side * 66, 100), (84 + side * 74, 92), (84 + side * 56, 74)], darker(c.colour, 0.2), 4)
        x = 84 + side * 36
        frame: list[Point] = [(x - 31, 92), (x + 31, 92), (x + 29, 122), (x + side * 8, 138), (x - 28, 124)]
        c.cut(rounded(frame, 2), shade=0.5)
        lens = [(x + (px - x) * 0.84, 112 + (py - 112) * 0.8) for px, py in frame]
        c.fill(rounded(lens, 2), (58, 54, 56), 0.5)
        c.line([(x - 14, 104), (x - 2, 118)], (150, 146, 150), 2.4)
    c.line([(74, 104), (84, 99), (94, 104)], darker(c.colour, 0.1), 4)


def belt(c: Canvas) -> None:
    turn = 0.0
    coil: list[Point] = []
    while turn < 5 * math.pi:
        r = 24 + turn * 2.9
        coil.append((88 + r * math.cos(turn), 112 + r * 0.92 * math.sin(turn)))
        turn += 0.12
    c.line(coil, darker(c.colour, 0.5), 8.4)
    c.line(coil, c.colour, 6.6)
    c.line([(x - 0.8, y - 0.8) for x, y in coil], lighter(c.colour, 0.22), 1.4)
    c.fill(rounded([(10, 96), (34, 96), (34, 126), (10, 126)], 1), _STEEL, 0.5)
    c.fill([(15, 101), (29, 101), (29, 121), (15, 121)], darker(c.colour, 0.2))
    c.line([(12, 111), (32, 111)], (150, 154, 160), 2.2)


def socks(c: Canvas) -> None:
    for dx, tone in ((26, 0.9), (-14, 1.0)):
        leg: list[Point] = [(66 + dx, 36), (96 + dx, 36), (96 + dx, 134), (78 + dx, 158), (46 + dx, 190)]
        c.cut(rounded([*leg, (28 + dx, 180), (34 + dx, 164), (64 + dx, 132)], 2), tone=tone, shade=0.5)
        for y in (44, 49, 54):
            c.line([(66 + dx, y), (95 + dx, y)], contrast(c.colour), 1.4)
        c.fill(oval(42 + dx, 177, 10, 9), darker(c.colour, 0.35))


def tie(c: Canvas) -> None:
    c.cut([(72, 14), (96, 14), (92, 34), (76, 34)], tone=1.1, shade=0.5)
    c.cut([(77, 34), (91, 34), (108, 186), (84, 212), (60, 186)], shade=0.5)
    c.line([(76, 34), (92, 34)], darker(c.colour, 0.5), 1.4)


ACCESSORIES: dict[str, Callable[[Canvas], None]] = {
    shape.__name__: shape
    for shape in (
        handbag, backpack, wallet, watch, cap, sunglasses, belt, socks, tie,
    )
}  # fmt: skip
