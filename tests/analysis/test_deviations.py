"""Deviations from the published curves, computed again by hand."""

import math
from dataclasses import replace

import pytest
import synthetic
from scipy import stats
from synthetic import add_grid, add_run

from pfa_cli.analysis import published
from pfa_cli.analysis.deviations import Panel
from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.findings import Findings
from pfa_cli.analysis.published import our_order
from pfa_cli.analysis.statistics import Sample, around, difference, judge, margin
from pfa_cli.analysis.table1 import judge_table
from pfa_cli.recipes import load_recipe
from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.report import compare
from pfa_cli.report.comparison import as_markdown
from pfa_cli.store import queries
from pfa_cli.store.engine import Store
from pfa_cli.store.writer import claim, ensure_run, finish, record_epoch, start_attempt


def panel(found: Findings, figure: str, algorithm: str, quantity: str) -> Panel:
    return next(
        one
        for one in found.panels
        if (one.figure, one.algorithm) == (figure, algorithm) and one.quantity.endswith(quantity)
    )


def test_every_published_panel_is_there(findings: Findings) -> None:
    accuracy, alignment = published.accuracy(), published.alignment()
    expected = {
        (recipe, name, "accuracy")
        for recipe, name in zip(accuracy["recipe"], accuracy["algorithm"], strict=True)
    }
    for quantity in ("angle_degrees", "norm_ratio"):
        pairs = zip(alignment["recipe"], alignment["algorithm"], strict=True)
        expected |= {(recipe, name, quantity) for recipe, name in pairs}
    found = [
        (one.recipe, one.algorithm, "accuracy" if "accuracy" in one.quantity else one.quantity)
        for one in findings.panels
    ]
    assert set(found) == expected and len(found) == len(expected)


def test_last_epoch_and_whole_curve(findings: Findings, compared_store: Store) -> None:
    found = panel(findings, "fig2", "bp", "test_accuracy_percent")
    (one,) = found.deviations
    ours = queries.epochs_frame(compared_store, "mnist").query("algorithm == 'bp' and epoch > 0")
    ours = ours.pivot_table(index="epoch", columns="seed", values="test_accuracy_percent")
    theirs = published.accuracy().query("recipe == 'mnist' and algorithm == 'bp'").set_index("epochs_trained")
    apart = ours.mean(axis="columns") - theirs["accuracy_mean_percent"]
    course = one.course
    assert course is not None and one.difference is not None and one.margin is not None
    assert (course.epochs, one.epoch) == (40, 40)
    assert course.mean == pytest.approx(apart.mean())
    assert course.mean_absolute == pytest.approx(apart.abs().mean())
    assert (course.max_absolute, course.max_epoch) == (pytest.approx(apart.abs().max()), apart.abs().idxmax())
    assert course.spread == pytest.approx(math.sqrt((ours.std(axis="columns") ** 2).mean()))
    assert course.equal + course.undecided + course.different == 40
    expected = stats.ttest_ind_from_stats(
        ours.loc[40].mean(), ours.loc[40].std(), 3, theirs["accuracy_mean_percent"][40],
        theirs["accuracy_std_percent"][40], 5, equal_var=False,
    )  # fmt: skip
    assert one.difference.mean / expected.statistic == pytest.approx(
        math.sqrt(ours.loc[40].var() / 3 + theirs["accuracy_std_percent"][40] ** 2 / 5)
    )
    assert one.margin == pytest.approx(0.1 * (100 - theirs["accuracy_mean_percent"][40]))
    assert len(found.run_ids) == 3


