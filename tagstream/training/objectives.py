"""What the members learn: the text member, the image member with the joint member on its tower, and a
transformer that first learns to fill in masked words (BERT, Devlin et al. 2019).

All heads have one loss: softmax for single-choice groups, sigmoid for free tags, unknown labels masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from tagstream.core.ports import TextFields
from tagstream.core.taxonomy import Group, Taxonomy
from tagstream.dataset.targets import FloatArray, log_priors
from tagstream.model.members import ImageMember, ImageMembers, TextMember
from tagstream.model.pictures import WHITE
from tagstream.model.towers.base import Prepared, TextTower, Tokens
from tagstream.model.towers.image import native_bf16
from tagstream.model.towers.sequence import FIRST_HASHED, MASK, TransformerTower
from tagstream.text.mentions import Mentions
from tagstream.training.loop import Optimisation, Step, drawn, fit

#: Of all words so many are to be predicted; of these 8 in 10 are masked, 1 in 10 is another word, 1 stays.
MASKED_SHARE, SHOWN_SHARE, REPLACED_SHARE = 0.15, 0.1, 0.1
#: Enough pictures for the statistics of normalisation: more change no digit that matters.
STATISTICS_ROWS = 2048


class _HeadObjective:
    """Labelled rows for the heads of `module`, drawn by the loss' `resampling`."""

    def __init__(self, module: nn.Module, target: FloatArray, taxonomy: Taxonomy, loss: LossConfig) -> None:
        self.module = module
        self._truth = torch.from_numpy(target)
        self._loss = HeadLoss(loss, target, taxonomy)
        self._weights = row_weights(target, loss.resampling)

    def __len__(self) -> int:
        return len(self._truth)

    def order(self, rng: np.random.Generator, batch_rows: int) -> npt.NDArray[np.int64]:
        return drawn(len(self), rng, self._weights)


class TextObjective(_HeadObjective):
    """`feature_dropout`: the share of a text's pieces that is left out, anew in every step."""

    def __init__(
        self,
        member: TextMember,
        texts: Sequence[TextFields],
        target: FloatArray,
        taxonomy: Taxonomy,
        loss: LossConfig,
        *,
        feature_dropout: float,
        decay: float,
    ) -> None:
        super().__init__(member, target, taxonomy, loss)
        self._member, self._feature_dropout, self._decay = member, feature_dropout, decay
        self._prepared: Prepared = member.tower.prepare(texts)
        self._mentions = torch.from_numpy(Mentions(taxonomy).find(texts))

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The head is pre-scaled and learns a quarter as fast."""
        return [
            *self._member.tower.parameter_groups(learning_rate),
            {
                "params": [*self._member.heads.parameters(), *self._member.silent_heads.parameters()],
                "lr": learning_rate / 4,
            },
            {"params": [self._member.named], "lr": learning_rate},
        ]

    def loss(self, model: nn.Module, step: Step) -> Tensor:
        """In nats, as `HeadLoss`, and the plain L2 term."""
        batch = self._prepared.take(step.rows).noised(self._feature_dropout, step.rng)
        logits = model(batch, self._mentions[step.rows])
        heads = (self._member.heads.weight, self._member.silent_heads.weight)
        held_small = [*self._member.tower.decayed(), *heads]
        small = torch.stack([weight.square().sum() for weight in held_small]).sum()
        return self._loss(logits, self._truth[step.rows].to(logits.device)) + self._decay * small


class ImageObjective(_HeadObjective):
    """Pictures with their texts. `shift_px`: how far augmentation moves a picture; 0 for frozen features."""

    def __init__(
        self,
        image_members: ImageMembers,
        pictures: Tensor,
        texts: Sequence[TextFields],
        target: FloatArray,
        taxonomy: Taxonomy,
        loss: LossConfig,
        *,
        shift_px: int,
        feature_dropout: float,
        seed: int,
        freeze_statistics: bool = False,
    ) -> None:
        """`pictures`: (rows, 3, h, w) uint8; `target`: (rows, taxonomy.size), the picture's groups."""
        super().__init__(image_members, target, taxonomy, loss)
        self._image_members, self._seed = image_members, seed
        self._pictures = image_members.image.tower.prepare(pictures).rows
        self._shift_px = shift_px if self._pictures.dtype == torch.uint8 else 0
        self._feature_dropout, self._freeze_statistics = feature_dropout, freeze_statistics
        self._texts: Prepared | None = None
        if image_members.joint is not None:
            self._texts = image_members.joint.text.prepare(texts)
            self._has_text = torch.from_numpy(self._texts.has_text())
            self._mentions = torch.from_numpy(Mentions(taxonomy).find(texts))

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """The joint member is new where the tower is pretrained: it learns as fast as the text member."""
        joint = list(self._image_members.joint.parameters()) if self._image_members.joint is not None else []
        ours = {id(parameter) for parameter in joint}
        rest = [p for p in self._image_members.parameters() if id(p) not in ours]
        rates = ((rest, learning_rate), (joint, 2 * learning_rate))
        return [{"params": [p for p in of if p.requires_grad], "lr": rate} for of, rate in rates if of]

    def loss(self, model: nn.Module, step: Step) -> Tensor:
        """In nats, as `HeadLoss`: the image member's, and the joint member's where there is one."""
        if self._freeze_statistics:  # over several processes each would measure its own
            for part in self._image_members.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        device = next(self._image_members.parameters()).device
        pictures = self._pictures[torch.from_numpy(step.rows)]
        if self._shift_px:
            pictures = augment(pictures, step.rows, (self._seed, step.epoch), self._shift_px)
        texts = mentions = has_text = None
        if self._texts is not None:
            texts = self._texts.take(step.rows).noised(self._feature_dropout, step.rng)
            mentions, has_text = self._mentions[step.rows], self._has_text[step.rows].to(device)
        truth = self._truth[step.rows].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
            image, joint = model(pictures.to(device), texts, mentions, has_text)
        loss = self._loss(image, truth)
        return loss if joint is None else loss + self._loss(joint, truth)


