"""A step on a device that is not the CPU: torch's "meta" has no numbers, but refuses tensors that lie elsewhere.

What a GPU would find, no GPU being at hand: a tensor left on the CPU, or a number asked for in the middle of a step.
"""

from contextlib import nullcontext

import pytest
import torch
from stand_ins import Blobs, Pictures, configuration
from torch import Tensor, nn

from pfa_cli.algorithms.base import Algorithm
from pfa_cli.registry import TABLE_1
from pfa_cli.training.tally import Tally
from pfa_cli.training.trainer import Trainer

META = torch.device("meta")


def noise(
    self: Algorithm,
    shape: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    return torch.randn(shape, device=device, dtype=dtype)  # meta has no generator to give


def moved(current: Trainer) -> Trainer:
    """``current``, its network and sums on the meta device."""
    for module in current.network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            module._parameters[name] = nn.Parameter(parameter.to(META), parameter.requires_grad)
    current.network._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(META))
    current._tally = Tally(META)
    current.optimizer = torch.optim.SGD(
        current.network.parameters(), lr=0.1, momentum=0.9
    )  # no fused one there
    current.optimizer.register_step_post_hook(lambda optimizer, *_: current.algorithm.after_step(optimizer))
    return current


@pytest.mark.parametrize("network", ["mlp", "resnet20"])
@pytest.mark.parametrize("case", [*TABLE_1, "pfa literal"])
def test_all_of_a_step_is_on_its_device(case: str, network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Algorithm, "noise", noise)
    monkeypatch.setattr(Trainer, "_changing", None)  # there is nothing to compare
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which meta does not know
    name, _, form = case.partition(" ")
    settings: dict[str, object] = {"options": {"form": form} if form else {}}
    if network != "mlp":
        settings |= {"network": network, "dataset": "cifar10", "hidden_sizes": None, "batch_size": 4}
    images = Blobs() if network == "mlp" else Pictures()
    cell = Trainer(
        configuration(name, **settings), images, 0, torch.device("cpu"), record=lambda work, _: work
    )
    current = moved(cell)
    images.to(META)
    current.begin_epoch(1)
    for _ in range(5):
        current.advance([torch.empty(current.configuration.batch_size, dtype=torch.int64, device=META)])
    assert all(tensor.is_meta for tensor in current.network.state_dict().values())


def test_it_would_notice() -> None:
    current = moved(Trainer(configuration("fa"), Blobs(), 0, torch.device("cpu")))
    current.begin_epoch(1)
    with pytest.raises(RuntimeError, match="meta"):
        current.advance([torch.zeros(16, dtype=torch.int64)])
