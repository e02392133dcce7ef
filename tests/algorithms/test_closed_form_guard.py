"""The closed form holds for one plain SGD step that all layers share, and refuses everything else."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from oracle.architectures import build, minibatches
from oracle.comparison import assert_same_network, step, train
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
def test_two_layers_with_one_weight_are_refused(algorithm: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    network[2].weight = network[0].weight
    with pytest.raises(PfaError, match="layers '0' and '2' share one weight"):
        convert(network, algorithm)


@pytest.mark.parametrize("algorithm", ["kp", "pfa", "pfa-o"])
def test_a_layer_that_was_frozen_may_not_learn_later(algorithm: str) -> None:
    network = build("mlp")
    network[0].requires_grad_(False)
    convert(network, algorithm)
    batches = minibatches("mlp", 2)
    optimizer = SGD(network.parameters(), **PLAIN)
    step(network, optimizer, *batches[0])
    network[0].requires_grad_(True)
    with pytest.raises(PfaError, match=r"layer .0. was frozen .* Unfreeze layers before `convert`"):
        step(network, optimizer, *batches[1])


@pytest.mark.parametrize("algorithm", ["kp", "pfa", "pfa-o"])
def test_gradients_cleared_too_early_are_named(algorithm: str) -> None:
    network = convert(build("mlp"), algorithm)
    optimizer = SGD(network.parameters(), **PLAIN)
    x, labels = minibatches("mlp", 1)[0]
    nn.functional.cross_entropy(network(x), labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    with pytest.raises(PfaError, match="zero_grad comes after after_step"):
        network.algorithm.after_step(optimizer)


@pytest.mark.parametrize("algorithm", ["kp", "pfa", "pfa-o"])
def test_a_saved_network_goes_on_where_it_was(algorithm: str) -> None:
    """Through its state_dict alone, and as a copy."""
    batches = minibatches("mlp", 20)
    trained = convert(build("mlp"), algorithm)
    train(trained, [{"lr": 0.05, "weight_decay": 0.02}] * 20, batches)
    loaded = convert(build("mlp"), algorithm, seed=7)
    loaded.load_state_dict(trained.state_dict())
    copied = pickle.loads(pickle.dumps(copy.deepcopy(trained)))
    assert trained.algorithm.alpha < 0.99
    for network in (loaded, copied):
        assert_same_network(network, trained)
        train(network, [{"lr": 0.05, "weight_decay": 0.02}] * 20, batches)
        assert network.state_dict()["algorithm.alpha"][0] == network.algorithm.alpha < trained.algorithm.alpha
    assert_same_network(loaded, copied)


def test_a_state_dict_without_alpha_is_refused() -> None:
    network = convert(build("mlp"), "pfa")
    state = {name: value for name, value in network.state_dict().items() if name != "algorithm.alpha"}
    with pytest.raises(RuntimeError, match=r"algorithm\.alpha"):
        network.load_state_dict(state)


@pytest.mark.parametrize("algorithm", ["pfa", "pfa-o"])
def test_a_second_optimiser_starts_without_momentum(algorithm: str) -> None:
    batches = minibatches("mlp", 20)
    forms = [convert(build("mlp"), algorithm, expansion=2.0, form=form) for form in ("closed", "literal")]
    for network in forms:
        for _ in range(2):
            train(network, [{"lr": 0.05, "weight_decay": 0.1}] * 20, batches)
    assert_same_network(*forms)


@pytest.mark.parametrize("algorithm", ["kp", "pfa", "pfa-o"])
def test_parameters_that_have_no_feedback_may_have_settings_of_their_own(algorithm: str) -> None:
    network = convert(build("residual"), algorithm)
    optimizer = SGD(biases_apart(network, weight_decay=0.0, lr=0.01), **PLAIN)
    step(network, optimizer, *minibatches("residual", 1)[0])
    assert network.algorithm.alpha == pytest.approx(1 - 0.05 * 0.02)
