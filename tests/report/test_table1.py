"""Table 1 as judged from databases whose answer is known, and its four renderings."""

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from synthetic import add_grid, add_run

from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.paper import paper
from pfa_cli.analysis.table1 import Cell, Table1, judge_table
from pfa_cli.registry import ALGORITHMS
from pfa_cli.report.table1 import as_latex as latex
from pfa_cli.report.table1 import as_markdown as markdown
from pfa_cli.report.table1 import terminal, write_table1
from pfa_cli.store import queries
from pfa_cli.store.engine import Store

COLUMNS = ("bp", "fa", "dfa", "sf", "kp", "wm", "pal", "pfa")
LABELS = {ALGORITHMS[name].label for name in COLUMNS}
SYMMETRY, APPROXIMATION, PERFORMANCE = 3, 4, 5


def table_1(store: Store) -> Table1:
    return judge_table(Evidence(store))


def cell(table: Table1, row: int, algorithm: str) -> Cell:
    return table.rows[row].cells[algorithm]


def finding(table: Table1, row: int, algorithm: str, recipe: str = "mnist"):
    return next(f for f in cell(table, row, algorithm).findings if f.recipe == recipe)


def test_it_has_the_papers_shape(store: Store) -> None:
    table = table_1(store)
    assert len(table.rows) == 6
    assert table.columns == COLUMNS
    assert all(tuple(row.cells) == COLUMNS for row in table.rows)


def test_the_first_three_rows_are_the_papers(store: Store) -> None:
    rows = [[row.cells[name].verdict for name in COLUMNS] for row in table_1(store).rows[:3]]
    assert rows == [list("✗✓✓✗✓✓✓✓"), list("✗✓✓✓✓✓✓✓"), list("✓✓✓†✓✗✓✓")]


def test_angles_decide_rows_four_and_five(store: Store) -> None:
    table = table_1(store)
    # After four epochs the synthetic angles of layers 1 to 3 are those of a network half aligned.
    assert [cell(table, SYMMETRY, name).verdict for name in ("bp", "fa", "pfa")] == ["✗", "*", "✓"]
    assert finding(table, SYMMETRY, "pfa").text == "90.0°, n = 3"
    layers = queries.layers_frame(store, "mnist").query("algorithm == 'sf' and epoch == 4")
    by_layer = layers.groupby("layer_index")["weight_angle_degrees"].mean()
    found = finding(table, SYMMETRY, "sf")
    assert (found.low, found.value, found.high) == pytest.approx(
        (by_layer.min(), by_layer.mean(), by_layer.max())
    )


def test_dfa_is_judged_by_its_error_angle(store: Store) -> None:
    found = finding(table_1(store), APPROXIMATION, "dfa")
    assert found.text.startswith("error ")
    layers = queries.layers_frame(store, "mnist").query(
        "algorithm == 'dfa' and epoch == 4 and layer_index < 2"
    )
    assert found.value == pytest.approx(layers["error_angle_degrees"].mean())


