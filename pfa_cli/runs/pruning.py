"""`pfa run --prune`: stops a configuration that is clearly behind the others, by the median rule on validation accuracy.

The rule is that of Golovin et al. (2017, Google Vizier, section 3.2.2), as Optuna's MedianPruner has it: after an epoch
a run stops if its best validation accuracy so far is below the median of what the other runs had reached by then. The
others are those of the same recipe, algorithm and number of epochs with other settings. A learning rate that falls late
can turn an order around, so that nothing stops in the first quarter of the epochs, nor with fewer than `LEAST_RUNS` others.
"""

import math
import statistics
from collections import defaultdict

from sqlalchemy import select

from pfa_cli.configuration import Configuration
from pfa_cli.runs.liveness import PRUNED
from pfa_cli.store.engine import Store
from pfa_cli.store.schema import epochs, runs
from pfa_cli.wording import percent

LEAST_RUNS = 4
_FIRST = 1 / 4  # of the epochs, in which nothing stops


def behind(store: Store, run_id: int, configuration: Configuration, epoch: int) -> str | None:
    """Why the run is to stop after ``epoch``, which is stored; None if it is to go on."""
    if epoch < _FIRST * configuration.epochs or epoch >= configuration.epochs:
        return None
    query = (
        select(epochs.c.run_id, runs.c.config_hash, epochs.c.epoch, epochs.c.validation_accuracy_percent)
        .join_from(epochs, runs, epochs.c.run_id == runs.c.id)
        .where(
            runs.c.recipe == configuration.recipe,
            runs.c.algorithm == configuration.algorithm,
            runs.c.epochs_total == configuration.epochs,
            epochs.c.epoch.between(1, epoch),
        )
    )
    own: list[float] = []
    others: dict[int, dict[int, float]] = defaultdict(dict)
    for run, config_hash, at, accuracy in store.read(lambda connection: connection.execute(query).all()):
        if accuracy is None:
            continue
        value = -math.inf if math.isnan(accuracy) else accuracy
        if run == run_id:
            own.append(value)
        elif config_hash != configuration.hash:
            others[run][at] = value
    reached = [max(values.values()) for values in others.values() if epoch in values]
    if not own or len(reached) < LEAST_RUNS or max(own) >= (median := statistics.median(reached)):
        return None
    best = math.nan if max(own) == -math.inf else max(own)
    return (
        f"{PRUNED} after epoch {epoch}: its best validation accuracy, {percent(best)} %, is below the median of "
        f"{len(reached)} runs with other settings, {percent(median)} %"
    )
