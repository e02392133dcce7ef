"""The registry: what is declared beside the code is what the command line and the figures read, without torch."""

import subprocess
import sys
from dataclasses import replace

import pytest

from pfa_cli import registry
from pfa_cli.errors import UsageError
from pfa_cli.registry import ALGORITHMS, TABLE_1, Entry


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
    assert registry.described("frsf") == Entry("frsf", label="frsf", no_sign_transport=None)
    assert registry.described("frsf").limit_of({}) == (None, 1.0)
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
