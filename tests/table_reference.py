"""Writes docs/tables.md from the schema: `python tests/table_reference.py`. A test sees that it is up to date."""

from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "docs" / "tables.md"
HEAD = """# Tables

Made from `pfa_cli/store/schema.py` and `pfa_cli/records.py` by `python tests/table_reference.py`. These are the tables as
`pfa export` writes them and as `pfa.load` gives them: tidy, one observation per row.

An empty value is one that is not defined (DFA's feedback has no weight angle in hidden layers); `nan` was computed and came out
so, in a run that diverged. Times are in UTC. A Parquet file has label and unit of every metric in its schema, too.

The tables of runs (runs, epochs, layers, attempts) end with the settings of the run, one column for each that some run in the
database has: `setting_learning_rate`, …; the options of an algorithm are among them: `setting_expansion`. Lists are JSON.

In the database itself lies a view, `run_results`, which opens it to everything that reads SQLite or PostgreSQL:

```sh
sqlite3 -header results/pfa.db "SELECT algorithm, avg(test_accuracy_last_epoch_percent) FROM run_results GROUP BY algorithm"
```
"""

INTRODUCTIONS = {
    "runs": "One row per run.",
    "epochs": "One row per run and epoch.",
    "layers": "One row per run, epoch and layer.",
    "attempts": "One row per time that a process worked on a run.",
    "simulations": "One row per simulated value (Figure 3).",
    "benchmarks": "One row per measured value (`pfa bench --store`).",
}
OTHER_NAMES = {
    "run_id": "number of the run in this database",
    "attempt_id": "number of the attempt in this database",
    "expansion": "expansion ratio; empty for an algorithm without one",
    "validation_accuracy_last_epoch_percent": "top-1 accuracy on the validation images after the last epoch",
    "test_accuracy_last_epoch_percent": "top-1 accuracy on the test images after the last epoch",
    "best_validation_epoch": "first epoch with the highest validation accuracy; empty without validation images",
    "validation_accuracy_best_validation_epoch_percent": "top-1 accuracy on the validation images in that epoch",
    "test_accuracy_best_validation_epoch_percent": "top-1 accuracy on the test images in that epoch",
    "options": "the algorithm's own settings, as JSON",
}


def reference() -> str:
    """The whole document."""
    from pfa_cli.store.tables import TABLES, table
    from pfa_cli.store.views import run_results

    parts = [HEAD]
    for name in TABLES:
        rows = [_row(name, column) for column in table(name).selected_columns]
        parts.append("\n".join([f"\n## {name}\n\n{INTRODUCTIONS[name]}\n", *_HEADER, *rows, ""]))
    rows = [_row("runs", column) for column in run_results().selected_columns]
    introduction = "A view, one row per run: what was set and what came out. It is in the database only."
    parts.append("\n".join([f"\n## run_results\n\n{introduction}\n", *_HEADER, *rows, ""]))
    return "".join(parts)


_HEADER = ("| column | what it is | unit |", "|---|---|---|")


def _row(table: str, column: Any) -> str:
    from pfa_cli.configuration import BASE_SETTINGS
    from pfa_cli.store.schema import METRICS

    name = column.name
    metric = METRICS.get((table, name)) or METRICS.get(("epochs", name))
    meaning = (
        OTHER_NAMES.get(name)
        or (metric and metric.metadata["label"])
        or getattr(getattr(column, "element", column), "doc", None)
        or BASE_SETTINGS[name]
    )
    unit = metric.metadata["unit"] if metric else "percent" if name.endswith("_percent") else None
    return f"| `{name}` | {meaning} | {unit or ''} |"


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
