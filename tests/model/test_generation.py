"""Tags written by a language model: the grammar, decoding, training, and the folder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from jobs.train_generator import main as job
from tagstream.adapters.champion import Champion
from tagstream.adapters.registry import BUNDLED
from tagstream.core.errors import IncompatibleModel
from tagstream.core.ports import MicroBatch, TextFields
from tagstream.core.taxonomy import Group, Taxonomy, Value
from tagstream.dataset.rows import Row
from tagstream.dataset.training_set import TrainingSet
from tagstream.evaluation.tag_sets import (
    as_sets,
    edit_distance,
    faults_of,
    labelled,
    serialised,
    set_figures,
    writing_figures,
)
from tagstream.model.generation.decode import write
from tagstream.model.generation.generator import Generator, save, tags_max_tokens
from tagstream.model.generation.grammar import Grammar
from tagstream.model.generation.network import Size, from_scratch
from tagstream.model.generation.pieces import Pieces, learn
from tagstream.model.version.format import Manifest, sha256
from tagstream.model.version.load import load
from tagstream.training.generation import GenerationRecipe, shuffled, train_generator
from tagstream.training.loop import TrainingDiverged
from tests.support.memory import MemoryMetrics

TITLES = [
    TextFields("Acme Sports Shoes blue"),
    TextFields("plain Shoes"),
    TextFields("白色 纯棉 衬衫", lang="zh"),
    TextFields("Watch"),
]
TAXONOMY = Taxonomy(
    taxonomy_version="t",
    groups=(
        Group(name="kind", langs=("en",), values=(Value(value="Footwear"), Value(value="Accessories"))),
        Group(
            name="type",
            langs=("en",),
            parent_group="kind",
            values=(
                Value(value="Sports", parent="Accessories"),
                Value(value="Sports Shoes", parent="Footwear"),
                Value(value="Shoes", parent="Footwear"),
                Value(value="Watch", parent="Accessories"),
            ),
        ),
        Group(
            name="颜色",
            kind="multi",
            langs=("zh",),
            values=tuple(Value(value=v) for v in ("白色", "黑色", "白")),
        ),
    ),
)
TINY = GenerationRecipe(
    size=Size(width=32, layers=2, heads=2, dropout=0.0),
    vocabulary=120,
    title_max_pieces=16,
    optimisation=GenerationRecipe().optimisation.model_copy(
        update={"epochs": 12, "batch_rows": 16, "learning_rate": 5e-3}
    ),
)


def tiny(**how: float) -> GenerationRecipe:
    """`TINY`, trained otherwise."""
    return TINY.model_copy(update={"optimisation": TINY.optimisation.model_copy(update=how)})


def untrained(seed: int = 0, beams: int = 1, taxonomy: Taxonomy = TAXONOMY) -> Generator:
    torch.manual_seed(seed)
    pieces = learn(TITLES, taxonomy, 200)
    size = Size(width=16, layers=1, heads=2)
    network = from_scratch(size, pieces, context=16 + 1 + tags_max_tokens(taxonomy, pieces))
    with torch.no_grad():  # far from uniform, so that greedy, free and beam differ
        network.transformer.wte.weight.mul_(8)
    return Generator("g", taxonomy, pieces, network, 16, beams)


@pytest.fixture(scope="module")
def fitted(tiny_set: TrainingSet) -> Generator:
    return train_generator(tiny_set.titles_trained_on, tiny_set.taxonomy, TINY)


def said(generator: Generator, *titles: str) -> list[dict[str, str]]:
    return [
        {tag.group: tag.value for tag in tags} for tags in generator.generate([TextFields(t) for t in titles])
    ]


# The grammar


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_permitted_makes_a_valid_set(seed: int) -> None:
    rng = random.Random(seed)
    grammar = Grammar(TAXONOMY, learn(TITLES, TAXONOMY, 200))
    draft = grammar.start(rng.choice(["en", "zh"]))
    while not draft.finished:
        draft = grammar.advance(draft, rng.choice(grammar.permitted(draft).tolist()))
    named = [(group.name, value.value) for group in TAXONOMY.groups for value in group.values]
    assert faults_of([named[column] for column in draft.written], TAXONOMY) == set()


def test_a_value_that_begins_another_can_be_ended_or_gone_on_with() -> None:
    pieces = learn(TITLES, TAXONOMY, 200)
    grammar = Grammar(TAXONOMY, pieces)
    kind, of_type, _ = pieces.groups
    for value, column in (("Sports", 2), ("Sports Shoes", 3)):
        draft = grammar.start("en")
        for token in (of_type, *pieces.value(value), kind):
            assert token in grammar.permitted(draft)
            draft = grammar.advance(draft, token)
        assert draft.written == (column,)


def test_a_written_child_leaves_only_its_own_parent() -> None:
    pieces = learn(TITLES, TAXONOMY, 200)
    grammar = Grammar(TAXONOMY, pieces)
    kind, of_type, _ = pieces.groups
    draft = grammar.start("en")
    for token in (of_type, *pieces.value("Watch"), kind):
        draft = grammar.advance(draft, token)
    assert grammar.permitted(draft).tolist() == [pieces.value("Accessories")[0]]


def test_a_group_of_another_language_is_not_written() -> None:
    pieces = learn(TITLES, TAXONOMY, 200)
    kind, of_type, colour = pieces.groups
    grammar = Grammar(TAXONOMY, pieces)
    assert set(grammar.permitted(grammar.start("en")).tolist()) == {kind, of_type, pieces.end}
    assert set(grammar.permitted(grammar.start("zh")).tolist()) == {colour, pieces.end}
    assert grammar.permitted(grammar.start("fr")).tolist() == [pieces.end]


def test_a_retired_value_is_not_written() -> None:
    values = (Value(value="Watch", retired=True), Value(value="Shoes"))
    taxonomy = Taxonomy(taxonomy_version="t", groups=(Group(name="type", values=values),))
    pieces = learn(TITLES, taxonomy, 200)
    grammar = Grammar(taxonomy, pieces)
    draft = grammar.advance(grammar.start("en"), pieces.groups[0])
    assert grammar.permitted(draft).tolist() == pieces.value("Shoes")


def test_two_values_that_are_spelled_alike_are_refused() -> None:
    alike = Taxonomy(
        taxonomy_version="t", groups=(Group(name="c", values=(Value(value="Red"), Value(value="RED"))),)
    )
    with pytest.raises(ValueError, match="spelled alike"):
        Grammar(alike, learn(TITLES, alike, 200))


# Pieces


def test_han_text_is_read_by_character_and_words_by_piece() -> None:
    pieces = learn(TITLES, TAXONOMY, 60)
    assert len(pieces.texts([TextFields("白色衬衫")], 99)[0]) == 4
    assert pieces.texts([TextFields("SHOES")], 99) == pieces.texts([TextFields("ｓｈｏｅｓ")], 99)


def test_a_value_that_the_pieces_cannot_spell_is_refused() -> None:
    pieces = learn(TITLES, TAXONOMY, 200)
    with pytest.raises(ValueError, match="cannot spell"):
        pieces.value("черный")


def test_text_that_is_no_valid_unicode_is_read() -> None:
    assert said(untrained(), "Shoes \ud800 blue") is not None


# Decoding


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_even_an_untrained_network_writes_valid_sets_only(seed: int, beams: int) -> None:
    generator = untrained(seed, beams)
    written = [[(tag.group, tag.value) for tag in tags] for tags in generator.generate(TITLES)]
    assert writing_figures(written, TAXONOMY)["valid"] == 1.0


def test_an_untrained_network_that_writes_freely_is_mostly_invalid() -> None:
    figures = [writing_figures(untrained(s).generate_freely(TITLES), TAXONOMY)["valid"] for s in range(8)]
    assert np.mean(figures) < 0.5


def test_the_cache_changes_no_tag_and_no_probability() -> None:
    generator = untrained(3)
    for text, tags in zip(TITLES, generator.generate(TITLES), strict=True):
        expected = without_cache(generator, text)
        assert {(tag.group, tag.value): pytest.approx(tag.score, abs=1e-5) for tag in tags} == expected


def without_cache(generator: Generator, text: TextFields) -> dict[tuple[str, str], float]:
    """Greedy, the whole sequence read anew for every token; every probability from its definition."""
    pieces, grammar = generator.pieces, Grammar(generator.taxonomy, generator.pieces)
    named = [(group.name, value.value) for group in generator.taxonomy.groups for value in group.values]
    line = [*pieces.texts([text], 16)[0], pieces.tags]
    draft, found, open_tag = grammar.start(text.lang or "en"), {}, 1.0
    while not draft.finished:
        permitted = grammar.permitted(draft).tolist()
        with torch.no_grad():
            logits = generator.network(input_ids=torch.tensor([line])).logits[0, -1]
        share = dict(zip(permitted, logits[permitted].softmax(0).tolist(), strict=True))
        groups = {token: share[token] for token in permitted if token in pieces.groups}
        rivals = {token: p for token, p in share.items() if token not in groups}
        if groups:
            rivals[max(groups, key=groups.__getitem__)] = sum(groups.values())
        token = max(rivals, key=rivals.__getitem__)
        closing = sum(groups.values()) + share.get(pieces.end, 0.0)
        after = grammar.advance(draft, token)
        if len(after.written) > len(draft.written):
            found[named[after.written[-1]]] = open_tag * closing
            open_tag = 1.0
        elif draft.node is not None:
            open_tag *= share[token]
        draft = after
        line.append(token)
    return found


def test_enough_beams_find_the_likeliest_set() -> None:
    values = tuple(Value(value=value.value) for value in TAXONOMY.groups[1].values)
    one_group = Taxonomy(taxonomy_version="t", groups=(Group(name="type", values=values),))
    for seed in range(5):
        generator = untrained(seed, taxonomy=one_group)
        pieces, grammar = generator.pieces, Grammar(one_group, generator.pieces)
        prompt = [*pieces.texts([TITLES[0]], 16)[0], pieces.tags]
        likelihoods = {(): log_probability(generator, grammar, prompt, [pieces.end])}
        for column, spelling in enumerate(grammar.spelling):
            tokens = [pieces.groups[0], *spelling, pieces.end]
            likelihoods[column,] = log_probability(generator, grammar, prompt, tokens)
        with torch.inference_mode():
            (best,) = write(generator.network, pieces, grammar, [prompt], ["en"], 20, beams=8)
        assert tuple(column for column, _ in best) == max(likelihoods, key=likelihoods.__getitem__)


def log_probability(generator: Generator, grammar: Grammar, prompt: list[int], tokens: list[int]) -> float:
    draft, line, total = grammar.start("en"), list(prompt), 0.0
    for token in tokens:
        permitted = grammar.permitted(draft).tolist()
        with torch.no_grad():
            logits = generator.network(input_ids=torch.tensor([line])).logits[0, -1]
        total += float(logits[permitted].log_softmax(0)[permitted.index(token)])
        draft = grammar.advance(draft, token)
        line.append(token)
    return total


def test_a_title_is_tagged_alike_alone_and_among_others(fitted: Generator, tiny_set: TrainingSet) -> None:
    texts = [row.text for row in tiny_set.products.test]
    together = fitted.generate(texts)
    for text, tags in zip(texts[:10], together, strict=False):
        (alone,) = fitted.generate([text])
        assert [(tag.group, tag.value) for tag in alone] == [(tag.group, tag.value) for tag in tags]
        assert [tag.score for tag in alone] == pytest.approx([tag.score for tag in tags], abs=1e-3)


# Training


def test_it_learns_to_write_the_tags_of_unseen_titles(fitted: Generator, tiny_set: TrainingSet) -> None:
    test = tiny_set.products.test
    truths = labelled(test, tiny_set.taxonomy)
    figures = set_figures(truths, as_sets(fitted.generate([row.text for row in test])), tiny_set.taxonomy)
    assert figures.set_f1 > 0.95
    assert figures.edit_distance < 0.05


def test_the_named_colour_is_written(fitted: Generator) -> None:
    red, blue = said(fitted, "Acme5 Women Red Shoes", "Acme5 Women Blue Shoes")
    assert (red["baseColour"], blue["baseColour"]) == ("Red", "Blue")
    assert red["articleType"] == blue["articleType"] == "Shoes"


def test_tags_come_in_another_order_every_epoch_and_the_same_one_again() -> None:
    tags = [[n] for n in range(12)]
    assert shuffled(tags, 0, 1, "p") == shuffled(tags, 0, 1, "p")
    orders = {str(shuffled(tags, *where)) for where in ((0, 1, "p"), (0, 2, "p"), (1, 1, "p"), (0, 1, "q"))}
    assert len(orders) == 4
    assert sorted(shuffled(tags, 0, 1, "p")) == tags


def test_the_same_seed_makes_the_same_model(tiny_set: TrainingSet) -> None:
    recipe = tiny(epochs=1)
    rows = tiny_set.titles_trained_on[:64]
    one, other = (train_generator(rows, tiny_set.taxonomy, recipe).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_labels_outside_the_taxonomy_and_rows_without_text_are_left_out() -> None:
    rows = [
        Row("1", TextFields("plain Shoes"), {"type": ("Shoes",), "unheard of": ("x",)}),
        Row("2", TextFields(""), {"type": ("Watch",)}),
        Row("3", TextFields("a boat"), {"type": ("Boats",)}),
    ]
    generator = train_generator(rows, TAXONOMY, tiny(epochs=30))
    assert said(generator, "plain Shoes") == [{"type": "Shoes"}]
    with pytest.raises(ValueError, match="no row has both"):
        train_generator(rows[1:], TAXONOMY, TINY)


def test_a_loss_that_is_no_number_ends_the_training(tiny_set: TrainingSet) -> None:
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        train_generator(tiny_set.titles_trained_on, tiny_set.taxonomy, tiny(learning_rate=1e30))


def test_a_network_from_scratch_may_not_be_large() -> None:
    pieces = learn(TITLES, TAXONOMY, 200)
    with pytest.raises(ValueError, match="parameters"):
        from_scratch(Size(width=256), pieces, 64)


# A pretrained folder


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=256, n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_training_can_start_from_a_pretrained_folder(pretrained: Path, tmp_path: Path) -> None:
    rows = [Row("1", TextFields("plain Shoes"), {"type": ("Shoes",)})]
    recipe = tiny(epochs=40).model_copy(update={"title_max_pieces": 12, "pretrained": pretrained})
    generator = train_generator(rows, TAXONOMY.model_copy(update={"groups": TAXONOMY.groups[:2]}), recipe)
    assert said(generator, "plain Shoes") == [{"type": "Shoes"}]
    saved(generator, tmp_path / "saved")
    assert said(load(tmp_path / "saved"), "plain Shoes") == [{"type": "Shoes"}]


def test_a_pretrained_folder_that_reads_too_little_is_refused(pretrained: Path) -> None:
    rows = [Row("1", TextFields("plain Shoes"), {"type": ("Shoes",)})]
    long = TINY.model_copy(update={"title_max_pieces": 60, "pretrained": pretrained})
    with pytest.raises(ValueError, match="it reads 64 tokens"):
        train_generator(rows, TAXONOMY, long)


@pytest.mark.parametrize(
    ("missing", "said"), [("tokenizer.json", "no tokenizer"), ("config.json", "no causal")]
)
def test_a_pretrained_folder_that_lacks_a_file_is_refused(pretrained: Path, missing: str, said: str) -> None:
    (pretrained / missing).unlink()
    rows = [Row("1", TextFields("plain Shoes"), {"type": ("Shoes",)})]
    with pytest.raises(ValueError, match=said):
        train_generator(rows, TAXONOMY, TINY.model_copy(update={"pretrained": pretrained}))


# Serving


def test_an_empty_text_gets_no_tag_and_pictures_are_not_used(fitted: Generator) -> None:
    texts = [TextFields(""), TextFields("Acme Women Red Shoes"), TextFields("  ")]
    scores, uses = fitted.score(MicroBatch(texts, [b"a picture", b"another", None]))
    assert scores.shape == (3, fitted.taxonomy.size)
    assert (scores[[0, 2]] == 0).all()
    assert uses == ["none"] * 3
    assert fitted.generate([]) == []


def test_a_score_is_the_probability_of_the_written_tag(fitted: Generator) -> None:
    text = TextFields("Acme Women Red Shoes")
    scores, _ = fitted.score(MicroBatch([text], [None]))
    (tags,) = fitted.generate([text])
    named = [(group.name, value.value) for group in fitted.taxonomy.groups for value in group.values]
    written = {(tag.group, tag.value): np.float32(tag.score) for tag in tags}
    assert {named[column]: scores[0, column] for column in np.flatnonzero(scores[0])} == written
    assert all(0 < score <= 1 for score in written.values())


def test_a_text_beyond_the_limit_is_cut(fitted: Generator) -> None:
    cut, whole = said(fitted, "Women Red Shoes" + " Acme" * 40, "Women Red Shoes" + " Acme" * 4000)
    assert cut == whole


def test_it_serves_as_the_champion(fitted: Generator, tmp_path: Path) -> None:
    saved(fitted, tmp_path / "g1")

    class OneVersion:
        def champion(self) -> tuple[str, int]:
            return "g1", 7

        def taxonomy(self, model_version: str) -> Taxonomy:
            raise KeyError(model_version)

    champion = Champion(OneVersion(), lambda name: load(tmp_path / name), MemoryMetrics(), 1.0)
    champion.follow()
    answer = champion.tag(MicroBatch([TextFields("Acme Women Red Shoes")], [None]))
    assert (answer.model_version, answer.model_generation) == ("g1", 7)
    assert champion.taxonomy("g1") == fitted.taxonomy
    assert answer.values.max() > 0.5


# The folder


def saved(generator: Generator, folder: Path) -> Path:
    save(
        folder,
        generator,
        Manifest(
            model_version=folder.name,
            dataset_id="d",
            created="2026-01-05T08:00:00+00:00",
            training_groups=1,
        ),
        metrics={},
    )
    return folder


def test_a_saved_generator_writes_the_same(fitted: Generator, tmp_path: Path) -> None:
    loaded = load(saved(fitted, tmp_path / "g1"))
    batch = MicroBatch([TextFields("Acme Men Blue Caps"), TextFields("Shirts")], [None, None])
    assert np.array_equal(loaded.score(batch)[0], fitted.score(batch)[0])
    assert (loaded.model_version, loaded.taxonomy) == ("g1", fitted.taxonomy)
    assert {path.suffix for path in (tmp_path / "g1").iterdir()} == {".json", ".npz", ".safetensors"}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "taxonomy.json", "config.json"])
def test_a_changed_byte_is_refused(fitted: Generator, tmp_path: Path, name: str) -> None:
    path = saved(fitted, tmp_path / "g1") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IncompatibleModel, match="sha256"):
        load(tmp_path / "g1")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("config.json", {"format_version": 3}, "format_version 3"),
        ("config.json", {"beams": 0}, "beams"),
        ("config.json", {"network": {"model_type": "gpt2", "n_embd": 8, "n_head": 1}}, "size"),
        ("tokenizer.json", {"model": {}}, "no tokenizer"),
        ("taxonomy.json", {"groups": [{"name": "new", "values": [{"value": "x"}]}]}, "lacks tokens"),
    ],
)
def test_files_that_disagree_are_refused(
    fitted: Generator, tmp_path: Path, name: str, change: dict[str, object], said: str
) -> None:
    folder = saved(fitted, tmp_path / "g1")
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | change))
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"][name] = sha256(folder / name)
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(IncompatibleModel, match=said):
        load(folder)


def test_a_generator_that_computes_differently_than_when_it_was_saved_is_refused(
    fitted: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(fitted, tmp_path / "g1")
    read, size = Pieces.texts, fitted.pieces.size

    def others(*given: Any) -> list[list[int]]:
        return [[(piece + 7) % size for piece in ids] for ids in read(*given)]

    monkeypatch.setattr(Pieces, "texts", others)
    with pytest.raises(IncompatibleModel, match="scores differ"):
        load(folder)


def test_a_folder_of_format_2_writes_the_same(fitted: Generator, tmp_path: Path) -> None:
    folder = saved(fitted, tmp_path / "g1")
    config = json.loads((folder / "config.json").read_text()) | {"format_version": 2}
    (folder / "config.json").write_text(json.dumps(config))
    with np.load(folder / "golden.npz") as stored:
        texts, expected = stored["texts"], stored["scores"]
    np.savez_compressed(folder / "golden.npz", texts=texts, expected=expected)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    batch = MicroBatch([TextFields("Acme Men Blue Caps")], [None])
    assert np.array_equal(load(folder).score(batch)[0], fitted.score(batch)[0])


# Measuring


def test_edit_distance_counts_characters_over_the_longer_length() -> None:
    assert edit_distance("kitten", "sitting") == pytest.approx(3 / 7)
    assert edit_distance("", "ab") == 1.0
    assert edit_distance("", "") == 0.0


def test_a_set_has_one_spelling() -> None:
    tags = frozenset({("type", "Watch"), ("颜色", "黑色"), ("颜色", "白色"), ("kind", "Accessories")})
    assert serialised(tags, TAXONOMY) == "kind=Accessories; type=Watch; 颜色=白色; 颜色=黑色"


@pytest.mark.parametrize(
    ("tags", "faults"),
    [
        ([("kind", "Footwear"), ("type", "Shoes"), ("颜色", "白色"), ("颜色", "黑色")], set()),
        ([("type", None)], {"misspelled"}),
        ([("type", "Boats")], {"misspelled"}),
        ([("颜色", "白色"), ("颜色", "白色")], {"duplicate"}),
        ([("type", "Shoes"), ("type", "Watch")], {"second_value"}),
        ([("type", "Shoes"), ("kind", "Accessories")], {"contradiction"}),
    ],
)
def test_each_fault_of_writing_is_named(tags: list[tuple[str, str | None]], faults: set[str]) -> None:
    assert faults_of(tags, TAXONOMY) == faults


def test_set_figures_are_those_of_a_count_by_hand() -> None:
    truths = [frozenset({("kind", "Footwear"), ("type", "Shoes")}), frozenset({("kind", "Accessories")})]
    ours = [frozenset({("kind", "Footwear"), ("type", "Watch")}), frozenset({("kind", "Accessories")})]
    figures = set_figures(truths, ours, TAXONOMY)
    assert figures.set_f1 == pytest.approx(2 / 3)
    assert figures.exact == 0.5
    assert figures.f1_of_group == {"kind": 1.0, "type": 0.0, "颜色": 1.0}
    longer = len("kind=Footwear; type=Shoes")
    assert figures.edit_distance == pytest.approx(5 / longer / 2)


# The job


def test_the_job_writes_a_generator_with_its_figures(catalogue: Path, tmp_path: Path) -> None:
    job(data=catalogue, out=tmp_path, epochs=1, rows_max=100)
    (folder,) = tmp_path.iterdir()
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["constrained"]["writing"]["valid"] == 1.0
    assert figures["training_rows"] == 100
    assert load(folder).model_version == folder.name


def test_heads_with_another_test_part_are_refused(catalogue: Path, tmp_path: Path) -> None:
    (heads,) = (BUNDLED / "versions").iterdir()
    with pytest.raises(SystemExit, match="its test part is another one"):
        job(data=catalogue, out=tmp_path, heads=heads)
