"""Labels as a matrix: what a row is known to be, known not to be, and not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tagstream.core.taxonomy import Taxonomy

FloatArray = npt.NDArray[np.float32]


def targets(
    labels: Sequence[Mapping[str, Sequence[str]]],
    taxonomy: Taxonomy,
    unsaid: Sequence[Mapping[str, Sequence[str]]] | None = None,
) -> FloatArray:
    """(rows, taxonomy.size): 1 for a label, 0 for what it rules out, NaN where nothing is known.

    A row without a label in a group, or with labels outside the taxonomy only, knows nothing of that group.
    `unsaid` values of free tags are NaN, while the group's other values are known to be 0.
    """
    matrix = np.full((len(labels), taxonomy.size), np.nan, np.float32)
    for group in taxonomy.groups:
        columns = taxonomy.slices[group.name]
        place = {value.value: columns.start + at for at, value in enumerate(group.values)}
        for row, of_row in enumerate(labels):
            found = [place[value] for value in of_row.get(group.name, ()) if value in place]
            hidden = [place[v] for v in unsaid[row].get(group.name, ()) if v in place] if unsaid else []
            if found or hidden:
                matrix[row, columns] = 0
                matrix[row, hidden] = np.nan
                matrix[row, found if group.kind == "multi" else found[:1]] = 1
    return matrix


def log_priors(target: FloatArray, taxonomy: Taxonomy) -> FloatArray:
    """(taxonomy.size,) log share of each value of a single-choice group among known rows; 0 for free tags."""
    log_prior = np.zeros(taxonomy.size, np.float32)
    for group in taxonomy.groups:
        if group.kind == "single":
            columns = taxonomy.slices[group.name]
            counts = np.nan_to_num(target[:, columns]).sum(axis=0) + 1
            log_prior[columns] = np.log(counts / counts.sum())
    return log_prior
