"""``convert`` on networks that nobody here wrote, and what it refuses."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracle.architectures import build, minibatches
from oracle.cases import CASES
from oracle.comparison import assert_equal, assert_same_network, sgd, step, train
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import Bottleneck, ResNet

from pfa_cli.algorithms import convert
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.registry import TABLE_1

SMALL = {"pfa": {"expansion": 1.0}}  # B and R of a wide layer take long to draw


def vgg() -> nn.Module:
    """torchvision's VGG without its ImageNet-sized classifier."""
    features = models.vgg.make_layers([16, "M", 32, "M", 64, 64, "M"], batch_norm=False)
    classifier = nn.Sequential(nn.Linear(64, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 5))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier)


def resnext() -> nn.Module:
    """Grouped and dilated bottlenecks, without the widest stage."""
    dilated = [False, True, True]
    network = ResNet(
        Bottleneck, [1, 1, 1, 1], groups=4, width_per_group=4, replace_stride_with_dilation=dilated
    )
    network.layer4, network.fc = nn.Identity(), nn.Linear(1024, 5)
    return network


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: models.resnet18(num_classes=5),
    "resnext": resnext,
    "vgg": vgg,
    "mobilenet v2": lambda: models.mobilenet_v2(num_classes=5, width_mult=0.25),
    "mobilenet v3": lambda: models.mobilenet_v3_small(num_classes=5, width_mult=0.25),
    "convnext": lambda: ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)], num_classes=5),
    "squeezenet": lambda: models.squeezenet1_1(num_classes=5),
    "shufflenet": lambda: models.shufflenet_v2_x0_5(num_classes=5),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(name, marks=[] if name in ("bp", "dfa", "wm", "pal", "pfa") else pytest.mark.long)
        for name in TABLE_1
    ],
)
def test_torchvisions_families_take_a_training_step(algorithm: str, family: str) -> None:
    torch.manual_seed(0)
    network = FAMILIES[family]()
    x, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 4])
    expected = copy.deepcopy(network).eval()(x)
    convert(network, algorithm, **SMALL.get(algorithm, {}))
    assert torch.equal(network.eval()(x), expected)

    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    loss = step(network.train(), sgd(network), x, labels)
    assert loss == pytest.approx(1.6, abs=1.0)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.isfinite().all(), name
    for layer in network.algorithm.layers:
        assert not torch.equal(layer.weight, before[f"{layer.name}.weight"]), layer.name
        assert network.algorithm.path(layer).isfinite().all(), layer.name


class Padded(nn.Module):
    """A convolution whose padding is a layer of its own."""

    def __init__(self, pad: nn.Module, conv: nn.Conv2d) -> None:
        super().__init__()
        self.pad, self.conv = pad, conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pad(x))


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize(
    ("settings", "pad", "width"),
    [
        ({"padding": "same"}, nn.ZeroPad2d((1, 2, 1, 1)), 6),
        ({"padding": 1, "padding_mode": "reflect"}, nn.ReflectionPad2d(1), 4),
        ({"padding": 1, "padding_mode": "circular"}, nn.CircularPad2d(1), 4),
    ],
    ids=["same", "reflect", "circular"],
)
def test_every_way_of_padding_is_the_padding_it_says(
    settings: dict[str, object], pad: nn.Module, width: int, key: str
) -> None:
    def network(wrap: Callable[[nn.Module], nn.Module], **padding: object) -> nn.Module:
        torch.manual_seed(0)
        first, second = nn.Conv2d(2, 3, (3, 4), **padding), nn.Conv2d(3, 3, (3, 4), **padding)
        top = nn.Linear(3 * 6 * width, 3)
        modules = (wrap(first), nn.ReLU(), wrap(second), nn.ReLU(), nn.Flatten(), top)
        return CASES[key].convert(nn.Sequential(*modules).double())

    ours, plain = network(lambda conv: conv, **settings), network(lambda conv: Padded(pad, conv))
    for layer, other in zip(ours.algorithm.layers, plain.algorithm.layers, strict=True):
        for name, start in [*layer.named_buffers(), *layer.named_parameters()]:
            getattr(other, name).data.copy_(start)
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, 6, 6, generator=draw, dtype=torch.float64)
    for model in (ours, plain):
        train(model, [{"lr": 0.05, "weight_decay": 0.1}] * 3, [(x, torch.tensor([0, 1, 2]))] * 3)
    for p, q in zip(ours.parameters(), plain.parameters(), strict=True):
        assert_equal(p, q, "parameter")


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("frozen", ["0", "2"])
def test_a_frozen_layer_stays_as_it_is_and_passes_errors_on(frozen: str, key: str) -> None:
    network = build("conv")
    network.get_submodule(frozen).requires_grad_(False)
    CASES[key].convert(network)
    layer = network.get_submodule(frozen)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    path = network.algorithm.path(layer).clone()
    train(network, [{"lr": 0.05, "weight_decay": 0.1}] * 3, minibatches("conv", 3))
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith(f"{frozen}."), name
    if key not in ("wm", "wm-every", "pal"):  # which learn V from W alone
        assert torch.equal(network.algorithm.path(layer), path)


