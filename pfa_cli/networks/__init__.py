"""The networks, one file each. Initialisation is the trainer's business; here it is torch's default."""

from pfa_cli.networks.build import build_network, check_network

__all__ = ["build_network", "check_network"]
