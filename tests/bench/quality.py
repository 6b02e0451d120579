"""The tagger beside TF-IDF and logistic regression, on the same training rows. Prints one JSON line.

    python tests/bench/quality.py --data DIR [--extra-titles FILE] [--picture-half FOLDER]

DIR and FILE as for jobs/retrain.py. The split is the one of retraining (seed 0), by near-duplicate group. The
picture half is taken from a model version that was trained on this very split (by default the bundled
champion; its evaluation spec tells), and is trained otherwise. Text half and fusion are trained anew in both
settings: from the products alone, and with all permitted titles. The baseline: words 1-2 and characters 2-5,
C = 10, chosen on the validation part. Intervals: bootstrap over near-duplicate groups of the test part.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union

from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.taxonomy import Taxonomy
from tagstream.model import version
from tagstream.model.evaluate import accuracy, bootstrap_half_width, macro_f1
from tagstream.model.image import ImageTower
from tagstream.model.losses import FloatArray
from tagstream.model.rows import Row, read_products
from tagstream.model.split import EvaluationSpec, near_duplicate_groups
from tagstream.model.tags import columns_of
from tagstream.model.train import (
    Recipe,
    TrainingSet,
    half_logits,
    image_groups,
    join_halves,
    train_image_half,
    train_text_half,
    training_set,
)

BASELINE_C = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--extra-titles", type=Path)
    parser.add_argument("--picture-half", type=Path, help="a model version's folder; `none` trains it")
    arguments = parser.parse_args()
    recipe = Recipe()
    products = read_products(arguments.data)
    settings = {"products": training_set(products, [], [], recipe.seed)}
    if arguments.extra_titles:
        extra = read_products(arguments.extra_titles)
        settings["all_titles"] = training_set(products, extra, [], recipe.seed)
    result: dict[str, Any] = {"benchmark": "quality", "test_rows": len(settings["products"].products.test)}
    for name, data in settings.items():
        say(f"{name}: {len(data.products.train) + len(data.extra)} training titles")
        result[name] = compare(data, recipe, arguments.picture_half)
    print(json.dumps(result))


def compare(data: TrainingSet, recipe: Recipe, picture_half: Path | None) -> dict[str, Any]:
    """Figures of the tagger and the baseline on the test part, and the half-width of their difference."""
    test, classes = data.products.test, data.spec.classes
    image = picture_half_for(data, recipe, picture_half)
    trained = join_halves(data, recipe, train_text_half(data, recipe), image)
    text, has_text, pictures, has_image = half_logits(
        test, data.taxonomy, trained.image_groups, trained.text, image, recipe
    )
    yes, image_there = torch.from_numpy(has_text), torch.from_numpy(has_image)
    none = torch.zeros_like(yes)
    with torch.inference_mode():
        scores = {
            "fused": trained.fusion(text, pictures, yes, image_there).numpy(),
            "text": trained.fusion(text, pictures, yes, none).numpy(),
            "image": trained.fusion(text, pictures, none, image_there).numpy(),
        }
    answers = {name: named(of, data.taxonomy, classes) for name, of in scores.items()}
    say("baseline …")
    taught = {group: [v.value for v in data.taxonomy.group(group).values] for group in answers["fused"]}
    answers["baseline"] = baseline([*data.products.train, *data.extra], test, taught)
    every = np.arange(len(test))
    figures: dict[str, Any] = {
        name: dict(zip(("accuracy", "macro_f1"), means(of, test, classes, every), strict=True))
        for name, of in answers.items()
    }
    near = near_duplicate_groups([row.text.title for row in test], [row.picture_hash for row in test])
    for place, measure in enumerate(("accuracy", "macro_f1")):

        def gain(rows: np.ndarray, place: int = place) -> float:
            ours, theirs = (
                means(answers[name], test, classes, rows)[place] for name in ("fused", "baseline")
            )
            return ours - theirs

        figures[f"{measure}_gain"] = gain(every)
        figures[f"{measure}_gain_half_width"] = bootstrap_half_width(gain, near)
    figures["groups"] = {
        name: {
            of: round(means({name: answers[of][name]}, test, classes, every)[1], 4)
            for of in ("fused", "image", "baseline")
        }
        for name in answers["fused"]
    }
    return figures


def picture_half_for(data: TrainingSet, recipe: Recipe, folder: Path | None) -> ImageTower:
    """A picture half whose outputs are this taxonomy's columns."""
    if folder is None:
        registry = Registry(str(BUNDLED))
        folder = registry.fetch(registry.champion()[0])
    if str(folder) != "none":
        spec = EvaluationSpec.model_validate_json((folder / "evaluation_spec.json").read_bytes())
        if spec == data.spec:
            return rearranged(version.read_parts(folder), data.taxonomy, image_groups(data))
        say(f"{folder.name} was trained on another split")
    say("training the picture half …")
    return train_image_half(data, recipe, on_epoch=lambda epoch, loss, _: say(f"epoch {epoch}: {loss:.3f}"))


def rearranged(parts: version.Parts, taxonomy: Taxonomy, groups: tuple[str, ...]) -> ImageTower:
    """The stored picture half with its outputs in the order of another taxonomy; the rest is silent."""
    theirs: dict[tuple[str, str], int] = {}
    for name in parts.config.image.groups:
        for value in parts.taxonomy.group(name).values:
            theirs[name, value.value] = len(theirs)
    tower = ImageTower(len(columns_of(taxonomy, groups))).eval()
    tower.backbone.load_state_dict(parts.image.backbone.state_dict())
    wanted = [(name, value.value) for name in groups for value in taxonomy.group(name).values]
    with torch.no_grad():
        tower.heads.weight.zero_()
        tower.heads.bias.fill_(-10.0)
        for place, key in enumerate(wanted):
            if key in theirs:
                tower.heads.weight[place] = parts.image.heads.weight[theirs[key]]
                tower.heads.bias[place] = parts.image.heads.bias[theirs[key]]
    return tower


def named(
    scores: FloatArray, taxonomy: Taxonomy, groups: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Group → the value with the highest score, of each row."""
    return {
        group: [
            taxonomy.group(group).values[place].value
            for place in scores[:, taxonomy.slices[group]].argmax(axis=1)
        ]
        for group in groups
        if group in taxonomy.slices
    }


def baseline(
    train: Sequence[Row], test: Sequence[Row], classes: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Group → predicted value of each test row, from the titles alone."""
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2),
    )
    x = features.fit_transform([row.text.title for row in train])
    x_test = features.transform([row.text.title for row in test])
    answers = {}
    for group, values in classes.items():
        known = [n for n, row in enumerate(train) if row.labels.get(group, ("",))[0] in values]
        model = LogisticRegression(C=BASELINE_C, max_iter=100, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x[known], [train[n].labels[group][0] for n in known])
        answers[group] = list(model.predict(x_test))
    return answers


def means(
    answers: Mapping[str, Sequence[str]],
    test: Sequence[Row],
    classes: Mapping[str, Sequence[str]],
    rows: np.ndarray,
) -> tuple[float, float]:
    """(mean accuracy, mean macro-F1) over groups, over these places of the test part."""
    figures = []
    for group, predicted in answers.items():
        known = [n for n in rows if test[n].labels.get(group)]
        truth, said = [test[n].labels[group][0] for n in known], [predicted[n] for n in known]
        figures.append((accuracy(truth, said), macro_f1(truth, said, classes[group])))
    mean = np.mean(figures, axis=0)
    return float(mean[0]), float(mean[1])


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
