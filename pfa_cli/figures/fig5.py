"""Figure 5: ImageNet, ResNet-18, or whatever data set the ImageNet recipe was run on: the notes name it."""

from pfa_cli.figures.training import TrainingFigure

FIGURE = TrainingFigure(
    "fig5",
    recipe="imagenet",
    accuracy=("bp", "sf", "pfa", "pfa-o"),
    aligned=("sf", "pfa", "pfa-o"),
)
