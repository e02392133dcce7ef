"""The shipped curves against the numbers that the paper and its release state."""

from pathlib import Path

import pytest

import pfa_cli.analysis
from pfa_cli.analysis import published
from pfa_cli.analysis.paper import paper
from pfa_cli.registry import ALGORITHMS

REFERENCE = Path(pfa_cli.analysis.__file__).parent / "published"

ACCURACY = {
    ("mnist", 40): {"bp": 98.384, "fa": 98.234, "dfa": 98.154, "sf": 98.252, "pfa": 98.392, "pfa-o": 98.416},
    ("cifar10", 200): {
        "bp": 91.444,
        "fa": 63.856,
        "dfa": 30.888,
        "sf": 89.836,
        "pfa": 90.704,
        "pfa-o": 91.356,
    },
    ("imagenet", 75): {"bp": 69.686, "sf": 64.596, "pfa": 68.460},
    ("imagenet", 66): {"pfa-o": 69.264},
}
ANGLES = {
    "pfa": [18.98, 19.50, 23.27],
    "pfa-o": [9.80, 11.55, 2.27],
    "fa": [89.92, 84.79, 61.24],
    "sf": [31.56, 30.81, 28.09],
}


@pytest.mark.parametrize(("recipe", "epoch"), ACCURACY)
def test_final_accuracy(recipe: str, epoch: int) -> None:
    rows = published.accuracy().query("recipe == @recipe and epochs_trained == @epoch").set_index("algorithm")
    for algorithm, value in ACCURACY[recipe, epoch].items():
        assert rows.loc[algorithm, "accuracy_mean_percent"] == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("algorithm", ANGLES)
def test_final_angles_on_mnist(algorithm: str) -> None:
    rows = published.alignment().query(
        "recipe == 'mnist' and algorithm == @algorithm and epochs_trained == 40"
    )
    assert rows.sort_values("layer_index")["angle_degrees"].tolist() == pytest.approx(
        ANGLES[algorithm], abs=5e-3
    )


def test_names_are_ours() -> None:
    for frame in (published.accuracy(), published.alignment()):
        assert set(frame["algorithm"]) <= set(paper().algorithms) <= set(ALGORITHMS)
        assert set(frame["recipe"]) == set(paper().experiments)
    assert all(
        set(row) == {n for n in paper().algorithms if not ALGORITHMS[n].variant_of}
        for row in paper().verdicts.values()
    )


def test_the_reference_stays_small_and_says_where_it_is_from() -> None:
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) < 1_000_000
    assert "ddof = 1" in (REFERENCE / "README.md").read_text()
