"""How long an epoch takes, from the epochs that the database holds."""

from collections import defaultdict
from collections.abc import Iterable

from pfa_cli.store.queries import RunRow


class EpochSeconds:
    """Mean seconds of an epoch, with evaluation: by configuration, by recipe and algorithm, by recipe."""

    def __init__(self, rows: Iterable[RunRow]) -> None:
        self._sums: dict[tuple[str, ...], tuple[float, int]] = defaultdict(lambda: (0.0, 0))
        for row in rows:
            if row.seconds_per_epoch is not None:
                for key in ((row.config_hash,), (row.recipe, row.algorithm), ("recipe", row.recipe, "")):
                    seconds, epochs = self._sums[key]
                    n = row.epochs_measured
                    self._sums[key] = (seconds + row.seconds_per_epoch * n, epochs + n)

    def of(self, config_hash: str, recipe: str, algorithm: str, *, least: int = 1) -> float | None:
        """From this configuration's epochs, else its recipe's and algorithm's; None below ``least``."""
        return self._mean(least, (config_hash,), (recipe, algorithm))

    def about(self, config_hash: str, recipe: str, algorithm: str, *, least: int = 1) -> float | None:
        """As ``of``, but rather the mean of all algorithms than nothing."""
        return self._mean(least, (config_hash,), (recipe, algorithm), ("recipe", recipe, ""))

    def _mean(self, least: int, *keys: tuple[str, ...]) -> float | None:
        for key in keys:
            seconds, epochs = self._sums.get(key, (0.0, 0))
            if epochs >= least:
                return seconds / epochs
        return None
