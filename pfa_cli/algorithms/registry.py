"""Moved to `pfa_cli.registry`."""

from pfa_cli.registry import ALGORITHMS, Entry, Option, OptionValue
from pfa_cli.registry import algorithm as entry

__all__ = ["ALGORITHMS", "Entry", "Option", "OptionValue", "entry"]
