"""The mixture of PFA, FA and KP: which units, and the symmetry that cortex is measured by."""

import math

import pytest
import torch
from torch import nn

from pfa_cli.algorithms import convert
from pfa_cli.errors import UsageError
from pfa_cli.networks.resnet20 import ResNet20
from pfa_cli.randomness import generator
from pfa_cli.recipes import load_recipe
from pfa_cli.records import LayerRecord
from pfa_cli.training.initialise import initialise
from pfa_cli.training.metrics import layer_records


def records(network: nn.Module, **shares: float) -> dict[str, LayerRecord]:
    """What is measured once α has decayed, by layer, with FA's rows where ``r_F`` puts them: at random."""
    initialise(network, generator(0, "weights"))
    network = convert(network, "mix", **shares)
    network.algorithm._alpha.zero_()
    images = torch.randn(8, 3, 32, 32)
    return {r.name: r for r in layer_records(network, "path", images, torch.randint(10, (8,)))}


@pytest.mark.parametrize("build", [
    lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 10)), ResNet20,
])  # fmt: skip
def test_symmetry_follows_the_formula(build) -> None:
    torch.manual_seed(0)
    for name, record in records(build()).items():
        few = name in ("3", "linear")  # of 10 units 7 are PFA's, 2 FA's and 1 KP's
        share_f, share_k = (0.2, 0.1) if few else (0.22, 0.09)
        assert record.bidirectional_percent == pytest.approx(100 * (share_f + share_k), abs=4)
        # At initialisation FA's weights are independent of W: r_F = 0.
        r = share_k / (share_f + share_k)
        assert record.bidirectional_correlation == pytest.approx(r, abs=0.15)
        R = share_k / math.sqrt(share_f + share_k)
        assert record.weight_correlation == pytest.approx(R, abs=0.08)
        assert record.weight_angle_degrees == pytest.approx(math.degrees(math.acos(R)), abs=5)


def test_a_mixture_of_one_is_that_one() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3072, 32), nn.ReLU(), nn.Linear(32, 10))
    kp = records(plain, pfa_share=0, fa_share=0, kp_share=1)
    assert all(r.path_angle_degrees == pytest.approx(0, abs=1e-5) for r in kp.values())
    assert all(r.bidirectional_percent == 100 for r in kp.values())


def test_shares_that_do_not_add_up_are_wrong_usage() -> None:
    with pytest.raises(UsageError, match=r"0.69 \+ 0.3 \+ 0.09 = 1.08.*must be 1"):
        load_recipe("mnist").configuration("mix", {"fa_share": 0.3})
    with pytest.raises(UsageError, match=r"0.69 \+ 0.5 \+ 0.09 = 1.28.*must be 1"):
        convert(nn.Sequential(nn.Linear(4, 4)), "mix", fa_share=0.5)
