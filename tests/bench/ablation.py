"""Towers, fusion and losses side by side, on one split. Prints a Markdown table, and JSON with --json.

    python tests/bench/ablation.py --data DIR [--extra FILE_OR_DIR …] [--rows NAME,NAME] [--seeds 0,1,2]
        [--small] [--json FILE]

Every row is a recipe of the same family, trained on the training part and measured on the test part: mean
accuracy / mean macro-F1 over single-choice groups. The validation part stays unlearned. Picture towers are
frozen here, their features computed once, but for those rows that say `fine-tuned`. `scarce / rest`: mean F1
of values with 10 to 30 training rows, and of the others. `ms an event`: CPU time of one thread, micro-batches
of 64 with their pictures.
`--small` trains two epochs on a few hundred rows, to see that everything runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support

import numpy as np
import torch

from tagstream.core.ports import MicroBatch
from tagstream.dataset.rows import Row, read_products
from tagstream.dataset.targets import FloatArray
from tagstream.dataset.training_set import TrainingSet, training_set
from tagstream.evaluation.figures import report
from tagstream.model.fusion import Opinions
from tagstream.model.members import JointConfig
from tagstream.model.tagger import FusedTagger, save
from tagstream.model.towers.image import EfficientNet
from tagstream.model.towers.sequence import Recurrent, TransformerText, WordEmbeddings
from tagstream.model.version.format import Manifest
from tagstream.text.masking import LabelWords
from tagstream.training.members import ImageTraining, Recipe, TextTraining, train_image, train_text
from tagstream.training.objectives import LossConfig
from tagstream.training.recipe import fuse, threshold
from tagstream.training.release import Trained, stored_of, training_counts
from tests.support.plain_figures import macro_f1

FROZEN = ImageTraining(
    tower=EfficientNet(frozen=True),
    optimisation=ImageTraining().optimisation.model_copy(update={"epochs": 20, "learning_rate": 3e-3}),
)
WORDS = TextTraining().optimisation.model_copy(update={"learning_rate": 3e-3, "epochs": 12})
SMALL_ROWS = 700
SCARCE_MAX_ROWS = 30


def text_of(**changes: object) -> TextTraining:
    return TextTraining().model_copy(update=changes)


#: Name → what differs from a text member of hashed n-grams and a frozen image member, joined by weights.
RECIPES: dict[str, Recipe] = {
    "text: hashed n-grams": Recipe(image=None),
    "text: word embeddings": Recipe(text=text_of(tower=WordEmbeddings(), optimisation=WORDS), image=None),
    "text: LSTM": Recipe(text=text_of(tower=Recurrent(), optimisation=WORDS), image=None),
    "text: transformer": Recipe(text=text_of(tower=TransformerText(), optimisation=WORDS), image=None),
    "text: transformer, masked words first": Recipe(
        text=text_of(tower=TransformerText(pretraining_epochs=10), optimisation=WORDS), image=None
    ),
    "image: frozen": Recipe(text=None, image=FROZEN),
    "image: frozen + plain loss": Recipe(
        text=None, image=FROZEN.model_copy(update={"loss": LossConfig(label_smoothing=0.05)})
    ),
    "image: frozen + resampling": Recipe(
        text=None, image=FROZEN.model_copy(update={"loss": LossConfig(label_smoothing=0.05, resampling=0.5)})
    ),
    "weighted": Recipe(image=FROZEN),
    "joint: concatenation": Recipe(image=FROZEN, joint=JointConfig(kind="concatenation")),
    "joint: gated": Recipe(image=FROZEN, joint=JointConfig(kind="gated")),
    "joint: cross-attention": Recipe(image=FROZEN, joint=JointConfig(kind="cross-attention")),
    "loss: logit adjustment": Recipe(text=text_of(loss=LossConfig(logit_adjustment=0.5)), image=None),
    "loss: class-balanced": Recipe(text=text_of(loss=LossConfig(class_weights="balanced")), image=None),
    "loss: resampling": Recipe(text=text_of(loss=LossConfig(resampling=0.5)), image=None),
    "fine-tuned": Recipe(),
    "fine-tuned + joint": Recipe(joint=JointConfig()),
}
FINALISTS = ("fine-tuned", "fine-tuned + joint")


@dataclass(frozen=True)
class Outcome:
    name: str
    seed: int
    figures: dict[str, tuple[float, float]]
    scarce: tuple[float, float]
    training_s: float
    megabytes: float
    ms_an_event: float


def run(name: str, recipe: Recipe, data: TrainingSet) -> Outcome:
    started = time.monotonic()
    text = train_text(data, recipe) if recipe.text is not None else None
    image_members = train_image(data, recipe) if recipe.image is not None else None
    trained = threshold(fuse(data, recipe, text, image_members))
    training_s = time.monotonic() - started
    megabytes, ms_an_event = cost(trained, data)
    figures, scarce = measured(trained, data)
    return Outcome(name, recipe.seed, figures, scarce, training_s, megabytes, ms_an_event)


def measured(
    trained: Trained, data: TrainingSet
) -> tuple[dict[str, tuple[float, float]], tuple[float, float]]:
    """Slice → (mean accuracy, mean macro-F1) over the test part; and the mean F1 of scarce values, and of the
    rest, in the slice with everything there is."""
    rows = data.products.test
    words = LabelWords(value.value for group in data.taxonomy.groups for value in group.values)
    plain = opinions(trained, rows)
    masked = opinions(trained, [replace(row, text=words.hide(row.text)) for row in rows])
    none = torch.zeros(len(rows), dtype=torch.bool)
    slices: dict[str, Opinions] = {}
    members = set(trained.members.names)
    if "text" in members:
        slices |= {
            "text": plain._replace(has_image=none),
            "masked text": masked._replace(has_image=none),
        }
    if "image" in members:
        slices["image"] = plain._replace(has_text=none)
    if {"text", "image"} <= members:
        slices |= {"both": plain, "masked both": masked}
    figures = {}
    everything = "both" if "both" in slices else "text" if "text" in slices else "image"
    for name, said in slices.items():
        with torch.inference_mode():
            scores: FloatArray = trained.fusion(said).numpy()
        of = report(scores, rows, data.taxonomy, data.spec.classes)
        figures[name] = (of.mean_accuracy, of.mean_macro_f1)
        if name == everything:
            scarce = scarce_and_rest(scores, rows, data)
    return figures, scarce


def scarce_and_rest(scores: FloatArray, rows: list[Row], data: TrainingSet) -> tuple[float, float]:
    """Mean F1 over the values with 10 to 30 training rows, and over those with more, of all groups."""
    counts = training_counts(data.titles_trained_on)
    scarce, rest = [], []
    for group in data.taxonomy.groups:
        known = [place for place, row in enumerate(rows) if row.labels.get(group.name)]
        if group.kind == "multi" or not known:
            continue
        names = [value.value for value in group.values]
        truth = [rows[place].labels[group.name][0] for place in known]
        of_group = scores[known][:, data.taxonomy.slices[group.name]]
        said = [names[place] for place in of_group.argmax(axis=1)]
        for name in data.spec.classes[group.name]:
            if name in truth:
                f1 = macro_f1(truth, said, [name])
                (scarce if counts[group.name][name] <= SCARCE_MAX_ROWS else rest).append(f1)
    return float(np.mean(scarce)), float(np.mean(rest))


def opinions(trained: Trained, rows: list[Row]) -> Opinions:
    parts = [
        trained.members.opinions(MicroBatch([row.text for row in some], [row.encoded for row in some]))[0]
        for some in (rows[start : start + 64] for start in range(0, len(rows), 64))
    ]
    logits, *others = zip(*parts, strict=True)
    return Opinions(torch.cat(logits, dim=1), *(torch.cat(other) for other in others))


def cost(trained: Trained, data: TrainingSet) -> tuple[float, float]:
    """(megabytes of the weights' file, milliseconds of CPU an event on one thread)."""
    rows = (data.products.test * 64)[:64]
    batch = MicroBatch([row.text for row in rows], [row.encoded for row in rows])
    stored = stored_of(trained)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "version"
        save(
            folder,
            stored,
            Manifest(model_version="ablation", dataset_id="", created=datetime.now(UTC).isoformat()),
            metrics={},
            card="",
            evaluation_spec={},
            training_titles=np.empty(0, np.uint32),
            validation_titles=np.empty(0, np.uint32),
        )
        megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    tagger, threads = FusedTagger("ablation", stored, torch.device("cpu")), torch.get_num_threads()
    torch.set_num_threads(1)
    tagger.score(batch)
    started = time.process_time()
    for _ in range(3):
        tagger.score(batch)
    spent_s = time.process_time() - started
    torch.set_num_threads(threads)
    return megabytes, spent_s / 3 / len(rows) * 1000


COLUMNS = ("both", "text", "image", "masked both", "masked text")


def table(outcomes: list[Outcome]) -> str:
    lines = [f"| recipe | seeds | {' | '.join(COLUMNS)} | scarce / rest | training s | MB | ms an event |"]
    lines.append("|---" * (len(COLUMNS) + 6) + "|")
    for name in dict.fromkeys(outcome.name for outcome in outcomes):
        of = [outcome for outcome in outcomes if outcome.name == name]
        cells = [_cell([o.figures[column] for o in of if column in o.figures]) for column in COLUMNS]
        cells.append(_cell([o.scarce for o in of]))
        means = [
            np.mean([getattr(o, field) for o in of]) for field in ("training_s", "megabytes", "ms_an_event")
        ]
        lines.append(
            f"| {name} | {len(of)} | {' | '.join(cells)} | {means[0]:.0f} | {means[1]:.1f} | {means[2]:.2f} |"
        )
    return "\n".join(lines)


def _cell(figures: list[tuple[float, float]]) -> str:
    if not figures:
        return ""
    both = []
    for values in zip(*figures, strict=True):
        spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        both.append(f"{np.mean(values):.4f}{spread}")
    return " / ".join(both)


def shrunk(recipe: Recipe) -> Recipe:
    """The same parts with two epochs each."""

    def two_epochs(how: TextTraining | ImageTraining | None) -> object:
        return how and how.model_copy(
            update={"optimisation": how.optimisation.model_copy(update={"epochs": 2})}
        )

    return recipe.model_copy(update={"text": two_epochs(recipe.text), "image": two_epochs(recipe.image)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--extra", type=Path, action="append", default=[])
    parser.add_argument("--rows", default=",".join(name for name in RECIPES if name not in FINALISTS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    limit = SMALL_ROWS if given.small else None
    products = read_products(given.data, limit)
    extra = [row for path in given.extra for row in read_products(path, limit)]
    change: Callable[[Recipe], Recipe] = shrunk if given.small else lambda recipe: recipe
    outcomes = []
    for seed in map(int, given.seeds.split(",")):
        data = training_set(products, extra, seed)
        for name in given.rows.split(","):
            recipe = change(RECIPES[name]).model_copy(update={"seed": seed})
            outcomes.append(run(name, recipe, data))
            print(table(outcomes[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(outcomes))
    if given.json:
        given.json.write_text(json.dumps([vars(outcome) for outcome in outcomes], indent=1) + "\n")


if __name__ == "__main__":
    main()
