"""The paper's three propositions, on networks trained until weight decay has wiped out their initial weights."""

import copy
import math

import pytest
import torch
from oracle.comparison import Schedule, degrees, sgd, step, train
from torch import Tensor, nn

from pfa_cli.algorithms import convert
from pfa_cli.networks.resnet20 import ResNet20

N_IN, N_HIDDEN, N_CLASSES = 40, 100, 10
SCHEDULE: Schedule = [{"lr": 0.05, "weight_decay": 0.03}] * 600 + [{"lr": 0.05, "weight_decay": 1e-3}] * 200


def mlp(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(N_IN, N_HIDDEN),
        nn.ReLU(),
        nn.Linear(N_HIDDEN, N_HIDDEN),
        nn.ReLU(),
        nn.Linear(N_HIDDEN, N_CLASSES),
    ).double()


def clusters(steps: int, batch: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Minibatches of ten Gaussian clusters."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(N_CLASSES, N_IN, generator=draw, dtype=torch.float64)
    labels = torch.randint(N_CLASSES, (steps, batch), generator=draw)
    noise = torch.randn(steps, batch, N_IN, generator=draw, dtype=torch.float64)
    return list(zip(centres[labels] + noise, labels, strict=True))


def trained(algorithm: str, seed: int, **options: float) -> nn.Module:
    network = convert(mlp(seed), algorithm, seed=seed, **options)
    train(network, SCHEDULE, clusters(len(SCHEDULE)))
    assert abs(network.algorithm.alpha) < 1e-3
    return network


def error_angles(network: nn.Module, plain: nn.Module, x: Tensor, labels: Tensor) -> list[float]:
    """Per layer, the angle between delta in ``network`` and in ``plain``, which autograd runs with the same weights."""
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(parameters[name])
    deltas: list[list[Tensor]] = []
    for model in (network, plain):
        outputs: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor, outputs: list[Tensor] = outputs) -> None:
            output.retain_grad()
            outputs.append(output)

        layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        handles = [layer.register_forward_hook(keep) for layer in layers]
        nn.functional.cross_entropy(model(x), labels).backward()
        for handle in handles:
            handle.remove()
        deltas.append([output.grad for output in outputs])
    return [degrees(ours, exact) for ours, exact in zip(*deltas, strict=True)]


@pytest.mark.parametrize("seed", range(2))
def test_proposition_1_pfa_o_aligns_its_paths_fully(seed: int) -> None:
    network = trained("pfa-o", seed, expansion=1.5)
    for layer in network.algorithm.layers:
        path = network.algorithm.path(layer)
        # what is left of the initial mismatch, with α as above: ‖α·C₀‖ / ‖W‖ < 1e-3 · 2
        assert degrees(path, layer.weight) < math.degrees(2e-3)
        assert (path.norm() / layer.weight.norm()).item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("expansion", [10.0, 2.0])
def test_proposition_3_pfa_reaches_the_angle_that_its_expansion_allows(expansion: float, seed: int) -> None:
    """arccos(1/√(1+λ)) and √(1+λ) hold for large layers; the tolerance is four standard deviations for these.

    One column w of W, of length 1, meets a random G = BᵀB as a + p, where a = wᵀGw along w has mean 1 and variance
    2/N̄, and p across it has ‖p‖² with mean λ and variance 2λ²/(N-1). Then tan θ = ‖p‖/a, and the ratio is
    √(a² + ‖p‖²). A W of effective rank r averages over r such columns.
    """
    network = trained("pfa", seed, expansion=expansion)
    lam = 1 / expansion
    theory = math.degrees(math.acos(1 / math.sqrt(1 + lam)))
    for layer in network.algorithm.layers:
        path, W = network.algorithm.path(layer), layer.weight
        n = len(W)
        power = torch.linalg.svdvals(W.detach()).square()
        rank = (power.sum().square() / power.square().sum()).item()
        spread_a, spread_p = 2 / (expansion * n), 2 / (n - 1)  # relative variances of a and ‖p‖²
        tangent_deviation = math.sqrt((spread_p / 4 + spread_a) / rank)
        ratio_deviation = math.sqrt((spread_a + (lam**2) * spread_p / 4) / rank) / (1 + lam)
        tangent = math.tan(math.radians(degrees(path, W)))
        assert tangent == pytest.approx(math.sqrt(lam), rel=4 * tangent_deviation)
        assert (path.norm() / W.norm()).item() == pytest.approx(math.sqrt(1 + lam), rel=4 * ratio_deviation)
        if n == N_HIDDEN:
            assert degrees(path, W) == pytest.approx(theory, abs=1.5)


def test_proposition_2_the_errors_of_pfa_o_become_those_of_bp() -> None:
    batch = clusters(1)[0]
    fresh = error_angles(convert(mlp(0), "pfa-o"), mlp(0), *batch)
    assert fresh[-1] == pytest.approx(0, abs=1e-5)  # the output layer's error is given
    assert min(fresh[:-1]) > 45
    assert max(error_angles(trained("pfa-o", 0), mlp(0), *batch)) < math.degrees(5e-3)


def test_proposition_2_on_resnet20() -> None:
    torch.manual_seed(0)
    plain = ResNet20().double()
    network = convert(copy.deepcopy(plain), "pfa-o")
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 12, 12, generator=draw, dtype=torch.float64)
    labels = torch.randint(10, (4,), generator=draw)
    assert max(error_angles(network, plain, x, labels)) > 80
    optimizer = sgd(network)
    optimizer.param_groups[0].update(lr=0.05, weight_decay=0.2)
    for _ in range(150):
        step(network, optimizer, x, labels)
    assert network.algorithm.alpha < 1e-3
    angles = error_angles(network, plain, x, labels)
    assert len(angles) == 20
    # each of the 20 layers between the output and the first adds at most its own path angle, < 2α
    assert max(angles) < math.degrees(20 * 2e-3)
