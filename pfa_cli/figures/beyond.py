"""Figure 6: what the paper's Discussion leaves open, on MNIST.

(a) Path angle against steps of spontaneous activity, while PFA-l learns B (simulation). (b) Accuracy minus BP's against the
expansion ratio, (c) against the density of B and of R, with the predicted path angle, (d) against the share of units whose
errors go down by FA in a mixture of PFA, FA and KP, with the correlation R of direct feedback weights and W.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from pfa_cli.analysis.curves import tidy
from pfa_cli.analysis.evidence import LAST, Comparison, Evidence
from pfa_cli.analysis.paper import Figure
from pfa_cli.analysis.statistics import margin, t_interval
from pfa_cli.analysis.words import data_note
from pfa_cli.figures import style
from pfa_cli.figures.drawing import Drawing, Options
from pfa_cli.figures.expansion import expansion_ticks
from pfa_cli.figures.page import page
from pfa_cli.registry import described
from pfa_cli.theory.cortex import angle_degrees, correlation
from pfa_cli.theory.propositions import path_angle_degrees, path_limit, sparse_b_angle_degrees
from pfa_cli.wording import count

COLUMNS = (
    "figure", "panel", "source", "algorithm", "quantity", "option", "value", "mean", "std", "low", "high", "n", "run_ids",
)  # fmt: skip
ACCURACY = "accuracy_minus_bp_points"
ANGLE = "path_angle_degrees"
CORRELATION = "weight_correlation"
_SPARSE = ("b_density", "r_density")
_SHARES = ("fa_share", "pfa_share", "kp_share")
_COLOURS = style.colours(("pfa", "pfa-o", "pfa-l", "mix"))
_SECOND = style.PUBLISHED["color"]  # of the second axes
_MARKERS = {"pfa": "o", "pfa-o": "s", "pfa-l": "^", "mix": "D", "b_density": "o", "r_density": "v"}
_LINES = {"b_density": "--", "r_density": ":"}
_ASIDE = 1.06  # by which a line's points are shifted, so that the intervals of several are seen
_ABOVE: dict[str, Any] = {
    "loc": "lower right",
    "bbox_to_anchor": (1.0, 1.0),
    "borderaxespad": 0.2,
}  # a legend
_HIDDEN_UNITS, _EXPANSION = 512, 10.0  # of the MLP's layers and of PFA, for the prediction of a sparse B


def draw(name: str, declared: Figure, evidence: Evidence, options: Options) -> Drawing | None:
    """The figure, or None if the database has neither the simulation nor a run that a panel shows."""
    comparison = evidence.comparison(declared.recipe)
    parts = [_spontaneous(evidence), *(_measured(comparison) if comparison else [])]
    if all(part.empty for part in parts):
        return None
    shown = tidy([*parts, *_predicted()], COLUMNS).assign(figure=name)
    letters = options.chosen(name, list(_PANELS))
    shown = shown[shown["panel"].isin(letters)]
    notes = _notes(comparison, evidence)
    across = 2 if len(letters) > 1 and options.width > 4 else 1
    down = math.ceil(len(letters) / across)
    figure, content = page(2.15 * down, notes, options)
    axes = content.subplots(down, across, squeeze=False).ravel()
    for letter, ax in zip(letters, axes, strict=False):
        rows = shown[shown["panel"] == letter]
        _PANELS[letter](ax, rows, comparison)
        if rows[rows["source"].isin(("simulation", "trained"))].empty:
            style.say_inside(ax, "not simulated" if letter == "a" else "not run")
        style.label_panel(ax, letter)
    for ax in axes[len(letters) :]:
        ax.remove()
    return Drawing(figure, shown)


def _spontaneous(evidence: Evidence) -> pd.DataFrame:
    """Panel (a): mean and std over the draws after every number of steps, by kind of lateral weights."""
    values = evidence.simulations("spontaneous")
    if values.empty:
        return values
    pooled = (
        values.groupby(["lateral", "steps"])["value"].agg(mean="mean", std="std", n="count").reset_index()
    )
    pooled = pooled.rename(columns={"lateral": "option", "steps": "value"})
    return pooled.assign(panel="a", source="simulation", algorithm="pfa-l", quantity=ANGLE)


def _measured(comparison: Comparison) -> list[pd.DataFrame]:
    """Panels (b), (c) and (d): what trained networks have, for every value of the swept option."""
    swept = [("b", name, ("expansion",)) for name in ("pfa", "pfa-o", "pfa-l")]
    swept += [("c", "pfa", (option,)) for option in _SPARSE]
    return [_sweep(comparison, *one) for one in [*swept, ("d", "mix", _SHARES)]]


def _sweep(comparison: Comparison, panel: str, algorithm: str, keys: Sequence[str]) -> pd.DataFrame:
    """Accuracy minus BP's over the seeds that both have, and the path angle (or R of a mixture), mean over layers."""
    variants, rows = comparison.variants(algorithm, *keys), []
    if panel == "c" and len(variants) < 2:  # density 1 alone is PFA itself
        return pd.DataFrame()
    for values, cohort in variants.items():
        if not cohort.finished or cohort.pooled.empty:
            continue
        common = {
            "panel": panel, "source": "trained", "algorithm": algorithm, "option": keys[0], "value": float(values[0]),
            "run_ids": " ".join(map(str, cohort.run_ids)),
        }  # fmt: skip
        if bp := comparison.cohorts.get("bp"):
            pairs = comparison.pairs(cohort, bp)
            if len(pairs):
                differences = pairs["ours"] - pairs["other"]
                found = t_interval(differences.tolist())
                rows.append(
                    common
                    | {"quantity": ACCURACY, "mean": found.mean, "std": differences.std(), "low": found.low,
                       "high": found.high, "n": found.n}
                )  # fmt: skip
        quantity = CORRELATION if panel == "d" else ANGLE
        by_seed = comparison.last_layers(cohort).groupby("run_id")[quantity].mean().dropna()
        if len(by_seed):
            rows.append(
                common
                | {"quantity": quantity, "mean": by_seed.mean(), "std": by_seed.std(), "n": len(by_seed)}
            )
    return pd.DataFrame(rows)


