"""readout: a control without credit assignment. The output layer learns, all below stay as they were drawn.

    hidden layers: no error reaches them, W, biases, γ and β of BatchNorm stay at their initial values
    output layer: the delta rule, grad_W = delta hᵀ

What this reaches is the floor of every comparison: an algorithm that ends here has taught its hidden layers nothing. The
running statistics of BatchNorm follow the activity as always, since they are measured and not learned.
"""

from torch import Tensor, nn

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer
from pfa_cli.registry import Entry


class Readout(Algorithm):
    """Only the last weighted layer learns; nothing is stored."""

    entry = Entry(
        "readout",
        label="readout only",
        title="Control: only the output layer learns",
        colour="#C0A860",
        limit="pfa_cli.theory.propositions:no_limit",
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=True,
    )
    exact = True

    def attach(self, network: nn.Module) -> None:
        learns = {id(parameter) for parameter in self.layers[-1].parameters()}
        for parameter in network.parameters():
            parameter.requires_grad_(id(parameter) in learns)

    def path(self, layer: FeedbackLayer) -> Tensor:
        return layer.weight.detach()  # of the output layer, whose inputs need no error

    def carries(self, layer: FeedbackLayer) -> bool:
        return False
