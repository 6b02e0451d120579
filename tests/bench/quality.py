"""The tagger beside TF-IDF and logistic regression, out of fold, on the same training rows. One JSON line.

    python tests/bench/quality.py --data DIR [--extra FILE_OR_DIR …] [--folds 5] [--only 0,1] [--seed 0]
        [--epochs N] [--pictures DIR]

Files as for jobs/retrain.py. The products are cut into folds by near-duplicate group; each is tested by a
tagger and a baseline that were trained on the others (the image member without the validation part), and the
answers of all folds are judged together, over the classes that every fold could learn. Two settings: from
the products alone, and with all permitted extra titles; the image member is trained once a fold, on the
products, and serves both. It is kept in `--pictures`, and taken from there when it is.

baseline     words 1-2 and characters 2-5, C = 10
spread       standard deviation over folds
gain         a difference and its 95 % interval, by a paired bootstrap over near-duplicate groups
ece_excess   expected calibration error minus what perfect calibration would show on as many rows
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union

from tagstream.core.ports import MicroBatch
from tagstream.core.taxonomy import Group, Taxonomy, Value, columns_of, subset, versioned
from tagstream.dataset.rows import Row, read_products
from tagstream.dataset.split import near_duplicate_groups
from tagstream.dataset.targets import FloatArray
from tagstream.dataset.training_set import TrainingSet, image_groups, training_set
from tagstream.evaluation.figures import judged_groups
from tagstream.evaluation.measures import (
    Floats,
    Judged,
    accuracy_of,
    calibration_of,
    interval,
    macro_f1_of,
    perfect_calibration,
    resampled,
)
from tagstream.model.fusion import Opinions
from tagstream.model.members import ImageMember, ImageMembers
from tagstream.text.masking import LabelWords
from tagstream.training.loop import Hooks
from tagstream.training.members import Recipe, train_image, train_text
from tagstream.training.recipe import fuse, retaught, threshold

BASELINE_C = 10.0
DRAWS = 1000
MEASURES = {"accuracy": accuracy_of, "macro_f1": macro_f1_of}


@dataclass(frozen=True)
class Tested:
    """One fold's test rows and every system's scores for them, (rows, taxonomy.size)."""

    data: TrainingSet
    scores: dict[str, FloatArray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--extra", type=Path, action="append", default=[])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", help="comma-separated folds; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="of the image member")
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    products = read_products(given.data)
    extra = [replace(row, image=None) for path in given.extra for row in read_products(path)]
    recipe = with_epochs(Recipe(seed=given.seed), given.epochs)
    tested: dict[str, list[Tested]] = {}
    wanted = [int(fold) for fold in given.only.split(",")] if given.only else range(given.folds)
    if not wanted or not set(wanted) <= set(range(given.folds)):
        parser.error(f"--folds {given.folds} has the folds 0 to {given.folds - 1}")
    for fold in wanted:
        part = (fold, given.folds)
        settings = {"products": training_set(products, [], given.seed, fold=part)}
        if extra:
            settings["all_titles"] = training_set(products, extra, given.seed, fold=part)
        alone = settings["products"]
        kept = given.pictures and given.pictures / f"{_digest(recipe)}-fold{fold}of{given.folds}.pt"
        say(f"fold {fold}: {len(alone.products.train)} products to train on")
        image_members = picture_half(alone, recipe, kept)
        for name, data in settings.items():
            tested.setdefault(name, []).append(
                fold_tested(data, recipe, rearranged(image_members, alone, data))
            )
            say(f"{name}: {json.dumps(means(together(tested[name][-1:])))}")
    result: dict[str, Any] = {"benchmark": "quality", "folds": given.folds, "seed": given.seed}
    for name, folds in tested.items():
        result[name] = figures(folds)
    print(json.dumps(result))


def _digest(recipe: Recipe) -> str:
    """Of what the image member depends on."""
    assert recipe.image is not None
    return hashlib.sha256(f"{recipe.seed} {recipe.image.model_dump_json()}".encode()).hexdigest()[:12]


def with_epochs(recipe: Recipe, epochs: int | None) -> Recipe:
    if epochs is None or recipe.image is None:
        return recipe
    how = recipe.image.optimisation.model_copy(update={"epochs": epochs})
    return recipe.model_copy(update={"image": recipe.image.model_copy(update={"optimisation": how})})


def picture_half(data: TrainingSet, recipe: Recipe, kept: Path | None) -> ImageMembers:
    if kept is not None and kept.exists():
        assert recipe.image is not None
        tower = recipe.image.tower.build()
        image_members = ImageMembers(ImageMember(tower, subset(data.taxonomy, image_groups(data)).size), None)
        image_members.load_state_dict(torch.load(kept, weights_only=True))
        return image_members.eval()
    image_members = train_image(
        data,
        recipe,
        hooks=Hooks(on_epoch=lambda epoch, loss, _: say(f"epoch {epoch}: {loss:.3f}")),
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
    ).cpu()
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(image_members.state_dict(), beside := kept.with_suffix(".new"))
        beside.replace(kept)  # a kill leaves no half a file to be taken for a whole one
    return image_members


def fold_tested(data: TrainingSet, recipe: Recipe, image_members: ImageMembers) -> Tested:
    test = data.products.test
    trained = retaught(threshold(fuse(data, recipe, train_text(data, recipe), image_members)), data)
    words = LabelWords(value.value for group in data.taxonomy.groups for value in group.values)
    plain = trained.members.opinions(batch_of(test))[0]
    masked = trained.members.opinions(batch_of([replace(row, text=words.hide(row.text)) for row in test]))[0]
    none = torch.zeros(len(test), dtype=torch.bool)
    slices: dict[str, Opinions] = {
        "fused": plain,
        "text": plain._replace(has_image=none),
        "image": plain._replace(has_text=none),
        "masked fused": masked,
        "masked text": masked._replace(has_image=none),
    }
    with torch.inference_mode():
        scores = {name: trained.fusion(said).numpy() for name, said in slices.items()}
    scores["baseline"] = baseline([*data.products.all_but_test().train, *data.extra], test, data.taxonomy)
    return Tested(data, scores)


def together(folds: Sequence[Tested]) -> dict[str, dict[str, Judged]]:
    """System → group → what was said and what is true, over the test rows of these folds."""
    rows = [row for fold in folds for row in fold.data.products.test]
    learned = [{g.name: [v.value for v in g.values] for g in fold.data.taxonomy.groups} for fold in folds]
    listed = [fold.data.spec.classes for fold in folds]
    groups = [g for g in listed[0] if all(g in of for of in (*listed, *learned))]
    every = {group: sorted({value for of in learned for value in of[group]}) for group in groups}
    measured = {
        group: [v for v in listed[0][group] if all(v in of[group] for of in listed)] for group in groups
    }
    taxonomy = versioned(
        Group(name=group, values=tuple(Value(value=value) for value in values))
        for group, values in every.items()
    )
    found = {}
    for system in folds[0].scores:
        scores = np.concatenate([in_columns_of(taxonomy, fold, system) for fold in folds])
        found[system] = {of.group.name: of for of in judged_groups(scores, rows, taxonomy, measured)}
    return found


def in_columns_of(taxonomy: Taxonomy, fold: Tested, system: str) -> FloatArray:
    """The fold's scores by the values of another taxonomy, 0 for those that it did not learn."""
    learned = fold.data.taxonomy
    place = {
        (group.name, value.value): learned.slices[group.name].start + at
        for group in learned.groups
        for at, value in enumerate(group.values)
    }
    found = np.zeros((len(fold.data.products.test), taxonomy.size), np.float32)
    for group in taxonomy.groups:
        for at, value in enumerate(group.values):
            if (group.name, value.value) in place:
                column = place[group.name, value.value]
                found[:, taxonomy.slices[group.name].start + at] = fold.scores[system][:, column]
    return found


