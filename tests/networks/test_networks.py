"""The paper's networks against an independent account of what they compute."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pfa_cli.errors import UsageError
from pfa_cli.networks import build_network
from pfa_cli.networks.resnet20 import Shortcut
from pfa_cli.recipes import load_recipe


def weighted_layers(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(module.weight.shape)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def test_the_mlp_is_784_512_512_10_and_computes_it() -> None:
    network = build_network(load_recipe("mnist").configuration("bp"), 10, (784,))
    assert weighted_layers(network) == {"layer1": (512, 784), "layer2": (512, 512), "layer3": (10, 512)}
    x = torch.randn(3, 784)
    h = x.numpy()
    for name in ("layer1", "layer2", "layer3"):
        layer = network.get_submodule(name)
        h = h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        h = np.maximum(h, 0) if name != "layer3" else h
    np.testing.assert_allclose(network(x).detach().numpy(), h, rtol=1e-4, atol=1e-5)


def test_the_mlp_takes_other_sizes_and_images() -> None:
    configuration = load_recipe("mnist").configuration("bp", {"hidden_sizes": [7]})
    network = build_network(configuration, 4, (3, 5, 5))
    assert weighted_layers(network) == {"layer1": (7, 75), "layer2": (4, 7)}
    assert network(torch.randn(2, 3, 5, 5)).shape == (2, 4)


def test_resnet20_has_20_weighted_layers_without_conv_bias() -> None:
    network = build_network(load_recipe("cifar10").configuration("bp"), 10, (3, 32, 32))
    layers = weighted_layers(network)
    assert len(layers) == 20
    assert layers["conv1"] == (16, 3, 3, 3) and layers["linear"] == (10, 64)
    assert layers["stage2.0.conv1"] == (32, 16, 3, 3) and layers["stage3.2.conv2"] == (64, 64, 3, 3)
    assert sum(p.numel() for p in network.parameters()) == 269_722  # 0.27 million, He et al. 2016, table 6
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))
    relus = [m for m in network.modules() if isinstance(m, nn.ReLU)]
    assert len(relus) == 19 and not any(relu.inplace for relu in relus)


def test_resnet20_blocks_compute_the_residual_with_option_a_shortcuts() -> None:
    network = build_network(load_recipe("cifar10").configuration("bp"), 10, (3, 32, 32)).double().eval()
    block = network.get_submodule("stage2.0")
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64)
    batch_norm = 1 / np.sqrt(1 + 1e-5)  # at initialisation
    h = F.conv2d(x, block.conv1.weight, stride=2, padding=1) * batch_norm
    h = F.conv2d(h.clamp(min=0), block.conv2.weight, padding=1) * batch_norm
    shortcut = np.zeros((2, 32, 4, 4))
    shortcut[:, 8:24] = x.numpy()[:, :, ::2, ::2]
    expected = np.maximum(h.detach().numpy() + shortcut, 0)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, atol=1e-12)
    assert network(torch.randn(2, 3, 32, 32, dtype=torch.float64)).shape == (2, 10)
    assert not list(Shortcut(16, 32, 2).parameters())


def test_resnet18_is_torchvisions_with_the_classes_of_the_data() -> None:
    network = build_network(load_recipe("imagenet").configuration("bp"), 7, (3, 64, 64))
    assert type(network).__module__ == "torchvision.models.resnet"
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    assert len(weighted_layers(network)) == 21  # the 18 of its name, and three in shortcuts


def test_a_convolutional_network_refuses_vectors() -> None:
    with pytest.raises(UsageError, match="network resnet20 needs images, not vectors of 784 numbers"):
        build_network(load_recipe("cifar10").configuration("bp"), 10, (784,))
