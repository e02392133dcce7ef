"""The networks of the paper. Initialisation is the trainer's business; here it is torch's default."""

from typing import TYPE_CHECKING

from pfa_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from pfa_cli.configuration import Configuration

__all__ = ["build_network"]


def build_network(
    configuration: "Configuration", n_classes: int, input_shape: tuple[int, ...]
) -> "nn.Module":
    """The configuration's network for images of ``input_shape``, with ``n_classes`` outputs."""
    if configuration.network == "mlp":
        from pfa_cli.networks.mlp import mlp

        return mlp(input_shape, configuration.hidden_sizes or (), n_classes)
    if len(input_shape) != 3:
        raise UsageError(
            f"network {configuration.network} needs images, not vectors of {input_shape[0]} numbers"
        )
    if configuration.network == "resnet20":
        from pfa_cli.networks.resnet20 import ResNet20

        return ResNet20(n_classes, input_shape[0])
    from torchvision.models import resnet18

    return resnet18(num_classes=n_classes)
