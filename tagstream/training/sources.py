"""Where a training run reads its rows, as plain values that travel to the workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tagstream.dataset.columns import Columns
from tagstream.dataset.description import read_dataset
from tagstream.dataset.training_set import TrainingSet, read_training_set
from tagstream.taxonomy.files import read_taxonomy


@dataclass(frozen=True)
class Sources:
    """`data`: a dataset.toml, a products file, or a folder with one. `extra`: further ones, whose products
    are trained on only. `taxonomy`: a file that goes before the one of the data set. `columns`: of products.
    """

    data: str
    extra: tuple[str, ...] = ()
    taxonomy: str | None = None
    columns: Columns | None = None
    limit: int | None = None

    def read(self, seed: int) -> tuple[TrainingSet, list[str]]:
        """As `read_training_set`, and what it raises."""
        dataset = read_dataset(Path(self.data), self.columns)
        extra = [read_dataset(Path(source), self.columns) for source in self.extra]
        file = Path(self.taxonomy) if self.taxonomy else dataset.taxonomy
        return read_training_set(dataset, seed, read_taxonomy(file) if file else None, extra, self.limit)
