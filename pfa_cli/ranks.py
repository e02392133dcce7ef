"""The processes that train one network together, each a rank, and what they tell one another (torchrun, `pfa run --ranks`).

Every rank holds the same weights and the same feedback: fixed paths come from the seed; what follows W (SF, KP, PFA's
closed form) follows weights that are the same everywhere; PFA's literal R is a parameter whose gradient is averaged like
W's; WM's mirror noise and PAL's noise are drawn alike on all ranks; and what PAL learns from its share of the batch is
averaged before it enters V. With BatchNorm over the whole batch the result is that of one process, up to rounding.
"""

import atexit
import os
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pfa_cli.errors import UsageError
from pfa_cli.launched import RENDEZVOUS, VARIABLES, Launched

JOIN_SECONDS = 120.0  # until all processes that were started must have met
_PARAMETERS = signature(DistributedDataParallel.__init__).parameters
# What torch 2.14 calls the option; earlier versions know the other name only.
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _PARAMETERS else "broadcast_buffers"
_LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "Socket closed")


class Ranks:
    """This process among ``size`` that train together; ``rank`` 0 is the one that writes."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, process: Launched, device_type: str) -> "Ranks":
        """This process among those that were started, once all are there. UsageError if they do not come in time."""
        if process.size == 1:
            return cls()
        if dist.is_initialized():
            return cls(dist.get_rank(), process.size)
        try:
            where = os.environ.get(RENDEZVOUS)
            url = f"file://{where}?rank={process.rank}&world_size={process.size}" if where else "env://"
            store, rank, size = next(dist.rendezvous(url, timeout=timedelta(seconds=JOIN_SECONDS)))
        except (dist.DistError, ValueError) as error:
            raise UsageError(
                f"rank {process.rank} of {process.size} waited {JOIN_SECONDS:.0f} s in vain for the others ({error}). "
                f"If no torchrun is at work, `unset {' '.join(v for v in VARIABLES if v in os.environ)}`"
            ) from None
        store.set_timeout(dist.default_pg_timeout)
        # gloo carries what is on the CPU, above all the agreement to stop; nccl what is on the GPUs.
        backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        atexit.register(_wait_for_threads)
        atexit.register(dist.destroy_process_group)  # before that
        return cls(rank, process.size)

    def lost_one(self, error: Exception) -> bool:
        """Whether ``error`` says that another rank ended in the middle of an exchange.

        gloo raises plain RuntimeErrors.
        """
        said = isinstance(error, dist.DistError) or any(sign in str(error) for sign in _LOST)
        lost = self.size > 1 and isinstance(error, RuntimeError) and said
        if lost:
            atexit.unregister(dist.destroy_process_group)  # it might wait for the one that is lost
        return lost

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """What to call in training in place of ``network``: it averages the gradients over the ranks."""
        if self.size == 1:
            return network
        options: dict[str, Any] = {_SYNC_BUFFERS: False}
        return DistributedDataParallel(network, **options)

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
            return torch.cat([batch[-1:], batch[:-1]])  # `roll` would turn channels last into channels first
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


def _wait_for_threads() -> None:
    """Lets gloo's threads drop the last tensors, for which they take Python's lock.

    Where one of them comes only when Python has ended, C++ aborts the process (seen in one stop of ten).
    """
    time.sleep(0.2)


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
        size, dtype = dist.get_world_size(), x.dtype
        x = x.to(self.weight.dtype)  # under autocast x is bfloat16, too coarse for statistics
        mean = _sum_over_ranks(x.mean((0, 2, 3))) / size
        centred = x - mean[:, None, None]
        variance = _sum_over_ranks(centred.square().mean((0, 2, 3))) / size
        if self.running_mean is not None and self.running_var is not None and self.momentum is not None:
            n = size * x.numel() / x.shape[1]
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scaled = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        return (scaled * self.weight[:, None, None] + self.bias[:, None, None]).to(dtype)


class _SumOverRanks(torch.autograd.Function):
    """Every rank's loss depends on the sum, so the gradients of all ranks are summed, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SumOverRanks.forward(ctx, gradient)


def _sum_over_ranks(x: Tensor) -> Tensor:
    total = _SumOverRanks.apply(x)
    assert isinstance(total, Tensor)
    return total
