"""The tagger beside TF-IDF and logistic regression, on the same training rows. Prints one JSON line.

    python tests/bench/quality.py --data DIR [--extra FILE_OR_DIR …] [--seeds 0,1,2] [--epochs N]

Files as for jobs/retrain.py. Each seed is another split by near-duplicate group and another training. Two
settings: from the products alone, and with all permitted extra titles; the picture half is trained once a
seed, on the products, and serves both. The baseline: words 1-2 and characters 2-5, C = 10, chosen on the
validation part. Half-widths: 95 % bootstrap over near-duplicate groups of the test part. `mean` and `spread`
(standard deviation) are over seeds. `ece_excess`: expected calibration error minus what perfect calibration
would show on as many rows.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union

from tagstream.core.ports import MicroBatch
from tagstream.core.taxonomy import Taxonomy
from tagstream.model.evaluate import accuracy, bootstrap_half_width, macro_f1, report
from tagstream.model.fit import Hooks
from tagstream.model.fusion import Opinions
from tagstream.model.losses import FloatArray
from tagstream.model.masking import LabelWords
from tagstream.model.members import Seeing
from tagstream.model.rows import Row, read_products
from tagstream.model.split import near_duplicate_groups
from tagstream.model.tags import columns_of
from tagstream.model.train import (
    Recipe,
    TrainingSet,
    image_groups,
    join,
    train_seeing,
    train_text,
    training_set,
)

BASELINE_C = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--extra", type=Path, action="append", default=[])
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, help="of the picture half")
    arguments = parser.parse_args()
    products = read_products(arguments.data)
    extra = [row for path in arguments.extra for row in read_products(path)]
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in map(int, arguments.seeds.split(",")):
        recipe = with_epochs(Recipe(seed=seed), arguments.epochs)
        alone = training_set(products, [], [], seed)
        say(f"seed {seed}: {len(alone.products.train)} products, training the picture half …")
        seeing = train_seeing(
            alone, recipe, hooks=Hooks(on_epoch=lambda epoch, loss, _: say(f"epoch {epoch}: {loss:.3f}"))
        )
        settings = {"products": alone}
        if extra:
            settings["all_titles"] = training_set(
                products, [replace(row, image=None) for row in extra], [], seed
            )
        for name, data in settings.items():
            runs.setdefault(name, []).append(compare(data, recipe, rearranged(seeing, alone, data)))
            say(json.dumps({name: {k: v for k, v in runs[name][-1].items() if k != "groups"}}))
    result: dict[str, Any] = {"benchmark": "quality", "seeds": arguments.seeds}
    for name, of in runs.items():
        result[name] = {"mean": summary(of, np.mean), "spread": summary(of, np.std), "runs": of}
    print(json.dumps(result))


def with_epochs(recipe: Recipe, epochs: int | None) -> Recipe:
    if epochs is None or recipe.image is None:
        return recipe
    how = recipe.image.optimisation.model_copy(update={"epochs": epochs})
    return recipe.model_copy(update={"image": recipe.image.model_copy(update={"optimisation": how})})


def summary(runs: list[dict[str, Any]], of: Any) -> dict[str, Any]:
    """The figures over seeds; those that are tables by name too."""
    found: dict[str, Any] = {}
    for name, value in runs[0].items():
        values = [run[name] for run in runs]
        found[name] = summary(values, of) if isinstance(value, dict) else round(float(of(values)), 4)
    return found


def compare(data: TrainingSet, recipe: Recipe, seeing: Seeing) -> dict[str, Any]:
    """Figures of the tagger and the baseline on the test part, and the half-width of their difference."""
    test, classes = data.products.test, data.spec.classes
    trained = join(data, recipe, train_text(data, recipe), seeing)
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
    answers = {name: named(of, data.taxonomy, classes) for name, of in scores.items()}
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
    judged = report(scores["fused"], test, data.taxonomy, classes)["groups"]
    figures["ece_excess"] = {name: judged[name]["ece_excess"] for name in answers["fused"]}
    figures["groups"] = {
        name: {
            of: means({name: answers[of][name]}, test, classes, every)[1]
            for of in ("fused", "image", "baseline")
        }
        for name in answers["fused"]
    }
    return figures


def batch_of(rows: Sequence[Row]) -> MicroBatch:
    return MicroBatch([row.text for row in rows], [row.encoded for row in rows])


def rearranged(seeing: Seeing, taught: TrainingSet, wanted: TrainingSet) -> Seeing:
    """The picture half with its outputs in the order of another taxonomy; the rest is silent."""
    theirs = [
        (name, value.value) for name in image_groups(taught) for value in taught.taxonomy.group(name).values
    ]
    groups = image_groups(taught)
    ours = [(name, value.value) for name in groups for value in wanted.taxonomy.group(name).values]
    found = copy.deepcopy(seeing)
    found.image.heads = torch.nn.Linear(seeing.image.tower.width, len(columns_of(wanted.taxonomy, groups)))
    with torch.no_grad():
        found.image.heads.weight.zero_()
        found.image.heads.bias.fill_(-10.0)
        for place, key in enumerate(ours):
            if key in theirs:
                found.image.heads.weight[place] = seeing.image.heads.weight[theirs.index(key)]
                found.image.heads.bias[place] = seeing.image.heads.bias[theirs.index(key)]
    return found


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