def test_accuracy_is_paired_by_seed(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp"], [0, 1, 2], epochs=2)
    add_grid(new_store, "mnist", ["pfa"], [1, 2, 7], epochs=2)
    found = finding(table_1(new_store), PERFORMANCE, "pfa")
    last = queries.epochs_frame(new_store, "mnist").query("epoch == 2").set_index(["algorithm", "seed"])
    accuracy = last["test_accuracy_percent"]
    differences = [accuracy["pfa", seed] - accuracy["bp", seed] for seed in (1, 2)]
    assert (found.value, found.n) == pytest.approx((sum(differences) / 2, 2))


def test_without_evidence_it_says_not_run(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp", "pfa"], [0, 1], epochs=2)
    table = table_1(new_store)
    assert [cell(table, row, "wm").verdict for row in (3, 4, 5)] == ["not run"] * 3
    assert cell(table, PERFORMANCE, "wm").papers == "✓"
    assert "not run" in markdown(table)


def test_a_diverged_seed_rules_out_bp_level(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp", "kp"], [0, 1, 2], epochs=2)
    assert cell(table_1(new_store), PERFORMANCE, "kp").verdict != "✗"
    lost = add_run(new_store, "mnist", "kp", 3, epochs=2, diverge_at=1)
    table = table_1(new_store)
    found = finding(table, PERFORMANCE, "kp")
    assert found.verdict == "✗"
    assert found.text.endswith("1 of 4 seeds diverged")
    assert lost in found.run_ids


def test_seeds_that_all_diverged_are_evidence(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp"], [0, 1], epochs=2)
    for seed in (0, 1):
        add_run(new_store, "mnist", "pal", seed, epochs=2, diverge_at=1)
    table = table_1(new_store)
    assert cell(table, PERFORMANCE, "pal").verdict == "✗"
    assert finding(table, PERFORMANCE, "pal").text == "2 of 2 seeds diverged"
    assert finding(table, APPROXIMATION, "pal").text == "all seeds diverged"


def test_unfinished_runs_decide_nothing(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp"], [0, 1], epochs=4)
    add_run(new_store, "mnist", "kp", 0, epochs=4, stop_after=2)
    table = table_1(new_store)
    assert [cell(table, row, "kp").verdict for row in (3, 4, 5)] == ["?", "?", "?"]
    assert "unfinished" in finding(table, SYMMETRY, "kp").text


def test_a_run_at_the_papers_scale_overrules_a_trial(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp", "sf"], [0], epochs=40)
    add_grid(new_store, "cifar10", ["bp", "sf"], [0], epochs=2)
    table = table_1(new_store)
    assert [(f.recipe, f.decides) for f in cell(table, APPROXIMATION, "sf").findings] == [
        ("mnist", True),
        ("cifar10", False),
    ]
    assert "| (cifar10) |" in markdown(table)


def test_another_data_set_is_no_imagenet_however_long(new_store: Store) -> None:
    add_grid(new_store, "imagenet", ["bp"], [0], epochs=75)
    add_grid(new_store, "mnist", ["bp"], [0], epochs=40)
    findings = cell(table_1(new_store), PERFORMANCE, "bp").findings
    assert [(f.recipe, f.decides) for f in findings] == [("mnist", True), ("imagenet", False)]


def test_final_accuracies_keep_validation_and_test_apart(store: Store) -> None:
    accuracy = table_1(store).accuracy.set_index(["recipe", "algorithm"])
    epochs = queries.epochs_frame(store, "cifar10").query("algorithm == 'fa' and epoch > 0")
    best = epochs.loc[
        epochs.groupby("run_id")["validation_accuracy_percent"].idxmax(), "test_accuracy_percent"
    ]
    row = accuracy.loc[("cifar10", "fa")]
    assert row["test_accuracy_best_validation_epoch_percent_mean"] == pytest.approx(best.mean())
    last = epochs[epochs["epoch"] == 3]["test_accuracy_percent"]
    assert row["test_accuracy_last_epoch_percent_mean"] == pytest.approx(last.mean())
    assert pd.isna(accuracy.loc[("mnist", "bp"), "test_accuracy_best_validation_epoch_percent_mean"])
    assert not accuracy.loc[("cifar10", "kp"), "finished"]


def test_markdown_shows_our_verdict_and_the_papers(store: Store) -> None:
    table = table_1(store)
    lines = markdown(table).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| No need"))
    assert all(line.count("|") == len(COLUMNS) + 2 for line in lines[head - 2 : head + 6])
    assert (
        max(map(len, lines[head - 2 : head + 6])) < 140
    )  # signs only: the numbers are in a table of their own
    row = next(line for line in lines if line.startswith("| No explicit"))
    cells = [text.strip().replace("\\", "") for text in row.split("|")[2:-1]]
    for text, name in zip(cells, COLUMNS, strict=True):
        assert text == f"{cell(table, SYMMETRY, name).verdict} / {paper().verdicts['symmetry'][name]}"
    for text in (finding(table, PERFORMANCE, "pfa").text, finding(table, SYMMETRY, "sf").text):
        assert f"| {text} |" in "\n".join(lines)


def test_csv_has_a_row_per_cell_and_recipe(store: Store) -> None:
    table = table_1(store)
    rows = table.frame()
    assert len(rows) == sum(max(1, len(c.findings)) for row in table.rows for c in row.cells.values())
    pfa = rows[(rows["row"] == 5) & (rows["algorithm"] == "pfa") & (rows["recipe"] == "mnist")].iloc[0]
    assert pfa["paper_verdict"] == "✓"
    assert len(pfa["run_ids"].split()) == pfa["n"] == 3


def test_latex_is_plain_ascii_with_balanced_braces(store: Store) -> None:
    text = latex(table_1(store))
    assert text.isascii()
    assert text.count("{") == text.count("}")
    body = text.partition(r"\begin{tabular}")[2].partition(r"\end{tabular}")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\tabularnewline")]
    assert len(rows) == 7
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(COLUMNS) for line in rows)


def test_latex_fits_a_page(new_store: Store) -> None:
    """Widths in points of \\footnotesize, 8 pt with at most 0.75 em a capital letter; text is 16 cm wide on A4."""
    add_grid(new_store, "mnist", [*COLUMNS, "pfa-o", "pfa-l", "mix"], [0], epochs=1)
    page = 16 / 2.54 * 72.27
    signs, words = re.findall(r"\\begin\{tabular\}(.*)", latex(table_1(new_store)))
    columns = table_1(new_store).columns
    fixed = [float(width) / 2.54 * 72.27 for width in re.findall(r"p\{([\d.]+)cm\}", signs)]
    labels = [max(len(ALGORITHMS[name].label), len("x / x")) * 0.75 * 8 for name in columns]
    assert sum(fixed) + sum(labels) + 2 * 3 * len(columns) < page
    fixed = [float(width) / 2.54 * 72.27 for width in re.findall(r"p\{([\d.]+)cm\}", words)]
    assert sum(fixed) + (len("PFA-o") + len("(imagenet)")) * 0.6 * 8 + 2 * 3 * 4 < page


def test_the_notes_say_which_of_several_configurations_is_judged(new_store: Store) -> None:
    for expansion in (10.0, 50.0):
        add_run(new_store, "mnist", "pfa", 0, epochs=2, expansion=expansion)
    (note,) = [one for one in judge_table(Evidence(new_store)).notes if "Further configurations" in one]
    assert note.endswith("not shown here: PFA 1 (shown: expansion=10).")


def test_the_control_stands_in_the_notes_and_has_no_column(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp", "readout"], range(2), epochs=2)
    table = table_1(new_store)
    assert "readout" not in table.columns
    assert any(re.search(r"mnist, control: .* test accuracy is \d", note) for note in table.notes)


@pytest.mark.parametrize("width", [80, 120, 220])
def test_terminal_shows_every_cell_on_any_width(store: Store, width: int) -> None:
    table = table_1(store)
    screen = Console(file=io.StringIO(), width=width)
    screen.print(terminal(table))
    verdicts, evidence = screen.file.getvalue().split("What the database says")
    assert all(re.search(rf"\b{ALGORITHMS[name].label}\b", verdicts.splitlines()[2]) for name in COLUMNS)
    performance = verdicts[verdicts.index("BP-level task") :].splitlines()[0]
    last = table.rows[-1]
    expected = [sign for name in COLUMNS for sign in (last.cells[name].verdict, last.cells[name].papers)]
    assert performance.split()[-2 * len(COLUMNS) :] == [
        "–" if sign == "not run" else sign for sign in expected
    ]
    findings = [f for row in table.rows for cell in row.cells.values() for f in cell.findings]
    assert evidence.count("mnist:") >= sum(f.recipe == "mnist" for f in findings) > 0
    assert all(len(line.rstrip()) <= width for line in screen.file.getvalue().splitlines())


@pytest.mark.parametrize(("width", "blocks"), [(40, 4), (60, 2), (72, 2), (80, 1)])
def test_a_narrow_terminal_gets_the_verdicts_in_blocks(store: Store, width: int, blocks: int) -> None:
    table = table_1(store)
    screen = Console(file=io.StringIO(), width=width)
    screen.print(terminal(table))
    verdicts, evidence = screen.file.getvalue().split("What the database says")
    heads = [line.split() for line in verdicts.splitlines() if set(line.split()) <= LABELS and line.strip()]
    assert len(heads) == blocks
    assert [label for head in heads for label in head] == [ALGORITHMS[name].label for name in COLUMNS]
    assert "…" not in verdicts + evidence
    last = [line.split() for line in verdicts.splitlines() if line.strip().startswith("BP-level")]
    signs = [sign for line in last for sign in line if sign in "✓✗◆*†?–"]
    expected = [
        s for name in COLUMNS for s in (table.rows[-1].cells[name].verdict, table.rows[-1].cells[name].papers)
    ]
    assert signs == ["–" if sign == "not run" else sign for sign in expected]


def test_files(store: Store, tmp_path: Path) -> None:
    paths = list(write_table1(table_1(store), tmp_path))
    assert [path.name for path in paths] == ["table1.md", "table1.csv", "table1.tex", "table1-accuracy.csv"]
    assert pd.read_csv(tmp_path / "table1.csv")["row"].nunique() == 6
