"""The networks, one file each. Initialisation is the trainer's business; here it is torch's default."""

from typing import TYPE_CHECKING

from pfa_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from pfa_cli.configuration import Configuration

__all__ = ["build_network"]


def build_network(
    configuration: "Configuration", n_classes: int, input_shape: tuple[int, ...]
) -> "nn.Module":
    """The configuration's network for images of ``input_shape``, with ``n_classes`` outputs.

    Raises:
        UsageError: the network does not take such images, or a plug-in made no network.
    """
    from torch import nn

    entry = configuration.network_entry
    if len(input_shape) != 3 and not entry.takes_vectors:
        raise UsageError(f"network {entry.name} needs images, not vectors of {input_shape[0]} numbers")
    settings = {name: getattr(configuration, name) for name in entry.settings}
    settings |= configuration.network_options or {}
    network = entry.load()(input_shape=input_shape, n_classes=n_classes, **settings)
    if not isinstance(network, nn.Module):
        raise UsageError(f"network {entry.name}: made a {type(network).__name__}, not a torch.nn.Module")
    return network
