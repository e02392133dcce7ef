"""Number formats of training: fp32, tf32 (on GPUs that have it), and bf16 or fp16 by autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from pfa_cli.errors import UsageError

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How ``name`` is done on ``device``; parameters, optimiser and feedback state stay in fp32 whatever the name.

    Raises UsageError where the device cannot do it.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if device.type == "cpu" and name in ("tf32", "fp16"):
            raise UsageError(f"precision {name} needs a GPU: on the CPU use fp32 or bf16")
        self.device, self.dtype = device, _AUTOCAST.get(name)
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = uses_tf32(name)
        self.memory_format = memory_format(name, device)
        # fp16 gradients underflow unless the loss is scaled; the scaler skips steps whose gradients overflow. A fused
        # optimiser would skip them on the device, unseen by what must skip them too.
        self.keeps_every_step = name != "fp16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def lay_out(self, images: Tensor) -> Tensor:
        """Images [b, c, h, w] in the memory format in which convolutions are fastest; anything else as it is."""
        return images.contiguous(memory_format=self.memory_format) if images.ndim == 4 else images


def uses_tf32(precision: str) -> tuple[bool, bool]:
    """Whether a GPU multiplies fp32 numbers in TF32, in matrix products and in convolutions.

    These are settings of the whole process: cells for which they differ cannot train at the same time.
    """
    # Convolutions that autocast leaves in fp32, those of PAL's noise, are no less exact in TF32 than the rest in bf16.
    return precision == "tf32", precision != "fp32"


def memory_format(precision: str, device: torch.device) -> torch.memory_format:
    """That of images and, on a GPU, of kernels.

    Measured on an H200 (ResNet-20, deterministic, cuDNN's kernels alone): in fp32 a step takes 5.8 ms with channels first and
    7.6 with channels last, in TF32 4.6 and 3.2, in bf16 4.5 and 2.3. On the CPU channels last is faster.
    """
    first = device.type == "cuda" and precision == "fp32"
    return torch.contiguous_format if first else torch.channels_last
