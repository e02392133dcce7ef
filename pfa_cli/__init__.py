"""Credit assignment without weight symmetry: eight learning algorithms, one trainer, one results database."""

__version__ = "0.1.0"
