"""`pfa bench` on a CUDA runtime without a GPU (see `fake_cuda.py`): every contender is a CUDA graph, one after the other."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fake_cuda
import pytest

NAMES = ["bp", "pal", "pfa literal"]


@pytest.mark.skipif(fake_cuda.missing() is not None, reason=str(fake_cuda.missing()))
def test_bench_measures_one_contender_after_the_other_as_a_cuda_graph(tmp_path: Path) -> None:
    library = fake_cuda.build(tmp_path / "fake-cuda")
    found = json.loads(fake_cuda.run(library, __file__).splitlines()[-1])
    assert [one["contenders"] for one in found["seen"]] == [
        [name] for name in ("products", "plain torch", *NAMES)
    ]
    assert {(one["recordings"], one["graphs"]) for one in found["seen"]} == {(1, 1)}
    assert (found["measured"], found["graphs"], found["violations"]) == (NAMES, 0, [])


def measured_on_fake_gpu() -> dict[str, Any]:
    """What `pfa bench` takes samples of: after each, the recordings made for it, and the graphs that there are."""
    import torch
    from on_fake_gpu import count, violations

    from pfa_cli.bench import timing
    from pfa_cli.bench.contender import Setting
    from pfa_cli.recipes import load_recipe
    from pfa_cli.training.cuda_graph import release_memory
    from pfa_cli.training.tally import Tally

    fetch = Tally._fetch

    def some_images(tally: Tally) -> list[float]:
        """Kernels count nothing there, and of 0 images there is no mean."""
        images, *sums = fetch(tally)
        return [max(1.0, images), *sums]

    warnings.simplefilter("error")
    # The products are calls of cuBLAS alone, which put nothing into a graph here.
    warnings.filterwarnings("ignore", "The CUDA Graph is empty")
    settings = {"train_images": 64, "test_images": 8, "batch_size": 8, "hidden_sizes": [16]}
    setting = Setting(load_recipe("mnist"), settings)
    plan = timing.Plan(repetitions=1, steps=1, seconds=60.0)
    contenders = {name: setting.configuration(name) for name in NAMES}
    job = timing.Job(contenders, "random", Path(), torch.device("cuda:0"), 1, plan, measuring=True)
    seen: list[dict[str, Any]] = []
    take = timing._by_turns

    def watched(group: dict[str, Any], *more: Any) -> Any:
        before = count("recordings")
        times = take(group, *more)
        made = count("recordings") - before
        seen.append({"contenders": [*group], "recordings": made, "graphs": count("graphs")})
        return times

    with patch.object(timing, "_by_turns", watched), patch.object(Tally, "_fetch", some_images):
        samples = timing.measure(job)
    release_memory(job.device)
    found = {"measured": [*samples.measuring], "graphs": count("graphs"), "violations": violations()}
    return found | {"seen": seen}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(measured_on_fake_gpu()))
