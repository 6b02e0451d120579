from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tagstream.core.errors import IncompatibleModel
from tagstream.core.ports import MicroBatch
from tagstream.dataset.training_set import TrainingSet
from tagstream.model.version import golden
from tagstream.model.version.format import FORMAT_VERSION, read_config, read_manifest, sha256
from tagstream.model.version.load import load
from tagstream.training.release import Trained, release


@pytest.fixture
def saved(tmp_path: Path, tiny_set: TrainingSet, tiny_tagger: Trained, recipe) -> Path:  # type: ignore[no-untyped-def]
    return release(tmp_path, tiny_set, tiny_tagger, datetime(2026, 1, 2, tzinfo=UTC))[0]


def _reseal(folder: Path) -> None:
    """Make the manifest agree with what stands in the folder, as a careless editor would."""
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def test_what_is_saved_comes_back(
    saved: Path,
    tiny_set: TrainingSet,
    tiny_tagger: Trained,
    recipe,  # type: ignore[no-untyped-def]
) -> None:
    loaded = load(saved, device="cpu")
    rows = tiny_set.products.test[:20]
    scores, uses = loaded.score(MicroBatch([row.text for row in rows], [row.encoded for row in rows]))
    colours = loaded.taxonomy.slices["baseColour"]
    names = [value.value for value in loaded.taxonomy.group("baseColour").values]
    truth = [row.labels["baseColour"][0] for row in rows]

    assert loaded.model_version == saved.name
    assert loaded.taxonomy == tiny_tagger.taxonomy
    assert scores.dtype == np.float32
    assert scores.shape == (20, loaded.taxonomy.size)
    assert set(uses) == {"used"}
    assert (
        np.mean([names[place] == t for place, t in zip(scores[:, colours].argmax(1), truth, strict=True)])
        > 0.8
    )


def test_the_folder_says_what_it_is(saved: Path, tiny_set: TrainingSet) -> None:
    metrics = json.loads((saved / "metrics.json").read_text())
    manifest = read_manifest(saved)

    assert metrics["spec_hash"] == tiny_set.spec.content_hash()
    assert set(metrics["test"]) == {"both", "text", "image"}
    assert manifest.dataset_id == tiny_set.dataset_id()
    assert set(manifest.files) == {path.name for path in saved.iterdir()} - {"MANIFEST.json"}
    assert "macro-F1" in (saved / "README.md").read_text()
    assert not [path for path in saved.iterdir() if path.suffix in (".pkl", ".pt", ".bin")]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "taxonomy.json", "golden.npz", "README.md"]
)
def test_a_changed_byte_is_refused(saved: Path, name: str) -> None:
    path = saved / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(IncompatibleModel, match=re.escape(name)):
        load(saved)


@pytest.mark.parametrize("content", ["[]", '{"architecture": []}', '{"format_version": []}', "{", "null"])
def test_a_config_that_is_none_is_refused(saved: Path, content: str) -> None:
    (saved / "config.json").write_text(content)
    with pytest.raises(IncompatibleModel):
        read_config(saved)


def test_a_missing_file_and_a_missing_manifest_are_refused(saved: Path, tmp_path: Path) -> None:
    (saved / "taxonomy.json").unlink()
    with pytest.raises(IncompatibleModel, match=r"taxonomy\.json is missing"):
        load(saved)
    with pytest.raises(IncompatibleModel, match="MANIFEST"):
        load(tmp_path / "nowhere")


def test_a_newer_format_is_refused_with_the_remedy(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "format_version": FORMAT_VERSION + 1}))
    _reseal(saved)

    with pytest.raises(IncompatibleModel, match=r"format_version \d+, .*update tagstream"):
        load(saved)


def _as_format_3(folder: Path, fusion: str = "weighted") -> None:
    """Rewrite a folder as the code of format 3 wrote it."""
    config = json.loads((folder / "config.json").read_text())
    del config["architecture"]
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 3, "fusion": fusion}))
    weights = load_file(folder / "model.safetensors")
    image = {name: tensor for name, tensor in weights.items() if name.startswith(("image.", "joint."))}
    others = {name: tensor for name, tensor in weights.items() if name not in image}
    old = {f"seeing.{name}": tensor for name, tensor in image.items()}
    save_file({**others, **old}, folder / "model.safetensors")
    _reseal(folder)


def test_weights_are_named_by_member_and_the_names_of_format_3_still_load(saved: Path) -> None:
    scores, _ = load(saved, device="cpu").score(golden.batch())
    names = load_file(saved / "model.safetensors")
    _as_format_3(saved)

    assert {name.split(".")[0] for name in names} == {"text", "image", "fusion"}
    assert {name.split(".")[0] for name in load_file(saved / "model.safetensors")} > {"seeing"}
    np.testing.assert_array_equal(load(saved, device="cpu").score(golden.batch())[0], scores)


def test_a_version_with_stacked_fusion_is_refused_in_one_sentence(saved: Path) -> None:
    _as_format_3(saved, fusion="stacked")

    with pytest.raises(IncompatibleModel, match="stacked fusion is no longer supported: train"):
        load(saved)


def test_weights_that_do_not_fit_the_taxonomy_are_refused(saved: Path) -> None:
    taxonomy = json.loads((saved / "taxonomy.json").read_text())
    taxonomy["groups"][0]["values"].append({"value": "one more"})
    (saved / "taxonomy.json").write_text(json.dumps(taxonomy))
    _reseal(saved)

    with pytest.raises(IncompatibleModel):
        load(saved)


def test_other_weights_under_a_sound_manifest_fail_the_golden_batch(saved: Path) -> None:
    path = saved / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "text.heads.weight": -weights["text.heads.weight"]}, path)
    _reseal(saved)

    with pytest.raises(IncompatibleModel, match="scores differ"):
        load(saved)


def test_a_model_version_is_never_written_twice(
    saved: Path, tiny_set: TrainingSet, tiny_tagger: Trained, recipe
) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(FileExistsError):
        release(saved.parent, tiny_set, tiny_tagger, datetime(2026, 1, 2, tzinfo=UTC))
