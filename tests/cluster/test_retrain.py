"""Training and searching as jobs: what they refuse, what they leave out, and what they write."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torchvision.io import encode_jpeg

from tagstream.dataset.columns import Columns
from tagstream.dataset.training_set import TrainingSet
from tagstream.training.members import Recipe, batch_that_fits, largest_power_of_two, train_image, train_text
from tagstream.training.on_ray import MlflowRun
from tagstream.training.progress import Checkpoints, Validation
from tagstream.training.recipe import Sources, described, fuse, identity, suited, threshold
from tagstream.training.search import SPACE

ROOT = Path(__file__).resolve().parents[2]
COLOURS = {"Red": (200, 30, 30), "Blue": (30, 40, 200), "Green": (30, 160, 40)}
#: Small enough for seconds; with dropout, averaging and both members.
TINY: dict[str, Any] = {
    "text": {
        "tower": {
            "architecture": "hashed-ngram-bag",
            "ngrams": {"latin_buckets": 1024, "han_buckets": 64},
            "width": 8,
        },
        "optimisation": {"epochs": 3, "batch_rows": 64, "learning_rate": 0.02},
    },
    "image": {
        "tower": {"architecture": "torchvision", "network": "mobilenet_v3_small"},
        "frame": [32, 32],
        "optimisation": {"epochs": 3, "batch_rows": 64, "learning_rate": 0.001, "average_decay": 0.9},
        "shift_px": 1,
    },
}


def write_rows(
    folder: Path, rows: Sequence[Sequence[str]], header: str = "id,title,colour,kind,image"
) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [header, *(",".join(row) for row in rows)]
    (folder / "products.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def painted(folder: Path, rows: int = 120) -> list[list[str]]:
    """Rows of three colours and two kinds, each with a picture of its own."""
    (folder / "images").mkdir(parents=True)
    written = []
    for row in range(rows):
        colour, kind = list(COLOURS)[row % 3], ("Cap", "Shoe")[row % 2]
        picture = torch.tensor(COLOURS[colour])[:, None, None].repeat(1, 24, 24)
        picture[:, :12] = (row * 2) % 256
        name = f"images/{row}.jpg"
        (folder / name).write_bytes(encode_jpeg(picture.to(torch.uint8), 90).numpy().tobytes())
        written.append([str(row), f"thing{row} {colour} {kind}", colour, kind, name])
    return written


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.model_validate(TINY)


def read(folder: Path) -> TrainingSet:
    return Sources(str(folder)).read(0)[0]


def test_a_label_outside_the_taxonomy_is_unknown_and_said(tmp_path: Path) -> None:
    rows = painted(tmp_path)
    rows[3][2] = "Ultraviolet"
    values = [{"value": name} for name in COLOURS]
    taxonomy = {"taxonomy_version": "1", "groups": [{"name": "colour", "values": values}]}
    (tmp_path / "own.json").write_text(json.dumps(taxonomy))

    data, said = Sources(str(write_rows(tmp_path, rows)), taxonomy=str(tmp_path / "own.json")).read(0)

    (line,) = said
    assert line.startswith("1 labels are outside the taxonomy and taken as unknown")
    assert "colour=Ultraviolet (1 rows)" in line
    assert "Ultraviolet" not in data.taxonomy.group("colour").by_value


def test_columns_of_any_name_are_read_as_told(tmp_path: Path) -> None:
    rows = painted(tmp_path)
    path = tmp_path / "own.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["number", "what", "tint", "kind", "photo"], *rows])
    columns = Columns(id="number", title="what", image="photo", labels=["tint"])

    data, _ = Sources(str(path), columns=columns).read(0)

    assert [group.name for group in data.taxonomy.groups] == ["tint"]
    assert len(data.with_pictures) == len(data.products.train) > 0


@pytest.mark.parametrize("column", ["image", "photo", "pic"])
def test_titles_that_lie_beside_the_products_are_learned_too_but_for_held_out_ones(
    tmp_path: Path, column: str
) -> None:
    header = f"id,title,colour,kind,{column}"
    folder, columns = write_rows(tmp_path, painted(tmp_path), header), Columns(image=column)
    alone = Sources(str(folder), columns=columns).read(0)[0]
    lines = [header, *(f"a{row},another Red Cap {row},Red,Cap,images/{row % 2}.jpg" for row in range(30))]
    held_out = alone.products.test[0].text.title
    (folder / "more_titles.csv").write_text("\n".join([*lines, f"b,{held_out},Red,Cap,images/1.jpg"]))
    (folder / "titles.txt").write_text("no table")
    (folder / "._titles.csv").write_bytes(b"\xff")

    data, said = Sources(str(folder), columns=columns).read(0)

    assert [row.product_id for row in data.extra] == [f"a{row}" for row in range(30)]
    assert data.with_pictures == alone.with_pictures
    assert [group.name for group in data.taxonomy.groups] == ["colour", "kind"]
    assert said[0] == f"further titles found beside the products: {folder / 'more_titles.csv'}"
    assert data.left_out == 1
    assert data.spec == alone.spec
    products_file = Sources(str(folder / "products.csv"), columns=columns)
    assert not products_file.read(0)[0].extra


def test_a_named_extra_file_has_the_last_word_on_titles_beside_the_products(tmp_path: Path) -> None:
    folder = write_rows(tmp_path, painted(tmp_path))
    (folder / "titles.csv").write_text("id,title,colour\na,another Cap,Red\n")
    (tmp_path / "own.csv").write_text("id,title,colour\na,another Cap,Blue\n")

    data, _ = Sources(str(folder), (str(tmp_path / "own.csv"),)).read(0)

    assert [row.labels["colour"] for row in data.extra] == [("Blue",)]


def test_titles_may_teach_a_group_of_the_taxonomy_that_the_products_do_not_label(tmp_path: Path) -> None:
    folder = write_rows(tmp_path, painted(tmp_path))
    lines = [f"a{row},a Cap {row},Red,{('wool', 'felt')[row % 2]}" for row in range(30)]
    (folder / "titles.csv").write_text("\n".join(["id,title,colour,material", *lines]))
    groups = {"colour": list(COLOURS), "kind": ["Cap", "Shoe"], "material": ["wool", "felt"]}
    own = [{"name": name, "values": [{"value": value} for value in of]} for name, of in groups.items()]
    (tmp_path / "own.json").write_text(json.dumps({"taxonomy_version": "1", "groups": own}))

    data, _ = Sources(str(folder), taxonomy=str(tmp_path / "own.json")).read(0)

    assert {group.name for group in data.taxonomy.groups} == set(groups)


def test_titles_are_left_alone_where_pictures_alone_are_learned(tmp_path: Path) -> None:
    folder = write_rows(tmp_path, painted(tmp_path))
    (folder / "titles.csv").write_text("id,title,colour\na,another Cap,Red\n")

    data, _ = Sources(str(folder), columns=Columns(title="none")).read(0)

    assert not data.extra


def test_a_value_with_one_row_and_a_group_with_one_class_are_said_and_not_learned(tmp_path: Path) -> None:
    rows = painted(tmp_path)
    rows[3][2] = "Ultraviolet"
    for row in rows:
        row[3] = "Cap"
    data = read(write_rows(tmp_path, rows))

    assert [group.name for group in data.taxonomy.groups] == ["colour"]
    assert "Ultraviolet" not in data.taxonomy.group("colour").by_value
    said = "\n".join(described(data))
    assert "kind is not learned" in said
    assert "1 values are not learned" in said


def test_data_in_which_no_group_has_two_classes_is_refused(tmp_path: Path) -> None:
    rows = [[*row[:2], "Red", "Cap", row[4]] for row in painted(tmp_path)]

    with pytest.raises(ValueError, match=r"nothing to learn.*colour: fewer than two .*kind: fewer than two"):
        read(write_rows(tmp_path, rows))


def test_rows_too_few_for_every_part_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 products are too few"):
        read(write_rows(tmp_path, painted(tmp_path, 2)))


def test_without_pictures_the_text_member_alone_is_trained(tmp_path: Path, recipe: Recipe) -> None:
    data = read(write_rows(tmp_path, [[*row[:4], ""] for row in painted(tmp_path)]))
    left, said = suited(recipe, data)

    assert (left.image, left.text) == (None, recipe.text)
    assert said == ["no training row has a picture: the image member is left out"]
    assert threshold(fuse(data, left, train_text(data, left), None)).members.names == ("text",)


def test_without_titles_the_image_member_alone_is_trained(tmp_path: Path, recipe: Recipe) -> None:
    data = read(write_rows(tmp_path, [[row[0], "", *row[2:]] for row in painted(tmp_path)]))
    left, said = suited(recipe, data)

    assert (left.text, left.image) == (None, recipe.image)
    assert said == ["no training row has a title: the text member is left out"]
    assert threshold(fuse(data, left, None, train_image(data, left))).members.names == ("image",)


def test_a_recipe_of_pictures_alone_is_refused_where_there_are_none(tmp_path: Path, recipe: Recipe) -> None:
    data = read(write_rows(tmp_path, [[*row[:4], ""] for row in painted(tmp_path)]))

    with pytest.raises(ValueError, match="nothing to train: no training row has a picture"):
        suited(recipe.model_copy(update={"text": None}), data)


def test_pictures_that_do_not_decode_are_counted_and_their_products_stay(
    tmp_path: Path, recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    rows = painted(tmp_path)
    for row in rows[:30]:
        (tmp_path / row[4]).write_bytes(b"no picture" + row[0].encode())
    data = read(write_rows(tmp_path, rows))
    broken = sum(int(row.product_id) < 30 for row in data.products.train)
    train_image(data, recipe)

    assert broken > 0
    assert f"{broken} of {len(data.products.train)} training pictures" in caplog.text


def test_a_run_s_name_is_refused_to_a_run_with_other_settings(tmp_path: Path, recipe: Recipe) -> None:
    rows = painted(tmp_path)
    one = identity(read(write_rows(tmp_path, rows)))
    (tmp_path / rows[5][4]).write_bytes((tmp_path / rows[6][4]).read_bytes())
    other = identity(read(tmp_path))
    settings = {"recipe": recipe.model_dump(mode="json"), "data": one, "workers": 2}
    faster = Recipe.read(seed=3).model_dump(mode="json")
    run = Checkpoints(tmp_path / "run", 10)
    run.claim(settings)
    run.claim(settings)

    with pytest.raises(ValueError, match=f"run run cannot go on .* data was {one}, is {other}$"):
        run.claim({**settings, "data": other})
    with pytest.raises(ValueError, match=r"recipe.seed was 0, is 3; .*workers was 2, is 1"):
        run.claim({**settings, "recipe": faster, "workers": 1})


def test_a_checkpoint_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_bytes(b"half a checkpoint")

    with pytest.raises(ValueError, match=r"text\.pt cannot be read"):
        Checkpoints(tmp_path, 10).hooks("text")


def test_the_validation_figure_rises_while_a_member_learns(tmp_path: Path, recipe: Recipe) -> None:
    data = read(write_rows(tmp_path, painted(tmp_path)))
    validation = Validation(data, recipe)
    image_members, member = train_image(data, recipe), train_text(data, recipe)

    assert validation.text(member) > 0.9
    assert 0 <= validation.image(image_members) <= 1


@pytest.mark.parametrize(("room", "found"), [(1, 1), (40, 32), (64, 64), (1000, 64)])
def test_the_batch_is_the_largest_power_of_two_that_fits(room: int, found: int) -> None:
    tried: list[int] = []

    def fits(rows: int) -> bool:
        tried.append(rows)
        return rows <= room

    assert largest_power_of_two(fits, at_most=100) == found
    assert tried == sorted(tried, reverse=True)


def test_a_gpu_without_room_for_one_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="not even one picture"):
        largest_power_of_two(lambda rows: False, at_most=64)


def test_a_batch_is_fitted_to_a_gpu_only(tmp_path: Path, recipe: Recipe) -> None:
    data = read(write_rows(tmp_path, painted(tmp_path)))

    with pytest.raises(ValueError, match="the device is cpu"):
        batch_that_fits(data, recipe, torch.device("cpu"), 4.0, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_that_fits_a_gpu_stays_as_it_is(tmp_path: Path, recipe: Recipe) -> None:
    data = read(write_rows(tmp_path, painted(tmp_path)))
    device = torch.device("cuda")

    assert batch_that_fits(data, recipe, device, 40.0, 1) == 64


RECIPES = sorted((ROOT / "jobs" / "recipes").glob("*.json"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_in_the_folder_is_one(path: Path) -> None:
    assert Recipe.read(path, seed=1).seed == 1


def test_settings_change_the_recipe_one_dotted_key_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    settings = [
        "image.optimisation.epochs=7",
        "text=null",
        "image.frame=[48, 64]",
        f"image.kept_from={tmp_path}",
    ]
    image = Recipe.read(tmp_path / "tiny.json", settings).image

    assert image is not None
    assert (image.optimisation.epochs, image.optimisation.batch_rows) == (7, 64)
    assert (image.frame, image.kept_from) == ((48, 64), tmp_path)
    assert Recipe.read(None, ["text=null"]).text is None
    assert Recipe.read(None, ["seed=4"], seed=3).seed == 4


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("image.optimisation.epochs=often", "image.optimisation.epochs: Input should be a valid integer"),
        ("image.optimisation.epoch=3", "image.optimisation.epoch: there is no such setting"),
        ("pictures.epochs=3", "the recipe has no 'pictures' to set it in"),
        ("joint.width=3", "the recipe has no 'joint' to set it in"),
        ("seed", "it is not of the form key=value"),
        ("provenance=nowhere.md", "provenance: Path does not point to a file"),
        ("image.frame=[1", "image.frame"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(setting: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^--set {re.escape(setting)}: {re.escape(said)}") as refused:
        Recipe.read(None, [setting])

    assert "\n" not in str(refused.value)


def test_a_point_of_the_search_is_a_recipe_that_retraining_accepts(recipe: Recipe) -> None:
    point = dict(zip(SPACE, (0.03, 0.2, 1e-6, 0.5), strict=True))
    changed = Recipe.model_validate_json(recipe.changed(point).model_dump_json())

    assert changed.text is not None
    assert changed.text.optimisation.learning_rate == 0.03
    assert changed.text.loss.logit_adjustment == 0.5
    assert changed.image == recipe.image


def test_a_run_is_logged_to_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Folders are MLflow's only store that needs neither a server nor its large package.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="needs the `mlflow` extra")
    uri = (tmp_path / "runs").as_uri()
    run = MlflowRun.start(uri, "evening", {"data": "shop", "zh": None})
    run.after_report(None, [{"image_loss": 2.0}, {"image_loss": 9.0}], None)
    run.after_report(None, [{"image_loss": 1.0}, {"image_loss": 9.0}], None)
    run.finish(write_rows(tmp_path / "version", []))
    client = mlflow.MlflowClient(uri)
    found = client.get_run(run.run_id)

    assert found.info.status == "FINISHED"
    assert found.data.params == {"data": "shop"}
    losses = client.get_metric_history(run.run_id, "image_loss")
    assert [(one.step, one.value) for one in losses] == [(0, 2.0), (1, 1.0)]
    assert [one.path for one in client.list_artifacts(run.run_id, "model")] == ["model/products.csv"]


@pytest.mark.timeout(900)  # three trainings, one after the other
def test_a_named_run_that_is_killed_on_the_cluster_goes_on_to_the_same_bytes(
    cluster: Any, tmp_path: Path
) -> None:
    write_rows(tmp_path, painted(tmp_path))
    long = {"image": {**TINY["image"], "optimisation": {**TINY["image"]["optimisation"], "epochs": 10}}}
    (tmp_path / "tiny.json").write_text(json.dumps(TINY | long))

    def job(name: str) -> list[str]:
        words = ["job", "submit", "--working-dir", ".", "--", "python", "jobs/retrain.py"]
        words += ["--data", str(tmp_path), "--recipe", str(tmp_path / "tiny.json")]
        words += ["--run-name", name, "--storage", str(tmp_path / "runs"), "--set", "checkpoint_steps=1"]
        return [*words, "--out", str(tmp_path / name)]

    with ThreadPoolExecutor(1) as pool:
        broken = pool.submit(cluster.run, "ray", *job("night"), timeout_s=280)
        until(lambda: step_of(tmp_path / "runs/night/image.pt") > 4)  # of 20
        kill_training(str(tmp_path / "night"))
        with pytest.raises(AssertionError, match="failed"):
            broken.result()
    assert not (tmp_path / "night").exists()
    rest = cluster.run("ray", *job("night"), timeout_s=280)
    cluster.run("ray", *job("evening"), timeout_s=280)
    weights = [path.read_bytes() for path in sorted(tmp_path.glob("*/*/model.safetensors"))]

    assert "image: goes on after step" in rest
    assert "image: epoch 1/" not in rest
    assert len(weights) == 2
    assert weights[0] == weights[1]


def step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["progress"]["step"]) if checkpoint.exists() else 0


def kill_training(out: str) -> None:
    """SIGKILL to the job's own process; Ray ends its workers then."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if out in command and "jobs/retrain.py" in command and "submit" not in command:
            process.kill()
    until(lambda: not any("RayTrainWorker" in name for name in titles()))


def titles() -> list[str]:
    return [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]


def until(condition: Callable[[], bool], timeout_s: float = 280) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.02)


def test_a_search_on_the_cluster_writes_a_recipe(cluster: Any, tmp_path: Path) -> None:
    write_rows(tmp_path, painted(tmp_path))
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    job = ["job", "submit", "--working-dir", ".", "--", "python", "jobs/search.py", "--trials", "2"]
    job += ["--data", str(tmp_path), "--recipe", str(tmp_path / "tiny.json")]
    said = cluster.run("ray", *job, "--out", str(tmp_path / "best.json"), timeout_s=280)
    best = Recipe.read(tmp_path / "best.json")

    assert "macro_f1" in said
    assert best.text is not None
    assert best.text.optimisation.learning_rate != TINY["text"]["optimisation"]["learning_rate"]
