"""What the database says, in numbers: evidence, statistics, claims, Table 1's verdicts. Nothing here draws or imports torch.

    paper.toml, published curves ─┐
                                  ├→ claims, deviations, Table 1
    database → evidence ──────────┘

Importing this package is cheap; pandas comes in with its modules.
"""
