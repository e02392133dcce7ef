"""``paper.toml``: verdicts rest on it alone, it agrees with the shipped recipes, and a table in it is a figure or a claim."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic import add_grid, add_run

from pfa_cli import recipes
from pfa_cli.analysis import paper as module
from pfa_cli.analysis.evidence import Evidence, _setting
from pfa_cli.analysis.findings import Findings, find
from pfa_cli.analysis.paper import departures, paper
from pfa_cli.analysis.table1 import judge_table
from pfa_cli.figures.catalogue import catalogue
from pfa_cli.figures.drawing import Options
from pfa_cli.recipes import load_recipe
from pfa_cli.store.engine import Store

DATA = {"mnist": "MNIST", "cifar10": "CIFAR-10", "imagenet": "ImageNet (1000 classes)"}


def settings(recipe: str, algorithm: str, **overrides: object) -> dict:
    return load_recipe(recipe).configuration(algorithm, overrides).model_dump(mode="json")


def test_an_edited_recipe_file_changes_no_verdict(
    compared_store: Store, findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes are the users' to edit: a batch size of 32 in mnist.toml made every claim "not run"."""
    monkeypatch.setattr(recipes, "_read", lambda *arguments: pytest.fail("a recipe file was read"))
    evidence = Evidence(compared_store)
    assert find(evidence).claims == findings.claims
    assert {one.verdict for one in findings.claims} >= {"supported", "undecided", "not run"}
    assert judge_table(evidence).rows


@pytest.mark.parametrize("recipe", DATA)
def test_the_shipped_recipes_are_the_papers_experiments(recipe: str) -> None:
    for algorithm in paper().algorithms:
        assert departures(settings(recipe, algorithm), DATA[recipe]) == {}


@pytest.mark.parametrize(
    ("algorithm", "key", "value"),
    [
        ("bp", "batch_size", 32), ("bp", "learning_rate", 0.02), ("bp", "milestones", [5, 30]),
        ("bp", "hidden_sizes", [512]), ("bp", "train_images", 1000), ("bp", "validation_images", 100),
        ("bp", "first_epoch_weight_decay", 0.1), ("pfa", "expansion", 4.0), ("pal", "noise", 0.1),
        ("pfa", "draws", "published"),
    ],
)  # fmt: skip
def test_every_other_setting_is_a_departure(algorithm: str, key: str, value: object) -> None:
    found = departures(settings("mnist", algorithm, **{key: value}), "MNIST")
    assert list(found) == [key]
    assert str(value) in found[key]


@pytest.mark.parametrize(("key", "value"), [("precision", "bf16"), ("accumulation", 2), ("probe_images", 64)])
def test_arithmetic_and_bookkeeping_are_none(key: str, value: object) -> None:
    assert departures(settings("mnist", "bp", **{key: value}), "MNIST") == {}


def test_an_option_that_the_paper_does_not_name_departs_unless_it_has_its_default() -> None:
    configuration = settings("mnist", "wm")
    assert departures(configuration | {"a_later_setting": None}, "MNIST") == {}
    assert list(departures(configuration | {"a_later_setting": 3}, "MNIST")) == ["a_later_setting"]


def test_a_setting_that_is_newer_than_a_stored_run_stands_for_its_default() -> None:
    stored = settings("mnist", "bp")
    older = {name: value for name, value in stored.items() if name != "draws"}
    assert departures(older, "MNIST") == {}
    assert (
        _setting(older, "MNIST")
        == _setting(stored, "MNIST")
        != _setting(stored | {"draws": "published"}, "MNIST")
    )


def test_another_schedule_is_one_departure() -> None:
    found = departures(settings("mnist", "bp", epochs=4), "MNIST")
    assert found == {"epochs": "4 epochs in place of 40"}
    assert "data" in departures(settings("imagenet", "bp"), "imagenette (10 classes)")


def test_a_recipe_of_ones_own_is_no_departure() -> None:
    assert departures(settings("mnist", "bp") | {"recipe": "wide", "batch_size": 7}, "MNIST") == {}


DOCUMENTED = Path(__file__).parents[2] / "docs" / "figures.md"


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    own, beyond, _ = re.findall(r"```toml\n(.*?)```", DOCUMENTED.read_text(encoding="utf-8"), re.DOTALL)
    texts = {name: module._text(name) for name in ("paper.toml", "beyond.toml")}
    texts["paper.toml"] = texts["paper.toml"].replace("[figures.fig2]", f"{own}\n[figures.fig2]", 1)
    texts["beyond.toml"] += beyond
    monkeypatch.setattr(module, "_text", texts.__getitem__)
    paper.cache_clear()
    yield
    monkeypatch.undo()
    paper.cache_clear()


@pytest.mark.usefixtures("extended")
def test_a_figure_and_a_claim_are_one_table_each(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp", "kp"], range(2), epochs=2)
    evidence = Evidence(new_store)
    drawing = catalogue(evidence)["fig2-kp"].draw(evidence, Options())
    assert drawing is not None
    assert set(drawing.shown["algorithm"].dropna()) == {"bp", "kp"}
    (claim,) = [one for one in find(evidence).claims if one.claim == "KP = BP on MNIST"]
    assert (claim.source, claim.verdict) == ("Fig. 2a", "trial only")
    assert "2 epochs in place of 40" in claim.remark


@pytest.mark.usefixtures("extended")
def test_a_claim_beyond_the_paper_is_one_of_our_own(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp"], range(2), epochs=2)
    for seed in range(2):
        add_run(new_store, "mnist", "mix", seed, epochs=2, fa_share=0.5, kp_share=0.09, pfa_share=0.41)
    found = find(Evidence(new_store))
    says = "mix = BP on MNIST, one half of the units by FA"
    (claim,) = [one for one in found.own_claims if one.claim == says]
    assert (claim.source, claim.verdict, claim.n) == ("Fig. 6d", "trial only", 2)
    assert says not in [one.claim for one in found.claims]
