"""Figure 3: how PFA comes closer to BP as the expansion ratio 1/λ grows.

(a) Eigenvalues of BᵀB: mean and standard deviation, by simulation and by the Marchenko-Pastur law. (b) Path angle:
Proposition 3, simulation, and what trained networks reached, layer by layer, for every expansion ratio that was run.
Networks that were not trained as the paper's do not stretch the axis: points of theirs that lie above it are named below.
"""

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pfa_cli.analysis import published
from pfa_cli.analysis.curves import tidy
from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.paper import Figure, paper
from pfa_cli.analysis.published import ANGLE
from pfa_cli.analysis.words import MANY_LAYERS, data_note, settings_note
from pfa_cli.figures import style
from pfa_cli.figures.drawing import Drawing, Options
from pfa_cli.figures.page import page
from pfa_cli.theory.marchenko_pastur import edges, eigenvalue_std
from pfa_cli.theory.propositions import path_angle_degrees
from pfa_cli.wording import count

COLUMNS = (
    "figure", "panel", "source", "recipe", "quantity", "expansion", "layer_index", "layer", "mean", "std", "n", "epoch",
    "run_ids",
)  # fmt: skip
QUANTITY = "path_angle_degrees"
_POINTS = 81  # of a theory curve
_MARKERS = dict(zip(paper().experiments, itertools.cycle("os^Dv"), strict=False))
_PFA = style.colours(["pfa"])["pfa"]


def draw(name: str, declared: Figure, evidence: Evidence, options: Options) -> Drawing | None:
    """The figure, or None if neither simulations nor trained PFA networks are in the database."""
    simulated = [_simulated(evidence, kind) for kind in ("eigenvalues", "path")]
    trained, notes = _trained(evidence)
    if all(frame.empty for frame in (*simulated, trained)):
        return None
    known = [*simulated, trained, *([_published()] if options.published else [])]
    ratios = [float(ratio) for frame in known if len(frame) for ratio in frame["expansion"]]
    theory = _theory(min(1.0, *ratios), max(100.0, *ratios))
    shown = tidy([*theory, *known], COLUMNS).assign(figure=name)
    top = _top(shown[shown["panel"] == "b"], trained)
    notes = [_simulation_note(evidence), *notes, *_above(trained, top)]
    letters = options.chosen(name, ["a", "b"])
    shown = shown[shown["panel"].isin(letters)]
    figure, content = page(2.5, notes, options)
    for letter, ax in zip(letters, content.subplots(1, len(letters), squeeze=False)[0], strict=True):
        if letter == "a":
            _eigenvalue_panel(ax, shown[shown["panel"] == "a"])
        else:
            _angle_panel(ax, shown[shown["panel"] == "b"], top)
            content.legend(handles=ax.get_legend_handles_labels()[0], loc="outside right upper")
    return Drawing(figure, shown)


def _theory(least: float, most: float) -> list[pd.DataFrame]:
    """Both panels' curves; that of the eigenvalues starts at 1, below which BᵀB is singular."""
    law = [
        {"expansion": 1 / lam, "eigenvalue_mean": 1.0, "eigenvalue_std": eigenvalue_std(lam),
         "eigenvalue_min": edges(lam)[0], "eigenvalue_max": edges(lam)[1]}
        for lam in np.geomspace(1, 1 / most, _POINTS)
    ]  # fmt: skip
    angles = [
        {"expansion": expansion, "path_angle_degrees": path_angle_degrees(1 / expansion)}
        for expansion in np.geomspace(least, most, _POINTS)
    ]
    return [
        pd.DataFrame(rows)
        .melt("expansion", var_name="quantity", value_name="mean")
        .assign(panel=panel, source="theory")
        for panel, rows in (("a", law), ("b", angles))
    ]


def _simulated(evidence: Evidence, kind: str) -> pd.DataFrame:
    """Mean and std over the draws of every simulated quantity."""
    values = evidence.simulations(kind)
    if values.empty:
        return pd.DataFrame()
    values = values[values["quantity"] != "path_norm_ratio"]
    pooled = (
        values.groupby(["quantity", "expansion"])["value"]
        .agg(mean="mean", std="std", n="count")
        .reset_index()
    )
    return pooled.assign(panel="b" if kind == "path" else "a", source="simulation")


