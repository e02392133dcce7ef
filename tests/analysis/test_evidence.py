"""Which runs a figure pools, and which it leaves out."""

import math
from pathlib import Path
from typing import Any

import pytest
from synthetic import add_grid, add_run

from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.words import labels
from pfa_cli.store.engine import Store


def seeds(runs) -> list[int]:
    return runs["seed"].tolist()


def test_a_sweep_does_not_leak_into_the_averages(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["pfa"], [0, 1], epochs=2)
    for expansion in (1.0, 50.0):
        for seed in range(5):  # more runs than the default has
            add_run(new_store, "mnist", "pfa", seed, epochs=2, expansion=expansion)
    comparison = Evidence(new_store).comparison("mnist")
    assert comparison is not None
    cohort = comparison.cohorts["pfa"]
    assert cohort.options["expansion"] == 10
    assert seeds(cohort.pooled) == [0, 1]
    assert len(cohort.others) == 2
    sweep = comparison.variants("pfa", "expansion")
    assert {x: len(c.pooled) for (x,), c in sweep.items()} == {1: 5, 10: 2, 50: 5}


def test_the_literal_form_is_drawn_only_without_the_closed_one(new_store: Store) -> None:
    add_run(new_store, "mnist", "pfa", 0, epochs=2, form="literal")
    only = Evidence(new_store).comparison("mnist")
    assert only is not None
    assert only.cohorts["pfa"].options["form"] == "literal"
    add_run(new_store, "mnist", "pfa", 0, epochs=2)
    both = Evidence(new_store).comparison("mnist")
    assert both is not None
    assert both.cohorts["pfa"].options["form"] == "closed"


def test_settings_are_not_mixed_and_the_most_trained_one_is_shown(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp", "fa", "sf"], [0, 1], epochs=2)
    add_grid(new_store, "mnist", ["bp", "fa"], [0], epochs=9)
    add_run(new_store, "mnist", "dfa", 0, epochs=9, train_images=1000)
    evidence = Evidence(new_store)
    comparison = evidence.comparison("mnist")
    assert comparison is not None
    assert comparison.epochs == 9
    assert list(comparison.cohorts) == ["bp", "fa"]
    assert comparison.elsewhere == ("dfa", "sf")
    asked = evidence.comparison("mnist", ("sf",))
    assert asked is not None and list(asked.cohorts) == ["bp", "fa", "sf"] and asked.epochs == 2


def test_another_learning_rate_is_another_configuration_not_another_setting(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp"], [0, 1], epochs=2)
    add_run(new_store, "mnist", "bp", 2, epochs=2, learning_rate=0.5)
    comparison = Evidence(new_store).comparison("mnist")
    assert comparison is not None
    cohort = comparison.cohorts["bp"]
    assert seeds(cohort.pooled) == [0, 1]
    assert len(cohort.others) == 1


def test_unfinished_and_diverged_runs_are_in_no_mean(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["pal"], [0, 1], epochs=3)
    add_run(new_store, "mnist", "pal", 2, epochs=3, stop_after=1)
    add_run(new_store, "mnist", "pal", 3, epochs=3, diverge_at=2)
    comparison = Evidence(new_store).comparison("mnist")
    assert comparison is not None
    cohort = comparison.cohorts["pal"]
    assert (seeds(cohort.pooled), seeds(cohort.waiting), seeds(cohort.diverged)) == ([0, 1], [2], [3])
    assert cohort.finished


def test_unfinished_runs_are_shown_while_none_is_finished(new_store: Store) -> None:
    add_run(new_store, "mnist", "bp", 0, epochs=5, stop_after=3)
    add_run(new_store, "mnist", "bp", 1, epochs=5, stop_after=1)
    evidence = Evidence(new_store)
    comparison = evidence.comparison("mnist")
    assert comparison is not None
    cohort = comparison.cohorts["bp"]
    assert not cohort.finished
    curve = comparison.curve(cohort, "test_accuracy_percent")
    assert curve["n"].tolist() == [2, 2, 1, 1]
    assert curve["run_ids"].tolist() == ["1 2", "1 2", "1", "1"]
    assert curve["std"].isna().tolist() == [False, False, True, True]


def test_pool_is_the_mean_and_the_sample_deviation(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["fa"], [0, 1, 2], epochs=1)
    evidence = Evidence(new_store)
    comparison = evidence.comparison("mnist")
    assert comparison is not None
    rows = evidence.layers("mnist")
    values = rows[(rows["epoch"] == 1) & (rows["layer_index"] == 2)]["weight_angle_degrees"].tolist()
    curves = comparison.layer_curves(comparison.cohorts["fa"], "weight_angle_degrees")
    found = curves[(curves["epoch"] == 1) & (curves["layer_index"] == 2)].iloc[0]
    mean = sum(values) / 3
    assert found["mean"] == pytest.approx(mean, rel=1e-12)
    assert found["std"] == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 2), rel=1e-12)


def test_a_recipe_without_runs_has_no_comparison(new_store: Store) -> None:
    assert Evidence(new_store).comparison("mnist") is None


def test_a_trial_does_not_displace_the_recipes_own_runs(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["pfa"], [0, 1], epochs=2)
    for rate in (0.02, 0.03, 0.04):  # of which some hashes come first
        for seed in range(5):
            add_run(new_store, "mnist", "pfa", seed, epochs=2, learning_rate=rate)
    comparison = Evidence(new_store).comparison("mnist")
    assert comparison is not None
    assert comparison.cohorts["pfa"].configuration["learning_rate"] == 0.01
    assert set(comparison.cohorts["pfa"].departures) == {"epochs"}
    assert seeds(comparison.cohorts["pfa"].pooled) == [0, 1]


RULE = """
from pfa_cli.algorithms import Algorithm, Entry, Option

class Rule(Algorithm):
    entry = Entry("rule", label="First", options={"rate": Option(1.0, "a rate")})

    def path(self, layer):
        return layer.weight.detach()
"""
NETWORK = """
from torch import nn

def net(input_shape, n_classes):
    return nn.Linear(input_shape[0], n_classes)
"""


@pytest.mark.parametrize("role", ["algorithm", "network"])
def test_of_an_edited_file_the_version_that_was_run_last_is_shown(
    new_store: Store, tmp_path: Path, role: str
) -> None:
    file, first = tmp_path / "own.py", RULE if role == "algorithm" else NETWORK
    own: dict[str, Any] = {"rate": 0.5} if role == "algorithm" else {"network": f"{file}:net"}
    ours = f"{file}:Rule" if role == "algorithm" else "bp"
    shown = []
    for text, found, options in (
        (first, [0, 1, 2], {key: value for key, value in own.items() if key != "rate"}),
        (
            first.replace("First", "Second") + "# edited",
            [0],
            own,
        ),  # fewer seeds, and an option away from its default
        (first, [3], own),  # the first version again
    ):
        file.write_text(text)
        for seed in found:
            add_run(new_store, "mnist", ours, seed, epochs=2, **options)
        comparison = Evidence(new_store).comparison("mnist")
        assert comparison is not None
        (cohort,) = comparison.cohorts.values()
        shown.append(
            (cohort.configuration["sources"][role], seeds(cohort.pooled), labels([cohort.algorithm]))
        )
    versions, pooled, names = zip(*shown, strict=True)
    assert versions[0] == versions[2] != versions[1]
    assert pooled[:2] == ([0, 1, 2], [0])
    assert names == (("First", "Second", "First") if role == "algorithm" else ("BP", "BP", "BP"))