def _predicted() -> list[pd.DataFrame]:
    """Panel (a): where PFA and PFA-o end at expansion ratio 1. Panel (c): the path angle by density. Panel (d): cortex."""
    limits = pd.DataFrame({"algorithm": ["pfa", "pfa-o"], "mean": [path_angle_degrees(1.0), 0.0]})
    limits = limits.assign(panel="a", quantity=ANGLE, option="limit")
    densities = [0.01 * 100 ** (i / 40) for i in range(41)]
    predicted = {
        "b_density": [sparse_b_angle_degrees(_HIDDEN_UNITS, _EXPANSION, q) for q in densities],
        "r_density": [path_limit({"expansion": _EXPANSION, "r_density": q})[0] for q in densities],
    }
    angles = [
        pd.DataFrame({"option": option, "value": densities, "mean": found}).assign(
            panel="c", quantity=ANGLE, algorithm="pfa"
        )
        for option, found in predicted.items()
    ]
    cortex = pd.DataFrame({"option": ["cortex"], "mean": [correlation()]}).assign(
        panel="d", quantity=CORRELATION
    )
    return [part.assign(source="theory") for part in (limits, *angles, cortex)]


def _notes(comparison: Comparison | None, evidence: Evidence) -> list[str]:
    values, notes = evidence.simulations("spontaneous"), []
    if values.empty:
        notes.append("(a): not stored in this database; `pfa simulate` adds it (two seconds).")
    else:
        units, draws = int(values["units"].max()), int(values["draws"].max())
        notes.append(
            f"(a): simulation, {units} error units for {units} errors, {units} errors in a step; mean and standard deviation "
            f"over {count(draws, 'draw')} of B, W and the errors. Lines: where PFA and PFA-o end at expansion ratio 1."
        )
    if comparison is None:
        return [*notes, "(b) to (d): nothing was run."]
    notes.append(
        f"(b) to (d): {data_note(comparison)} Accuracy on the test images after the last epoch, minus that of BP with the "
        "same seed: mean over seeds and its 95 % interval (one seed has none); shaded: BP's level (10 % of its error rate)."
    )
    notes.append(
        "(c): at expansion ratio 10; hollow: path angle, mean over layers; grey lines: as predicted for 512 units. "
        "(d): KP has 9 % of the units, PFA the rest; hollow: correlation R of the direct feedback weights with W over all "
        f"pairs, mean over layers; dashed: cortex, R = {correlation():.2f} ({angle_degrees(correlation()):.0f}°)."
    )
    return notes


def _steps_panel(ax: Axes, rows: pd.DataFrame, comparison: Comparison | None) -> None:
    colour = _COLOURS["pfa-l"]
    for lateral, marker, filled in (("symmetric", "o", True), ("one-way", "s", False)):
        own = rows[(rows["option"] == lateral) & (rows["source"] == "simulation")].sort_values("value")
        if len(own):
            ax.errorbar(
                own["value"], own["mean"], own["std"], color=colour, marker=marker, markersize=3, linewidth=0.9,
                markerfacecolor=colour if filled else "white", elinewidth=0.6, label=f"PFA-l, {lateral}",
            )  # fmt: skip
    for name, own in rows[rows["source"] == "theory"].groupby("algorithm"):
        label = f"{described(str(name)).label}'s limit"
        ax.axhline(own["mean"].iloc[0], color=_COLOURS[str(name)], linewidth=0.9, linestyle="--", label=label)
    ax.set_xscale("symlog", linthresh=1)
    ticks = [0, 1, 2, 5, 10, 20, 50, 100, 200, 400]
    ax.set_xticks(ticks, [str(step) for step in ticks])
    ax.set_xlim(-0.1, 450)
    ax.minorticks_off()
    ax.set_ylim(-2, 50)
    ax.set_xlabel("steps of spontaneous activity")
    ax.set_ylabel("path angle (°)")
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0.88))


