"""Which device trains, and how it is set so that its numbers repeat."""

import os

import torch

from pfa_cli.errors import UsageError
from pfa_cli.launched import launched
from pfa_cli.wording import count


def choose_device(name: str) -> torch.device:
    """The device that ``name`` means; "auto" is the GPU if there is one, else the CPU.

    Raises UsageError where there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}. Valid: auto, cpu, cuda, cuda:N")
    if device.type == "cuda":
        found = torch.cuda.device_count()
        if found == 0:
            raise UsageError(
                f"--device {name}: torch finds no GPU here. Use --device cpu, or install a driver and a CUDA build"
            )
        if (device.index or 0) >= found:
            raise UsageError(f"--device {name}: the last GPU here is cuda:{found - 1}")
        ranks = launched()
        if ranks.local_size > 1 and device.index is not None:
            raise UsageError(
                f"--device {name}: under torchrun each process takes a GPU of its own; use --device cuda"
            )
        if ranks.local_size > found:
            raise UsageError(
                f"--device {name}: {ranks.local_size} processes on this machine, but {count(found, 'GPU')}; "
                f"start torchrun with --nproc-per-node={found}"
            )
        device = torch.device("cuda", ranks.local_rank if device.index is None else device.index)
    return device


def make_repeatable(device: torch.device) -> None:
    """Same device kind, same torch: same numbers, bit for bit. Call before the first tensor is on the device.

    On the CPU that takes one thread, since sums are split by the number of threads. On a GPU the few operations
    without a deterministic form only warn; `deterministic_flags` is stored with every attempt.
    """
    if device.type == "cpu":
        torch.set_num_threads(1)
        return
    # Else whatever names no device, such as a wait for "the" GPU, would go to the first one and take memory of it.
    torch.cuda.set_device(device)
    # More cells side by side than 8, CUDA's default, would wait for one another's kernels to be handed over.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    # Does what use_deterministic_algorithms(True, warn_only=True) does, without seconds of importing the compiler.
    torch.set_deterministic_debug_mode("warn")
    # It would also write NaN into every new tensor, which only helps to find reads of what nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def deterministic_flags(device: torch.device) -> dict[str, object]:
    """What torch is set to promise about repeating its numbers."""
    if device.type == "cpu":
        return {"threads": torch.get_num_threads()}
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }
