"""Shoes, bags and the small things: each function draws one kind on a canvas."""

from __future__ import annotations

import math
from collections.abc import Callable

from infra.catalogue.canvas import (
    Canvas,
    Point,
    box,
    contrast,
    darker,
    lighter,
    mirrored,
    mixed,
    oval,
    rounded,
)

_RUBBER = (240, 240, 238)


def sports_shoe(c: Canvas) -> None:
    c.fill(
        rounded([(12, 134), (14, 152), (60, 157), (120, 156), (156, 152), (158, 128), (80, 136)], 2),
        _RUBBER,
        0.35,
    )
    c.fill(
        [(18, 152), (60, 156), (120, 155), (153, 150), (153, 155), (120, 160), (60, 161), (20, 157)],
        (52, 52, 56),
    )
    upper: list[Point] = [
        (14, 136),
        (18, 122),
        (44, 112),
        (72, 92),
        (92, 78),
        (104, 88),
        (136, 84),
        (150, 76),
    ]
    c.cut(rounded([*upper, (157, 100), (156, 134), (110, 140), (60, 142), (22, 141)], 2), shade=0.5)
    c.fill(
        rounded([(14, 138), (19, 124), (38, 115), (46, 128), (40, 141)], 2),
        mixed(c.colour, _RUBBER, 0.4),
        0.5,
    )
    c.fill(
        rounded([(98, 83), (106, 90), (136, 86), (148, 78), (140, 98), (112, 102)], 2), darker(c.colour, 0.6)
    )
    for offset in (0, 10, 20):
        c.line([(84 + offset, 106 + offset * 0.4), (96 + offset, 138)], contrast(c.colour), 3)
    for step in range(5):
        x, y = 56 + step * 8, 106 - step * 5.4
        c.line([(x, y), (x + 13, y + 8)], _RUBBER, 2.4)
        c.line([(x, y), (x + 13, y + 8)], (206, 206, 206), 0.5)


def casual_shoe(c: Canvas) -> None:
    sole = rounded([(12, 134), (13, 150), (156, 150), (157, 132), (84, 140)], 1)
    c.fill(sole, (244, 242, 236), 0.3)
    c.line([(14, 145), (155, 145)], mixed(c.colour, (220, 60, 50), 0.3), 1.2)
    upper: list[Point] = [
        (14, 138),
        (20, 120),
        (48, 110),
        (74, 92),
        (94, 76),
        (110, 86),
        (140, 84),
        (153, 78),
    ]
    c.cut(rounded([*upper, (156, 110), (156, 138)], 1), shade=0.5)
    c.fill(rounded([(13, 140), (18, 122), (40, 114), (48, 140)], 2), (238, 236, 230), 0.4)
    c.fill(
        rounded([(98, 82), (112, 88), (140, 86), (150, 82), (142, 98), (116, 101)], 2), darker(c.colour, 0.55)
    )
    c.stitch([(52, 138), (84, 104), (104, 94)], contrast(c.colour))
    for step in range(5):
        x, y = 58 + step * 8, 106 - step * 5.2
        c.line([(x, y), (x + 13, y + 8)], _RUBBER, 2.4)


def formal_shoe(c: Canvas) -> None:
    c.fill([(10, 140), (60, 146), (108, 144), (118, 150), (159, 150), (159, 138)], (36, 30, 28), 0.2)
    c.fill([(118, 147), (159, 147), (158, 157), (122, 157)], (30, 26, 24), 0.2)
    upper: list[Point] = [(8, 138), (24, 126), (56, 116), (78, 96), (98, 84), (116, 92), (142, 90), (156, 84)]
    c.cut(rounded([*upper, (160, 112), (158, 143), (90, 145), (40, 145)], 2), shade=0.55)
    c.fill(rounded([(24, 132), (46, 122), (62, 120), (40, 132)], 2), lighter(c.colour, 0.35), 0.7)
    c.fill(
        rounded([(100, 89), (118, 95), (142, 92), (152, 88), (144, 102), (118, 105)], 2),
        darker(c.colour, 0.6),
    )
    c.line([(60, 143), (68, 118), (82, 108)], darker(c.colour, 0.5), 1.2)
    for step in range(3):
        x, y = 74 + step * 8, 106 - step * 6
        c.line([(x, y), (x + 14, y + 7)], darker(c.colour, 0.65), 2)


