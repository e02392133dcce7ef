"""Weights in no layer: refused where errors are multiplied by them, whatever the network does; added ones are not."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import ShiftedWindowAttention

from pfa_cli.algorithms import attach, convert
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.registry import ALGORITHMS

WIDTH, TOKENS = 8, 5


class Block(nn.Module):
    """Attention whose q, k and v are layers, and a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (layer(y).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, a class token, a position embedding, one block, a head."""

    def __init__(self, *, frozen_positions: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos = nn.Parameter(0.02 * torch.randn(1, TOKENS, WIDTH), requires_grad=not frozen_positions)
        self.block, self.head = Block(), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.pos
        return self.head(self.block(x)[:, 0])


class Own(nn.Module):
    """A layer, and one of the ways to use a weight that is in no layer, on the layer's output."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.below, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.pos, self.W, self.U = (nn.Parameter(torch.randn(4, 4)) for _ in range(3))
        self.gain, self.table = nn.Parameter(torch.ones(4)), nn.Embedding(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(getattr(self, f"_{self.way}")(self.below(x)))

    def _added(self, h: Tensor) -> Tensor:
        return h + 0.5 * self.pos[: len(h)] * self.gain

    def _low_rank_added(self, h: Tensor) -> Tensor:
        return h - (self.U @ self.W)[: len(h)]

    def _joined(self, h: Tensor) -> Tensor:
        return torch.cat([h, self.pos.to(h.dtype)]) * self.gain

    def _matmul(self, h: Tensor) -> Tensor:
        return h @ self.W

    def _linear(self, h: Tensor) -> Tensor:
        return F.linear(h, self.W.relu(), self.gain)

    def _normalised(self, h: Tensor) -> Tensor:
        return h @ (self.W / self.W.norm())

    def _low_rank(self, h: Tensor) -> Tensor:
        return h @ (self.U @ self.W)

    def _elementwise(self, h: Tensor) -> Tensor:
        return (h[:, :, None] * self.W).sum(1)

    def _einsum(self, h: Tensor) -> Tensor:
        return torch.einsum("ni,ij->nj", h, self.W)

    def _tied_to_table(self, h: Tensor) -> Tensor:
        return self.table.weight.sum() + F.pad(h @ self.table.weight.T, (0, 1))

    def _below_again(self, h: Tensor) -> Tensor:
        return F.linear(h, self.below.weight)


def taken_a_step(network: nn.Module, x: Tensor) -> nn.Module:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    attach(network, optimizer, prepare=False)
    network.algorithm.note_prepared()
    F.cross_entropy(network(x), torch.zeros(len(network(x)), dtype=torch.long)).backward()
    optimizer.step()
    return network


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_vision_transformer_of_linear_layers_trains(algorithm: str) -> None:
    torch.manual_seed(0)
    network = VisionTransformer()
    before = network.pos.detach().clone()
    taken_a_step(convert(network, algorithm), torch.randn(2, 1, 8, 8))
    assert torch.equal(network.pos, before) == (algorithm == "readout")


@pytest.mark.parametrize("way", ["added", "low_rank_added", "joined"])
def test_what_is_only_added_is_no_reason_to_refuse(way: str) -> None:
    taken_a_step(convert(Own(way), "pfa"), torch.randn(4, 4))


MULTIPLIED = {
    "matmul": "'W'",
    "linear": "'W'",
    "normalised": "'W'",
    "low_rank": "'U' and 'W'",
    "elementwise": "'W'",
    "einsum": "'W'",
    "tied_to_table": "'table.weight'",
    "below_again": "'below.weight'",
}


@pytest.mark.parametrize(("way", "named"), MULTIPLIED.items())
def test_what_multiplies_is_named_and_may_be_ignored(way: str, named: str) -> None:
    network, x = Own(way), torch.randn(4, 4)
    converted = convert(copy.deepcopy(network), "fa")
    with torch.no_grad():
        converted(x)  # no error passes
    for _ in range(2):
        with pytest.raises(PfaError, match=rf"errors go down by {named}, for which FA .*ignore=\["):
            converted(x)
    ignored = convert(network, "fa", ignore=[name.strip("'") for name in named.split(" and ")])
    taken_a_step(ignored, x)


@pytest.mark.parametrize("way", MULTIPLIED)
@pytest.mark.parametrize("algorithm", ["bp", "readout"])
def test_backpropagation_refuses_nothing(algorithm: str, way: str) -> None:
    taken_a_step(convert(Own(way), algorithm), torch.randn(4, 4))
    convert(nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(2, 2)), algorithm)


def test_layers_whose_weights_are_used_without_calling_them_are_named() -> None:
    network = nn.Sequential(nn.Linear(8, 8), ShiftedWindowAttention(8, [2, 2], [0, 0], 2), nn.Linear(8, 3))
    with pytest.raises(
        PfaError, match=r"errors go down by '1\.proj\.weight' and '1\.qkv\.weight', for which"
    ):
        convert(network, "pfa")(torch.randn(1, 4, 4, 8))


def test_a_frozen_parameter_of_which_nothing_shows_is_named_and_may_be_ignored() -> None:
    with pytest.raises(PfaError, match=r"parameter 'pos' is frozen.*ignore=\[\"pos\"\]"):
        convert(VisionTransformer(frozen_positions=True), "fa")
    network = convert(VisionTransformer(frozen_positions=True), "fa", ignore=["pos"])
    taken_a_step(network, torch.randn(2, 1, 8, 8))


def test_a_module_may_be_ignored_with_all_it_holds() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2), nn.Linear(4, 2))
    with pytest.raises(PfaError, match=r"'1' is a MultiheadAttention.*ignore=\[\"1\"\]"):
        convert(network, "fa")
    convert(network, "fa", ignore="1")
    assert [layer.name for layer in network.algorithm.layers] == ["0", "2"]


def test_a_name_to_ignore_that_is_not_there_gets_its_cure() -> None:
    with pytest.raises(UsageError, match="no parameter and no module 'position': did you mean 'pos'"):
        convert(VisionTransformer(), "fa", ignore=["position"])


def test_a_copy_of_a_converted_network_looks_for_itself() -> None:
    network = copy.deepcopy(convert(Own("matmul"), "fa"))
    with pytest.raises(PfaError, match="'W'"):
        network(torch.randn(4, 4))
