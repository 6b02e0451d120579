"""What is woven into or printed on the cloth of a drawn product."""

from __future__ import annotations

from collections.abc import Callable

from infra.catalogue.canvas import HEIGHT, WIDTH, Cloth, contrast, darker, lighter, mixed, oval


def striped(cloth: Cloth) -> None:
    other = contrast(cloth.colour)
    for y in range(0, HEIGHT, 11):
        cloth.line((0, y), (WIDTH, y), other, 3)


def checked(cloth: Cloth) -> None:
    other = contrast(cloth.colour)
    across = mixed(cloth.colour, other, 0.45)
    for y in range(0, HEIGHT, 12):
        cloth.line((0, y), (WIDTH, y), across, 4)
    for x in range(0, WIDTH, 12):
        cloth.line((x, 0), (x, HEIGHT), across, 3)
        cloth.line((x + 6, 0), (x + 6, HEIGHT), other, 0.5)


def dotted(cloth: Cloth) -> None:
    other = contrast(cloth.colour)
    for row, y in enumerate(range(0, HEIGHT, 8)):
        for x in range(4 * (row % 2), WIDTH, 8):
            cloth.shape(oval(x, y, 1.6, 1.6), other)


def floral(cloth: Cloth) -> None:
    petals = (contrast(cloth.colour), (224, 84, 110), (240, 178, 70), (96, 140, 84))
    for _ in range(190):
        x, y = float(cloth.rng.uniform(0, WIDTH)), float(cloth.rng.uniform(0, HEIGHT))
        petal = petals[int(cloth.rng.integers(len(petals)))]
        r = float(cloth.rng.uniform(1.6, 3.2))
        for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            cloth.shape(oval(x + dx * r, y + dy * r, r, r), petal)
        cloth.shape(oval(x, y, r * 0.7, r * 0.7), (250, 226, 130))


def printed(cloth: Cloth) -> None:
    """A graphic on the chest: a badge over lines of lettering."""
    ink = contrast(cloth.colour)
    accent = mixed(ink, (226, 88, 48), 0.6)
    cloth.shape(oval(84, 100, 19, 17), accent)
    cloth.shape(oval(84, 100, 13, 11), cloth.colour)
    cloth.shape([(84, 90), (94, 108), (74, 108)], ink)
    for row, y in enumerate((124, 132, 140)):
        x = 62.0 + 4 * row
        while x < 104 - 4 * row:
            wide = float(cloth.rng.uniform(2, 5))
            cloth.shape([(x, y), (x + wide, y), (x + wide, y + 5), (x, y + 5)], ink)
            x += wide + 1.5


def denim(cloth: Cloth) -> None:
    for offset in range(-HEIGHT, WIDTH, 3):
        cloth.line((offset, 0), (offset + HEIGHT, HEIGHT), lighter(cloth.colour, 0.16), 0.6)
    for x in (60, 108):  # worn thighs
        for step in range(10, 0, -1):
            worn = lighter(cloth.colour, 0.03 * (11 - step))
            for y in range(70 - 3 * step, 110 + 5 * step, 3):
                cloth.line((x - 1.6 * step, y), (x + 1.6 * step, y + 1), worn, 0.9)


def lace(cloth: Cloth) -> None:
    hole = mixed(cloth.colour, contrast(cloth.colour), 0.4)
    for row, y in enumerate(range(0, HEIGHT, 7)):
        for x in range(4 * (row % 2), WIDTH, 8):
            cloth.shape(oval(x, y, 2.6, 2), hole)
            cloth.shape(oval(x, y, 1.2, 0.9), cloth.colour)


def knit(cloth: Cloth) -> None:
    for x in range(0, WIDTH, 4):
        cloth.line((x, 0), (x, HEIGHT), darker(cloth.colour, 0.16), 0.8)
        for y in range(0, HEIGHT, 5):
            cloth.line((x, y), (x + 2, y + 2.5), lighter(cloth.colour, 0.16), 0.6)


def camouflage(cloth: Cloth) -> None:
    for _ in range(260):
        x, y = float(cloth.rng.uniform(0, WIDTH)), float(cloth.rng.uniform(0, HEIGHT))
        blot = (darker(cloth.colour, 0.45), lighter(cloth.colour, 0.3), (92, 74, 50))[
            int(cloth.rng.integers(3))
        ]
        rx, ry = float(cloth.rng.uniform(3, 9)), float(cloth.rng.uniform(2, 6))
        cloth.shape(oval(x, y, rx, ry), blot)


PATTERNS: dict[str, Callable[[Cloth], None] | None] = {
    "solid": None,
    "striped": striped,
    "checked": checked,
    "dotted": dotted,
    "floral": floral,
    "printed": printed,
    "denim": denim,
    "lace": lace,
    "knit": knit,
    "camouflage": camouflage,
}
