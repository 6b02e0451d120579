"""Shoes: each function draws one kind on a canvas."""

from __future__ import annotations

from collections.abc import Callable

from tagstream.catalogue.canvas import (
    Canvas,
    Point,
    box,
    contrast,
    darker,
    lighter,
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


FOOTWEAR: dict[str, Callable[[Canvas], None]] = {
    shape.__name__: shape
    for shape in (
        sports_shoe, casual_shoe, formal_shoe, heel, sandal, flip_flops,
    )
}  # fmt: skip
