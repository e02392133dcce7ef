"""`python -m pfa_cli` is `pfa`."""

from pfa_cli.cli import main

main()
