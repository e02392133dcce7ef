"""All that a comparison found, and its form for other programs."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pfa_cli.analysis.claims import Judgement, judge_all
from pfa_cli.analysis.deviations import Panel, Replay, panels, replays
from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.paper import paper
from pfa_cli.analysis.statistics import RULES
from pfa_cli.analysis.words import data_note
from pfa_cli.store.errors import no_results


@dataclass(frozen=True)
class Findings:
    """The paper's claims and our own, the panels, the replayed runs, and ``data``: what each recipe that was run ran on."""

    claims: tuple[Judgement, ...]
    own_claims: tuple[Judgement, ...]
    panels: tuple[Panel, ...]
    replays: tuple[Replay, ...]
    data: Mapping[str, str]

    def as_json(self) -> str:
        """Everything, layer by layer; null where a number is not defined, or an end of a region is open."""
        whole = {
            "data": dict(self.data),
            "claims": [asdict(one) | {"measured": _measured(one)} for one in self.claims],
            "own_claims": [asdict(one) | {"measured": _measured(one)} for one in self.own_claims],
            "panels": [asdict(one) for one in self.panels],
            "replays": [asdict(one) for one in self.replays],
            "rules": RULES,
        }
        return json.dumps(_finite(whole), ensure_ascii=False, indent=2, allow_nan=False)


def find(evidence: Evidence) -> Findings:
    """Compares all that the database holds with the paper; NoResults if it holds no epoch."""
    if evidence.runs.empty:
        raise no_results(evidence.name)
    run = {recipe: found for recipe in paper().experiments if (found := evidence.comparison(recipe))}
    return Findings(
        claims=tuple(judge_all(run, paper().claims)),
        own_claims=tuple(judge_all(run, paper().own_claims)),
        panels=tuple(panels(run)),
        replays=tuple(replays(evidence)),
        data={recipe: data_note(comparison) for recipe, comparison in run.items()},
    )


def _measured(one: Judgement) -> list[dict[str, Any]]:
    return [
        {"label": m.label, **asdict(m.interval), "region_low": m.region.low, "region_high": m.region.high}
        for m in one.measured
    ]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
