"""Makes the network of a configuration; finds what can never be trained before anything of it is stored."""

import math
from typing import TYPE_CHECKING

from pfa_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pfa_cli.configuration import Configuration

_USUAL = 10_000  # units, pixels, images: below that every machine will do
_USUAL_TIMES = 100  # the default of an option
_FLOAT = 4  # bytes
_COPIES = 4  # of the weights: themselves, their gradient, their momentum, and the feedback path


def build_network(
    configuration: "Configuration", n_classes: int, input_shape: tuple[int, ...], ranks: int = 1
) -> "nn.Module":
    """The configuration's network for images of ``input_shape``, with ``n_classes`` outputs.

    ``ranks``: how many processes share each batch.

    Raises:
        UsageError: the network does not take such images or so few at a time, or a plug-in made no network.
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
    _check_normalisation(network, input_shape, configuration, ranks)
    return network


def check_network(configuration: "Configuration", ranks: int = 1) -> None:
    """UsageError if the network cannot be trained on this machine by so many processes; says which setting to change.

    Needs torch, and imports it, only where a size is unusual. What is known only once the data set is read is not checked
    here, but by `build_network`.
    """
    unusual = _unusual(configuration)
    entry, shape = configuration.dataset_entry, configuration.input_shape
    if shape is None or entry.n_classes is None or not (unusual or _one_image(configuration, ranks)):
        return
    import torch

    try:
        with torch.device("meta"):  # shapes without numbers
            network = build_network(configuration, entry.n_classes, shape, ranks)
    except (RuntimeError, OverflowError) as error:
        if configuration.network_entry.source is not None:
            return  # a plug-in may do what only real numbers can
        raise _too_large(unusual, "more than any machine has") from error
    layers = [w for w in network.parameters() if w.ndim > 1]
    shapes = [(w.shape[0], w[0].numel()) for w in layers]
    numbers: float = _COPIES * sum(w.numel() for w in network.parameters())
    numbers += configuration.batch_size * math.prod(shape)
    numbers += configuration.algorithm_entry.load().extra_numbers(configuration.options, shapes)
    memory = _memory()
    if numbers * _FLOAT > memory:
        raise _too_large(
            unusual, f"about {numbers * _FLOAT / 1e9:,.0f} GB, and this machine has {memory / 1e9:.0f}"
        )


def _check_normalisation(
    network: "nn.Module", input_shape: tuple[int, ...], c: "Configuration", ranks: int
) -> None:
    """UsageError if a BatchNorm layer would have to normalise a single value, whose deviation is 0."""
    if not (cause := _one_image(c, ranks)):
        return
    import copy

    import torch

    shapes = copy.deepcopy(network).to("meta").train()

    def look(layer: "nn.Module", inputs: "tuple[Tensor, ...]") -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            raise UsageError(
                f"{cause} leaves the BatchNorm layers of {c.network} a single value per channel to normalise: "
                "make it at least 2"
            )

    for layer in shapes.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.register_forward_pre_hook(look)
    try:
        shapes(torch.empty(1, *input_shape, device="meta"))
    except UsageError:
        raise
    except Exception:
        return  # a plug-in may do what only real numbers can; its own mistakes show when it is trained


def _one_image(c: "Configuration", ranks: int) -> str:
    """The setting by which a single image passes the network at a time; empty if there are always more."""
    if c.batch_size // (c.accumulation * ranks) <= 1:
        parts = [f" with accumulation (={c.accumulation})"] if c.accumulation > 1 else []
        parts += [f" on {ranks} ranks"] if ranks > 1 else []
        return f"batch_size (={c.batch_size}){''.join(parts)}"
    return "probe_images (=1)" if c.probe_images == 1 else ""


def _unusual(c: "Configuration") -> list[str]:
    """The settings that are far larger than usual, as "name (=value)"."""
    sizes = {
        "hidden_sizes": sum(c.hidden_sizes or ()),
        "image_size": c.image_size or 0,
        "batch_size": c.batch_size,
    }
    found = [f"{name} (={_shortly(getattr(c, name))})" for name, size in sizes.items() if size > _USUAL]
    for entry, options in (
        (c.algorithm_entry, c.options),
        (c.network_entry, c.network_options or {}),
        (c.dataset_entry, c.dataset_options or {}),
    ):
        for name, value in options.items():
            default = entry.options[name].default
            if isinstance(value, int | float) and isinstance(default, int | float) and default > 0:
                found += [f"{name} (={_shortly(value)})"] if value > _USUAL_TIMES * default else []
    return found


def _too_large(settings: list[str], reason: str) -> UsageError:
    return UsageError(f"{', '.join(settings)}: too large for memory ({reason})")


def _shortly(value: object) -> str:
    text = str(list(value)) if isinstance(value, tuple) else f"{value}"
    return text if len(text) < 60 else f"{text[:50]} …"


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