def _trained(evidence: Evidence) -> tuple[pd.DataFrame, list[str]]:
    """Every layer's path angle after training, mean and std over seeds, by recipe and expansion ratio; and notes."""
    found, notes = [], []
    for recipe in _MARKERS:
        comparison = evidence.comparison(recipe)
        if comparison is None:
            continue
        seeds, cohorts = [], []
        for (expansion,), cohort in comparison.variants("pfa", "expansion").items():
            last = comparison.last_layers(cohort)
            last = last[last[QUANTITY].notna()]
            if last.empty:
                continue
            pooled = last.groupby(["layer_index", "layer"])[QUANTITY].agg(mean="mean", std="std", n="count")
            found.append(
                pooled.reset_index().assign(
                    panel="b", source="trained", recipe=recipe, quantity=QUANTITY, expansion=expansion,
                    departs=bool(cohort.departures.keys() - {"expansion"}), epoch=last["epoch"].max(),
                    run_ids=" ".join(str(run) for run in sorted(set(last["run_id"]))),
                )
            )  # fmt: skip
            cohorts.append(cohort)
            unfinished = "" if cohort.finished else ", unfinished"
            seeds.append(f"{expansion:g} (n\u00a0=\u00a0{last['run_id'].nunique()}{unfinished})")
        if seeds:
            departed = settings_note(
                cohorts, besides=["expansion", "least_units"]
            )  # the latter of ratios below 1
            said = filter(None, (data_note(comparison), departed))
            notes.append(f"Trained PFA networks: {' '.join(said)} Expansion ratios: {', '.join(seeds)}.")
    return (pd.concat(found, ignore_index=True) if found else pd.DataFrame()), notes


def _published() -> pd.DataFrame:
    """The published path angles of PFA on MNIST after its last epoch, seed 0, expansion ratio 10."""
    rows = published.alignment_curves("mnist", "pfa", ANGLE)
    rows = rows[rows["epoch"] == paper().experiments["mnist"].epochs]
    return rows.assign(panel="b", source="published", recipe="mnist", quantity=QUANTITY, expansion=10.0)


def _simulation_note(evidence: Evidence) -> str:
    values = evidence.simulations("path")
    if values.empty:
        return "No simulations are stored in this database: `pfa simulate` adds them (two seconds)."
    units, draws = int(values["units"].max()), int(values["draws"].max())
    return (
        f"Simulation: B with {units} columns and elements of variance 1/N̄, W standard normal, Rᵀ = BW; mean and standard "
        f"deviation over {count(draws, 'draw')}; in (a) the bands are those of the eigenvalues themselves. "
        "Theory: Marchenko-Pastur law (eq. 8), Proposition 3."
    )


def _values(shown: pd.DataFrame, source: str, quantity: str) -> pd.DataFrame:
    rows = shown[(shown["source"] == source) & (shown["quantity"] == quantity)]
    return rows.sort_values("expansion")


def _eigenvalue_panel(ax: Axes, shown: pd.DataFrame) -> None:
    for source, colour in (("simulation", _PFA), ("theory", style.THEORY["color"])):
        mean, std, low, high = (
            _values(shown, source, f"eigenvalue_{q}") for q in ("mean", "std", "min", "max")
        )
        if mean.empty:
            continue
        x, centre, spread = mean["expansion"], mean["mean"].to_numpy(), std["mean"].to_numpy()
        if source == "simulation":
            ax.fill_between(
                x, centre - spread, centre + spread, color=colour, alpha=style.BAND_ALPHA, linewidth=0
            )
            points = {"color": colour, "markersize": 3}
            ax.plot(x, centre, marker="o", label="simulation: mean ± std", **points)
            ax.plot(x, low["mean"], marker="v", linestyle="", label="simulation: extremes", **points)
            ax.plot(x, high["mean"], marker="^", linestyle="", **points)
        else:
            dashes = {"color": colour, "linewidth": 0.9, "linestyle": "--"}
            ax.plot(x, centre - spread, label="theory: 1 ± √λ", **dashes)
            ax.plot(x, centre + spread, **dashes)
            ax.plot(x, low["mean"], **style.THEORY, label="theory: edges (1 ± √λ)²")
            ax.plot(x, high["mean"], **style.THEORY)
    ax.set_ylabel("eigenvalues of BᵀB")
    ax.set_ylim(bottom=-0.15)
    ax.legend(loc="upper right")
    ax.set_xscale("log")
    expansion_ticks(ax)
    style.label_panel(ax, "a")


