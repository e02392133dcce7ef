"""Which device trains."""

import os

import torch

from pfa_cli.errors import UsageError


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
            raise UsageError(f"--device {name}: there are {found} GPUs here, cuda:0 to cuda:{found - 1}")
        index = (
            int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
        )  # torchrun's word
        device = torch.device("cuda", index)
    return device