def test_alignment_layer_by_layer(findings: Findings, compared_store: Store) -> None:
    found = panel(findings, "fig2", "pfa", "angle_degrees")
    layers = queries.layers_frame(compared_store, "mnist").query(
        "algorithm == 'pfa' and epoch == 40 and expansion == 10"
    )
    means = layers.groupby("layer_index")["path_angle_degrees"].mean()
    for one, index, theirs in zip(found.deviations, range(3), (18.98, 19.50, 23.27), strict=True):
        assert one.difference is not None and one.course is not None
        assert (one.layer_index, one.layer, one.epoch) == (index, f"fc{index + 1}", 40)
        assert one.difference.mean == pytest.approx(means[index] - theirs, abs=0.006)
        assert one.course.epochs == 41  # initialisation too
    assert [one.verdict for one in found.deviations].count("equal") == 2  # all but the output layer


def test_each_verdict_of_a_curve(new_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, percent in (("bp", 98.38), ("fa", 97.0), ("dfa", 98.25)):
        monkeypatch.setitem(synthetic.ACCURACY["mnist"], name, percent)
    add_grid(new_store, "mnist", ["bp", "fa"], range(6), epochs=40)
    add_grid(new_store, "mnist", ["dfa"], range(3), epochs=40)
    found = compare(new_store)
    verdicts = [panel(found, "fig2", name, "accuracy_percent").verdict for name in ("bp", "fa", "dfa", "sf")]
    assert verdicts == ["equal", "different", "undecided", "not run"]


def test_an_unfinished_run_is_compared_as_far_as_it_is(findings: Findings) -> None:
    found = panel(findings, "fig2", "fa", "accuracy_percent")
    assert (found.deviations[0].epoch, found.reason) == (5, "unfinished")
    assert found.deviations[0].course is not None and found.deviations[0].course.epochs == 5


def test_a_shortened_run_is_compared_with_no_epoch(findings: Findings) -> None:
    own = [one for one in findings.panels if one.recipe != "mnist" and one.run_ids]
    assert {one.figure for one in own} == {"fig4", "fig5"}
    for one in own:
        assert one.verdict == "not compared"
        assert "in place of" in one.reason
        assert all(d.difference is None and d.margin is None and d.course is None for d in one.deviations)
    shown = panel(findings, "fig4", "bp", "accuracy_percent").deviations[0]
    assert shown.epoch == 3 and shown.published.mean == pytest.approx(91.444)


def test_cifar10_is_compared_by_its_validation_images(new_store: Store) -> None:
    add_grid(new_store, "cifar10", ["bp"], [0], epochs=200)
    found = panel(compare(new_store), "fig4", "bp", "accuracy_percent")
    epochs = queries.epochs_frame(new_store, "cifar10").query("epoch == 200")
    assert found.quantity == "validation_accuracy_percent"
    assert found.deviations[0].ours.mean == epochs["validation_accuracy_percent"].iloc[0]
    assert found.deviations[0].epoch == 200  # the published curve goes on to 250
    assert found.verdict != "not compared"


def test_imagenet_ends_where_pfa_o_ends(new_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(synthetic.DATASETS, "imagenet", "ImageNet (1000 classes), 1281167 train / 50000 test")
    add_grid(new_store, "imagenet", ["pfa-o"], [0], epochs=75)
    found = compare(new_store)
    (accuracy,) = panel(found, "fig5", "pfa-o", "accuracy_percent").deviations
    assert accuracy.epoch == 66
    assert accuracy.verdict == "undecided"  # one run on both sides
    assert {one.epoch for one in panel(found, "fig5", "pfa-o", "angle_degrees").deviations} == {66}


def test_published_layers_are_ours_in_another_order() -> None:
    """torchvision's order is conv1, conv2, shortcut; the published one shortcut, conv1, conv2."""
    names = (
        published.alignment().query("recipe == 'imagenet'").groupby("layer_index")["layer"].first().tolist()
    )
    order = our_order(names)
    assert sorted(order) == list(range(21))
    ours = [names[order.index(index)] for index in range(21)]
    assert ours[5:8] == ["conv1_3", "conv2_2", "0_0"]
    assert ours[-3:] == ["conv1_8", "conv2_7", "fc_0"]
    cifar = (
        published.alignment().query("recipe == 'cifar10'").groupby("layer_index")["layer"].first().tolist()
    )
    assert our_order(cifar) == list(range(20))


def test_all_seeds_diverged(new_store: Store) -> None:
    add_run(new_store, "mnist", "bp", 0, epochs=40)
    for seed in (0, 1):
        add_run(new_store, "mnist", "fa", seed, epochs=40, diverge_at=2)
    found = panel(compare(new_store), "fig2", "fa", "accuracy_percent")
    assert (found.verdict, found.reason) == ("undecided", "all seeds diverged")


def test_the_margins_are_wider_than_the_published_scatter() -> None:
    """Five seeds that end and scatter as the published ones do pass for equal, with every algorithm."""
    for recipe, epoch in (("mnist", 40), ("cifar10", 200)):
        rows = published.accuracy()
        rows = rows[(rows["recipe"] == recipe) & (rows["epochs_trained"] == epoch)]
        for row in rows.to_dict("records"):
            one = Sample(float(row["accuracy_mean_percent"]), float(row["accuracy_std_percent"]), 5)
            assert judge([difference(one, one)], around(0, margin(one.mean))) == "supported", row["algorithm"]


def replayed(store: Store, algorithm: str, apart: dict[int, float], **settings: object) -> int:
    """A run of draws = "published" whose angles are the published ones, ``apart``: by epoch, by how many degrees not."""
    configuration = load_recipe("mnist").configuration(algorithm, {"draws": "published", **settings})
    run = ensure_run(store, configuration, 0)
    owned = claim(store, run, synthetic.OWNER, is_alive=lambda row: False)
    assert owned is not None
    start_attempt(store, owned, {"dataset": synthetic.DATASETS["mnist"]})
    theirs = published.alignment_curves("mnist", algorithm, published.ANGLE)
    for epoch in range(4):
        angles = theirs[theirs["epoch"] == epoch].sort_values("layer_index")["mean"]
        layers = tuple(
            LayerRecord(
                i, f"fc{i + 1}", 1.0, None, None, angle + (apart.get(epoch, 0.0) if i == 1 else 0.0), 1.0, 0.0
            )
            for i, angle in enumerate(angles)
        )
        record_epoch(store, owned, EpochRecord(epoch, test_accuracy_percent=99.9, layers=layers))
    finish(store, owned, "done")
    return run


def test_a_replayed_run_is_compared_where_it_has_angles(new_store: Store) -> None:
    replayed(new_store, "pfa", dict.fromkeys(range(4), math.nan))
    (found,) = compare(new_store).replays
    assert found.largest.keys() == {"fc1", "fc3"} and found.together == 3


def test_a_replayed_run_is_held_against_the_published_one_and_is_in_nothing_else(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp", "pfa"], range(2), epochs=4)
    before = compare(new_store)
    pfa = replayed(new_store, "pfa", {1: 0.03, 2: -0.06, 3: 0.04}, weight_decay=9e-5, epochs=4)
    replayed(new_store, "pfa-o", {}, epochs=4)
    found = compare(new_store)
    one, other = found.replays
    assert (one.algorithm, one.run_id, one.epochs, one.together) == ("pfa", pfa, 3, 1)
    assert one.largest["fc1"] == (pytest.approx(0, abs=1e-9), 0) and one.start == pytest.approx(0, abs=1e-9)
    assert one.largest["fc2"] == (pytest.approx(0.06), 2)
    assert "weight decay 9e-05 in place of 0.0001" in one.settings and "draws" not in one.settings
    assert (other.algorithm, other.together) == ("pfa-o", 3)
    assert (
        replace(found, replays=()).as_json() == before.as_json()
    )  # also where an algorithm has no other run
    assert 99.9 not in judge_table(Evidence(new_store)).accuracy.select_dtypes("number").to_numpy()
    text = as_markdown(found)
    assert "| MNIST | PFA | 3 | 1 | 0.00000 | 0.00 (epoch 0) / 0.06 (epoch 2) / 0.00 (epoch 0) |" in text
