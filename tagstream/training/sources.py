"""The labelled files that a training run reads, as plain values that travel to the workers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.columns import NO_COLUMN, Columns
from tagstream.dataset.rows import Row, read_products, read_zh, unknown_labels
from tagstream.dataset.table import titles_files
from tagstream.dataset.training_set import TrainingSet, training_set
from tagstream.taxonomy.files import read_taxonomy


@dataclass(frozen=True)
class Sources:
    """`extra`: further labelled products or titles, to train on alone, like the titles files in the folder
    `data`, which add no picture and no group of their own; `columns`: of all of them.

    With `taxonomy`, labels are read through it, whatever their spelling; those outside it are unknown.
    """

    data: str
    extra: tuple[str, ...] = ()
    zh: str | None = None
    taxonomy: str | None = None
    columns: Columns | None = None
    limit: int | None = None

    def read(self, seed: int) -> tuple[TrainingSet, list[str]]:
        """The training set, and sentences on what was found to learn from, and what is not used.

        Raises:
            ValueError: a file or a column is missing, an id stands twice, or there is too little to learn.
            BadSettings: the taxonomy's file is not one.
        """
        taxonomy = read_taxonomy(Path(self.taxonomy)) if self.taxonomy else None
        columns, folder = self.columns or Columns(), Path(self.data)
        products = self._rows(folder, columns, taxonomy)
        titles = titles_files(folder) if columns.title != NO_COLUMN else []
        named = [row for source in self.extra for row in self._rows(Path(source), columns, taxonomy)]
        groups = {group for row in products for group in row.labels}
        groups |= {group.name for group in taxonomy.groups} if taxonomy else set()
        found = [row for path in titles for row in self._titles(path, columns, taxonomy, groups)]
        extra: dict[str, Row] = {}
        for row in (*named, *found):
            if row.product_id not in extra or (row.image and not extra[row.product_id].image):
                extra[row.product_id] = row
        zh = read_zh(Path(self.zh), self.limit) if self.zh else []
        data = training_set(products, list(extra.values()), zh, seed, taxonomy)
        said = [f"further titles found beside the products: {path}" for path in titles]
        said += data.not_learned
        if taxonomy is not None and (outside := unknown_labels(products, taxonomy)):
            (group, label), rows = outside.most_common(1)[0]
            said.append(
                f"{len(outside)} labels are outside the taxonomy and taken as unknown, "
                f"most often {group}={label} ({rows} rows)"
            )
        if data.left_out:
            said.append(f"{data.left_out} extra rows share an id or title with a held-out one: left out")
        return data, said

    def _rows(self, source: Path, columns: Columns, taxonomy: Taxonomy | None) -> list[Row]:
        return read_products(source, self.limit, columns, taxonomy, "keep")

    def _titles(
        self, path: Path, columns: Columns, taxonomy: Taxonomy | None, groups: Collection[str]
    ) -> list[Row]:
        """Rows without pictures, labelled in these groups alone: another column of theirs is no group."""
        return [
            replace(row, labels={group: said for group, said in row.labels.items() if group in groups})
            for row in self._rows(path, replace(columns, image=NO_COLUMN), taxonomy)
        ]