def _top(shown: pd.DataFrame, trained: pd.DataFrame) -> float | None:
    """Where the axis of angles ends: above all but networks not trained as the paper's; None where there are only such."""
    if trained.empty or trained["departs"].all():
        return None
    rest = pd.concat([shown[shown["source"] != "trained"], trained[~trained["departs"]]])
    return 1.1 * float(rest["mean"].max())


def _above(trained: pd.DataFrame, top: float | None) -> list[str]:
    """What lies above the axis, by recipe."""
    if top is None:
        return []
    above = trained[trained["mean"] > top]
    return [
        f"Above the axis of (b): {recipe}, {count(len(own), 'layer')} at {_span(own['mean'])}°."
        for recipe, own in above.groupby("recipe", sort=False)
    ]


def _span(values: pd.Series) -> str:
    """The least and the largest as whole numbers; one where they are the same."""
    return " to ".join(dict.fromkeys(f"{end:.0f}" for end in (values.min(), values.max())))


def _angle_panel(ax: Axes, shown: pd.DataFrame, top: float | None) -> None:
    theory, colour = _values(shown, "theory", QUANTITY), style.THEORY["color"]
    ax.plot(
        theory["expansion"], theory["mean"], color=colour, linewidth=0.9, label="theory: arccos(1/√(1+λ))"
    )
    simulated = _values(shown, "simulation", QUANTITY)
    if len(simulated):
        ax.errorbar(
            simulated["expansion"], simulated["mean"], simulated["std"], color="#606060", linestyle="", marker="o",
            markersize=5, markerfacecolor="none", markeredgewidth=0.8, elinewidth=0.8, label="simulation",
        )  # fmt: skip
    for source in ("published", "trained"):
        rows = shown[shown["source"] == source]
        for recipe, own in rows.groupby("recipe", sort=False):
            _layers(ax, own, str(recipe), source)
    ax.set_ylabel("path angle (degrees)")
    ax.set_ylim(0, top)
    ax.set_xscale("log")
    expansion_ticks(ax)
    style.label_panel(ax, "b")


def _layers(ax: Axes, rows: pd.DataFrame, recipe: str, source: str) -> None:
    """One point per layer; few layers get a colour each and stand side by side, many share one."""
    indices = sorted(set(rows["layer_index"]))
    few = len(indices) <= MANY_LAYERS
    for i, index in enumerate(indices):
        layer = rows[rows["layer_index"] == index]
        shift = 1.05 ** (i - (len(indices) - 1) / 2) if few else 1.0
        colour = style.layer_colours(len(indices))[i] if few else _PFA
        label = f"trained, {recipe}" + (f", layer {index + 1}" if few else f" ({len(indices)} layers)")
        if source == "published":
            colour, label = style.PUBLISHED["color"], "published, mnist, seed 0"
        ax.errorbar(
            layer["expansion"] * shift, layer["mean"], _whiskers(layer), color=colour, linestyle="",
            marker="_" if source == "published" else _MARKERS[recipe], markersize=7 if source == "published" else 3,
            elinewidth=0.8, alpha=1.0 if few else 0.6, label=label if (few and source == "trained") or i == 0 else None,
        )  # fmt: skip


def _whiskers(layer: pd.DataFrame) -> pd.Series | None:
    """Standard deviations, none where no point has one (a single seed)."""
    return None if layer["std"].isna().all() else layer["std"].fillna(0.0)


def expansion_ticks(ax: Axes) -> None:
    """Labels of a logarithmic axis of expansion ratios."""
    ax.set_xlabel("expansion ratio 1/λ")
    low, high = ax.get_xlim()
    known = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    ticks = [x for x in known if low <= x <= high]
    ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
    ax.minorticks_off()
