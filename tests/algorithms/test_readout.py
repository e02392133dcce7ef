"""The control: hidden layers as drawn, the output layer by the delta rule."""

import copy

import torch
from oracle.comparison import sgd, step
from torch import nn

from pfa_cli.algorithms import convert
from pfa_cli.training.metrics import layer_records


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 9),
        nn.ReLU(),
        nn.Linear(9, 3),
    )


def test_only_the_output_layer_learns_and_as_backpropagation_teaches_it() -> None:
    control, reference = network(), network()
    before = copy.deepcopy(control)
    control = convert(control, "readout")
    for parameter in reference[:-1].parameters():
        parameter.requires_grad_(False)
    torch.manual_seed(1)
    ours, theirs = sgd(control), sgd(reference)
    for _ in range(5):
        x, labels = torch.randn(8, 1, 6, 6), torch.randint(3, (8,))
        step(control, ours, x, labels)
        step(reference, theirs, x, labels)
    expected, start = dict(reference.named_parameters()), dict(before.named_parameters())
    for name, parameter in control.named_parameters():
        assert torch.equal(parameter, expected[name]), name
        assert torch.equal(parameter, start[name]) == (not name.startswith("6.")), name


def test_it_has_no_feedback_to_measure() -> None:
    control = convert(network(), "readout")
    for record in layer_records(control, "weight", torch.randn(8, 1, 6, 6), torch.randint(3, (8,))):
        assert record.weight_norm > 0
        assert record.weight_angle_degrees is record.weight_norm_ratio is record.error_angle_degrees is None
