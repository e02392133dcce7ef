"""What the figures draw, against the database and the published curves."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from sqlalchemy import text
from synthetic import add_grid, add_run

from pfa_cli.analysis import published
from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.paper import paper
from pfa_cli.analysis.table1 import judge_table
from pfa_cli.figures.catalogue import catalogue
from pfa_cli.figures.drawing import Drawing, Options
from pfa_cli.registry import ALGORITHMS
from pfa_cli.store import queries
from pfa_cli.store.engine import Store


def drawn(name: str, evidence: Evidence, **options: Any) -> Drawing:
    drawing = catalogue(evidence)[name].draw(evidence, Options(**options))
    assert drawing is not None
    return drawing


def rows(drawing: Drawing, **where: object) -> pd.DataFrame:
    shown = drawing.shown
    for column, value in where.items():
        shown = shown[shown[column] == value]
    return shown


def texts(figure: Figure) -> str:
    """The notes, without their line breaks."""
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def legends(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()]


def test_accuracy_is_that_of_the_database(store: Store, evidence: Evidence) -> None:
    drawing = drawn("fig2", evidence)
    epochs = queries.epochs_frame(store, "mnist")
    for name in paper().figures["fig2"].accuracy:
        ours = rows(drawing, panel="a", source="ours", algorithm=name)
        ids = [int(run) for run in ours["run_ids"].iloc[-1].split()]
        own = epochs[epochs["run_id"].isin(ids)]
        assert set(own["algorithm"]) == {name}
        assert ours["epoch"].tolist() == [1, 2, 3, 4]
        for _, point in ours.iterrows():
            values = own.loc[own["epoch"] == point["epoch"], "test_accuracy_percent"]
            assert (point["mean"], point["std"], point["n"]) == pytest.approx(
                (values.mean(), values.std(ddof=1), 3)
            )


def test_a_variant_of_an_algorithm_is_drawn_beside_it_and_moves_nothing_else(new_store: Store) -> None:
    """DFA with small hidden errors in the supplement to Figure 4, at another learning rate and of fewer epochs."""
    add_grid(new_store, "cifar10", ["bp", "dfa"], range(2), epochs=3)
    before = drawn("fig4-supplement", Evidence(new_store)).shown
    small = {"error_scale": 1 / 65536, "learning_rate": 0.001}
    ids = [add_run(new_store, "cifar10", "dfa", seed, epochs=2, **small) for seed in range(2)]
    drawing = drawn("fig4-supplement", Evidence(new_store))
    variant = rows(drawing, source="variant")
    assert drawing.shown[drawing.shown["source"] != "variant"].reset_index(drop=True).equals(before)
    assert set(variant["algorithm"]) == {"dfa"} and set(variant["panel"]) == {"a"}
    epochs = queries.epochs_frame(new_store, "cifar10")
    for epoch, point in zip((1, 2), variant.itertuples(), strict=True):
        own = epochs[epochs["run_id"].isin(ids) & (epochs["epoch"] == epoch)]["test_accuracy_percent"]
        assert (point.epoch, point.mean, point.n) == (epoch, pytest.approx(own.mean()), 2)
    last = variant.iloc[-1]
    entry = f"DFA, error scale 1.53e-05  {last['mean']:.2f} ± {last['std']:.2f}  (n = 2, epoch 2)"
    assert entry in legends(drawing.figure)
    said = "Dash-dotted: DFA, error scale 1.53e-05, 2 epochs in place of 200, learning rate 0.001 in place of 0.0001."
    assert said in texts(drawing.figure)


def test_a_variant_that_is_drawn_does_not_count_as_not_shown(new_store: Store) -> None:
    add_run(new_store, "cifar10", "dfa", 0, epochs=2)
    add_run(new_store, "cifar10", "dfa", 0, epochs=2, error_scale=1 / 65536)
    hidden = "not shown here: DFA"
    assert hidden not in texts(drawn("fig4-supplement", Evidence(new_store)).figure)
    assert f"{hidden} 1 (shown: error_scale=1)." in texts(drawn("fig4", Evidence(new_store)).figure)
    add_run(new_store, "cifar10", "dfa", 0, epochs=2, learning_rate=0.5)
    assert f"{hidden} 1 (shown: learning_rate=0.0001)." in texts(
        drawn("fig4-supplement", Evidence(new_store)).figure
    )
    chosen = Evidence(new_store, {"error_scale": [1 / 65536]})  # now it is the algorithm's own curve
    assert rows(drawn("fig4-supplement", chosen), source="variant").empty


def test_panels_are_in_the_papers_order(evidence: Evidence) -> None:
    for figure, order in (
        ("fig2", [("b", "fa"), ("c", "sf"), ("d", "pfa"), ("e", "pfa-o")]),
        ("fig4", [("b", "fa"), ("c", "sf"), ("d", "pfa"), ("e", "pfa-o")]),
        ("fig5", [("b", "sf"), ("c", "pfa"), ("d", "pfa-o")]),
    ):
        drawing = drawn(figure, evidence)
        panels = rows(drawing, source="published")[["panel", "algorithm"]].drop_duplicates()
        assert [tuple(row) for row in panels.to_numpy() if row[0] != "a"] == order
        titles = [ax.get_title() for ax in drawing.figure.axes if ax.get_title()]
        assert titles[-len(order) :] == [ALGORITHMS[name].label for _, name in order]


def test_alignment_takes_the_measure_of_the_algorithm(store: Store, evidence: Evidence) -> None:
    drawing = drawn("fig2", evidence)
    layers = queries.layers_frame(store, "mnist")
    for name, measured in (("sf", "weight"), ("pfa", "path")):
        for quantity in ("angle_degrees", "norm_ratio"):
            ours = rows(
                drawing, source="ours", algorithm=name, quantity=quantity, layer_index=1, epoch=4
            ).iloc[0]
            ids = [int(run) for run in ours["run_ids"].split()]
            own = layers[layers["run_id"].isin(ids) & (layers["epoch"] == 4) & (layers["layer_index"] == 1)]
            assert ours["mean"] == pytest.approx(own[f"{measured}_{quantity}"].mean())


def test_dfa_has_an_angle_in_the_output_layer_only(evidence: Evidence) -> None:
    ours = rows(drawn("fig2-supplement", evidence), source="ours", algorithm="dfa")
    assert set(ours[ours["quantity"] == "angle_degrees"]["layer_index"]) == {2}
    assert set(ours[ours["quantity"] == "norm_ratio"]["layer_index"]) == {0, 1, 2}


def test_theory_lines_follow_the_expansion_ratio(new_store: Store) -> None:
    add_run(new_store, "mnist", "pfa", 0, epochs=1, expansion=4.0)
    drawing = drawn("fig2", Evidence(new_store))
    limits = rows(drawing, source="theory", algorithm="pfa").groupby("quantity")["mean"].first()
    assert limits["angle_degrees"] == pytest.approx(np.degrees(np.arccos(1 / np.sqrt(1.25))))
    assert limits["norm_ratio"] == pytest.approx(np.sqrt(1.25))
    assert "PFA at expansion ratio 4" in texts(drawing.figure)


def test_published_curves_reach_as_far_as_ours_and_can_be_left_out(evidence: Evidence) -> None:
    drawing = drawn("fig2", evidence)
    bp = rows(drawing, source="published", algorithm="bp")
    theirs = published.accuracy().query("recipe == 'mnist' and algorithm == 'bp' and epochs_trained <= 4")
    assert bp["mean"].tolist() == theirs["accuracy_mean_percent"].tolist()
    assert rows(drawn("fig2", evidence, published=False), source="published").empty


def test_a_diverged_run_is_shown_by_itself(evidence: Evidence) -> None:
    drawing = drawn("fig2-supplement", evidence)
    lost = rows(drawing, source="diverged")
    assert (set(lost["algorithm"]), set(lost["statistic"]), lost["epoch"].max()) == ({"pal"}, {"seed 2"}, 2)
    assert rows(drawing, source="ours", algorithm="pal")["n"].max() == 2
    assert "Diverged (✕, in no mean): PAL seed 2 at epoch 2." in texts(drawing.figure)
    low, _ = drawing.figure.axes[0].get_ylim()
    assert low > 50  # the other curves keep their scale


def test_an_algorithm_that_only_diverged_is_in_the_legend(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp"], [0], epochs=2)
    for seed in (0, 1):
        add_run(new_store, "mnist", "sf", seed, epochs=2, diverge_at=1)
    drawing = drawn("fig2", Evidence(new_store))
    assert "SF  diverged" in legends(drawing.figure)
    assert "diverged" in [text.get_text() for ax in drawing.figure.axes for text in ax.texts]


def test_an_empty_panel_keeps_the_scale_of_its_row(new_store: Store) -> None:
    add_run(new_store, "mnist", "pfa", 0, epochs=2)
    drawing = drawn("fig2", Evidence(new_store), published=False)
    axes = drawing.figure.axes[1:]  # four of angles, then four of norm ratios
    assert len(axes) == 8
    for row in (axes[:4], axes[4:]):
        assert len({(ax.get_ylim(), tuple(ax.get_yticks())) for ax in row}) == 1


def test_an_infinite_norm_ratio_stretches_no_axis(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp", "fa"], [0], epochs=2)
    before = drawn("fig2", Evidence(new_store)).figure.axes
    with new_store.write() as connection:
        connection.execute(text("UPDATE layers SET weight_norm_ratio = 9e999 WHERE epoch = 2"))
    after = drawn("fig2", Evidence(new_store)).figure.axes
    assert [ax.get_ylim() for ax in after] == [ax.get_ylim() for ax in before]


def test_notes_tell_what_is_missing_and_what_differs(evidence: Evidence) -> None:
    mnist = texts(drawn("fig2-supplement", evidence).figure)
    assert "MNIST, 60000 train / 10000 test (recipe mnist), 4 epochs in place of the paper's 40" in mnist
    assert "Unfinished and not shown: WM seed 2." in mnist
    assert "Further configurations in the database, not shown here: PFA 2 (shown: expansion=10)." in texts(
        drawn("fig2", evidence).figure
    )
    cifar = drawn("fig4", evidence)
    assert "Not shown: DFA, PFA-o not run; SF run with other settings only." in texts(cifar.figure)
    assert "imagenette-mini (10 classes)" in texts(drawn("fig5", evidence).figure)
    supplement = texts(drawn("fig4-supplement", evidence).figure)
    assert "No run has finished yet, the unfinished ones are shown as far as they are: KP." in supplement


def test_backpropagation_alone_makes_no_supplement(new_store: Store) -> None:
    add_run(new_store, "cifar10", "bp", 0, epochs=2)
    evidence = Evidence(new_store)
    assert catalogue(evidence)["fig4-supplement"].draw(evidence, Options()) is None
    assert catalogue(evidence)["fig4"].draw(evidence, Options()) is not None
    add_run(new_store, "cifar10", "pal", 0, epochs=2)
    supplement = drawn("fig4-supplement", Evidence(new_store))
    assert set(rows(supplement, panel="a")["algorithm"]) >= {"bp", "pal"}


def test_validation_accuracy_on_request(evidence: Evidence) -> None:
    cifar = drawn("fig4", evidence, validation=True)
    assert set(rows(cifar, panel="a")["quantity"]) == {"validation_accuracy_percent"}
    fig4 = rows(drawn("fig4", evidence), panel="a")
    assert set(fig4.loc[fig4["source"] == "ours", "quantity"]) == {"test_accuracy_percent"}
    assert set(fig4.loc[fig4["source"] == "published", "quantity"]) == {"validation_accuracy_percent"}
    mnist = drawn("fig2", evidence, validation=True)
    assert set(rows(mnist, panel="a")["quantity"]) == {"test_accuracy_percent"}
    assert "No validation accuracy was recorded" in texts(mnist.figure)


def test_one_seed_has_no_band(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp", "fa"], [0], epochs=2)
    drawing = drawn("fig2", Evidence(new_store))
    assert rows(drawing, source="ours")["std"].isna().all()
    assert not any(drawing.figure.findobj(PolyCollection))
    assert any("(n = 1)" in text for text in legends(drawing.figure))


@pytest.mark.parametrize("name", ["fig2", "fig4"])  # few layers, and many
def test_everything_drawn_is_in_the_frame(evidence: Evidence, name: str) -> None:
    drawing = drawn(name, evidence)
    curves = [line.get_xydata() for ax in drawing.figure.axes for line in ax.get_lines()]
    curves += [points for many in drawing.figure.findobj(LineCollection) for points in many.get_segments()]
    points = {(float(x), float(y)) for curve in curves for x, y in curve}
    assert points == {
        (float(e), float(m)) for e, m in zip(drawing.shown["epoch"], drawing.shown["mean"], strict=True)
    }


def test_figure_3_shows_theory_simulation_and_trained_networks(store: Store, evidence: Evidence) -> None:
    drawing = drawn("fig3", evidence)
    assert set(rows(drawing, source="simulation", panel="b")["expansion"]) == {1, 10, 100}
    simulated = queries.simulations_frame(store, "path").query(
        "expansion == 10 and quantity == 'path_angle_degrees'"
    )
    shown = rows(drawing, source="simulation", panel="b", expansion=10.0).iloc[0]
    assert (shown["mean"], shown["std"], shown["n"]) == pytest.approx(
        (simulated["value"].mean(), simulated["value"].std(ddof=1), 3)
    )
    trained = rows(drawing, source="trained", recipe="mnist")
    assert set(trained["expansion"]) == {2, 10, 50}
    assert set(rows(drawing, source="trained")["recipe"]) == {"mnist", "cifar10", "imagenet"}
    layers = queries.layers_frame(store, "mnist").query(
        "algorithm == 'pfa' and expansion == 50 and epoch == 4 and layer_index == 0"
    )
    point = trained[(trained["expansion"] == 50) & (trained["layer_index"] == 0)].iloc[0]
    assert (point["mean"], point["n"]) == pytest.approx((layers["path_angle_degrees"].mean(), 2))
    assert "Expansion ratios: 2 (n = 2), 10 (n = 3), 50 (n = 2)." in texts(drawing.figure)


def test_figure_3_names_what_an_unfinished_schedule_leaves_above_the_axis(new_store: Store) -> None:
    add_run(new_store, "mnist", "pfa", 0, epochs=40)
    add_run(new_store, "imagenet", "pfa", 0, epochs=1)
    drawing = drawn("fig3", Evidence(new_store))
    highest = rows(drawing, source="trained").groupby("recipe")["mean"].max()
    bottom, top = drawing.figure.axes[1].get_ylim()
    assert bottom == 0 and highest["mnist"] < top < highest["imagenet"]
    assert "Above the axis of (b): imagenet, 21 layers at " in texts(drawing.figure)
    assert re.search(r"at (\d+)( to (?!\1°)\d+)?°\.", texts(drawing.figure))


def test_figure_3_says_how_to_get_the_simulations(new_store: Store) -> None:
    assert catalogue(Evidence(new_store))["fig3"].draw(Evidence(new_store), Options()) is None
    add_run(new_store, "mnist", "pfa", 0, epochs=1)
    assert "`pfa simulate` adds them" in texts(drawn("fig3", Evidence(new_store)).figure)


def test_figure_3_reaches_to_ratios_below_one(new_store: Store) -> None:
    add_run(new_store, "mnist", "pfa", 0, epochs=1, expansion=0.5)
    drawing = drawn("fig3", Evidence(new_store))
    theory = rows(drawing, source="theory").groupby("panel")["expansion"].agg(["min", "max"])
    assert theory.loc["a"].tolist() == pytest.approx([1, 100])
    assert theory.loc["b"].tolist() == pytest.approx([0.5, 100])
    assert "0.5" in [label.get_text() for label in drawing.figure.axes[1].get_xticklabels()]


def test_notes_name_the_settings_that_are_not_the_papers(new_store: Store) -> None:
    """Of the algorithms that have them, those alike together; what holds for the whole comparison is said once."""
    add_run(new_store, "cifar10", "bp", 0, epochs=3)
    add_run(new_store, "cifar10", "dfa", 0, epochs=3, error_scale=1 / 65536, learning_rate=0.001)
    fig4 = texts(drawn("fig4", Evidence(new_store)).figure)
    said = "Not the paper's settings: DFA (learning rate 0.001 in place of 0.0001; error scale 1.53e-05 in place of 1.0)."
    assert said in fig4 and fig4.count("in place of the paper's 200") == 1
    assert any(note.endswith(f". {said}") for note in judge_table(Evidence(new_store)).notes)
    for name in ("bp", "pfa"):
        add_run(new_store, "mnist", name, 0, epochs=40, draws="published")
    evidence = Evidence(new_store, {"draws": ["published"]})
    said = "Not the paper's settings: BP, PFA (draws published in place of own)."
    assert said in texts(drawn("fig2", evidence).figure)
    assert said.replace("BP, ", "") in texts(drawn("fig3", evidence).figure)
    assert "Not the paper's settings" not in texts(
        drawn("fig4", Evidence(new_store), algorithms=["bp"]).figure
    )
