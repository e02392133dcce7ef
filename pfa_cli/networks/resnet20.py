"""ResNet-20 for 32 × 32 images (He et al. 2016, section 4.2) without weights in the shortcuts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pfa_cli.registry import NetworkEntry

entry = NetworkEntry(
    "resnet20",
    title="ResNet-20 for small images",
    implementation="pfa_cli.networks.resnet20:resnet20",
    takes_vectors=False,
)


class Shortcut(nn.Module):
    """Option A: every second pixel, and black channels on both sides to make up the number."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.missing = stride, out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        before = self.missing // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.missing - before))


class Block(nn.Module):
    """Two 3 × 3 convolutions; the shortcut joins before the second ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity() if stride == 1 else Shortcut(in_channels, out_channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(h)) + self.shortcut(x))


class ResNet20(nn.Module):
    """Images [b, in_channels, 32, 32] (other sizes work) to logits [b, n_classes]; 20 weighted layers."""

    def __init__(self, n_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.stage1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.stage2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.stage3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stage3(self.stage2(self.stage1(self.relu1(self.bn1(self.conv1(x))))))
        return self.linear(torch.flatten(self.pool(h), 1))


def resnet20(input_shape: tuple[int, ...], n_classes: int) -> ResNet20:
    """The network for images of ``input_shape``, (channels, height, width)."""
    return ResNet20(n_classes, input_shape[0])
