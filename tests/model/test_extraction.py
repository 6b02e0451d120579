"""An extractor learns the terms of titles, is saved whole, and bears whatever a title holds."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from jobs import evaluate
from tagstream.adapters.registry import BUNDLED, Registry
from tagstream.core.errors import IncompatibleModel
from tagstream.core.ports import TextFields
from tagstream.dataset.titles import Labelled, Title, cut, read_titles
from tagstream.dataset.weak import weak_labels
from tagstream.evaluation.spans import SpanFigures, span_f1
from tagstream.model.extraction import bio
from tagstream.model.extraction.bio import PADDING, certainty, negative_log_likelihood
from tagstream.model.extraction.extractor import Extractor, normalised_value
from tagstream.model.extraction.lexicon import Lexicon
from tagstream.model.extraction.network import CharacterConfig
from tagstream.model.extraction.pretrained import Pretrained
from tagstream.model.version.format import FORMAT_VERSION, sha256
from tagstream.model.version.load import load, load_extractor
from tagstream.training.extraction import ExtractionRecipe, measure, train_extractor

GROUPS = ("product", "brand")
BRANDS = ("飞利浦", "三只松鼠", "小米", "Nike", "美的")
PRODUCTS = ("理发器", "花草茶", "电饭煲", "运动鞋", "水壶")
SMALL = CharacterConfig(buckets=512, widths=(16, 8, 8, 8, 4), hidden=16, layers=1, dropout=0.1)
HOW = ExtractionRecipe().optimisation.model_copy(
    update={"epochs": 6, "batch_rows": 8, "learning_rate": 2e-2, "average_decay": 0.5}
)
RECIPE = ExtractionRecipe(characters=SMALL, members=2, optimisation=HOW)


def made_title(rng: random.Random) -> Title:
    brand, product, word = rng.choice(BRANDS), rng.choice(PRODUCTS), rng.choice(("正品 ", "2019新款", " "))
    text = f"{brand}{word}{product}包邮"
    start = len(brand) + len(word)
    return Title(text, (Labelled(0, len(brand), "brand"), Labelled(start, start + len(product), "product")))


TITLES = [made_title(random.Random(seed)) for seed in range(120)]


def trained_by(**how: float) -> ExtractionRecipe:
    """`RECIPE`, trained otherwise."""
    return RECIPE.model_copy(update={"optimisation": HOW.model_copy(update=how)})


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    torch.set_num_threads(1)
    return train_extractor(TITLES, GROUPS, RECIPE, langs=("zh",))


@pytest.fixture(scope="module")
def folder(extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("extractor") / "e1"
    extractor.save(path, model_version="e1", dataset_id="made up")
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def values(extractor: Extractor, *titles: str) -> list[list[tuple[str, str]]]:
    found = extractor.extract([TextFields(title, lang="zh") for title in titles])
    return [[(span.group, span.value) for span in spans] for spans in found]


# ---------------------------------------------------------------------- learning


def test_it_finds_in_new_titles_what_it_has_learnt(extractor: Extractor) -> None:
    new = [made_title(random.Random(seed)) for seed in range(1000, 1040)]
    assert measure(extractor, new)["all"].f1 > 0.95
    assert values(extractor, "飞利浦水壶") == [[("brand", "飞利浦"), ("product", "水壶")]]


def test_the_same_seed_gives_the_same_extractor(extractor: Extractor) -> None:
    again = train_extractor(TITLES, GROUPS, RECIPE, langs=("zh",))
    first, second = extractor._network.state_dict(), again._network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_handful_of_titles_and_one_step_are_enough_to_train() -> None:
    assert train_extractor(TITLES[:5], GROUPS, trained_by(epochs=1)).spans([""]) == [[]]


def test_a_group_without_spans_is_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        train_extractor(TITLES, (*GROUPS, "colour"), RECIPE)


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    with pytest.raises(ValueError, match="lower the learning rate"):
        train_extractor(TITLES, GROUPS, trained_by(learning_rate=1e18))


def test_near_duplicates_fall_on_one_side_of_the_cut() -> None:
    titles = [Title(f"标题 {n // 2}{' ' * (n % 2)}", ()) for n in range(200)]
    learn, validate = cut(titles, seed=0)
    assert not {t.text.strip() for t in learn} & {t.text.strip() for t in validate}
    assert 4 <= len(validate) <= 60


# ---------------------------------------------------------------------- serving


@pytest.mark.parametrize(
    "title",
    [
        "",
        " ",
        "\n\t",
        "👟👟",
        "👩‍👩‍👧‍👦 飞利浦",
        "\ud800",
        "飞利浦\udfff水壶",
        "\x00",
        "ﷺ" * 40,
        "é" * 3,
        "ß飞İ",
    ],
)
def test_any_title_is_borne_and_its_offsets_fit(extractor: Extractor, title: str) -> None:
    [spans] = extractor.extract([TextFields(title, lang="zh")])
    for span in spans:
        assert 0 <= span.start < span.end <= len(title)
        assert 1 <= len(span.value) <= 64
        assert 0 < span.score <= 1
        span.value.encode()


def test_spans_do_not_overlap_and_are_in_order(extractor: Extractor) -> None:
    rng = random.Random(3)
    letters = "".join((*BRANDS, *PRODUCTS, " 2019"))
    titles = ["".join(rng.choices(letters, k=60)) for _ in range(20)]
    for spans in extractor.extract([TextFields(title, lang="zh") for title in titles]):
        assert all(one.end <= next_one.start for one, next_one in itertools.pairwise(spans))


def test_a_title_is_read_alike_alone_and_among_longer_ones(extractor: Extractor) -> None:
    titles = [title.text for title in TITLES[:10]]
    assert values(extractor, *titles, "长" * 300) == [
        *(values(extractor, title)[0] for title in titles),
        values(extractor, "长" * 300)[0],
    ]


def test_a_title_without_end_is_cut(extractor: Extractor) -> None:
    [spans] = extractor.extract([TextFields("飞利浦水壶 " + "长" * 100_000 + "小米", lang="zh")])
    assert all(span.end <= 512 for span in spans)


def test_a_title_of_another_language_has_no_spans(extractor: Extractor) -> None:
    assert extractor.extract([TextFields("飞利浦水壶", lang="en"), TextFields("Nike shoes")]) == [(), ()]
    assert extractor.extract([]) == []


def test_a_span_that_is_not_sure_enough_is_no_tag(folder: Path) -> None:
    choosy = load_extractor(folder)
    choosy.score_min = 1.0
    assert values(choosy, "飞利浦和水壶吗") == [[]]


def test_aliases_say_how_a_value_is_written(extractor: Extractor) -> None:
    aliases = {"brand": {" ＮＩＫＥ ": "耐克"}, "product": {"nike": "never"}}
    known = Extractor(extractor._network, aliases=aliases)
    assert ("brand", "耐克") in values(known, "Nike正品 运动鞋包邮")[0]
    assert ("brand", "nike") in values(extractor, "Nike正品 运动鞋包邮")[0]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (" ＮＩＫＥ　Air ", "nike air"),
        ("、水壶。", "水壶"),
        ("—\ud800", ""),
        ("!!", ""),
        ("Straße", "strasse"),
    ],
)
def test_values_are_nfkc_and_casefolded_without_marks_at_the_ends(written: str, value: str) -> None:
    assert normalised_value(written) == value


# ---------------------------------------------------------------------- the folder


def test_what_was_saved_finds_the_same(extractor: Extractor, folder: Path) -> None:
    titles = [TextFields(title.text, lang="zh") for title in TITLES[:40]]
    loaded = load_extractor(folder)
    assert loaded.langs == ("zh",)
    for mine, theirs in zip(extractor.extract(titles), loaded.extract(titles), strict=True):
        assert [span[:2] for span in mine] == [span[:2] for span in theirs]
        assert [span.score for span in mine] == pytest.approx([span.score for span in theirs], abs=0.01)


def test_a_folder_is_never_written_over(extractor: Extractor, folder: Path) -> None:
    with pytest.raises(FileExistsError):
        extractor.save(folder, model_version="e2", dataset_id="made up")


@pytest.mark.parametrize("name", ["config.json", "lexicon.json", "aliases.json", "model.safetensors"])
def test_a_changed_byte_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(IncompatibleModel, match=name):
        load_extractor(copy)


def test_a_missing_file_and_a_folder_that_is_none_are_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "lexicon.json").unlink()
    with pytest.raises(IncompatibleModel, match="missing"):
        load_extractor(copy)
    with pytest.raises(IncompatibleModel):
        load_extractor(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "update tagstream"),
        ({"groups": []}, "groups"),
        ({"sizes": 1}, "sizes"),
    ],
)
def test_a_format_that_is_not_this_code_s_is_refused(
    copy: Path, change: dict[str, object], reason: str
) -> None:
    config = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(config))
    manifest = json.loads((copy / "MANIFEST.json").read_text())
    manifest["files"]["config.json"] = sha256(copy / "config.json")
    (copy / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(IncompatibleModel, match=reason):
        load_extractor(copy)


def test_a_folder_of_the_first_format_finds_the_same(copy: Path) -> None:
    titles = [title.text for title in TITLES[:40]]
    found = values(load_extractor(copy), *titles)
    config = json.loads((copy / "config.json").read_text()) | {"format_version": 1}
    del config["architecture"]
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "golden.npz").unlink()
    manifest = json.loads((copy / "MANIFEST.json").read_text())
    del manifest["files"]["golden.npz"]
    manifest["files"]["config.json"] = sha256(copy / "config.json")
    (copy / "MANIFEST.json").write_text(json.dumps(manifest))

    assert values(load_extractor(copy), *titles) == found


def test_an_extractor_that_computes_differently_than_when_it_was_saved_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tagstream.model.extraction.network.folded_in_place", lambda text: text[::-1])
    with pytest.raises(IncompatibleModel, match="scores differ"):
        load_extractor(copy)


def test_an_extractor_is_no_champion_and_a_champion_no_extractor(folder: Path) -> None:
    with pytest.raises(IncompatibleModel, match="no scores"):
        load(folder)
    with pytest.raises(IncompatibleModel, match="no extractor"):
        load_extractor(Registry(str(BUNDLED)).fetch(Registry(str(BUNDLED)).champion()[0]))


# ---------------------------------------------------------------------- BIO and the chain


def test_the_best_path_is_the_best_of_all_legal_ones() -> None:
    rng = np.random.default_rng(0)
    start, allowed = bio.forbidden(GROUPS)
    step = allowed + rng.normal(size=allowed.shape).astype(np.float32)
    for _ in range(20):
        emissions = rng.normal(size=(4, 5)).astype(np.float32) * 3
        paths = list(itertools.product(range(5), repeat=4))
        scores = np.array(
            [
                start[path[0]]
                + sum(emissions[place, of] for place, of in enumerate(path))
                + sum(step[a, b] for a, b in itertools.pairwise(path))
                for path in paths
            ]
        )
        best = bio.best_path(emissions, start, step)
        assert tuple(best) == paths[scores.argmax()]
        weights = np.exp(scores - scores.max())
        for place, sure in enumerate(certainty(emissions, best, start, step)):
            there = np.array([path[place] == best[place] for path in paths])
            assert sure == pytest.approx(weights[there].sum() / weights.sum(), abs=1e-4)
        loss = negative_log_likelihood(
            torch.from_numpy(emissions)[None],
            torch.from_numpy(best)[None],
            torch.from_numpy(start),
            torch.from_numpy(step),
        )
        assert loss.item() * 4 == pytest.approx(math.log(weights.sum()), abs=1e-3)


def test_padding_changes_no_loss() -> None:
    start, step = map(torch.from_numpy, bio.forbidden(GROUPS))
    emissions = torch.randn(1, 3, 5)
    classes = torch.tensor([[1, 2, 0]])
    bare = negative_log_likelihood(emissions, classes, start, step)
    padded = negative_log_likelihood(
        torch.cat([emissions, torch.randn(1, 2, 5)], dim=1),
        torch.cat([classes, torch.full((1, 2), PADDING)], dim=1),
        start,
        step,
    )
    assert torch.allclose(bare, padded)


def test_an_inside_never_follows_what_it_cannot_continue() -> None:
    rng = np.random.default_rng(1)
    start, step = bio.forbidden(GROUPS)
    for _ in range(50):
        path = bio.best_path(rng.normal(size=(30, 5)).astype(np.float32) * 5, start, step)
        before = [0, *path[:-1]]
        assert all(b in (a - 1, a) for a, b in zip(path, before, strict=True) if a and a % 2 == 0)


def test_spans_come_back_from_their_classes() -> None:
    spans = [
        Labelled(0, 2, "brand"),
        Labelled(2, 3, "brand"),
        Labelled(3, 5, "product"),
        Labelled(7, 8, "product"),
    ]
    assert bio.decode(bio.encode(8, spans, GROUPS), GROUPS) == spans
    assert bio.decode([], GROUPS) == []


def test_a_span_counts_only_if_both_ends_and_its_group_are_right() -> None:
    true = [[Labelled(0, 2, "brand"), Labelled(3, 5, "product")], [Labelled(0, 1, "product")], []]
    found = [[Labelled(0, 2, "brand"), Labelled(3, 4, "product")], [Labelled(0, 1, "brand")], []]
    figures = span_f1(true, found)
    assert figures["all"] == SpanFigures(precision=1 / 3, recall=1 / 3, f1=1 / 3, spans=3.0)
    assert figures["brand"].precision == 0.5
    assert figures["product"].f1 == 0.0
    assert span_f1([[]], [[]])["all"].f1 == 0.0


# ---------------------------------------------------------------------- the lexicon


def test_a_title_does_not_see_its_own_labels_in_training() -> None:
    only = Title("新水壶", (Labelled(1, 3, "product"),))
    lexicon = Lexicon.of([only, *TITLES[:1]], GROUPS)
    assert lexicon.features(only.text).any()
    other = Lexicon.of(TITLES[:1], GROUPS)
    assert np.array_equal(lexicon.features(only.text, without=[only]), other.features(only.text))


def test_marks_say_where_a_term_begins_goes_on_and_ends() -> None:
    lexicon = Lexicon.of([Title("保温水壶", (Labelled(0, 4, "product"),))], GROUPS)
    marks = lexicon.features("a保温水壶")[:, :4]
    assert marks.argmax(axis=1).tolist()[1:] == [0, 1, 1, 2]
    assert not marks[0].any()


# ---------------------------------------------------------------------- files of titles


@pytest.mark.parametrize(
    "entities",
    [
        [{"start": 0, "end": 2, "label": "HC"}, {"start": 1, "end": 3, "label": "HP"}],
        [{"start": 0, "end": 9, "label": "HC"}],
        [{"start": 2, "end": 2, "label": "HC"}],
        [{"start": -1, "end": 2, "label": "HC"}],
        [{"start": "0", "end": 2, "label": "HC"}],
        [{"end": 2, "label": "HC"}],
    ],
)
def test_spans_that_overlap_or_leave_the_text_are_refused(tmp_path: Path, entities: list[object]) -> None:
    path = tmp_path / "titles.jsonl"
    good = {"text": "水壶", "entities": [{"start": 0, "end": 2, "label": "HC"}]}
    path.write_text(json.dumps(good) + "\n" + json.dumps({"text": "abc", "entities": entities}))
    with pytest.raises(ValueError, match="line 2"):
        read_titles(path)


def test_a_file_without_titles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match="no titles"):
        read_titles(tmp_path / "empty.jsonl")


# ---------------------------------------------------------------------- English


@pytest.mark.parametrize(
    ("title", "article_type", "brand", "product"),
    [
        ("Reid & Taylor Men Solid Grey Socks", "Socks", "Reid & Taylor", "Socks"),
        ("Gas Men's Skate 003 Casual Shoe", "Casual Shoes", "Gas", "Casual Shoe"),
        ("Nike Women T-Shirts White", "Tshirts", "Nike", "T-Shirts"),
        ("Puma Unisex Grey Avid Shoes", "Formal Shoes", "Puma", "Shoes"),
        ("Puma Navy Blue Cap", "Caps", "Puma", "Cap"),
        ("Catwalk Women Wedges", "Heels", "Catwalk", None),
    ],
)
def test_weak_labels_read_brand_and_product_out_of_a_title(
    title: str, article_type: str, brand: str, product: str | None
) -> None:
    labelled = weak_labels(
        [("Puma Men Socks", "Socks"), (title, article_type)], {"Grey", "Navy Blue", "White"}
    )
    spans = {span.group: title[span.start : span.end] for span in labelled[-1].spans}
    assert spans == {"brand": brand} | ({"product": product} if product else {})


@pytest.mark.parametrize("title", ["", "Navy Blue Cap", "Men Cap", "a b c d e Men Cap"])
def test_a_title_whose_brand_stays_unknown_teaches_nothing(title: str) -> None:
    assert weak_labels([(title, "Caps")], {"Navy Blue"}) == []


# ---------------------------------------------------------------------- a pretrained encoder


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights with a tokenizer whose tokens are one or two characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("encoder")
    letters = sorted({letter for title in TITLES for letter in title.text})
    vocabulary = [("[UNK]", 0.0), *((letter, -3.0) for letter in letters), ("水壶", -3.0), ("小米", -3.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(path)
    return path


@pytest.mark.parametrize("rate", [0.0, 1e-2])
def test_a_pretrained_encoder_serves_frozen_or_trained_from_the_extractor_s_own_folder(
    encoder_folder: Path, tmp_path: Path, rate: float
) -> None:
    recipe = RECIPE.model_copy(update={"pretrained_learning_rate": rate})
    pretrained = Pretrained.read(str(encoder_folder))
    before = [weights.clone() for weights in pretrained.parameters()]
    trained = train_extractor(TITLES, GROUPS, recipe, pretrained=pretrained)
    same = [torch.equal(a, b) for a, b in zip(before, trained._network.pretrained.parameters(), strict=True)]  # type: ignore[union-attr]
    assert all(same) == (rate == 0)
    assert measure(trained, TITLES[:40])["all"].f1 > 0.95
    trained.save(tmp_path / "e", model_version="e", dataset_id="made up")
    titles = [*(title.text for title in TITLES[:10]), "飞利浦\ud800水壶"]
    assert values(load_extractor(tmp_path / "e"), *titles) == values(trained, *titles)


def test_characters_take_the_state_of_the_token_that_covers_them(encoder_folder: Path) -> None:
    pretrained = Pretrained.read(str(encoder_folder))
    ids, place_of = pretrained.tokens("小米 水壶")
    assert place_of.tolist() == [0, 0, -1, 1, 1]
    longer = torch.cat([place_of, place_of.new_tensor([0])])
    states = pretrained([ids, ids], [place_of, longer])[0]  # padded to six characters
    assert torch.equal(states[0, :-1], states[1, :-1])
    assert not torch.equal(states[0, :-1], states[3, :-1])
    assert states[:, -1].tolist()[:5] == [1, 0, 1, 1, 0]
    assert not states[[2, 5], :-1].any()


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded"):
        Pretrained.read(str(tmp_path))


def test_extractors_are_measured_side_by_side_by_the_evaluation_job(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    other = shutil.copytree(folder, tmp_path / "e2")
    titles = [made_title(random.Random(seed)) for seed in range(900, 960)]
    lines = [
        json.dumps({"text": t.text, "entities": [s._asdict() | {"label": s.group} for s in t.spans]})
        for t in titles
    ]
    (tmp_path / "dev.jsonl").write_text("\n".join(lines))
    options = ["--data", str(tmp_path / "dev.jsonl"), "--json", str(tmp_path / "f.json")]
    app = typer.Typer()
    app.command()(evaluate.main)

    done = CliRunner().invoke(app, [*options, "--model", str(folder), "--model", str(other)])
    said = json.loads((tmp_path / "f.json").read_text())

    assert done.exit_code == 0, done.output
    assert "exact span F1 on 60 titles" in done.output
    assert said["models"]["e1"]["all"]["f1"] == measure(load_extractor(folder), titles)["all"].f1
    assert said["models"]["e1"]["brand"]["low"] <= said["models"]["e1"]["brand"]["f1"]
    assert said["differences"][0]["difference"] == said["differences"][0]["low"] == 0
    assert CliRunner().invoke(app, options).exit_code == 2
