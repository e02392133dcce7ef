"""How a process is set so that its numbers repeat."""

import os

import torch


def make_repeatable(device: torch.device) -> None:
    """Same device kind, same torch: same numbers, bit for bit. Call before the first tensor is on the device.

    On the CPU that takes one thread, since sums are split by the number of threads. On a GPU the few operations
    without a deterministic form only warn; `deterministic_flags` is stored with every attempt.
    """
    if device.type == "cpu":
        torch.set_num_threads(1)
        return
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