def augment(pictures: Tensor, rows: npt.NDArray[np.int64], seed: tuple[int, int], shift_px: int) -> Tensor:
    """Each picture flipped with probability 1/2 and shifted by up to `shift_px` with white behind; uint8.

    Drawn from (seed, epoch, row), whatever the order of the rows. Colours stay: colour is a label.
    """
    height, width = pictures.shape[2:]
    padded = functional.pad(pictures, (shift_px,) * 4, value=WHITE)
    moved = []
    for one, row in zip(padded, rows, strict=True):
        flip, y, x = np.random.default_rng((*seed, int(row))).integers(
            0, [2, 2 * shift_px + 1, 2 * shift_px + 1]
        )
        cut = one[:, y : y + height, x : x + width]
        moved.append(cut.flip(2) if flip else cut)
    return torch.stack(moved)


def refresh_statistics(member: ImageMember, pictures: Tensor, batch_rows: int, seed: int) -> None:
    """Measure the batch normalisations' means and variances anew over some pictures.

    Averaged weights never saw the statistics that were averaged with them, and a short training hardly
    moves those of ImageNet.
    """
    norms = [module for module in member.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms or not any(p.requires_grad for p in member.tower.parameters()):
        return
    device = next(member.parameters()).device
    momenta = [norm.momentum for norm in norms]
    member.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches
    some = pictures[
        torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))[:STATISTICS_ROWS]
    ]
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
        for part in torch.split(some, batch_rows):
            member(part.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    member.eval()


def pretrain(tower: TextTower, texts: Sequence[TextFields], seed: int) -> None:
    """Train a transformer in place to fill in masked words; towers that ask for no such epochs stay.

    Raises:
        TrainingDiverged: the loss is not a number any more.
    """
    if not isinstance(tower, TransformerTower) or not tower.config.pretraining_epochs:
        return
    epochs = tower.config.pretraining_epochs
    how = Optimisation(epochs=epochs, batch_rows=256, learning_rate=2e-3, weight_decay=0.01)
    fit(MaskedWords(tower, texts), how, seed)


class MaskedWords:
    """An objective whose labels are the words themselves; the embeddings are tied to the output."""

    def __init__(self, tower: TransformerTower, texts: Sequence[TextFields]) -> None:
        self.module: nn.Module = _FillIn(tower).to(tower.embedding.weight.device)
        tokens = tower.prepare(texts)
        # A text of one word has nothing to be guessed from.
        self._tokens = tokens.take(np.flatnonzero((tokens.ids >= FIRST_HASHED).sum(dim=1).numpy() > 1))
        self._vocabulary = len(tower.vocabulary)

    def __len__(self) -> int:
        return len(self._tokens)

    def order(self, rng: np.random.Generator, batch_rows: int) -> npt.NDArray[np.int64]:
        return drawn(len(self), rng)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters()), "lr": learning_rate}]

    def loss(self, model: nn.Module, step: Step) -> Tensor:
        """Mean cross-entropy in nats over the words that are to be predicted."""
        tokens = self._tokens.take(step.rows)
        hidden, wanted = masked(tokens, self._vocabulary, step.rng)
        logits = model(hidden, wanted)
        truth = tokens.ids[wanted].to(logits.device)
        return functional.cross_entropy(logits, truth, reduction="sum") / max(1, len(truth))


