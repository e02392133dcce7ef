"""WM and PAL: how close the feedback path comes to W, by the formulas that their definitions give."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from oracle.architectures import build
from oracle.comparison import degrees, sgd, step
from oracle.feedback import Population
from oracle.geometry import Conv, Dense
from torch import Tensor, nn

from pfa_cli.algorithms import convert
from pfa_cli.algorithms.pal import _Path


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(30, 60), nn.ReLU(), nn.Linear(60, 50), nn.ReLU(), nn.Linear(50, 10))
    for layer in network[::2]:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(layer.bias, std=0.3)  # so that some units are more often active than others
    return network.double()


def wide_conv() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1)
    ).double()


def mirror_noise_degrees(layer: nn.Module, samples: int, rate: float) -> float:
    return math.degrees(math.atan(math.sqrt((layer.fan_in + 1) * rate / (2 * samples))))


@pytest.mark.parametrize("build_network", [mlp, wide_conv])
@pytest.mark.parametrize(
    ("samples", "rate", "noise"), [(64, 0.05, "samples"), (256, 0.02, "samples"), (256, 0.02, "wishart")]
)
def test_the_weight_mirror_aligns_up_to_its_noise(
    build_network: Callable[[], nn.Module], samples: int, rate: float, noise: str
) -> None:
    network = convert(build_network(), "wm", mirror_samples=samples, mirror_rate=rate, mirror_noise=noise)
    for layer in network.algorithm.layers:
        assert degrees(network.algorithm.path(layer), layer.weight) > 70
    network.algorithm.prepare()
    for layer in network.algorithm.layers:
        angle = degrees(network.algorithm.path(layer), layer.weight)
        # The angle is a mean over at least fan_in·N_out > 500 noisy elements, dependent along rows: 20 % is ample.
        assert angle == pytest.approx(mirror_noise_degrees(layer, samples, rate), rel=0.2)
        ratio = network.algorithm.path(layer).norm() / layer.weight.detach().norm()
        assert ratio.item() == pytest.approx(1, abs=0.05)


def test_second_moments_of_the_noise_have_their_distribution() -> None:
    """A·Aᵀ against the Wishart distribution: E = n·I, Cov(S_ij, S_kl) = n(δ_ik δ_jl + δ_il δ_jk), E log det."""
    size, samples, draws = 4, 7, 4000
    mirror = convert(mlp(), "wm").algorithm
    like = torch.zeros((), dtype=torch.float64)
    A = torch.stack([mirror._bartlett(size, samples, like) for _ in range(draws)])
    X = torch.randn(draws, samples, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    eye = torch.eye(size, dtype=torch.float64)
    covariance = samples * (
        torch.einsum("ik,jl->ijkl", eye, eye) + torch.einsum("il,jk->ijkl", eye, eye)
    ).reshape(size**2, size**2)
    freedom = torch.arange(samples, samples - size, -1, dtype=torch.float64)
    log_det = torch.digamma(freedom / 2).sum() + size * math.log(2)
    for S in (A @ A.mT, X.mT @ X):  # drawn directly, and as what it stands for
        assert torch.allclose(S.mean(0), samples * eye, atol=4 * (2 * samples / draws) ** 0.5)
        assert torch.allclose(torch.cov(S.flatten(1).T), covariance, atol=0.12 * 2 * samples)
        assert S.logdet().mean().item() == pytest.approx(log_det.item(), abs=0.1)


def test_a_layer_wider_than_the_mirror_batch_draws_the_noise_itself() -> None:
    """Below as many samples as inputs A does not exist."""
    first, second = (
        convert(mlp(), "wm", mirror_samples=29, mirror_noise=noise) for noise in ("samples", "wishart")
    )
    for network in (first, second):
        network.algorithm.mirror(1)
    assert torch.equal(first[0].V, second[0].V)  # fan_in 30


def test_the_weight_mirror_follows_weights_that_learn() -> None:
    network = convert(mlp(), "wm", mirror_samples=256, mirror_rate=0.05)
    network.algorithm.prepare()
    optimizer = sgd(network)
    before = [layer.weight.detach().clone() for layer in network.algorithm.layers]
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(32, 30, generator=draw, dtype=torch.float64)
    labels = torch.randint(10, (32,), generator=draw)
    for number in range(200):
        optimizer.param_groups[0]["lr"] = 0.05 if number < 100 else 0.002
        step(network, optimizer, x, labels)
    for layer, W0 in zip(network.algorithm.layers, before, strict=True):
        assert degrees(layer.weight, W0) > 15
        expected = mirror_noise_degrees(layer, 256, 0.05)
        assert degrees(network.algorithm.path(layer), layer.weight) < 1.5 * expected


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU,
        nn.ReLU6,
        nn.LeakyReLU,
        nn.PReLU,
        nn.ELU,
        nn.SELU,
        nn.CELU,
        nn.GELU,
        nn.SiLU,
        nn.Mish,
        nn.Tanh,
        nn.Softsign,
    ],
)
def test_pal_hears_the_nonlinearity(activation: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    network = convert(nn.Sequential(nn.Linear(6, 5), activation(), nn.Linear(5, 4)).double(), "pal")
    paths: list[_Path] = []
    monkeypatch.setattr(network.algorithm, "_follow", lambda *_: paths.extend(network.algorithm._paths))
    network(torch.randn(7, 6, dtype=torch.float64))
    first, second = paths
    assert first.upper is second.lower
    between = second.lower
    assert between.gain == 0.5 and torch.equal(between.rate(between.u), between.h)


@dataclass
class Below:
    """A layer between two populations, as PAL hears it: p below (input u_p), q above."""

    layer: nn.Module
    u_p: np.ndarray
    u_q: np.ndarray
    p_relu: bool
    q_relu: bool


def mlp_populations(network: nn.Sequential, x: Tensor) -> list[Below]:
    u = [x, *outputs(network, x, (0, 2, 4))]
    relu = (False, True, True, False)
    return [
        Below(network[index], u[k].numpy(), u[k + 1].numpy(), relu[k], relu[k + 1])
        for k, index in enumerate((0, 2, 4))
    ]


def conv_populations(network: nn.Sequential, x: Tensor) -> list[Below]:
    u1, u2, u3, pooled, logits = (u.numpy() for u in outputs(network, x, (0, 2, 4, 7, 8)))
    return [
        Below(network[0], x.numpy(), u1, False, True),
        Below(network[2], u1, u2, True, True),
        Below(network[4], u2, u3, True, True),
        Below(network[8], pooled, logits, False, False),
    ]


def outputs(network: nn.Sequential, x: Tensor, indices: tuple[int, ...]) -> list[Tensor]:
    with torch.no_grad():
        return [network[: index + 1](x).clone() for index in indices]


def prediction(below: Below, rate: float, noise: float, leak: float, batch: int) -> tuple[Tensor, float]:
    """The gated weights E[φ'_q·W·φ'_p] / p̄ to which PAL's V converges, and the angle of the noise around them.

    tan²θ = λ/(2-λ) · (variance of one minibatch's estimate) / ‖gated weights‖².
    """
    draw = np.random.default_rng(0)
    W, u_p, u_q = below.layer.weight.detach().numpy(), below.u_p, below.u_q
    linear = isinstance(below.layer, nn.Linear)
    geometry = (
        Dense()
        if linear
        else Conv(below.layer.kernel_size, below.layer.stride, below.layer.padding, below.layer.dilation)
    )
    p = Population(u_p, below.p_relu, noise * u_p.std() * draw.standard_normal(u_p.shape), noise * u_p.std())
    q = Population(u_q, below.q_relu, noise * u_q.std() * draw.standard_normal(u_q.shape), noise * u_q.std())
    slope = (0.5 if p.rectified else 1) * (0.5 if q.rectified else 1)
    noisy_p = u_p + p.noise
    noisy_q = u_q + geometry.forward(W, p.rate(noisy_p) - p.rate(u_p)) + q.noise
    gate_p = noisy_p > 0 if p.rectified else np.ones_like(u_p)
    gate_q = noisy_q > 0 if q.rectified else np.ones_like(u_q)
    samples = geometry.samples(u_p, W.shape)
    gated = W * geometry.gradient(gate_q * 1.0, gate_p * 1.0, W.shape) / samples / slope

    h_q = q.rate(u_q)
    r = q.rate(noisy_q) - h_q + leak * (h_q - np.roll(h_q, 1, axis=0))
    second_moment = geometry.gradient(r**2, p.noise**2, W.shape) / samples / (p.sigma**2 * slope) ** 2
    variance = ((second_moment - gated**2) / (samples * batch / len(u_p))).sum()
    angle = math.atan(math.sqrt(rate / (2 - rate) * variance) / np.linalg.norm(gated))
    return torch.as_tensor(gated), math.degrees(angle)


@pytest.mark.parametrize(("rate", "noise", "leak"), [(0.02, 0.3, 0.2), (0.04, 0.1, 0.0)])
@pytest.mark.parametrize(
    ("build_network", "populations", "shape"),
    [(mlp, mlp_populations, (30,)), (lambda: build("conv"), conv_populations, (2, 8, 8))],
    ids=["mlp", "conv"],
)
def test_pal_aligns_to_the_gated_weights_up_to_its_noise(
    build_network: Callable[[], nn.Sequential],
    populations: Callable[[nn.Sequential, Tensor], list[Below]],
    shape: tuple[int, ...],
    rate: float,
    noise: float,
    leak: float,
) -> None:
    batch = 64
    network = convert(build_network(), "pal", rate=rate, noise=noise, leak=leak)
    draw = torch.Generator().manual_seed(1)

    def images(n: int) -> Tensor:
        return torch.randn(n, *shape, generator=draw, dtype=torch.float64)

    for _ in range(int(6 / rate)):
        network(images(batch))
    network.eval()
    for below in populations(network, images(2000)):
        W, V = below.layer.weight.detach(), network.algorithm.path(below.layer)
        gated, expected = prediction(below, rate, noise, leak, batch)
        floor = degrees(gated, W)  # which no averaging removes
        assert floor > 8 or not (below.p_relu or below.q_relu)
        if W.numel() > 1000:
            assert degrees(V, gated) == pytest.approx(expected, rel=0.15)
            together = math.cos(math.radians(expected)) * math.cos(math.radians(floor))
            assert degrees(V, W) == pytest.approx(math.degrees(math.acos(together)), abs=2)
        else:  # the noise is one draw, in few dimensions
            assert degrees(V, gated) == pytest.approx(expected, rel=0.4)
            assert abs(degrees(V, W) - floor) < 1.4 * expected
        # Along the gated weights V has their length, but for the noise's share in that one direction.
        along = ((V * gated).sum() / gated.square().sum()).item()
        assert along == pytest.approx(
            1, abs=0.02 + 4 * math.tan(math.radians(expected)) / math.sqrt(W.numel())
        )
