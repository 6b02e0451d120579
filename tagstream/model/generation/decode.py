"""Greedy and beam search with a KV cache, held to a grammar, and free writing, to measure the grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tagstream.model.generation.grammar import Draft, Grammar
from tagstream.model.generation.pieces import Pieces

#: Tags in the order written: a column of the taxonomy, and the log of its probability.
Written = list[tuple[int, float]]


class _Cache:
    """The network after what each row has read so far."""

    def __init__(self, network: Any, prompts: Sequence[Sequence[int]], pad: int) -> None:
        self._network = network
        longest = max(map(len, prompts))
        tokens = torch.full((len(prompts), longest), pad)
        self._mask = torch.zeros((len(prompts), longest), dtype=torch.long)
        for row, prompt in enumerate(prompts):  # left-padded, so that all rows go on at the same place
            tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
            self._mask[row, longest - len(prompt) :] = 1
        self._past = None
        self.logits = self._read(tokens, (self._mask.cumsum(dim=1) - 1).clamp(min=0))

    def append(self, tokens: Tensor, rows: Tensor | None = None) -> None:
        """Row i goes on from row `rows[i]` with `tokens[i]`."""
        if rows is not None:
            self._past.reorder_cache(rows)  # type: ignore[attr-defined]
            self._mask = self._mask[rows]
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        self.logits = self._read(tokens[:, None], self._mask.sum(dim=1, keepdim=True) - 1)

    def _read(self, tokens: Tensor, positions: Tensor) -> Tensor:
        answer = self._network(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._past,
            use_cache=True,
            logits_to_keep=1,
        )
        self._past = answer.past_key_values
        logits: Tensor = answer.logits[:, -1].float()
        return logits


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    """A draft, the log-probability of each tag in it, and that of the tag that is being written."""

    draft: Draft
    log_probabilities: tuple[float, ...] = ()
    open_tag: float = 0.0


def write(
    network: Any,
    pieces: Pieces,
    grammar: Grammar,
    prompts: Sequence[Sequence[int]],
    langs: Sequence[str],
    max_tokens: int,
    beams: int,
) -> list[Written]:
    """The likeliest set of tags for each prompt among `beams` hypotheses; 1 is greedy.

    Which group comes next is order, and order is free: of all groups the likeliest is taken and costs a
    hypothesis nothing, so that hypotheses differ in values and in where they end. A tag's probability is
    that of its value given its group and the tags before, over what the grammar allows. A tag that
    `max_tokens` cuts is not given.
    """
    found = [_Hypothesis(grammar.start(lang)) for lang in langs for _ in range(beams)]
    totals = torch.full((len(prompts), beams), -torch.inf)
    totals[:, 0] = 0.0
    cache = _Cache(network, [prompt for prompt in prompts for _ in range(beams)], pieces.pad)
    first_row = torch.arange(0, len(found), beams)[:, None]
    for _ in range(max_tokens):
        gains, closing = _gains(cache.logits, [grammar.permitted(each.draft) for each in found], pieces)
        tokens_each = gains.shape[1]
        totals, chosen = (totals.reshape(-1, 1) + gains).reshape(len(prompts), -1).topk(beams, dim=1)
        rows = (first_row + chosen // tokens_each).reshape(-1)
        tokens = (chosen % tokens_each).reshape(-1)
        steps = zip(
            rows.tolist(), tokens.tolist(), gains[rows, tokens].tolist(), closing[rows].tolist(), strict=True
        )
        found = [_advanced(found[row], token, gain, close, grammar) for row, token, gain, close in steps]
        alive = (totals.reshape(-1) > -torch.inf).tolist()
        if not any(lives and not each.draft.finished for lives, each in zip(alive, found, strict=True)):
            break
        cache.append(tokens, rows if beams > 1 else None)
    winners = [found[row * beams + best] for row, best in enumerate(totals.argmax(dim=1).tolist())]
    return [list(zip(of.draft.written, of.log_probabilities, strict=True)) for of in winners]


def _gains(logits: Tensor, permitted: Sequence[Any], pieces: Pieces) -> tuple[Tensor, Tensor]:
    """(rows, tokens) log-probabilities over the permitted tokens, and (rows,) that of no further piece. The
    likeliest group has the probability of all groups together. A finished row goes on with padding."""
    mask = np.zeros(tuple(logits.shape), np.bool_)
    lengths = [len(tokens) for tokens in permitted]
    mask[np.repeat(np.arange(len(lengths)), lengths), np.concatenate(permitted)] = True
    mask[np.asarray(lengths) == 0, pieces.pad] = True
    gains = logits.masked_fill(~torch.from_numpy(mask), -torch.inf).log_softmax(dim=1)
    groups = torch.tensor(pieces.groups)
    of_groups = gains[:, groups]
    together = torch.logsumexp(of_groups, dim=1)
    gains[:, groups] = -torch.inf
    gains[torch.arange(len(gains)), groups[of_groups.argmax(dim=1)]] = together
    return gains, torch.logaddexp(together, gains[:, pieces.end])


def _advanced(before: _Hypothesis, token: int, gain: float, closing: float, grammar: Grammar) -> _Hypothesis:
    if before.draft.finished or gain == -np.inf:
        return before
    draft = grammar.advance(before.draft, token)
    if len(draft.written) > len(before.draft.written):  # this token closed a tag, and may open the next
        return _Hypothesis(draft, (*before.log_probabilities, before.open_tag + closing))
    inside = before.draft.node is not None
    return _Hypothesis(draft, before.log_probabilities, before.open_tag + gain if inside else 0.0)


def write_freely(
    network: Any, pieces: Pieces, prompts: Sequence[Sequence[int]], max_tokens: int
) -> list[list[int]]:
    """The likeliest token at every step, whatever it is, up to and with `<end>`."""
    cache = _Cache(network, prompts, pieces.pad)
    tokens: list[list[int]] = [[] for _ in prompts]
    for _ in range(max_tokens):
        step = cache.logits.argmax(dim=1)
        for row, token in zip(tokens, step.tolist(), strict=True):
            if row[-1:] != [pieces.end]:
                row.append(token)
        if all(row[-1] == pieces.end for row in tokens):
            break
        cache.append(step)
    return tokens
