"""What identifies a cell: the hashes of today's cells stay, whatever is added later."""

import json
import sqlite3
from pathlib import Path

import pytest
from pydantic import Field

from pfa_cli import registry
from pfa_cli.configuration import Configuration
from pfa_cli.recipes import list_recipes, load_recipe
from pfa_cli.registry import TABLE_1, Option

ROOT = Path(__file__).parents[1]
PINNED = json.loads(Path(__file__).with_name("pinned_hashes.json").read_text())


def test_the_hash_of_every_algorithm_in_every_recipe_is_that_of_before() -> None:
    """A changed hash orphans every finished cell: if this fails, the change has to be worth that."""
    found = {f"{r.name} {name}": r.configuration(name).hash for r in list_recipes() for name in TABLE_1}
    assert found == PINNED


def test_every_stored_configuration_of_the_shipped_database_has_its_stored_hash() -> None:
    database = sqlite3.connect(f"file:{ROOT}/results/reproduction.db?mode=ro", uri=True)
    rows = database.execute("select config_hash, configuration from runs").fetchall()
    database.close()
    assert len(rows) > 50
    for stored_hash, text in rows:
        stored = json.loads(text)
        assert Configuration.hash_of(stored) == Configuration.model_validate(stored).hash == stored_hash


class Later(Configuration):
    """As a later version may have it, with settings that this one does not know."""

    warmup_steps: int = Field(0, ge=0)
    decay_shape: tuple[int, ...] = Field((1, 2), strict=False)


@pytest.mark.parametrize("algorithm", ["bp", "pfa"])
def test_a_setting_added_later_renames_only_the_cells_that_use_it(algorithm: str) -> None:
    today = load_recipe("mnist").configuration(algorithm).model_dump(mode="json")
    assert Later.model_validate(today).hash == Configuration.model_validate(today).hash
    assert (
        Later.model_validate(today | {"warmup_steps": 0, "decay_shape": [1, 2]}).hash
        == PINNED[f"mnist {algorithm}"]
    )
    others = {Later.model_validate(today | {"warmup_steps": steps}).hash for steps in (1, 2)}
    assert len(others | {PINNED[f"mnist {algorithm}"]}) == 3


def test_an_option_added_later_renames_only_the_cells_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pfa = registry.ALGORITHMS["pfa"]
    monkeypatch.setitem(pfa.options, "sparsity", Option(0.5, "share of zeros in B"))  # type: ignore[attr-defined]
    recipe = load_recipe("mnist")
    assert recipe.configuration("pfa").options["sparsity"] == 0.5
    assert recipe.configuration("pfa").hash == PINNED["mnist pfa"]
    assert recipe.configuration("pfa", {"sparsity": 0.25}).hash != PINNED["mnist pfa"]


@pytest.mark.parametrize("entry", [registry.NETWORKS["mlp"], registry.DATASETS["mnist"]])
def test_a_networks_or_data_sets_first_option_renames_only_the_cells_that_use_it(
    monkeypatch: pytest.MonkeyPatch, entry: registry.Declaration
) -> None:
    monkeypatch.setitem(entry.options, "share", Option(0.5, "some share"))  # type: ignore[arg-type]
    recipe = load_recipe("mnist")
    assert recipe.configuration("bp").hash == PINNED["mnist bp"]
    assert recipe.configuration("bp", {"share": 0.25}).hash != PINNED["mnist bp"]
    assert recipe.differing(recipe.configuration("bp", {"share": 0.25})) == {"share": 0.25}


def test_a_stored_configuration_whose_plugin_is_gone_still_has_its_hash() -> None:
    recipe = load_recipe("mnist")
    outside = recipe.configuration(f"{Path(__file__).parent}/outside/frsf.py:FRSF")
    assert outside.algorithm == "frsf"
    assert Configuration.hash_of(json.loads(outside.model_dump_json())) == outside.hash