@pytest.mark.parametrize("algorithm", ["pfa", "pfa-o"])
@pytest.mark.parametrize("frozen", ["0", "2", "4"])
def test_the_closed_form_is_the_literal_form_with_a_frozen_layer(frozen: str, algorithm: str) -> None:
    network = build("conv")
    network.get_submodule(frozen).requires_grad_(False)
    forms = [
        convert(copy.deepcopy(network), algorithm, expansion=2.0, form=form) for form in ("closed", "literal")
    ]
    for form in forms:
        train(form, [{"lr": 0.05, "weight_decay": 0.1}] * 20, minibatches("conv", 20))
    assert_same_network(*forms)


@pytest.mark.parametrize("key", CASES)
def test_under_autocast_the_feedback_stays_in_float32_and_the_gradients_stay_close(key: str) -> None:
    networks = [CASES[key].convert(build("conv").float()) for _ in range(2)]
    x, labels = minibatches("conv", 1, batch=16)[0]
    for network, enabled in zip(networks, (False, True), strict=True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = nn.functional.cross_entropy(network(x.float()), labels)
        loss.backward()
        network.algorithm.note_prepared()
        network.algorithm.after_step(sgd(network))
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float32}
    for (name, exact), rough in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
        difference = (exact.grad - rough.grad).norm() / exact.grad.norm()
        assert difference < 0.15, name


def test_a_module_that_pal_cannot_follow_leaves_no_listener_behind() -> None:
    network = convert(build("mlp"), "pal")
    with pytest.raises(RuntimeError):
        network(torch.zeros(2, 3, dtype=torch.float64))
    assert torch.overrides._get_current_function_mode() is None
    train(network, [{"lr": 0.05, "weight_decay": 0.1}] * 2, minibatches("mlp", 2))


class TwiceRecurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(4, 4), nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (TwiceRecurrent(), "'rnn' is a GRU"),
        (nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1)), "'1' is a Conv1d"),
        (nn.Sequential(nn.ConvTranspose2d(2, 2, 1), nn.Linear(2, 2)), "'0' is a ConvTranspose2d"),
        (nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(2, 2)), "'0' is a MultiheadAttention"),
        (nn.Sequential(nn.ReLU()), "no nn.Linear and no nn.Conv2d"),
        (nn.Sequential(convert(nn.Sequential(nn.Linear(2, 2)), "fa")), "'0.0' is converted already"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), "'0' is a Parametrized"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_a_layer_without_feedback_path_is_named(network: nn.Module, named: str) -> None:
    with pytest.raises(PfaError, match=named):
        convert(network, "fa")


def test_a_network_is_converted_once() -> None:
    network = convert(build("mlp"), "fa")
    with pytest.raises(PfaError, match="converted already"):
        convert(network, "pfa")


