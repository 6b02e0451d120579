"""How many pictures a step may have, so that it fits a GPU's memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from tagstream.dataset.training_set import Parted, TrainingSet
from tagstream.training.recipe import Recipe, train_image


def largest_power_of_two(fits: Callable[[int], bool], at_most: int) -> int:
    """The largest power of two up to `at_most` that fits.

    Raises:
        ValueError: not even 1 fits.
    """
    rows = 1 << (at_most.bit_length() - 1)
    while rows and not fits(rows):
        rows //= 2
    if not rows:
        raise ValueError("not even one picture fits the GPU memory that a step may take")
    return rows


def batch_that_fits(
    data: TrainingSet, recipe: Recipe, device: torch.device, cap_gib: float, world: int
) -> int:
    """Rows of a step over `world` processes: a power of two for each, never more than the recipe has.

    Tried by training on the first pictures for one step; the cap stays on this process.

    Raises:
        ValueError: the device is no GPU, or not even one picture a process fits.
    """
    if device.type != "cuda":
        raise ValueError(f"a batch is fitted to a GPU's memory, and the device is {device.type}")
    assert recipe.image is not None
    how = recipe.image
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gib * 2**30 / total), device)
    rows_with_pictures = data.with_pictures

    def fits(rows: int) -> bool:
        some = replace(data, products=Parted(train=rows_with_pictures[:rows]), extra=[])
        once = how.optimisation.model_copy(update={"epochs": 1, "batch_rows": rows})
        try:
            train_image(
                some,
                recipe.model_copy(update={"image": how.model_copy(update={"optimisation": once})}),
                device=device,
            )
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            torch.cuda.empty_cache()
        return True

    at_most = max(1, min(how.optimisation.batch_rows // world, len(rows_with_pictures)))
    return world * largest_power_of_two(fits, at_most)
