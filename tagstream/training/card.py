"""The model card: what a model version was made of, what it reaches, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """# {model_version}

A tagger for product events: {parts}, joined group by group by calibrated weights.
It scores {values} values in {groups} groups, in English ({english}) and Chinese ({chinese}).

## Data

Dataset `{dataset_id}`: {products} products, {extra} further labelled rows, {zh} Chinese copies (text only);
{pictures} rows have a picture.{kept} {left_out} of the further rows were left out, because they share an
id or a normalised title with a validation or test row. Values with fewer than 10 training rows are not in
the taxonomy.

{provenance}

## Split

By near-duplicate group (normalised title or equal picture file), by hash with seed {seed}: {train} products
for training, {validation} for fusion, calibration and thresholds{after_fusion}. {test} are for the figures
below: nothing was ever trained or fitted on them. The evaluation spec is in `evaluation_spec.json`
(hash `{spec}`).

## Quality on the test part

{table}

The class list of a group has the values with at least 10 training products. Single-choice groups are judged
by their highest score, without abstention. One training run with seed {seed}: differences below a point are
noise.

{zh_table}

## Limits

- Text and picture of one event are believed to belong together; a contradiction is not reported.
"""


#: What a card says of data that nobody described.
UNDESCRIBED = "Licences and limits are those of that data: nobody has described them here."


def render(facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The card as Markdown. `metrics` as in metrics.json; `facts` fill the named places of the text."""
    modalities = metrics["test"]
    lines = ["| group | " + " | ".join(f"{name}: accuracy / macro-F1 / ECE" for name in modalities) + " |"]
    lines.append("|---" * (len(modalities) + 1) + "|")
    singles = [group for group, of in next(iter(modalities.values()))["groups"].items() if "accuracy" in of]
    for group in singles:
        cells = [_cell(of["groups"][group], "") for of in modalities.values()]
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    if singles:
        lines.append("| **mean** | " + " | ".join(_cell(of, "mean_") for of in modalities.values()) + " |")
    return _CARD.format(**facts, table="\n".join(lines), zh_table=_zh_table(metrics.get("test_zh", {})))


def _cell(figures: Mapping[str, float], prefix: str) -> str:
    return " / ".join(f"{figures[prefix + name]:.3f}" for name in ("accuracy", "macro_f1", "ece"))


def _zh_table(parts: Mapping[str, Any]) -> str:
    if not parts:
        return ""
    lines = ["| Chinese group | " + " | ".join(parts) + " |", "|---" * (len(parts) + 1) + "|"]
    for group in next(iter(parts.values()))["groups"]:
        cells = []
        for of in parts.values():
            figures = of["groups"].get(group, {})
            kind = "micro_f1" if "micro_f1" in figures else "accuracy"
            cells.append(f"{kind} {figures.get(kind, float('nan')):.3f}")
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
