"""Random crops and flips of a whole batch at once."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class CropAndFlip:
    """``padding`` black pixels on each side, a random crop of the old size, half of them mirrored."""

    padding: int = 4

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """[n, 3]: first row and first column of the crop in the padded image, and 1 to mirror it."""
        corners = torch.randint(2 * self.padding + 1, (n, 2), generator=generator)
        mirrored = torch.randint(2, (n, 1), generator=generator)
        return torch.cat([corners, mirrored], dim=1)

    def apply(self, images: Tensor, moves: Tensor) -> Tensor:
        """``images`` [b, channels, height, width] moved as ``moves`` [b, 3] says; the same shape and type."""
        height, width = images.shape[-2:]
        top, left, mirrored = moves[:, :, None].unbind(1)  # [b, 1] each
        rows = top + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device).expand(len(images), -1)
        columns = left + torch.where(mirrored == 1, width - 1 - columns, columns)
        pixels = rows[:, :, None] * (width + 2 * self.padding) + columns[:, None, :]  # [b, height, width]
        padded = F.pad(images, [self.padding] * 4).flatten(2)
        index = pixels.view(len(images), 1, -1).expand(-1, images.shape[1], -1)
        return padded.gather(2, index).view(images.shape)