def _differences(ax: Axes, rows: pd.DataFrame, labels: dict[str, str], by: str) -> None:
    """Accuracy minus BP's with its interval, a line per value of the column ``by``; the lines stand side by side."""
    own = rows[rows["quantity"] == ACCURACY]
    for place, (key, line) in enumerate(own.groupby(by, sort=False)):
        line = line.sort_values("value")
        half = (line["high"] - line["mean"]).fillna(0.0)
        ax.errorbar(
            line["value"] * _ASIDE**place, line["mean"], half, color=_COLOURS[line["algorithm"].iloc[0]],
            marker=_MARKERS[str(key)], linestyle=_LINES.get(str(key), "-"), markersize=3, linewidth=0.9, elinewidth=0.7,
            label=labels.get(str(key), str(key)),
        )  # fmt: skip


def _level(ax: Axes, comparison: Comparison | None) -> None:
    """BP's level as the verdicts have it."""
    ax.axhline(0, color="black", linewidth=0.7)
    if comparison is not None and (bp := comparison.cohorts.get("bp")) and bp.finished and len(bp.pooled):
        within = margin(float(comparison.final_accuracy(bp)[LAST].mean()))
        ax.axhspan(-within, within, **style.SHADE)
    ax.set_ylabel("accuracy minus BP (points)")


def _expansion_panel(ax: Axes, rows: pd.DataFrame, comparison: Comparison | None) -> None:
    _level(ax, comparison)
    _differences(ax, rows, {name: described(name).label for name in ("pfa", "pfa-o", "pfa-l")}, "algorithm")
    ax.set_xscale("log")
    ax.set_xlim(0.015, 130)
    expansion_ticks(ax)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(ncols=3, **_ABOVE)


def _density_panel(ax: Axes, rows: pd.DataFrame, comparison: Comparison | None) -> None:
    names = {"b_density": "B sparse", "r_density": "R sparse"}
    _level(ax, comparison)
    _differences(ax, rows, names, "option")
    ax.set_xscale("log")
    ax.set_xlim(0.015, 1.25)
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1]
    ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
    ax.minorticks_off()
    ax.set_xlabel("density")
    second = _second_axis(ax, "path angle (°)")
    for option in _SPARSE:
        own = rows[(rows["option"] == option) & (rows["quantity"] == ANGLE)].sort_values("value")
        theory, trained = (own[own["source"] == source] for source in ("theory", "trained"))
        second.plot(
            theory["value"], theory["mean"], color=_SECOND, linewidth=0.8,
            linestyle=_LINES[option], label=f"{names[option][0]}: angle as predicted",
        )  # fmt: skip
        second.plot(
            trained["value"] * _ASIDE ** _SPARSE.index(option), trained["mean"], color=_SECOND, linestyle="",
            marker=_MARKERS[option], markersize=4, markerfacecolor="white",
        )  # fmt: skip
    second.set_ylim(0, 90)
    drawn = [*ax.get_legend_handles_labels()[0], *second.get_legend_handles_labels()[0]]
    second.legend(handles=drawn, ncols=2, **_ABOVE)


def _mixture_panel(ax: Axes, rows: pd.DataFrame, comparison: Comparison | None) -> None:
    _level(ax, comparison)
    _differences(ax, rows, {"mix": "accuracy"}, "algorithm")
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of FA units")
    second = _second_axis(ax, "correlation R")
    own = rows[(rows["quantity"] == CORRELATION) & (rows["source"] == "trained")].sort_values("value")
    if len(own):
        second.errorbar(
            own["value"], own["mean"], own["std"].fillna(0.0), color=_SECOND, marker="D", markersize=3.5,
            markerfacecolor="white", linewidth=0.8, elinewidth=0.6, label="correlation R",
        )  # fmt: skip
    cortex = float(rows.loc[rows["option"] == "cortex", "mean"].iloc[0])
    second.axhline(cortex, color=_SECOND, linewidth=0.8, linestyle="--", label=f"cortex, R = {cortex:.2f}")
    second.set_ylim(0, 0.5)
    drawn = [*ax.get_legend_handles_labels()[0], *second.get_legend_handles_labels()[0]]
    second.legend(handles=drawn, ncols=3, **_ABOVE)


def _second_axis(ax: Axes, label: str) -> Axes:
    second = ax.twinx()
    second.spines["right"].set_visible(True)
    second.set_ylabel(label, color=_SECOND)
    second.tick_params(axis="y", colors=_SECOND)
    return second


_PANELS: dict[str, Callable[[Axes, pd.DataFrame, Comparison | None], None]] = {
    "a": _steps_panel,
    "b": _expansion_panel,
    "c": _density_panel,
    "d": _mixture_panel,
}
