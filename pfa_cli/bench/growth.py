"""How the cost of a step grows with batch size, width and expansion ratio: BP, PFA, and PFA as the paper writes it.

The points of one curve take steps by turns, in one process whatever `--jobs` is: B and R of a large expansion ratio take
gigabytes while the closed form is made.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pfa_cli.bench.contender import BP, LITERAL, PFA, Contender, Setting, settled
from pfa_cli.bench.curves import Candidate, Curve, Point, admit
from pfa_cli.bench.pixels import Pixels, bench_dataset, classes_and_shape, epoch_images
from pfa_cli.bench.steps import LEAST_REPETITIONS, Plan, Runner, in_turn
from pfa_cli.configuration import Configuration
from pfa_cli.networks import build_network

EXPANSIONS = (1.0, 10.0, 100.0, 1000.0)
LITERAL_UP_TO = 100.0
DRAW_BYTES = 1e9  # at most, for one layer's B and R
_SMALLEST_BATCH, _SMALLEST_WIDTH = 8, 64


@dataclass(frozen=True)
class Growth:
    """Measures the curves of those in ``seconds_per_step``, which are among BP, PFA and literal PFA.

    ``seconds_per_step``: what their steps take as the recipe has it, from which is reckoned what there is time for.
    """

    setting: Setting
    seconds_per_step: Mapping[str, float]
    pixels: Pixels
    data_dir: Path
    device: torch.device
    threads: int
    plan: Plan  # of each curve

    def measure(self) -> list[Curve]:
        """One curve after the other."""
        with settled(self.device, self.threads):
            curves = [self._batch_curve()]
            if self._whole(BP).hidden_sizes is not None:
                curves.append(self._width_curve())
            if PFA in self.seconds_per_step:
                curves.append(self._expansion_curve())
            return curves

    def _batch_curve(self) -> Curve:
        base, images = self._batch, epoch_images(self._whole(BP))[0]
        sizes = [max(1, base // 4), base, 4 * base]
        few = [f"batch {size}: there are fewer images" for size in sizes if size > images]
        candidates = [
            self._candidate(label, size, size / base, batch_size=size)
            for size in sizes
            if size <= images
            for label in self.seconds_per_step
        ]
        return self._curve("batch", _hidden(self._whole(BP).hidden_sizes), base, candidates, few)

    def _width_curve(self) -> Curve:
        sizes = self._whole(BP).hidden_sizes or ()
        candidates = [
            self._candidate(label, factor, 1, hidden_sizes=_scaled(sizes, factor))
            for factor in (0.5, 1.0, 2.0)
            for label in self.seconds_per_step
        ]
        return self._curve("width", f"batch {self._batch}, 1: {_hidden(sizes)}", 1.0, candidates, [])

    def _expansion_curve(self) -> Curve:
        network, sizes = self._whole(PFA), self._whole(PFA).hidden_sizes
        base = float(network.options["expansion"])
        values = sorted({*EXPANSIONS, base})
        while sizes and max(sizes) > _SMALLEST_WIDTH and _draw_bytes(network, values[-1]) > DRAW_BYTES:
            sizes = _scaled(sizes, 0.5)
            network = self.setting.configuration(PFA, hidden_sizes=sizes)
        drawn = {value: _draw_bytes(network, value) for value in values}
        left_out = [
            f"expansion {value:g}: drawing B and R of the largest layer would take {size / 1e9:.1f} GB"
            for value, size in drawn.items()
            if size > DRAW_BYTES
        ]
        narrow: dict[str, object] = {"hidden_sizes": sizes} if sizes else {}
        candidates = [self._candidate(BP, base, 1, **narrow)]
        for value in [value for value in values if drawn[value] <= DRAW_BYTES]:
            candidates.append(self._candidate(PFA, value, 1, expansion=value, **narrow))
            if LITERAL in self.seconds_per_step and value <= LITERAL_UP_TO:
                share = (1 + value) / (1 + base)  # W's own products, and B's and R's
                candidates.append(self._candidate(LITERAL, value, share, expansion=value, **narrow))
        if LITERAL in self.seconds_per_step:
            left_out.append(
                f"{LITERAL} above expansion {LITERAL_UP_TO:g}: it costs about that many steps of BP"
            )
        fixed = ", ".join(filter(None, [f"batch {self._batch}", _hidden(sizes)]))
        return self._curve("expansion", fixed, base, candidates, left_out)

    def _curve(
        self, name: str, fixed: str, base: float, candidates: list[Candidate], left_out: list[str]
    ) -> Curve:
        """Times the candidates that there is time for."""
        kept, too_slow = admit(candidates, base, self._affordable)
        largest = max(kept, key=lambda candidate: candidate.configuration.batch_size).configuration
        dataset = bench_dataset(largest, self.pixels, self.data_dir, self.device)
        runners = {
            candidate.point: Runner(
                Contender(candidate.configuration, dataset, self.device).step,
                candidate.configuration.batch_size,
            )
            for candidate in kept
        }
        return Curve(name, fixed, base, in_turn(runners, dataset, self.plan), [*left_out, *too_slow])

    def _candidate(self, label: str, value: float, share: float, **changes: object) -> Candidate:
        """``share``: of the time of a step of this network at the base case's batch."""
        whole = self._whole(label)
        configuration = self.setting.configuration(
            label, **{"batch_size": self._batch, "accumulation": 1, **changes}
        )
        size = _n_weights(configuration) / _n_weights(whole) * self._batch / whole.batch_size
        return Candidate(Point(label, value), self.seconds_per_step[label] * size * share, configuration)

    def _whole(self, label: str) -> Configuration:
        return self.setting.configuration(label)

    @property
    def _affordable(self) -> float:
        """Seconds that one step of every point of a curve may take."""
        return self.plan.seconds / (LEAST_REPETITIONS + 1) / self.plan.steps

    @property
    def _batch(self) -> int:
        """The base case's batch size: the recipe's, or what is left of it when BP's and PFA's curves fit into the time."""
        whole = self._whole(BP).batch_size
        round_seconds = (1 / 4 + 1 + 4) * sum(
            seconds for label, seconds in self.seconds_per_step.items() if label != LITERAL
        )
        batch = whole
        while batch > _SMALLEST_BATCH and round_seconds * batch / whole > self._affordable:
            batch //= 2
        return batch


def _draw_bytes(configuration: Configuration, expansion: float) -> float:
    """Bytes of the largest layer's R, in single precision, and B, in single and double."""
    return max(4 * expansion * n_out * (fan_in + 3 * n_out) for n_out, fan_in in _layers(configuration))


def _n_weights(configuration: Configuration) -> int:
    return sum(n_out * fan_in for n_out, fan_in in _layers(configuration))


def _layers(configuration: Configuration) -> list[tuple[int, int]]:
    """Units and inputs per unit of each weighted layer."""
    with torch.device("meta"):
        network = build_network(configuration, *classes_and_shape(configuration))
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return [(len(W), W[0].numel()) for W in weights]


def _scaled(sizes: Sequence[int], factor: float) -> tuple[int, ...]:
    return tuple(math.ceil(factor * n) for n in sizes)


def _hidden(sizes: Sequence[int] | None) -> str:
    return f"hidden sizes {', '.join(map(str, sizes))}" if sizes else ""
