"""Number formats of training: fp32, tf32 (on GPUs that have it), and bf16 or fp16 by autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch

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
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
        # fp16 gradients underflow unless the loss is scaled; the scaler skips steps whose gradients overflow. A fused
        # optimiser would skip them on the device, unseen by what must skip them too.
        self.keeps_every_step = name != "fp16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)
