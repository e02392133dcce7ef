"""The comparison's three forms, and the two commands as a user meets them."""

import io
import json
import re
from pathlib import Path

import pytest
from command_line import Call
from rich.console import Console

from pfa_cli.analysis.findings import Findings
from pfa_cli.errors import PfaError
from pfa_cli.registry import ALGORITHMS
from pfa_cli.report import compare, write_comparison
from pfa_cli.report.comparison import as_markdown as markdown
from pfa_cli.report.comparison import terminal
from pfa_cli.store.engine import Store


def test_markdown_has_a_row_per_claim_panel_and_layer(findings: Findings) -> None:
    text = markdown(findings)
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    rows = {
        section.splitlines()[0]: [line for line in section.splitlines() if line.startswith("| ")][2:]
        for section in sections
    }
    assert len(rows["Claims of the paper"]) == len(findings.claims)
    run = [one for one in findings.panels if one.verdict != "not run"]
    assert len(rows["Ours against the published curves"]) == len(run)
    layers = sum(len(one.deviations) for one in run if "accuracy" not in one.quantity)
    assert len(rows["Layer by layer"]) == layers
    for section in rows.values():
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in section}) <= 1
    assert "Fig. 2, MNIST: DFA run with other settings only" in sections[5]


def test_markdown_says_how_many_claims_got_which_verdict(findings: Findings) -> None:
    counts = {
        word: sum(one.verdict == word for one in findings.claims)
        for word in ("supported", "undecided", "trial only", "not run")
    }
    line = markdown(findings).splitlines()[2]
    for word, n in counts.items():
        assert f"{n} {word}" in line


def on_screen(findings: Findings, width: int) -> list[str]:
    screen = Console(file=io.StringIO(), width=width)
    screen.print(terminal(findings))
    return screen.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 150])
def test_terminal_names_every_claim(findings: Findings, width: int) -> None:
    lines = on_screen(findings, width)
    assert max(map(len, lines)) <= width
    verdicts = re.findall(r" (?:supported|contradicted|undecided|trial only|not run) ", "\n".join(lines))
    assert len(verdicts) >= len(findings.claims)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (60, ["ours"]),
        (80, ["ours", "published"]),
        (100, ["ours", "published", "deviation"]),
        (120, ["epoch", "ours", "published", "deviation"]),
        (200, ["epoch", "ours", "published", "deviation", "different"]),
    ],
)
def test_terminal_leaves_columns_out_before_it_tears_words(
    findings: Findings, width: int, columns: list[str]
) -> None:
    lines = on_screen(findings, width)
    (head,) = [place for place, line in enumerate(lines) if line.split()[:2] == ["panel", "algorithm"]]
    assert lines[head].split() == ["panel", "algorithm", "quantity", "verdict", *columns]
    named = [
        line.split()[:2]
        for line in lines[head:]
        if re.match(
            r" \d[a-z] +\S+ +(test %|valid\. %|angle, °|norm ratio) +(equal|undecided|different|not compared) ",
            line,
        )
    ]
    run = [panel for panel in findings.panels if panel.verdict != "not run"]
    assert named == [[f"{one.figure[3:]}{one.panel}", ALGORITHMS[one.algorithm].label] for one in run]


def test_terminal_says_why_panels_are_not_compared(findings: Findings) -> None:
    text = " ".join(" ".join(on_screen(findings, 80)).split())
    assert (
        "Fig. 4, CIFAR-10: Not compared, each shown where it ends (BP, FA, DFA, PFA): 3 epochs in place of 200."
        in text
    )


def test_json_holds_everything_and_no_nan(findings: Findings) -> None:
    whole = json.loads(findings.as_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [one["claim"] for one in whole["claims"]] == [one.claim for one in findings.claims]
    angle = next(one for one in whole["panels"] if one["figure"] == "fig2" and one["panel"] == "d")
    assert angle["deviations"][0]["published"] == {"mean": 18.98079, "std": None, "n": 1, "freedom": None}
    assert angle["deviations"][0]["difference"]["low"] is not None
    sf = next(one for one in whole["claims"] if one["claim"] == "SF < BP on ImageNet")
    assert sf["measured"][0]["region_low"] is None and sf["measured"][0]["region_high"] < 0
    assert len(whole["rules"]) > 3


def test_a_misspelled_format_is_told_before_anything_is_read(call: Call) -> None:
    answer = call("compare", "--format", "jsn")
    assert answer.code == 2 and "unknown format 'jsn': did you mean 'json'?" in answer.err


def test_an_empty_database_is_an_error_with_a_cure(new_store: Store) -> None:
    with pytest.raises(PfaError, match=r"no results yet at .*new\.db: run `pfa run mnist`"):
        compare(new_store)


def test_the_command_prints_each_form(call: Call, compared_database: Path, findings: Findings) -> None:
    printed = {
        form: call("compare", "--db", str(compared_database), *form.split()).out for form in ("", "--json")
    }
    assert "Claims of the paper" in printed[""]
    assert json.loads(printed["--json"]) == json.loads(findings.as_json())


def test_the_commands_without_a_database_name_the_cure(call: Call, tmp_path: Path) -> None:
    for command in ("compare", "report"):
        done = call(command)
        assert (done.code, done.out) == (1, "")
        assert "pfa run" in done.err and "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(findings: Findings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PfaError, match=r"cannot write .*comparison\.md .*--out"):
        next(write_comparison(findings, tmp_path / "file"))