@pytest.mark.parametrize(
    ("algorithm", "options", "message"),
    [
        ("pfao", {}, "did you mean 'pfa-o'"),
        ("pfa", {"expansoin": 3}, "did you mean 'expansion'"),
        ("pfa", {"expansion": np.float32("inf")}, "must be a finite number"),
        ("pfa", {"expansion": 0}, "expansion .=0. must be at least 0.01"),
        ("pfa-o", {"expansion": 0.005}, "expansion .=0.005. must be at least 0.01"),
        ("pfa", {"form": "fast"}, "Valid: closed, literal"),
        ("wm", {"mirror_samples": 2.5}, "must be a whole number"),
        ("bp", {"rate": 1}, "unknown option of bp"),
    ],
)
def test_a_wrong_name_or_option_gets_its_cure(
    algorithm: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        convert(build("mlp"), algorithm, **options)


def test_an_option_may_be_a_numpy_number() -> None:
    assert convert(build("mlp"), "pfa", expansion=np.int64(5)).algorithm.options["expansion"] == 5
    assert convert(build("mlp"), "wm", mirror_samples=np.int64(8)).algorithm.options["mirror_samples"] == 8


def test_a_network_with_embedding_and_norms_is_converted() -> None:
    network = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm((3, 4)), nn.Flatten(), nn.Linear(12, 2))
    convert(network, "fa")(torch.tensor([[1, 2, 3]])).sum().backward()
    assert network[0].weight.grad is not None


@pytest.mark.parametrize("key", CASES)
def test_a_network_may_end_in_log_softmax(key: str) -> None:
    """The errors are those of its logits, as in the network without it."""
    x, labels = minibatches("mlp", 1)[0]
    plain, log = (
        CASES[key].convert(network)
        for network in (build("mlp"), nn.Sequential(build("mlp"), nn.LogSoftmax(1)))
    )
    for name, start in plain.state_dict().items():
        if not name.startswith("algorithm."):
            log.state_dict()[f"0.{name}"].copy_(start)
    for network, loss in ((plain, nn.functional.cross_entropy), (log, nn.functional.nll_loss)):
        network.algorithm.start_epoch(1)
        loss(network(x), labels).backward()
    for p, q in zip(plain.parameters(), log.parameters(), strict=True):
        assert_equal(p.grad, q.grad, "gradient")


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_takes_a_step(key: str, dtype: torch.dtype) -> None:
    network = CASES[key].convert(build("mlp").to(dtype))
    x, labels = minibatches("mlp", 1)[0]
    step(network, sgd(network), x.to(dtype), labels)
    for layer in network.algorithm.layers:
        path = network.algorithm.path(layer)
        assert path.dtype == dtype and path.isfinite().all()


def test_a_convolution_says_what_it_takes() -> None:
    network = convert(build("conv"), "fa")
    with pytest.raises(PfaError, match=r"takes images \[batch, channels, height, width\], not \[2, 6, 6\]$"):
        network(torch.zeros(2, 6, 6, dtype=torch.float64))
    with pytest.raises(PfaError, match=r"begins with nn\.Unflatten"):  # rows of pixels, as MNIST's
        network(torch.zeros(3, 72, dtype=torch.float64))


def test_dfa_says_what_output_it_needs() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1))
    convert(network, "dfa")
    with pytest.raises(PfaError, match=r"DFA needs an output of shape \[batch, 3\]"):
        network(torch.zeros(1, 1, 4, 4))


def test_dfa_uses_the_d_that_its_layer_has_now() -> None:
    """A checkpoint's D replaces the drawn one, also after errors have passed."""
    first, second = (convert(build("conv"), "dfa", seed=seed) for seed in (0, 1))
    batch = minibatches("conv", 1)
    train(first, [{"lr": 0.0, "weight_decay": 0.0}], batch)
    first.load_state_dict(second.state_dict())
    for network in (first, second):
        train(network, [{"lr": 0.05, "weight_decay": 0.1}], batch)
    assert_same_network(first, second)
