"""A image member as another model version learned it, for a model whose texts alone are learned anew.

Titles, names and corrections change by the day and are learned in minutes; pictures take most of a training
run. Fusion and thresholds are fitted anew, on held-out rows that the kept member has not seen either.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagstream.core.taxonomy import Taxonomy
from tagstream.dataset.split import EvaluationSpec, normalised_title
from tagstream.dataset.tags import columns_of, subset
from tagstream.dataset.training_set import TrainingSet, image_groups, title_hash
from tagstream.model.members import ImageMembers
from tagstream.model.pictures import Frame
from tagstream.model.tagger import read_stored
from tagstream.model.version.format import read_manifest, read_title_hashes
from tagstream.training.recipe import Recipe


@dataclass(frozen=True)
class KeptPictures:
    """`training_titles`: sorted hashes of the titles that the version was trained on. `taught`: how many
    pictures have taught each value of the present taxonomy."""

    model_version: str
    image_members: ImageMembers
    training_titles: npt.NDArray[np.uint32]
    taught: npt.NDArray[np.float32]


def kept_pictures(folder: Path, data: TrainingSet, recipe: Recipe) -> KeptPictures:
    """The image member of the model version in `folder`.

    Raises:
        IncompatibleModel: the folder is no model version, or a damaged one.
        ValueError: it has no image member or one of another kind, it knows other values, or it has learned
            what is held out here, as far as its titles tell.
    """
    manifest, stored = read_manifest(folder), read_stored(folder)
    image, wanted = stored.config.image, recipe.image
    if image is None or stored.image_members is None or wanted is None:
        raise ValueError(f"{folder} and the recipe must both have a image member, if its is to be kept")
    if (stored.config.joint, image.tower, Frame(image.width, image.height)) != (
        recipe.joint,
        wanted.tower,
        wanted.frame,
    ):
        raise ValueError(f"the image member of {folder} is not of the recipe's tower, frame and joint member")
    if _values(stored.taxonomy, image.groups) != _values(data.taxonomy, image_groups(data)):
        raise ValueError(
            f"the image member of {folder} knows other groups or values than this data has: train it anew"
        )
    titles = read_title_hashes(folder, "training")
    spec = EvaluationSpec.model_validate_json((folder / "evaluation_spec.json").read_bytes())
    if seen := _seen(data, titles, spec):
        raise ValueError(
            f"{folder} has learned {seen} of the products that are held out here, so that what it reaches on "
            "them says nothing: use the products and the seed that it was trained with"
        )
    taught = np.zeros(data.taxonomy.size, np.float32)
    columns = columns_of(stored.taxonomy, image.groups)
    taught[columns_of(data.taxonomy, image.groups)] = stored.fusion.taught.float().numpy()[columns]
    return KeptPictures(manifest.model_version, stored.image_members.float().eval(), titles, taught)


def _values(taxonomy: Taxonomy, groups: tuple[str, ...]) -> list[tuple[str, str, list[str]]]:
    known = subset(taxonomy, groups).groups
    return [(group.name, group.kind, [value.value for value in group.values]) for group in known]


def _seen(data: TrainingSet, training_titles: npt.NDArray[np.uint32], spec: EvaluationSpec) -> int:
    """Held-out products that the version was trained on, or, where they have no title, may have been. Those
    that it held out itself are none: two titles may share a hash."""
    held_out = {*spec.test_ids, *spec.validation_ids}
    rows = (*data.products.validation, *data.products.test)
    titles = [normalised_title(row.text.title) for row in rows if row.product_id not in held_out]
    hashes = np.asarray([title_hash(title) for title in titles if title], np.uint32)
    return titles.count("") + int(np.isin(hashes, training_titles).sum())