def figures(folds: Sequence[Tested]) -> dict[str, Any]:
    judged, rows = together(folds), [row for fold in folds for row in fold.data.products.test]
    each = [means(together([fold])) for fold in folds]
    found: dict[str, Any] = {
        system: {
            measure: {"mean": figure, "spread": round(float(np.std([of[system][measure] for of in each])), 4)}
            for measure, figure in of_system.items()
        }
        for system, of_system in means(judged).items()
    }
    near = near_duplicate_groups([row.text.title for row in rows], [row.picture_hash for row in rows])
    draws = resampled(near, DRAWS)
    for other in ("baseline", "text"):
        found[f"gain over {other}"] = {
            measure: gains(judged["fused"], judged[other], measure, draws) for measure in MEASURES
        }
    found["ece_excess"] = {name: round(ece_excess(of), 4) for name, of in judged["fused"].items()}
    return found


def gains(ours: Mapping[str, Judged], theirs: Mapping[str, Judged], measure: str, draws: Floats) -> Any:
    """Of the mean over groups and of each group; `worse`: the groups that are shown to be."""
    found, drawn_differences = {}, []
    for name, one in ours.items():
        weights = draws[:, one.places]
        difference, drawn = (
            MEASURES[measure](one, of) - MEASURES[measure](theirs[name], of)
            for of in (np.ones((1, len(one.places))), weights)
        )
        found[name] = [float(difference[0]), *interval(float(difference[0]), drawn)]
        drawn_differences.append(drawn)
    mean = float(np.mean([gain[0] for gain in found.values()]))
    found = {"mean": [mean, *interval(mean, np.mean(drawn_differences, axis=0))], **found}
    rounded = {name: [round(x, 4) for x in of] for name, of in found.items()}
    return {**rounded, "worse": [name for name, (_, _, high) in rounded.items() if high < 0]}