def masked(tokens: Tokens, vocabulary: int, rng: np.random.Generator) -> tuple[Tokens, Tensor]:
    """The tokens with some words hidden, and (n, length) bool: which words are to be predicted."""
    drawn = torch.from_numpy(rng.random(tokens.ids.shape, dtype=np.float32))
    fate = torch.from_numpy(rng.random(tokens.ids.shape, dtype=np.float32))
    other = torch.from_numpy(rng.integers(FIRST_HASHED, vocabulary, tokens.ids.shape))
    wanted = (tokens.ids >= FIRST_HASHED) & (drawn < MASKED_SHARE)
    ids = torch.where(wanted & (fate >= SHOWN_SHARE), MASK, tokens.ids)
    ids = torch.where(wanted & (fate >= 1 - REPLACED_SHARE), other, ids)
    return Tokens(ids, tokens.there), wanted


class _FillIn(nn.Module):
    """Tokens → (words to be predicted, vocabulary) logits, by the likeness to each word's embedding."""

    def __init__(self, tower: TransformerTower) -> None:
        super().__init__()
        self.tower = tower
        self.norm = nn.LayerNorm(tower.width)
        self.bias = nn.Parameter(torch.zeros(len(tower.vocabulary)))

    def forward(self, hidden: Tokens, wanted: Tensor) -> Tensor:
        states = self.tower.sequence(hidden).parts
        found = self.norm(states[wanted.to(states.device)])
        return functional.linear(found, self.tower.embedding.weight, self.bias)


