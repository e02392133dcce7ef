"""What the algorithms are of each other: the closed form of the literal one, PFA of KP and FA, BP of autograd."""

import copy
from unittest.mock import patch

import pytest
import torch
from oracle.architectures import ARCHITECTURES, build, minibatches
from oracle.cases import CASES
from oracle.comparison import Schedule, assert_equal, assert_same_network, sgd, step, train
from oracle.training import train_step
from torch import Tensor, nn

from pfa_cli.algorithms import convert
from pfa_cli.algorithms.pfa import PFA
from pfa_cli.networks.resnet20 import ResNet20

LONG: Schedule = [
    settings
    for lr, decay in ((0.1, 0.03), (0.05, 0.2), (0.05, 0.0), (0.02, 0.1))
    for settings in [{"lr": lr, "weight_decay": decay}] * 50
]


def alpha(schedule: Schedule, momentum: float = 0.9) -> float:
    """What is left of an initial weight: a parameter of value 1 without gradient, stepped by SGD."""
    value = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([value], lr=1.0, momentum=momentum)
    for settings in schedule:
        optimizer.param_groups[0].update(settings)
        value.grad = torch.zeros_like(value)
        optimizer.step()
    return value.item()


@pytest.mark.parametrize(
    ("algorithm", "expansion", "architecture"),
    [  # every ratio on one architecture, every architecture with one ratio of each algorithm
        *(
            (*ratio, "mlp")
            for ratio in (("pfa", 3.0), ("pfa", 1.0), ("pfa", 0.5), ("pfa-o", 1.0), ("pfa-o", 2.5))
        ),
        *(("pfa", 0.5, name) for name in ("conv", "grouped", "residual", "shared")),
        *(("pfa-o", 2.5, name) for name in ("conv", "grouped", "residual", "shared")),
    ],
)
def test_the_closed_form_is_the_literal_form(algorithm: str, expansion: float, architecture: str) -> None:
    network = build(architecture)
    forms = [
        convert(copy.deepcopy(network), algorithm, seed=3, expansion=expansion, form=form)
        for form in ("closed", "literal")
    ]
    assert_same_network(*forms)  # both draw the same B and R₀
    for form in forms:
        train(form, LONG, minibatches(architecture, len(LONG)))
    assert_same_network(*forms)


