"""The table of algorithms that drives every algorithm's tests: a new algorithm is one line here."""

import copy
from dataclasses import dataclass, field, replace

from torch import nn

from oracle.architectures import translate
from oracle.feedback import (
    Direct,
    Feedback,
    Fixed,
    KollenPollack,
    Mixture,
    PhaselessAlignment,
    ProductFeedback,
    Sign,
    WeightMirror,
)
from oracle.network import Layer
from pfa_cli.algorithms import convert


@dataclass(frozen=True)
class Case:
    """One algorithm, in the form under test.

    ``start``: the layer's tensors from which the oracle starts; where there are two forms, the literal form's.
    ``settings``: options that the implementation and the oracle share.
    """

    algorithm: str
    oracle: type[Feedback]
    start: tuple[str, ...] = ()
    settings: dict[str, float] = field(default_factory=dict)
    form: str | None = None

    def convert(self, network: nn.Module, seed: int = 0) -> nn.Module:
        """``network``, in place."""
        form = {"form": self.form} if self.form else {}
        return convert(network, self.algorithm, seed=seed, **self.settings, **form)

    def oracle_of(self, network: nn.Module, seed: int = 0) -> Layer:
        """The NumPy network with the feedback that ``convert`` draws for ``network``, which is not yet converted."""
        oracle = translate(network)
        literal = replace(self, form="literal" if self.form else None)
        twin = literal.convert(copy.deepcopy(network), seed)
        for name, layer in oracle.weighted().items():
            start = {
                key: getattr(twin.get_submodule(name), key).detach().numpy().copy() for key in self.start
            }
            layer.feedback = self.oracle(layer.own["weight"], layer.geometry, **start, **self.settings)
        return oracle


CASES = {
    "bp": Case("bp", Feedback),
    "fa": Case("fa", Fixed, ("V",)),
    "dfa": Case("dfa", Direct, ("D",)),
    "sf": Case("sf", Sign),
    "fa-sparse": Case("fa", Fixed, ("V",), {"density": 0.4}),
    "dfa-sparse": Case("dfa", Direct, ("D",), {"density": 0.4, "error_scale": 0.25}),
    "sf-sparse": Case("sf", Sign, ("M",), {"density": 0.4}),
    "kp": Case("kp", KollenPollack, ("C0",)),
    "wm": Case("wm", WeightMirror, ("V",), {"mirror_samples": 9, "mirror_rate": 0.2}),
    "wm-every": Case(
        "wm", WeightMirror, ("V",), {"mirror_samples": 9, "mirror_rate": 0.2, "mirror_every": 2}
    ),
    "pal": Case("pal", PhaselessAlignment, ("V",), {"rate": 0.3, "noise": 0.4, "leak": 0.25}),
    "pfa": Case("pfa", ProductFeedback, ("B", "R"), {"expansion": 3.0}, form="closed"),
    "pfa-literal": Case("pfa", ProductFeedback, ("B", "R"), {"expansion": 3.0}, form="literal"),
    "pfa-sparse-b": Case(
        "pfa", ProductFeedback, ("B", "R"), {"expansion": 3.0, "b_density": 0.4}, form="closed"
    ),
    "pfa-sparse-r": Case(
        "pfa", ProductFeedback, ("B", "R"), {"expansion": 3.0, "r_density": 0.4}, form="literal"
    ),
    "pfa-o": Case("pfa-o", ProductFeedback, ("B", "R"), {"expansion": 2.0}, form="closed"),
    "pfa-o-literal": Case("pfa-o", ProductFeedback, ("B", "R"), {"expansion": 2.0}, form="literal"),
    "pfa-o-few": Case("pfa-o", ProductFeedback, ("B", "R"), {"expansion": 0.5}, form="closed"),
    "pfa-l": Case("pfa-l", ProductFeedback, ("B", "R"), {"expansion": 1.0, "b_steps": 20}, form="closed"),
    "mix": Case("mix", Mixture, ("G", "C0", "V"), {}),
}
