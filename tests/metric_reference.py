"""Writes docs/metrics.md from the records: `python tests/metric_reference.py`. A test sees that it is up to date."""

from pathlib import Path

FILE = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = """# Metrics

Made from `pfa_cli/records.py` by `python tests/metric_reference.py`. The tables `epochs` and `layers`, as `pfa export` writes
them, have these columns of numbers. Epoch 0 is the network at initialisation. An empty value is one that is not defined
(DFA's feedback has no weight angle in hidden layers); `nan` was computed and came out so, in a run that diverged.
A Parquet file has label and unit in its schema, too.

| table | column | what it is | unit |
|---|---|---|---|
"""


def reference() -> str:
    """The whole document."""
    from pfa_cli.store.schema import METRICS

    return HEAD + "".join(
        f"| {table} | `{name}` | {metric.metadata['label']} | {metric.metadata['unit'] or ''} |\n"
        for (table, name), metric in METRICS.items()
    )


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
