"""`pfa doctor`: an honest answer, an exit code that a job script can rely on, and nothing written."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Call


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # What a machine with a GPU says is for tests/gpu.
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


def ask(call: Call, *arguments: str) -> tuple[int, dict[str, Any], list[str]]:
    """The exit code, what was found by name, and what is in the way."""
    answer = call("doctor", "--json", *arguments)
    findings = json.loads(answer.out)
    in_the_way = [finding["what"] for finding in findings if finding["in_the_way"]]
    return answer.code, {finding["what"]: finding["found"] for finding in findings}, in_the_way


def test_a_machine_that_can_train(call: Call, tmp_path: Path) -> None:
    code, found, in_the_way = ask(call, "--device=cpu", "--db=there/pfa.db")
    assert (code, in_the_way) == (0, [])
    assert {"versions", "device", "precisions", "cores", "data: mnist", "database", "disk"} <= set(found)
    assert found["precisions"] == "fp32, bf16"
    assert not list(tmp_path.iterdir())  # looked, and made nothing


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--device=cuda"], ["device"]),
        (["--device=cpu", "--precision=tf32"], ["precision"]),
        (["--device=cpu", "--gpu"], ["CUDA graphs"]),
        (["mnist", "--device=cpu", "--data-dir=empty"], ["data: mnist"]),
        (["--device=cpu", "--data-dir=empty"], []),  # no recipe was named: any data set would do
        (["--device=cpu", "--db=broken.db"], ["database"]),
    ],
)
def test_what_is_in_the_way_is_named(
    call: Call, tmp_path: Path, arguments: list[str], expected: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.db").write_text("not a database" * 100)
    code, _, in_the_way = ask(call, *arguments)
    assert (code, in_the_way) == (int(bool(expected)), expected)


def test_the_cure_names_a_recipe_as_the_command_line_finds_it(call: Call, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[1] / "recipes" / "mnist.toml"
    (tmp_path / "mine.toml").write_bytes(shipped.read_bytes())
    for recipe in ("mine.toml", "mnist"):
        _, found, _ = ask(call, recipe, "--device=cpu", "--data-dir=empty")
        assert f"`pfa data fetch {recipe}` fetches them" in found["data: mnist"]


def test_a_number_of_decoding_processes_that_is_none(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PFA_WORKERS", "many")
    assert ask(call, "--device=cpu")[::2] == (1, ["decoding processes"])


def test_in_words(call: Call) -> None:
    answer = call("doctor", "mnist", "--device=cpu", "--precision=fp16")
    assert answer.code == 1 and "fp16 cannot be had on cpu" in answer.out and answer.err == ""
