"""Every algorithm against the NumPy oracle, over SGD steps with momentum, decay and a change of schedule."""

from collections.abc import Callable

import numpy as np
import pytest
from oracle.architectures import ARCHITECTURES, build, minibatches, translate
from oracle.cases import CASES
from oracle.comparison import assert_equal, sgd, step
from oracle.network import Layer
from oracle.training import train_step
from torch import Tensor, nn

from pfa_cli.registry import ALGORITHMS

SCHEDULE = [{"lr": 0.05, "weight_decay": 0.02}] * 3 + [{"lr": 0.02, "weight_decay": 0.3}] * 3
MOMENTUM = 0.9  # of oracle.comparison.sgd


def record_noise(algorithm: object) -> list[np.ndarray]:
    """The list to which every later draw of the algorithm's noise is appended."""
    drawn: list[np.ndarray] = []
    draw: Callable[..., Tensor] = algorithm.noise

    def recorded(*args: object, **kwargs: object) -> Tensor:
        drawn.append(draw(*args, **kwargs))
        return drawn[-1].clone()

    algorithm.noise = recorded
    return drawn


def test_every_algorithm_of_the_registry_has_its_line_in_the_table() -> None:
    without_feedback = {"readout"}  # see test_readout.py
    assert {case.algorithm for case in CASES.values()} == set(ALGORITHMS) - without_feedback


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_oracle_without_feedback_paths_is_plain_torch(architecture: str) -> None:
    network = build(architecture)
    oracle = translate(network)
    optimizer = sgd(network)
    for settings, (x, y) in zip(SCHEDULE, minibatches(architecture, len(SCHEDULE)), strict=True):
        optimizer.param_groups[0].update(settings)
        loss = step(network, optimizer, x, y)
        assert train_step(oracle, x.numpy(), y.numpy(), momentum=MOMENTUM, **settings) == pytest.approx(loss)
    expected = oracle.named_parameters()
    for name, parameter in network.named_parameters():
        assert_equal(parameter, expected[name].value, name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("key", CASES)
def test_training_steps_equal_the_oracle(key: str, architecture: str) -> None:
    case = CASES[key]
    network = build(architecture)
    oracle = case.oracle_of(network)
    case.convert(network)
    drawn = record_noise(network.algorithm)
    optimizer = sgd(network)
    paths = ARCHITECTURES[architecture].paths

    for number, (settings, (x, y)) in enumerate(zip(SCHEDULE, minibatches(architecture, 6), strict=True)):
        optimizer.param_groups[0].update(settings)
        drawn.clear()
        loss = step(network, optimizer, x, y)
        noise = iter([draw.numpy() for draw in drawn])
        expected_loss = train_step(
            oracle, x.numpy(), y.numpy(), momentum=MOMENTUM, noise=noise, paths=paths, **settings
        )
        assert next(noise, None) is None, "the implementation drew more noise than the oracle uses"
        assert loss == pytest.approx(expected_loss, rel=1e-10)
        assert_equal_to_oracle(network, oracle, f"step {number}")


def assert_equal_to_oracle(network: nn.Module, oracle: Layer, when: str) -> None:
    """The parameters, the feedback paths, and what else both have of the feedback (the literal form's R)."""
    parameters = dict(network.named_parameters())
    for name, expected in oracle.named_parameters().items():
        assert_equal(parameters[name], expected.value, f"{when}, {name}")
    for name, layer in oracle.weighted().items():
        ours = network.get_submodule(name)
        assert_equal(network.algorithm.path(ours), layer.feedback.path(), f"{when}, path of {name}")
        for letter, expected in layer.feedback.parameters.items():
            if letter in ours._parameters:
                assert_equal(ours.get_parameter(letter), expected.value, f"{when}, {letter} of {name}")