@pytest.mark.parametrize("expansion", [0.5, 1.0, 10.0])
def test_the_closed_form_is_precise_in_float32_too(expansion: float) -> None:
    """Also at ratio 1, where B is nearly singular: rounding is not amplified."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    closed, literal = (
        convert(copy.deepcopy(network), "pfa", expansion=expansion, form=form)
        for form in ("closed", "literal")
    )
    literal.double()
    for ours, other in zip(closed.algorithm.layers, literal.algorithm.layers, strict=True):
        assert_equal(closed.algorithm.path(ours).double(), literal.algorithm.path(other), "path", 3e-6)
        for rows in (4, 400):  # which go the two ways of `send_back`
            delta = torch.randn(rows, ours.n_out)
            found = closed.algorithm.send_back(ours, delta, torch.Size((rows, ours.fan_in)))
            assert_equal(found.double(), delta.double() @ literal.algorithm.path(other), "grad_h", 3e-6)


@pytest.mark.parametrize("algorithm", ["pfa", "pfa-o", "pfa-l", "mix"])
@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2, "groups": 2},
        {"kernel_size": 2, "dilation": 2},
        {"kernel_size": 1, "stride": 2},
    ],
    ids=str,
)
def test_few_errors_go_another_way_down_a_convolution_to_the_same_place(
    algorithm: str, geometry: dict[str, int]
) -> None:
    """By G on the errors, without making V; many go by V."""
    torch.manual_seed(0)
    options = {"expansion": 0.5} if algorithm == "pfa-o" else {}
    layer = convert(nn.Sequential(nn.Conv2d(12, 16, **geometry)).double(), algorithm, **options)[0]
    nn.init.normal_(layer.weight)
    layer.algorithm._alpha.fill_(0.3)
    for images, side in ((1, 3), (8, 12)):
        x = torch.randn(images, 12, side, side, dtype=torch.float64)
        delta = torch.randn_like(layer(x))
        expected = layer.transpose(delta, layer.algorithm.path(layer), x.shape)
        with patch.object(layer.algorithm, "path", wraps=layer.algorithm.path) as made:
            assert_equal(layer.algorithm.send_back(layer, delta, x.shape), expected, "grad_h", 1e-12)
        assert made.called == (side == 12)


@pytest.mark.parametrize(("algorithm", "expansion"), [("pfa", 10.0), ("pfa-o", 1.0)])
def test_the_closed_form_is_the_literal_form_on_resnet20(algorithm: str, expansion: float) -> None:
    torch.manual_seed(0)
    network = ResNet20().double()
    draw = torch.Generator().manual_seed(1)
    batches = [
        (
            torch.randn(4, 3, 16, 16, generator=draw, dtype=torch.float64),
            torch.randint(10, (4,), generator=draw),
        )
        for _ in range(20)
    ]
    schedule: Schedule = [{"lr": 0.1, "weight_decay": 0.005}] * 10 + [{"lr": 0.01, "weight_decay": 1e-4}] * 10
    closed, literal = (
        train(convert(copy.deepcopy(network), algorithm, expansion=expansion, form=form), schedule, batches)
        for form in ("closed", "literal")
    )
    assert_same_network(closed, literal)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kp_is_its_two_rules_stepped_side_by_side(architecture: str) -> None:
    network = build(architecture)
    oracle = CASES["kp"].oracle_of(network)
    convert(network, "kp")
    batches = minibatches(architecture, len(LONG))
    train(network, LONG, batches)
    for settings, (x, labels) in zip(LONG, batches, strict=True):
        train_step(oracle, x.numpy(), labels.numpy(), momentum=0.9, **settings)
    for name, layer in oracle.weighted().items():
        ours = network.get_submodule(name)
        assert_equal(ours.weight, layer.own["weight"].value, f"weight of {name}")
        assert_equal(network.algorithm.path(ours), layer.feedback.path(), f"path of {name}")


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_the_distance_between_kps_weights_and_path_only_decays(architecture: str) -> None:
    network = convert(build(architecture), "kp")
    layers = network.algorithm.layers
    start = [layer.weight.detach() - network.algorithm.path(layer) for layer in layers]
    train(network, LONG[:80], minibatches(architecture, 80))
    left = alpha(LONG[:80])
    assert network.algorithm.alpha == pytest.approx(left, rel=1e-12)
    assert 0 < abs(left) < 0.7
    for layer, before in zip(layers, start, strict=True):
        after = layer.weight.detach() - network.algorithm.path(layer)
        torch.testing.assert_close(after, left * before, rtol=0, atol=1e-14)


@pytest.mark.parametrize("form", ["closed", "literal"])
@pytest.mark.parametrize("architecture", ["mlp", "conv", "grouped", "residual"])
def test_pfa_with_the_identity_for_b_is_kp(
    architecture: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kp = convert(build(architecture), "kp")

    def identity_and_kps_path(layer: nn.Module, *_: object) -> tuple[Tensor, Tensor]:
        one_block = torch.eye(layer.n_out // layer.groups, dtype=torch.float64)
        return one_block.repeat(layer.groups, 1), kp.algorithm.path(kp.get_submodule(layer.name))

    monkeypatch.setattr(PFA, "draw_pair", staticmethod(identity_and_kps_path))
    pfa = convert(build(architecture), "pfa", expansion=1.0, form=form)
    for network in (kp, pfa):
        train(network, LONG[:60], minibatches(architecture, 60))
    assert_same_network(pfa, kp)


@pytest.mark.parametrize("architecture", ["mlp", "conv", "grouped", "residual"])
def test_pfa_with_r_frozen_is_fa(architecture: str) -> None:
    pfa = convert(build(architecture), "pfa", expansion=3.0, form="literal")
    fa = convert(build(architecture), "fa")
    for ours, other in zip(pfa.algorithm.layers, fa.algorithm.layers, strict=True):
        ours.R.requires_grad_(False)
        other.V.copy_(pfa.algorithm.path(ours))
    for network in (pfa, fa):
        train(network, LONG[:60], minibatches(architecture, 60))
    assert_same_network(pfa, fa)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bp_is_autograd_to_the_last_bit(architecture: str, dtype: torch.dtype) -> None:
    plain = build(architecture).to(dtype)
    ours = convert(copy.deepcopy(plain), "bp")
    batches = [(x.to(dtype), labels) for x, labels in minibatches(architecture, 5)]
    optimizers = sgd(plain), sgd(ours)
    for x, labels in batches:
        losses = [
            step(network, optimizer, x, labels)
            for network, optimizer in zip((plain, ours), optimizers, strict=True)
        ]
        assert losses[0] == losses[1]
        for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad), name
            assert torch.equal(p, q), name


@pytest.mark.parametrize("key", [key for key in CASES if key != "bp"])
def test_the_forward_pass_and_the_top_layers_gradient_are_autograds(key: str) -> None:
    """Only what flows below a layer differs; and it does differ, so that the other tests test something."""
    plain = build("conv")
    ours = CASES[key].convert(copy.deepcopy(plain))
    [(x, labels)] = minibatches("conv", 1)
    outputs = plain(x), ours(x)
    assert torch.equal(*outputs)
    for output in outputs:
        nn.functional.cross_entropy(output, labels).backward()
    assert torch.equal(plain[8].weight.grad, ours[8].weight.grad)
    for index in (0, 2, 4):
        assert not torch.allclose(plain[index].weight.grad, ours[index].weight.grad, rtol=0.1)