class LossConfig(BaseModel):
    """How the heads are taught; every switch is one of the remedies for scarce values.

    logit_adjustment  the share of the log class frequencies that is added to the logits in training, so that
                      scarce values are not drowned (Menon et al. 2021)
    class_weights     `balanced`: rows weigh (1 / effective number of their class) (Cui et al. 2019)
    resampling        0 draws rows as they are, 1 draws the scarcest label of a row as often as any other
    free_tags         `asymmetric`: easy negatives count less (Ridnik et al. 2021), as labels may be missing
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    logit_adjustment: float = Field(default=0.0, ge=0)
    class_weights: Literal["none", "balanced"] = "none"
    resampling: float = Field(default=0.0, ge=0, le=1)
    free_tags: Literal["binary", "asymmetric"] = "binary"


class HeadLoss:
    """The loss over all heads for one set of training labels."""

    def __init__(self, config: LossConfig, target: FloatArray, taxonomy: Taxonomy) -> None:
        self.config, self.taxonomy = config, taxonomy
        self._adjustment = logit_adjustment(target, taxonomy, config.logit_adjustment)
        self._weights = class_weights(target, taxonomy) if config.class_weights == "balanced" else None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """(rows, size) logits and labels → the sum over groups of each group's mean loss over the rows that
        know it, weighted by the share of rows that do.

        Groups that no row knows add nothing. Free tags are averaged over values as well, times the number of
        values a row has on average, so that they weigh about as much as a choice.
        """
        logits = logits.float() + self._adjustment.to(logits.device)
        total = logits.new_zeros(())
        for group in self.taxonomy.groups:
            columns = self.taxonomy.slices[group.name]
            known = ~target[:, columns].isnan().all(dim=1)
            if not bool(known.any()):
                continue
            ours, truth = logits[known][:, columns], target[known][:, columns]
            total = total + known.float().mean() * self._of_group(group, columns, ours, truth)
        # Every head takes part in every step: processes that share a step must agree on what has a gradient.
        return total + 0.0 * logits.sum()

    def _of_group(self, group: Group, columns: slice, ours: Tensor, truth: Tensor) -> Tensor:
        if group.kind == "single":
            smoothing = self.config.label_smoothing
            if self._weights is None:
                return functional.cross_entropy(ours, truth, label_smoothing=smoothing)
            each = functional.cross_entropy(ours, truth, label_smoothing=smoothing, reduction="none")
            return (each * (truth * self._weights[columns].to(ours.device)).sum(dim=1)).mean()
        known = ~truth.isnan()
        if self.config.free_tags == "asymmetric":
            each = asymmetric(ours, truth.nan_to_num())
        else:
            each = functional.binary_cross_entropy_with_logits(ours, truth.nan_to_num(), reduction="none")
        return (each * known).sum(dim=1).mean()


def asymmetric(logits: Tensor, truth: Tensor) -> Tensor:
    """Asymmetric loss of each element, not reduced (Ridnik et al. 2021, equations 4 to 6). Negatives below
    0.05 cost nothing, others are focused by the power 4, positives by the power 1."""
    positive = torch.sigmoid(logits)
    negative = (1 - positive + 0.05).clamp(max=1)
    likelihood = truth * positive.clamp(min=1e-8).log() + (1 - truth) * negative.clamp(min=1e-8).log()
    certainty = truth * positive + (1 - truth) * negative
    return -likelihood * (1 - certainty) ** (truth + (1 - truth) * 4)


def class_weights(target: FloatArray, taxonomy: Taxonomy, beta: float = 0.99) -> Tensor:
    """(taxonomy.size,) (1 - beta) / (1 - beta^n) of each value, mean 1 over a group's training rows."""
    weights = np.ones(taxonomy.size, np.float32)
    for group in taxonomy.groups:
        columns = taxonomy.slices[group.name]
        counts = np.nan_to_num(target[:, columns]).sum(axis=0)
        raw = (1 - beta) / (1 - beta ** np.maximum(counts, 1))
        weights[columns] = raw * counts.sum() / max(float((raw * counts).sum()), 1e-9)
    return torch.from_numpy(weights)


def row_weights(target: FloatArray, resampling: float) -> npt.NDArray[np.float64] | None:
    """(rows,) how likely each row is drawn: (1 / rows of its scarcest label) ** resampling; None for 0."""
    if resampling == 0:
        return None
    counts = np.nan_to_num(target).sum(axis=0, dtype=np.float64)  # probabilities have to add up exactly
    scarcest = np.where(target == 1, counts[None, :], np.inf).min(axis=1)
    weights = np.where(np.isfinite(scarcest), np.maximum(scarcest, 1), len(target)) ** -resampling
    return np.asarray(weights / weights.sum())


def logit_adjustment(target: FloatArray, taxonomy: Taxonomy, strength: float) -> Tensor:
    """(taxonomy.size,) what is added to the logits in training, so that scarce values are not drowned
    (Menon et al. 2021). Values without a row get nothing: they are to be pushed down."""
    without = torch.from_numpy(np.nan_to_num(target).sum(axis=0) == 0)
    return (strength * torch.from_numpy(log_priors(target, taxonomy))).masked_fill(without, 0.0)
