from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tagstream.adapters.registry import BUNDLED, PromotedMeanwhile, Registry
from tagstream.cli.models import app
from tagstream.core.errors import IncompatibleModel, Unavailable
from tagstream.core.taxonomy import Group, Taxonomy, Value

TAXONOMY = Taxonomy(taxonomy_version="1", groups=(Group(name="colour", values=(Value(value="Red"),)),))


def _version(root: Path, name: str, note: str = "") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "taxonomy.json").write_text(TAXONOMY.model_dump_json())
    (folder / "MANIFEST.json").write_text(json.dumps({"model_version": name, "note": note}))
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(str(tmp_path / "registry"))
    for name in ("one", "two"):
        registry.publish(_version(tmp_path / "trained", name))
    return registry


def test_the_bundled_registry_has_a_champion_whose_taxonomy_can_be_read() -> None:
    registry = Registry(str(BUNDLED))
    model_version, generation = registry.champion()

    assert generation >= 1
    assert model_version in registry.versions()
    assert registry.taxonomy(model_version).size > 100


def test_every_change_of_the_champion_makes_a_new_generation_rollback_too(registry: Registry) -> None:
    assert registry.promote("one", 0) == 1
    assert registry.promote("two", 1) == 2
    assert registry.promote("one", 2) == 3
    assert registry.champion() == ("one", 3)


def test_who_promotes_on_old_knowledge_is_refused(registry: Registry) -> None:
    registry.promote("one", 0)

    with pytest.raises(PromotedMeanwhile, match="generation is 1, not 0"):
        registry.promote("two", 0)
    assert registry.champion() == ("one", 1)


def test_of_many_promotions_at_once_exactly_one_wins(registry: Registry) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def promote() -> None:
        start.wait()
        try:
            outcomes.append(str(registry.promote("one", 0)))
        except PromotedMeanwhile:
            outcomes.append("refused")

    threads = [threading.Thread(target=promote) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["1"] + ["refused"] * 7
    assert registry.champion() == ("one", 1)


def test_publishing_again_is_harmless_and_other_content_is_refused(
    registry: Registry, tmp_path: Path
) -> None:
    assert registry.publish(tmp_path / "trained" / "one") == "one"

    with pytest.raises(IncompatibleModel, match="already"):
        registry.publish(_version(tmp_path / "elsewhere", "one", note="changed"))
    assert registry.versions() == ["one", "two"]


def test_a_folder_without_manifest_is_not_published(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleModel, match="MANIFEST"):
        registry.publish(tmp_path)


@pytest.mark.parametrize("name", ["three", "../one", "", ".hidden"])
def test_an_unknown_version_is_neither_promoted_nor_fetched(registry: Registry, name: str) -> None:
    with pytest.raises(IncompatibleModel):
        registry.promote(name, 0)
    with pytest.raises(IncompatibleModel):
        registry.fetch(name)
    with pytest.raises(IncompatibleModel):
        registry.taxonomy(name)


def test_a_registry_without_champion_is_unavailable_not_broken(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no champion yet"):
        registry.champion()
    with pytest.raises(Unavailable):
        Registry(str(tmp_path / "nowhere")).champion()


def test_damaged_aliases_are_unavailable(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "registry" / "aliases.json").write_text("{")

    with pytest.raises(Unavailable, match="damaged"):
        registry.champion()


def test_a_remote_registry_keeps_the_same_promises_and_fetches_into_a_cache(tmp_path: Path) -> None:
    registry = Registry("mock:///registry", cache=tmp_path / "cache")
    for name in ("one", "two"):
        registry.publish(_version(tmp_path / "trained", name))
    assert registry.promote("one", 0) == 1
    with pytest.raises(PromotedMeanwhile):
        registry.promote("two", 0)

    folder = registry.fetch(registry.champion()[0])

    assert folder == tmp_path / "cache" / "one"
    assert sorted(path.name for path in folder.iterdir()) == ["MANIFEST.json", "taxonomy.json"]
    assert registry.fetch("one") == folder
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["one"]
    assert registry.taxonomy("one") == TAXONOMY
    assert registry.versions() == ["one", "two"]


def test_promote_makes_a_published_version_the_champion_and_list_shows_it(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"))
    registry.publish(_version(tmp_path / "trained", "one"))
    promoted = CliRunner().invoke(app, ["promote", "one", str(tmp_path / "registry")])
    listed = CliRunner().invoke(app, ["list", str(tmp_path / "registry")])

    assert (promoted.exit_code, registry.champion()) == (0, ("one", 1))
    assert "one  champion" in listed.output
    unknown = CliRunner().invoke(app, ["promote", "two", str(tmp_path / "registry")])
    assert isinstance(unknown.exception, IncompatibleModel)
    assert registry.champion() == ("one", 1)
