"""Figure 4: CIFAR-10, ResNet-20. The supplement shows the algorithms that the paper's figure leaves out."""

from dataclasses import replace

from pfa_cli.figures import fig2

FIGURE = replace(fig2.FIGURE, name="fig4", recipe="cifar10")
SUPPLEMENT = replace(fig2.SUPPLEMENT, name="fig4-supplement", recipe="cifar10")
