"""Clothes, laid flat: each function draws one kind on a canvas."""

from __future__ import annotations

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

_SLEEVES: dict[str, list[Point]] = {  # left sleeve: shoulder, outer edge, hem, arm pit
    "cap": [(50, 44), (36, 62), (44, 72), (54, 74)],
    "short": [(52, 42), (40, 52), (22, 88), (42, 98), (54, 78)],
    "elbow": [(52, 42), (40, 52), (18, 110), (38, 118), (54, 80)],
    "long": [(52, 42), (38, 54), (20, 120), (14, 172), (32, 175), (42, 120), (54, 84)],
}


def _torso(c: Canvas, sleeve: str | None, hem_y: float, hem_half: float, waist_half: float = 35) -> None:
    if sleeve:
        left = rounded(_SLEEVES[sleeve], 1)
        c.cut(left, tone=0.93)
        c.cut([(168 - x, y) for x, y in left], tone=0.93)
    shoulder = 50 if sleeve else 57
    half: list[Point] = [(72, 38), (shoulder, 45), (52, 78), (84 - waist_half, 118)]
    c.cut(mirrored([*half, (84 - hem_half, hem_y - 2), (84 - hem_half + 3, hem_y)]), shade=0.4)
    for fold in (64, 76, 95, 106):
        top, end = hem_y - 45 + fold % 7, hem_y - 4
        c.line([(fold, top), (fold + (fold - 84) * 0.08, end)], darker(c.colour, 0.12), 0.5)


def _seam(c: Canvas, points: list[Point]) -> None:
    c.stitch(points, mixed(c.colour, contrast(c.colour), 0.45))


def _neck(c: Canvas, depth: float, width: float = 13, vee: bool = False) -> None:
    left, right, rim = 84 - width, 84 + width, 37.5
    low: list[Point] = [(84, rim + depth)] if vee else [(77, rim + depth), (91, rim + depth)]
    front = [(left, rim), *low, (right, rim)]
    inside = [(left, rim), (84, rim - 3), (right, rim), *low[::-1]]
    c.fill(inside, darker(c.colour, 0.45), shade=0.2)
    c.line(front, darker(c.colour, 0.2), 2.2)
    c.line([(left, rim), (84, rim - 3), (right, rim)], darker(c.colour, 0.1), 1.6)


def _shirt_collar(c: Canvas, band: bool = False) -> None:
    c.fill([(71, 38), (84, 33), (97, 38), (84, 54)], darker(c.colour, 0.45), shade=0.2)
    if band:
        c.cut([(70, 35), (75, 33), (85, 48), (83, 55), (72, 42)], tone=1.05)
        c.cut([(98, 35), (93, 33), (84, 48), (85, 55), (96, 42)], tone=1.05)
        return
    c.cut([(70, 34), (84, 50), (74, 62), (64, 44)], tone=1.06, shade=0.6)
    c.cut([(98, 34), (84, 50), (94, 62), (104, 44)], tone=1.06, shade=0.6)


def _buttons(c: Canvas, top: float, bottom: float, gap: float = 17) -> None:
    c.cut([(80.5, top - 6), (87.5, top - 6), (87.5, bottom), (80.5, bottom)], tone=0.97, shade=0.3)
    y = top
    while y < bottom - 3:
        c.fill(oval(84, y, 1.5, 1.5), contrast(c.colour), shade=0.1)
        y += gap


def tshirt(c: Canvas) -> None:
    _torso(c, "short", 186, 35)
    _neck(c, 10)
    _seam(c, [(50, 182), (118, 182)])
    _seam(c, [(25, 86), (42, 94)])
    _seam(c, [(143, 86), (126, 94)])


def polo(c: Canvas) -> None:
    _torso(c, "short", 186, 35)
    _shirt_collar(c)
    _buttons(c, 58, 82, 9)
    for near, far in ((22, 42), (146, 126)):
        c.line([(near, 86), (far, 96)], contrast(c.colour), 1.4)


