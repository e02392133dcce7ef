"""Every algorithm against the NumPy oracle, over SGD steps with momentum, weight decay and a change of schedule."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracle.architectures import ARCHITECTURES, build, minibatches, translate
from oracle.cases import CASES, Case
from oracle.network import Layer
from oracle.training import train_step
from torch import Tensor, nn

from pfa_cli.algorithms import convert
from pfa_cli.algorithms.registry import ALGORITHMS

SCHEDULE = [{"lr": 0.05, "weight_decay": 0.02}] * 3 + [{"lr": 0.02, "weight_decay": 0.3}] * 3
MOMENTUM = 0.9


def assert_equal(ours: Tensor, oracle: np.ndarray, what: str) -> None:
    actual = ours.detach().numpy()
    assert actual.shape == oracle.shape, what
    difference = np.abs(actual - oracle).max() / np.abs(oracle).max()
    assert difference <= 1e-10, f"{what}: relative difference {difference:.1e}"


def step(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    loss = nn.functional.cross_entropy(network(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if hasattr(network, "algorithm"):
        network.algorithm.after_step(optimizer)
    return loss.item()


def record_noise(algorithm: object) -> list[np.ndarray]:
    """The list to which every later draw of the algorithm's noise is appended."""
    drawn: list[np.ndarray] = []
    draw: Callable[..., Tensor] = algorithm.noise

    def recorded(*args: object, **kwargs: object) -> Tensor:
        drawn.append(draw(*args, **kwargs))
        return drawn[-1].clone()

    algorithm.noise = recorded
    return drawn


def oracle_of(case: Case, network: nn.Module) -> Layer:
    """The NumPy network with the feedback that ``convert`` with seed 0 draws for ``network``."""
    oracle = translate(network)
    form = {"form": "literal"} if case.form else {}
    twin = convert(copy.deepcopy(network), case.algorithm, seed=0, **case.settings, **form)
    for name, layer in oracle.weighted().items():
        start = {key: getattr(twin.get_submodule(name), key).detach().numpy().copy() for key in case.start}
        layer.feedback = case.oracle(layer.own["weight"], layer.geometry, **start, **case.settings)
    return oracle


def test_every_algorithm_of_the_registry_has_its_line_in_the_table() -> None:
    assert {case.algorithm for case in CASES.values()} == set(ALGORITHMS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_oracle_without_feedback_paths_is_plain_torch(architecture: str) -> None:
    network = build(architecture)
    oracle = translate(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=MOMENTUM)
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
    case, paths = CASES[key], ARCHITECTURES[architecture].paths
    if case.algorithm == "pal" and paths is None:
        pytest.skip("PAL's oracle has one path per use of a layer")
    network = build(architecture)
    oracle = oracle_of(case, network)
    form = {"form": case.form} if case.form else {}
    convert(network, case.algorithm, seed=0, **case.settings, **form)
    drawn = record_noise(network.algorithm)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=MOMENTUM)

    for number, (settings, (x, y)) in enumerate(zip(SCHEDULE, minibatches(architecture, 6), strict=True)):
        optimizer.param_groups[0].update(settings)
        drawn.clear()
        loss = step(network, optimizer, x, y)
        noise = iter([draw.numpy() for draw in drawn])
        expected_loss = train_step(
            oracle,
            x.numpy(),
            y.numpy(),
            momentum=MOMENTUM,
            noise=noise,
            paths=paths if case.algorithm == "pal" else (),
            **settings,
        )
        assert next(noise, None) is None, "the implementation drew more noise than the oracle uses"
        assert loss == pytest.approx(expected_loss, rel=1e-10)
        expected = oracle.named_parameters()
        for name, parameter in network.named_parameters():
            if not name.endswith(".R"):
                assert_equal(parameter, expected[name].value, f"step {number}, {name}")
        for name, layer in oracle.weighted().items():
            ours = network.get_submodule(name)
            if case.algorithm != "dfa":
                assert_equal(
                    network.algorithm.path(ours), layer.feedback.path(), f"step {number}, path of {name}"
                )
            if case.form == "literal":
                assert_equal(ours.R, layer.feedback.parameters["R"].value, f"step {number}, R of {name}")
