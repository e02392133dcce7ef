"""torchvision's ResNet-18 (He et al. 2016), for photographs."""

from torch import nn

from pfa_cli.registry import NetworkEntry

entry = NetworkEntry(
    "resnet18",
    title="torchvision's ResNet-18",
    implementation="pfa_cli.networks.resnet18:resnet18",
    takes_vectors=False,
)


def resnet18(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """The network for images of ``input_shape``, (3, height, width)."""
    from torchvision import models  # here: it takes half a second, and only this network needs it

    return models.resnet18(num_classes=n_classes)
