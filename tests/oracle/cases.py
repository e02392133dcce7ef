"""The table of algorithms that drives every algorithm's tests: a new algorithm is one line here."""

from dataclasses import dataclass, field

from oracle.feedback import (
    Direct,
    Feedback,
    Fixed,
    KollenPollack,
    PhaselessAlignment,
    ProductFeedback,
    Sign,
    WeightMirror,
)


@dataclass(frozen=True)
class Case:
    """``start``: the layer's tensors from which the oracle starts (of PFA: of the literal form with the same seed)."""

    algorithm: str
    oracle: type[Feedback]
    start: tuple[str, ...] = ()
    settings: dict[str, float] = field(default_factory=dict)  # given to the implementation and to the oracle
    form: str | None = None


CASES = {
    "bp": Case("bp", Feedback),
    "fa": Case("fa", Fixed, ("V",)),
    "dfa": Case("dfa", Direct, ("D",)),
    "sf": Case("sf", Sign),
    "kp": Case("kp", KollenPollack, ("C0",)),
    "wm": Case("wm", WeightMirror, ("V",), {"mirror_samples": 9, "mirror_rate": 0.2}),
    "pal": Case("pal", PhaselessAlignment, ("V",), {"rate": 0.3, "noise": 0.4, "leak": 0.25}),
    "pfa": Case("pfa", ProductFeedback, ("B", "R"), {"expansion": 3.0}, form="closed"),
    "pfa-literal": Case("pfa", ProductFeedback, ("B", "R"), {"expansion": 3.0}, form="literal"),
    "pfa-o": Case("pfa-o", ProductFeedback, ("B", "R"), {"expansion": 2.0}, form="closed"),
    "pfa-o-literal": Case("pfa-o", ProductFeedback, ("B", "R"), {"expansion": 2.0}, form="literal"),
}
