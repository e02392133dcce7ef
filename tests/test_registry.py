"""The registry: what is declared beside the code is what the command line and the figures read, without torch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pfa_cli import registry
from pfa_cli.errors import UsageError
from pfa_cli.registry import ALGORITHMS, TABLE_1, Entry, Option


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_declaration_read_from_the_text_is_that_of_the_class(name: str) -> None:
    found = registry.algorithm(name)
    assert found.name == name
    assert replace(found, implementation="") == found.load().entry


def test_the_order_is_that_of_table_1_and_unknown_algorithms_come_last_by_name() -> None:
    assert list(ALGORITHMS) == [*TABLE_1, "mix", "pfa-l", "readout"]
    assert TABLE_1 == ("bp", "fa", "dfa", "sf", "kp", "wm", "pal", "pfa", "pfa-o")
    assert registry.in_order(["zeta", "pfa", "alpha", "bp"]) == ["bp", "pfa", "alpha", "zeta"]


def test_an_unknown_algorithm_is_a_usage_error_but_can_always_be_shown() -> None:
    with pytest.raises(UsageError, match="unknown algorithm 'pfao': did you mean 'pfa-o'"):
        registry.algorithm("pfao")
    with pytest.raises(UsageError, match="one of your own is named by its file: myrule"):
        registry.algorithm("frsf")
    assert registry.described("nonesuch") == Entry("nonesuch", label="nonesuch", no_sign_transport=None)
    assert registry.described("nonesuch").limit_of({}) == (None, 1.0)
    assert registry.described("pfa") is registry.algorithm("pfa")


def test_the_limits_of_theory_depend_on_the_options() -> None:
    angle, ratio = registry.algorithm("pfa").limit_of({"expansion": 10.0})
    assert (round(angle or 0, 2), round(ratio or 0, 4)) == (17.55, 1.0488)
    assert registry.algorithm("kp").limit_of({}) == registry.algorithm("pfa-o").limit_of({}) == (0.0, 1.0)


def test_the_registry_loads_no_heavy_package() -> None:
    code = (
        "import sys, pfa_cli.registry as r; r.described('pfa').limit_of({'expansion': 2});"
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'sqlalchemy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_what_a_stored_plugin_declares_is_read_and_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    registry.remember(
        [
            f"open({str(trap)!r}, 'w')\n"
            "class A(Algorithm):\n"
            "    entry = Entry('stored', label='Stored', colour='#123456', measure='path', title=open('x'), dashed=3,\n"
            "        options={'rate': Option(0.5, 'a rate', minimum=0)}, limit='os:abort', no_sign_transport=True)\n",
            "entry = Entry(",
            "class A:\n    entry = Entry(Option(), **{})\n",
            "class A:\n    entry = Entry('pfa', label='taken')\n",
            "(" * 10_000,
            "x = 1\x00",
        ]
    )
    assert registry.described("stored") == Entry(
        "stored", label="Stored", colour="#123456", measure="path", no_sign_transport=True,
        options={"rate": Option(0.5, "a rate", minimum=0)},
    )  # fmt: skip
    assert registry.described("pfa").label == "PFA" and not trap.exists()
