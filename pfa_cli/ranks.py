"""The processes that train one network together (torchrun), and what they tell one another. One process is one rank.

Every rank holds the same weights and the same feedback: fixed paths come from the seed; what follows W (SF, KP, PFA's
closed form) follows weights that are the same everywhere; PFA's literal R is a parameter whose gradient is averaged like
W's; WM's mirror noise and PAL's noise are drawn alike on all ranks; and what PAL learns from its share of the batch is
averaged before it enters V. With BatchNorm over the whole batch the result is that of one process, up to rounding.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn import functional as differentiable
from torch.nn.parallel import DistributedDataParallel


class Ranks:
    """This process among ``size`` that train together; ``rank`` 0 is the one that writes."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def of_environment(cls, device_type: str) -> "Ranks":
        """The ranks that torchrun started, joined; a single one where it did not start this process."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            # gloo carries what is on the CPU, above all the agreement to stop; nccl what is on the GPUs.
            dist.init_process_group("cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo")
        return cls(dist.get_rank(), size)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """What to call in training in place of ``network``: it averages the gradients over the ranks."""
        return network if self.size == 1 else DistributedDataParallel(network, broadcast_buffers=False)

    def apart(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """Within it, gradients of the wrapped network stay with their rank."""
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over ranks."""
        return tensor if self.size == 1 else self.sum(tensor) / self.size

    def std(self, tensor: Tensor) -> Tensor:
        """The population standard deviation over the elements of all ranks, a scalar."""
        if self.size == 1:
            return tensor.std(unbiased=False)
        return self.mean((tensor - self.mean(tensor.mean())).square().mean()).sqrt()

    def previous(self, batch: Tensor) -> Tensor:
        """The whole batch rolled by one image: each image of this rank's share replaced by the one before it."""
        if self.size == 1:
            return batch.roll(1, 0)
        last = [torch.empty_like(batch[-1:]) for _ in range(self.size)]
        dist.all_gather(last, batch[-1:].contiguous())
        return torch.cat([last[self.rank - 1], batch[:-1]])

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; all of them get the same answer."""
        if self.size == 1:
            return flag
        said = torch.tensor(int(flag))
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return bool(said)

    def from_first(self, value: Any) -> Any:
        """The first rank's ``value``."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]


def share_statistics(network: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """``network`` with every BatchNorm normalising by the whole batch, not by this rank's share."""
    if ranks.size == 1:
        return network
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SharedBatchNorm2d  # in place: parameters and names stay
    return network


class _SharedBatchNorm2d(nn.BatchNorm2d):
    """torch's SyncBatchNorm knows GPUs only; this one is for the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        size = dist.get_world_size()
        mean = differentiable.all_reduce(x.mean((0, 2, 3))) / size
        centred = x - mean[:, None, None]
        variance = differentiable.all_reduce(centred.square().mean((0, 2, 3))) / size
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            n = size * x.numel() / x.shape[1]
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scaled = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]
