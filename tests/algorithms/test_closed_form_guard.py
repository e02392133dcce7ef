"""The closed form holds for one plain SGD step that all layers share, and refuses everything else."""

from collections.abc import Callable

import pytest
import torch
from oracle.architectures import build, minibatches
from oracle.comparison import step
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from pfa_cli.algorithms import convert
from pfa_cli.errors import PfaError

PLAIN = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.02}


def biases_apart(network: nn.Module, **settings: float) -> list[dict]:
    """Two groups, as many recipes have them: the biases with settings of their own."""
    named = list(network.named_parameters())
    return [
        {"params": [p for name, p in named if not name.endswith("bias")]},
        {"params": [p for name, p in named if name.endswith("bias")], **settings},
    ]


def one_layer_apart(network: nn.Module, **settings: float) -> list[dict]:
    first, *rest = network.parameters()
    return [{"params": rest}, {"params": [first], **settings}]


REFUSED: dict[str, Callable[[nn.Module], Optimizer]] = {
    "adam": lambda network: Adam(network.parameters()),
    "adamw": lambda network: AdamW(network.parameters()),
    "nesterov": lambda network: SGD(network.parameters(), **PLAIN, nesterov=True),
    "dampening": lambda network: SGD(network.parameters(), **PLAIN, dampening=0.1),
    "maximize": lambda network: SGD(network.parameters(), **PLAIN, maximize=True),
    "learning rates that differ": lambda network: SGD(one_layer_apart(network, lr=0.01), **PLAIN),
    "weight decays that differ": lambda network: SGD(one_layer_apart(network, weight_decay=0.0), **PLAIN),
    "momenta that differ": lambda network: SGD(one_layer_apart(network, momentum=0.5), **PLAIN),
    "a layer without optimiser": lambda network: SGD(list(network.parameters())[1:], **PLAIN),
}


@pytest.mark.parametrize("reason", REFUSED)
@pytest.mark.parametrize("algorithm", ["kp", "pfa", "pfa-o"])
def test_the_closed_form_refuses_steps_for_which_it_is_wrong(algorithm: str, reason: str) -> None:
    network = convert(build("mlp"), algorithm)
    optimizer = REFUSED[reason](network)
    with pytest.raises(PfaError, match='form="literal"'):
        step(network, optimizer, *minibatches("mlp", 1)[0])


@pytest.mark.parametrize("reason", [name for name in REFUSED if name != "a layer without optimiser"])
@pytest.mark.parametrize("algorithm", ["pfa", "pfa-o"])
def test_the_literal_form_takes_any_optimiser(algorithm: str, reason: str) -> None:
    network = convert(build("mlp"), algorithm, expansion=2.0, form="literal")
    before = network[0].R.detach().clone()
    step(network, REFUSED[reason](network), *minibatches("mlp", 1)[0])
    assert not torch.equal(network[0].R, before)


@pytest.mark.parametrize("algorithm", ["kp", "pfa", "pfa-o"])
def test_parameters_that_have_no_feedback_may_have_settings_of_their_own(algorithm: str) -> None:
    network = convert(build("residual"), algorithm)
    optimizer = SGD(biases_apart(network, weight_decay=0.0, lr=0.01), **PLAIN)
    step(network, optimizer, *minibatches("residual", 1)[0])
    assert network.algorithm.alpha == pytest.approx(1 - 0.05 * 0.02)
