"""How the best recipe is looked for: the text member's hyper-parameters, by random search with ASHA.

After a few epochs only the best third of the trials goes on (Li et al. 2020). A trial is judged by the mean
macro-F1 of titles alone on the validation part, and takes one CPU.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from torch import nn

from tagstream.dataset.training_set import TrainingSet
from tagstream.model.members import TextMember
from tagstream.training.loop import Hooks
from tagstream.training.members import Recipe, train_text
from tagstream.training.progress import Validation

#: Epochs before the first trials are given up, and one in how many goes on.
GRACE_EPOCHS, REDUCTION = 3, 3
SPACE = {
    "text.optimisation.learning_rate": tune.loguniform(3e-3, 0.1),
    "text.feature_dropout": tune.uniform(0.1, 0.6),
    "text.decay": tune.loguniform(1e-6, 1e-4),
    "text.loss.logit_adjustment": tune.uniform(0.0, 1.0),
}


def trial(config: dict[str, float], data: TrainingSet, recipe: Recipe) -> None:
    """Train the text member once and report its macro-F1 after each epoch."""
    torch.set_num_threads(1)
    validation = Validation(data, recipe)

    def on_epoch(epoch: int, loss: float, member: nn.Module) -> float:
        assert isinstance(member, TextMember)
        figure = validation.text(member)
        tune.report({"macro_f1": figure, "loss": loss})
        return figure

    train_text(data, recipe.changed(config), hooks=Hooks(on_epoch=on_epoch))


def search(data: TrainingSet, recipe: Recipe, trials: int) -> tuple[Recipe, str]:
    """The best recipe and a table of all trials, on the Ray that is connected.

    Raises:
        ValueError: the recipe has no text member, or no trial came to an end.
    """
    if recipe.text is None:
        raise ValueError("the recipe has no text member to search")
    epochs = recipe.text.optimisation.epochs
    with tempfile.TemporaryDirectory(prefix="tagstream-search-") as storage:
        results: Any = tune.Tuner(
            tune.with_parameters(trial, data=data, recipe=recipe),
            param_space=SPACE,
            tune_config=tune.TuneConfig(
                metric="macro_f1",
                mode="max",
                num_samples=trials,
                search_alg=BasicVariantGenerator(random_state=recipe.seed),
                scheduler=ASHAScheduler(
                    max_t=epochs, grace_period=min(GRACE_EPOCHS, epochs), reduction_factor=REDUCTION
                ),
            ),
            run_config=tune.RunConfig(storage_path=storage, verbose=0),
        ).fit()
        ended = [result for result in results if result.metrics and "macro_f1" in result.metrics]
        if not ended:
            raise ValueError(
                f"no trial came to an end: {results.errors[0] if results.errors else 'none began'}"
            )
    ended.sort(key=lambda result: -result.metrics["macro_f1"])
    return recipe.changed(ended[0].config), table(ended)


def table(results: list[Any]) -> str:
    """One line a trial, the best first."""
    heads = (*(name.split(".")[-1] for name in SPACE), "epochs", "macro_f1")
    lines = ["  ".join(f"{head:>16}" for head in heads)]
    for result in results:
        cells = [f"{result.config[name]:16.3g}" for name in SPACE]
        cells += [f"{result.metrics['training_iteration']:16d}", f"{result.metrics['macro_f1']:16.4f}"]
        lines.append("  ".join(cells))
    return "\n".join(lines)