def means(judged: Mapping[str, Mapping[str, Judged]]) -> dict[str, dict[str, float]]:
    """System → measure → its mean over groups."""
    return {
        system: {
            measure: round(
                float(np.mean([of(one, np.ones((1, len(one.places))))[0] for one in groups.values()])), 4
            )
            for measure, of in MEASURES.items()
        }
        for system, groups in judged.items()
    }


def ece_excess(judged: Judged) -> float:
    shown = float(calibration_of(judged, np.ones((1, len(judged.places))))[0])
    return shown - perfect_calibration(judged.confidence)


def batch_of(rows: Sequence[Row]) -> MicroBatch:
    return MicroBatch([row.text for row in rows], [row.encoded for row in rows])


def rearranged(image_members: ImageMembers, taught: TrainingSet, wanted: TrainingSet) -> ImageMembers:
    """The image member with its outputs in the order of another taxonomy; the rest is silent."""
    theirs = [
        (name, value.value) for name in image_groups(taught) for value in taught.taxonomy.group(name).values
    ]
    groups = image_groups(taught)
    ours = [(name, value.value) for name in groups for value in wanted.taxonomy.group(name).values]
    found = copy.deepcopy(image_members)
    found.image.heads = torch.nn.Linear(
        image_members.image.tower.width, len(columns_of(wanted.taxonomy, groups))
    )
    with torch.no_grad():
        found.image.heads.weight.zero_()
        found.image.heads.bias.fill_(-10.0)
        for place, key in enumerate(ours):
            if key in theirs:
                found.image.heads.weight[place] = image_members.image.heads.weight[theirs.index(key)]
                found.image.heads.bias[place] = image_members.image.heads.bias[theirs.index(key)]
    return found


def baseline(train: Sequence[Row], test: Sequence[Row], taxonomy: Taxonomy) -> FloatArray:
    """(rows, taxonomy.size) 1 for the value that the titles alone predict."""
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2),
    )
    x = features.fit_transform([row.text.title for row in train])
    x_test = features.transform([row.text.title for row in test])
    scores = np.zeros((len(test), taxonomy.size), np.float32)
    for group in taxonomy.groups:
        values = [value.value for value in group.values]
        known = [n for n, row in enumerate(train) if row.labels.get(group.name, ("",))[0] in values]
        model = LogisticRegression(C=BASELINE_C, max_iter=100, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x[known], [train[n].labels[group.name][0] for n in known])
        columns = [taxonomy.slices[group.name].start + values.index(said) for said in model.predict(x_test)]
        scores[np.arange(len(test)), columns] = 1
    return scores


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