def shirt(c: Canvas) -> None:
    _torso(c, "long", 190, 36)
    _buttons(c, 62, 188)
    _shirt_collar(c)
    c.cut([(92, 84), (110, 84), (110, 102), (101, 107), (92, 102)], tone=1.03, shade=0.7)


def short_shirt(c: Canvas) -> None:
    _torso(c, "short", 188, 36)
    _buttons(c, 62, 186)
    _shirt_collar(c)
    c.cut([(92, 84), (110, 84), (110, 102), (101, 107), (92, 102)], tone=1.03, shade=0.7)


def blouse(c: Canvas) -> None:
    _torso(c, "elbow", 176, 42, 33)
    _neck(c, 20, 14, vee=True)
    _ruffle(c, 174, 43)


def top(c: Canvas) -> None:
    _torso(c, "cap", 168, 38, 30)
    _neck(c, 17, 15)
    c.line([(56, 112), (84, 116), (112, 112)], darker(c.colour, 0.3), 1.2)


def camisole(c: Canvas) -> None:
    for side in (-1, 1):
        c.line([(84 + side * 13, 24), (84 + side * 19, 55)], darker(c.colour, 0.3), 2)
    outline = [(64, 52), (74, 58), (84, 62), (94, 58), (104, 52), (114, 74), (112, 118), (120, 168)]
    c.cut([*outline, (48, 168), (56, 118), (54, 74)], shade=0.4)
    c.line([(64, 53), (84, 63), (104, 53)], lighter(c.colour, 0.3), 1.6)


def kurta(c: Canvas) -> None:
    _torso(c, "long", 206, 42, 34)
    _shirt_collar(c, band=True)
    trim = mixed(c.colour, (214, 168, 70), 0.6)
    c.fill([(79, 50), (89, 50), (89, 104), (79, 104)], trim)
    c.line([(42, 203), (126, 203)], trim, 3)
    c.line([(47, 160), (44, 204)], darker(c.colour, 0.5), 1)
    c.line([(121, 160), (124, 204)], darker(c.colour, 0.5), 1)


def sweatshirt(c: Canvas) -> None:
    _torso(c, "long", 180, 36)
    _neck(c, 9)
    _ribs(c, 174, 184, 36)


def hoodie(c: Canvas) -> None:
    c.cut(rounded([(66, 48), (64, 28), (84, 16), (104, 28), (102, 48), (84, 58)]), tone=0.88)
    _torso(c, "long", 180, 37)
    c.fill(rounded([(71, 40), (84, 27), (97, 40), (84, 56)]), darker(c.colour, 0.5), shade=0.2)
    for x in (78, 90):
        c.line([(x, 52), (x - (84 - x) * 0.2, 84)], contrast(c.colour), 1.3)
    c.cut([(62, 132), (106, 132), (114, 164), (54, 164)], tone=0.98, shade=0.7)
    _ribs(c, 174, 184, 37)


def sweater(c: Canvas) -> None:
    _torso(c, "long", 182, 37)
    c.cut([(71, 28), (97, 28), (98, 44), (84, 48), (70, 44)], tone=0.95, shade=0.5)
    _ribs(c, 174, 186, 37)


def cardigan(c: Canvas) -> None:
    _torso(c, "long", 186, 38)
    c.fill([(71, 37), (97, 37), (86, 92), (82, 92)], darker(c.colour, 0.55), shade=0.2)
    _buttons(c, 98, 186, 20)
    _ribs(c, 179, 188, 38)


def jacket(c: Canvas) -> None:
    _torso(c, "long", 184, 39, 38)
    c.cut([(68, 32), (84, 44), (78, 58), (62, 46)], tone=1.08, shade=0.7)
    c.cut([(100, 32), (84, 44), (90, 58), (106, 46)], tone=1.08, shade=0.7)
    c.line([(84, 46), (84, 184)], (178, 180, 184), 1.8)
    for x, lean in ((56, 6), (112, -6)):
        c.line([(x, 146), (x + lean, 126)], darker(c.colour, 0.5), 2)
    _ribs(c, 177, 187, 39)


