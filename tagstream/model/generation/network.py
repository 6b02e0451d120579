"""The causal language model itself: GPT-2's architecture from scratch, or a pretrained folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from tagstream.model.generation.pieces import Pieces
from tagstream.model.version.format import Strict

PARAMETERS_MAX = 3_000_000


class Size(Strict):
    """Of a network from scratch (Radford et al. 2019)."""

    width: int = Field(default=128, gt=0)
    layers: int = Field(default=4, gt=0)
    heads: int = Field(default=4, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


def from_scratch(size: Size, pieces: Pieces, context: int) -> Any:
    """A GPT-2 with `context` positions; its output shares the weights of its embedding. Raises ValueError
    where it would have more than `PARAMETERS_MAX` parameters."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=pieces.size,
        n_positions=context,
        n_embd=size.width,
        n_layer=size.layers,
        n_head=size.heads,
        resid_pdrop=size.dropout,
        embd_pdrop=size.dropout,
        attn_pdrop=size.dropout,
        # Wider than GPT-2's 0.02, which is made for widths ten times as large.
        initializer_range=1 / math.sqrt(12 * size.width),
        bos_token_id=pieces.tags,
        eos_token_id=pieces.end,
        pad_token_id=pieces.pad,
    )
    network = GPT2LMHeadModel(config)
    if network.num_parameters() > PARAMETERS_MAX:
        raise ValueError(f"{network.num_parameters()} parameters, at most {PARAMETERS_MAX} are allowed")
    return network


def from_folder(folder: Path, pieces: Pieces, context: int) -> Any:
    """A pretrained causal language model, with rows for the tokens that its vocabulary lacks. Raises
    ValueError where no model is there, or it reads fewer than `context` tokens."""
    from transformers import AutoModelForCausalLM

    try:
        network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: no causal language model: {error}") from error
    positions = network.config.max_position_embeddings
    if positions < context:
        raise ValueError(f"{folder}: it reads {positions} tokens, titles and tags take up to {context}")
    network.resize_token_embeddings(pieces.size, mean_resizing=False)
    return network
