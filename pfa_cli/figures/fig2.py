"""Figure 2: MNIST, a two-hidden-layer network. The supplement shows the algorithms that the paper's figure leaves out."""

from pfa_cli.figures.training import TrainingFigure

FIGURE = TrainingFigure(
    "fig2",
    recipe="mnist",
    accuracy=("bp", "fa", "dfa", "sf", "pfa", "pfa-o"),
    aligned=("fa", "sf", "pfa", "pfa-o"),
)
SUPPLEMENT = TrainingFigure(
    "fig2-supplement",
    recipe="mnist",
    accuracy=("bp", "dfa", "kp", "wm", "pal"),
    aligned=("kp", "wm", "pal", "dfa"),
    reference="bp",
)