def blazer(c: Canvas) -> None:
    _torso(c, "long", 188, 38, 35)
    c.fill([(72, 38), (96, 38), (84, 106)], (244, 244, 242), shade=0.15)
    c.cut([(70, 36), (84, 106), (76, 100), (60, 70), (67, 64), (62, 54)], tone=1.1, shade=0.7)
    c.cut([(98, 36), (84, 106), (92, 100), (108, 70), (101, 64), (106, 54)], tone=1.1, shade=0.7)
    c.line([(84, 106), (85, 188)], darker(c.colour, 0.5), 1)
    for y in (116, 134):
        c.fill(oval(87, y, 2, 2), contrast(c.colour), shade=0.2)
    for x in (52, 98):
        c.line([(x, 146), (x + 18, 146)], darker(c.colour, 0.5), 2)


def trench(c: Canvas) -> None:
    _torso(c, "long", 212, 46, 34)
    c.cut([(68, 34), (84, 60), (72, 74), (56, 50)], tone=1.1, shade=0.7)
    c.cut([(100, 34), (84, 60), (96, 74), (112, 50)], tone=1.1, shade=0.7)
    c.line([(88, 62), (90, 212)], darker(c.colour, 0.4), 1)
    for y in (82, 100, 136, 154):
        for x in (76, 98):
            c.fill(oval(x, y, 2.2, 2.2), darker(c.colour, 0.55), shade=0.2)
    c.cut([(49, 114), (119, 114), (119, 123), (49, 123)], tone=0.85, shade=0.6)
    c.fill([(79, 112), (91, 112), (91, 125), (79, 125)], darker(c.colour, 0.6))


def vest(c: Canvas) -> None:
    _torso(c, None, 178, 35)
    c.fill([(71, 37), (97, 37), (85, 96), (83, 96)], (246, 246, 246), shade=0.1)
    _buttons(c, 102, 178, 16)


def dress(c: Canvas) -> None:
    _torso(c, "cap", 122, 26, 27)
    flared(c, 118, 210, 27, 58)
    _neck(c, 14, 15, vee=True)
    c.cut([(57, 114), (111, 114), (111, 121), (57, 121)], tone=0.82, shade=0.5)


def slip_dress(c: Canvas) -> None:
    for side in (-1, 1):
        c.line([(84 + side * 11, 18), (84 + side * 17, 47)], darker(c.colour, 0.3), 2)
    c.cut(mirrored([(67, 44), (76, 52), (57, 66), (60, 112), (44, 210)]), shade=0.4)
    c.line([(67, 45), (84, 54), (101, 45)], lighter(c.colour, 0.3), 1.4)


def shirt_dress(c: Canvas) -> None:
    _torso(c, "elbow", 208, 48, 30)
    _buttons(c, 62, 206, 16)
    _shirt_collar(c)
    c.cut([(53, 113), (115, 113), (115, 121), (53, 121)], tone=0.8, shade=0.5)


def _ruffle(c: Canvas, y: float, half: float) -> None:
    for step in range(9):
        x = 84 - half + (step + 0.5) * half * 2 / 9
        c.cut(oval(x, y, half / 8, 5), tone=0.95, shade=0.6)


def _ribs(c: Canvas, top_y: float, bottom_y: float, half: float) -> None:
    c.cut([(84 - half, top_y), (84 + half, top_y), (82 + half, bottom_y), (86 - half, bottom_y)], tone=0.84)
    x = 86 - half
    while x < 82 + half:
        c.line([(x, top_y + 1), (x, bottom_y - 1)], darker(c.colour, 0.35), 0.5)
        x += 3


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


GARMENTS: dict[str, Callable[[Canvas], None]] = {
    shape.__name__: shape
    for shape in (
        tshirt, polo, shirt, short_shirt, blouse, top, camisole, kurta, sweatshirt, hoodie, sweater,
        cardigan, jacket, blazer, trench, vest, dress, slip_dress, shirt_dress,
        skirt, short_skirt, pleated_skirt, jeans, trousers, wide_trousers, track_pants, harem_trousers,
        shorts, dungarees,
    )
}  # fmt: skip
