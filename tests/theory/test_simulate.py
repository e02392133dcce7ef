"""Figure 3's simulations in the database: stored once, the same whenever they are computed, near the theory."""

import subprocess
import sys
from pathlib import Path

import pytest

from pfa_cli.store.engine import open_store
from pfa_cli.store.queries import simulations_frame
from pfa_cli.theory import simulate
from pfa_cli.theory.propositions import path_angle_degrees

FEW = tuple(simulate.Setting(expansion, units=64, inputs=64, draws=3) for expansion in (1, 10))


def values(db: Path):
    with open_store(str(db), write=False) as store:
        frame = simulations_frame(store)
    return frame.set_index(["kind", "expansion", "quantity", "item"])["value"].sort_index()


def test_ensure_computes_only_what_is_missing(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    with open_store(str(db), write=True) as store:
        assert simulate.ensure(store, FEW[:1]) == 1
        assert simulate.ensure(store, FEW) == 1
        assert simulate.ensure(store, FEW) == 0
    assert len(values(db)) == 2 * (4 + 2) * 3  # settings × quantities × draws


def test_running_again_stores_the_same_numbers_once(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    with open_store(str(db), write=True) as store:
        simulate.run(store, FEW)
    first = values(db)
    with open_store(str(db), write=True) as store:
        simulate.run(store, FEW)
    assert values(db).equals(first)


def test_an_expansion_ratio_does_not_depend_on_the_others(tmp_path: Path) -> None:
    alone = simulate.simulate(FEW[1])
    assert alone == simulate.simulate(FEW[1])
    assert alone != simulate.simulate(simulate.Setting(10, units=64, inputs=64, draws=3, seed=1))


@pytest.mark.parametrize("setting", simulate.SETTINGS[:6])
def test_the_shipped_settings_are_near_the_theory(setting: simulate.Setting) -> None:
    found = simulate.simulate(simulate.Setting(setting.expansion, setting.units, setting.inputs, draws=2))
    lam = 1 / setting.expansion
    assert found["path"]["path_angle_degrees"] == pytest.approx([path_angle_degrees(lam)] * 2, abs=0.5)
    assert found["eigenvalues"]["eigenvalue_std"] == pytest.approx([lam**0.5] * 2, rel=0.03)


def test_theory_and_figures_know_nothing_of_torch() -> None:
    code = (
        "import sys, pfa_cli.figures\n"
        "assert not {'matplotlib', 'pandas', 'torch'} & set(sys.modules)\n"
        "import pfa_cli.figures.catalogue, pfa_cli.theory.simulate, pfa_cli.theory.cortex\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