def heel(c: Canvas) -> None:
    c.fill([(134, 112), (152, 98), (146, 176), (139, 176)], darker(c.colour, 0.3), 0.4)
    sole: list[Point] = [(10, 168), (52, 176), (92, 154), (136, 116), (152, 96)]
    c.fill([*sole, (146, 118), (98, 164), (58, 181), (14, 175)], (62, 44, 34), 0.3)
    upper: list[Point] = [
        (8, 168),
        (20, 156),
        (42, 148),
        (58, 152),
        (92, 132),
        (128, 106),
        (146, 78),
        (156, 88),
    ]
    c.cut(rounded([*upper, (150, 108), (124, 132), (92, 158), (52, 178), (18, 176)], 2), shade=0.55)
    c.fill(
        rounded([(52, 153), (94, 134), (130, 106), (144, 86), (134, 116), (94, 148), (64, 162)], 2),
        (206, 176, 146),
    )


def sandal(c: Canvas) -> None:
    bed: list[Point] = [(8, 150), (30, 142), (90, 144), (158, 138), (162, 150), (120, 158), (30, 162)]
    c.fill(rounded(bed, 2), (66, 52, 42), 0.3)
    c.fill(
        rounded([(10, 147), (32, 139), (90, 140), (158, 132), (158, 140), (90, 147), (30, 150)], 2),
        (186, 148, 108),
    )
    c.cut(rounded([(24, 150), (30, 122), (44, 114), (60, 122), (66, 148)], 1), shade=0.55)
    c.cut(rounded([(72, 148), (80, 112), (92, 102), (106, 110), (104, 146)], 1), tone=0.95, shade=0.55)
    c.fill(rounded([(36, 148), (42, 128), (52, 130), (56, 147)], 1), (206, 170, 132), 0.2)
    c.fill(rounded([(84, 146), (88, 120), (97, 120), (96, 145)], 1), (206, 170, 132), 0.2)
    c.cut(
        [(104, 112), (112, 92), (140, 84), (154, 88), (156, 96), (140, 93), (118, 100), (108, 124)], shade=0.5
    )
    c.cut(
        rounded([(144, 88), (156, 86), (160, 112), (159, 138), (146, 139), (148, 112)], 1),
        tone=0.9,
        shade=0.5,
    )
    c.fill(box(116, 88, 126, 100, 2), (206, 180, 110))


def flip_flops(c: Canvas) -> None:
    for dx in (-37, 37):
        x = 84 + dx
        bed = rounded(
            [(x - 20, 44), (x + 20, 44), (x + 24, 84), (x + 17, 130), (x + 19, 182), (x - 19, 182)], 2
        )
        c.fill([(px + 2.5, py + 4) for px, py in bed], (70, 70, 74), 0.1)
        c.cut(bed, shade=0.3)
        for side in (-1, 1):
            strap = [(x - side * 2, 68), (x + side * 13, 92), (x + side * 20, 122), (x + side * 14, 124)]
            c.fill([*strap, (x + side * 8, 98), (x - side * 1, 80)], contrast(c.colour), 0.4)
        c.fill(oval(x, 70, 3, 3), darker(c.colour, 0.5))


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


GOODS: dict[str, Callable[[Canvas], None]] = {
    shape.__name__: shape
    for shape in (
        sports_shoe, casual_shoe, formal_shoe, heel, sandal, flip_flops,
        handbag, backpack, wallet, watch, cap, sunglasses, belt, socks, tie,
    )
}  # fmt: skip
