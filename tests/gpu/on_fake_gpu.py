"""What tests have done on a fake GPU, in a process of its own, since its start takes seconds; prints JSON.

`python on_fake_gpu.py PART PART …`; a part is a JSON list, the name of a function below and its arguments.
Kernels compute nothing there: all tensors on the device stay 0, so numbers are not looked at.
"""

import ctypes
import gc
import io
import itertools
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from stand_ins import Blobs, Pictures, configuration
from torch import nn

from pfa_cli import cli, kernels
from pfa_cli.algorithms import convert
from pfa_cli.bench import timing
from pfa_cli.bench.contender import Setting
from pfa_cli.launched import launched
from pfa_cli.ranks import Ranks
from pfa_cli.recipes import load_recipe
from pfa_cli.runs import gpu, launch
from pfa_cli.runs.shared_stream import Pass, Reader, Stream
from pfa_cli.training.cuda_graph import cuda_graphs, release_memory, side_stream
from pfa_cli.training.device import choose_device, make_repeatable
from pfa_cli.training.tally import Tally
from pfa_cli.training.trainer import Trainer


def count(name: str) -> int:
    asked = ctypes.CDLL(None).fake_cuda_count
    asked.restype = ctypes.c_long
    found: int = asked(name.encode())
    return found


def violations() -> list[str]:
    asked = ctypes.CDLL(None).fake_cuda_violations
    asked.restype = ctypes.c_char_p
    found: bytes = asked()
    return found.decode().splitlines()


def some_images(fetch: Callable[[Tally], list[float]]) -> Callable[[Tally], list[float]]:
    """Sums over at least one image: of none there is no mean."""

    def at_least_one(self: Tally) -> list[float]:
        images, *others = fetch(self)
        return [max(1.0, images), *others]

    return at_least_one


class Photographs(Pictures):
    n_classes, input_shape, train_size = 20, (3, 64, 64), 64

    def __init__(self) -> None:
        super().__init__()
        self.images, self.labels = torch.randn(300, 3, 64, 64), torch.randint(20, (300,))


def trainer(case: str, network: str, precision: str, device: str = "cuda:0", **more: Any) -> Trainer:
    name, _, form = case.partition(" ")
    options: dict[str, Any] = {"form": form, "expansion": 1} if form else {}
    if name == "wm":
        options = {"": {}, "every": {"mirror_every": 2}, "wishart": {"mirror_noise": "wishart"}}[form]
    settings: dict[str, Any] = {"options": options, "probe_images": 4}
    settings |= {"precision": precision} | more.pop("settings", {})
    images: Blobs = Blobs()
    if network == "resnet20":
        images = Pictures()
        settings |= {"network": network, "dataset": "cifar10", "hidden_sizes": None, "batch_size": 4}
    if network == "resnet18":
        images = Photographs()
        settings |= {"network": network, "dataset": "imagefolder", "hidden_sizes": None, "batch_size": 4}
        settings |= {"image_size": 64, "corrupt_share_percent": 1.0}
    where = torch.device(device)
    make_repeatable(where)
    return Trainer(configuration(name, **settings), images.to(where), 0, where, **more)


def collecting(step: Callable[..., None]) -> Callable[..., None]:
    """A step in which Python collects garbage while it is recorded."""

    def collects(self: Trainer, *batch: torch.Tensor) -> None:
        step(self, *batch)
        if torch.cuda.is_current_stream_capturing():
            gc.collect()

    return collects


def litter() -> None:
    """A trainer that has recorded, in a reference cycle that nobody holds."""
    cell = trainer("bp", "mlp", "fp32", settings={"epochs": 1, "milestones": ()})
    list(cell.epochs())
    cell.myself = cell  # type: ignore[attr-defined]


def whole_life(case: str, network: str, precision: str) -> dict[str, Any]:
    """One cell: steps, recording, replays, another learning rate, evaluation, metrics, a checkpoint, and on from it."""
    said: list[str] = []
    current = trainer(case, network, precision, say=said.append)
    requests = list(current.dataset.requests(0, 1, current.configuration.batch_size)) * 4
    with side_stream(current.device):
        current.algorithm.prepare()
        current.measure()
        current.begin_epoch(1)
        *first, last = requests[: 6 * current.algorithm.period]
        for request in first:
            current.advance(request)
        watched = ("launches", "graph launches", "waits", "cudaMalloc", "cudaHostAlloc", "kernels")
        before = {name: count(name) for name in watched}
        current.advance(last)
        step = {name: count(name) - before[name] for name in watched}
        kernels = count("kernels of the last graph")
        current.begin_epoch(2)
        current.advance(requests[0])
        current.measure()
        before = {name: count(name) for name in watched}
        current.measure()
        measuring = {name: count(name) - before[name] for name in watched}
        tensors, facts = current.state()
    assert not any(tensor.is_cuda for tensor in tensors.values())
    again = trainer(case, network, precision)
    again.restore(tensors, facts)
    for _ in again.epochs(lambda: again.step == 5):
        pass
    return {
        "step": step,
        "kernels": kernels,
        "measuring": measuring,
        "said": said,
        "recorded": sorted(current._recordings),
    }


def matrix(*wanted: str) -> Iterator[dict[str, Any]]:
    """Each is networks, precisions and cases with colons between, with commas between several."""
    litter()
    for each in wanted:
        for network, precision, case in itertools.product(*(names.split(",") for names in each.split(":"))):
            yield {"cell": f"{case} {network} {precision}"} | whole_life(case, network, precision)


def rerecordings() -> Iterator[dict[str, Any]]:
    """Memory after each of many recordings of the step, each with a learning rate of its own."""
    current = trainer("pfa", "resnet20", "fp32", settings={"epochs": 14, "milestones": tuple(range(1, 14))})
    for _ in current.epochs():
        yield {"bytes": count("bytes"), "graphs": count("graphs")}
    del current
    release_memory(torch.device("cuda:0"), idle=True)
    yield {"bytes": count("bytes"), "graphs": count("graphs")}


def after_a_trial() -> Iterator[dict[str, Any]]:
    device = torch.device("cuda:0")
    make_repeatable(device)
    dataset = Blobs().to(device)
    for _ in range(2):
        with gpu.trial(configuration("pal"), dataset, device, seconds=0.01) as throughput:
            found = [throughput(cells) > 0 for cells in (1, 3)]
        yield {"tried": found, "bytes": count("bytes"), "graphs": count("graphs")}


def rank() -> Iterator[dict[str, Any]]:
    """One of two processes that torchrun started: eight epochs, and a checkpoint after each."""
    device = choose_device("cuda")
    make_repeatable(device)
    ranks = Ranks.join(launched(), "cuda")
    images = Blobs().to(device)
    settings = configuration("pfa", epochs=8, milestones=(3, 5), precision="bf16")
    current = Trainer(settings, images, 0, device, ranks)
    for _ in current.epochs():
        current.state()
        yield {
            "bytes": torch.cuda.memory_reserved(device),
            "contexts": [count(f"context on {n}") for n in (0, 1)],
        }


def second_gpu() -> Iterator[dict[str, Any]]:
    for case in ("wm", "pfa"):
        list(trainer(case, "mlp", "fp32", "cuda:1").epochs())
    yield {"contexts": [count(f"context on {n}") for n in (0, 1)]}


def beside_another_gpu() -> Iterator[dict[str, Any]]:
    """Kernels of our own on the second GPU, in code of a user's own for which the first one is the current GPU."""
    torch.zeros(1, device="cuda:0")
    device = torch.device("cuda:1")
    if reason := kernels.reason_against(device):
        yield {"reason": reason}
        return
    from pfa_cli.kernels import batch_norm

    images = torch.zeros(8, 3, 6, 6, device=device)
    layers = [nn.Conv2d(3, 4, 3), batch_norm.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)]
    network = convert(nn.Sequential(*layers).to(device), "pal")
    network[0].own_kernel = True
    before = count("launches of Triton's")
    network(images).sum().backward()
    yield {"reason": None, "launches": count("launches of Triton's") - before}


def without_a_compiler() -> Iterator[dict[str, Any]]:
    """A cell on a machine where Triton cannot compile what its cache has not."""
    kernels._found.cache_clear()
    with patch.dict(os.environ, CC="false"):
        current = trainer("bp", "resnet20", "tf32", settings={"epochs": 1, "milestones": ()})
        yield {"reason": current.left_to_cudnn, "epochs": len(list(current.epochs()))}
    kernels._found.cache_clear()


def refused() -> Iterator[dict[str, Any]]:
    """A step that waits for the device, which no recording can hold, in the middle of a run."""
    said: list[str] = []
    current = trainer("pal", "mlp", "fp32", say=said.append)
    take, n = current.train_step, 0

    def step(*batch: torch.Tensor) -> None:
        nonlocal n
        n += 1
        take(*batch)
        current._tally._loss.item()

    current.train_step = step  # type: ignore[method-assign]
    epochs = len(list(current.epochs()))
    yield {"said": said, "epochs": epochs, "steps": n, "recorded": sorted(current._recordings)}


def recorded_alone() -> Iterator[dict[str, Any]]:
    """A step that is recorded again while there is no other recording, as after a resume in the middle of an epoch."""
    said: list[str] = []
    current = trainer("pfa", "mlp", "fp32", say=said.append)
    with side_stream(current.device):
        request = next(iter(current.dataset.requests(0, 1, current.configuration.batch_size)))
        for epoch in (1, 2, 3):  # of other learning rates
            current.begin_epoch(epoch)
            for _ in range(5):
                current.advance(request)
        current.wait()
    yield {"said": said, "recorded": current.records_steps}


def dropped_beside_a_recording() -> Iterator[dict[str, Any]]:
    """Two threads read one stream of batches; the last batches are dropped by one while the other records a graph."""
    device = torch.device("cuda:0")
    stream = Stream(2, nullcontext(), device)
    records, dropped = threading.Event(), threading.Event()
    read = []

    def begin(step: int) -> Iterator[tuple[torch.Tensor, ...]]:
        return ((torch.zeros(1 << 20, device=device),) for _ in range(3))

    def batches() -> Iterator[tuple[torch.Tensor, ...]]:
        with side_stream(device):
            for batch in stream.read(threading.get_ident(), Pass(1, 0), 0, begin, lambda: False):
                read.append(batch[0].add(1).numel())
                yield batch

    def records_afterwards() -> None:
        for _ in batches():
            pass
        work = torch.zeros(8, device=device)
        with side_stream(device):
            cuda_graphs(device)(lambda: [work.add_(1), records.set(), dropped.wait()], ())  # type: ignore[arg-type]

    other = threading.Thread(target=records_afterwards, daemon=True)
    other.start()
    for _ in batches():
        records.wait()
    left = [torch.zeros(1 << 20, device=device) for _ in range(4)]
    dropped.set()
    other.join()
    yield {"read": sum(read), "left": len(left)}


def probe_of_one_for_all() -> Iterator[dict[str, Any]]:
    """The probe, which a data set may make once and give to the cells of all threads."""
    device = torch.device("cuda:0")
    reader = Reader(Photographs().to(device), Stream(1, nullcontext(), device), lambda: False)
    with side_stream(device):
        before = count("waits")
        reader.probe(4)
        yield {"waits": count("waits") - before}


def small_gpu(*arguments: str) -> Iterator[dict[str, Any]]:
    """`command` on a GPU of little memory."""
    with patch.dict(os.environ, FAKE_CUDA_GIB="0.14"):  # the runtime looks at it at every call
        yield from command(*arguments)


def bench(*names: str) -> Iterator[dict[str, Any]]:
    """What `pfa bench` takes samples of: for each, the recordings made for it, and the graphs that there are afterwards."""
    settings = {"train_images": 64, "test_images": 8, "batch_size": 8, "hidden_sizes": [16]}
    setting = Setting(load_recipe("mnist"), settings)
    plan = timing.Plan(repetitions=1, steps=1, seconds=60.0)
    contenders = {name: setting.configuration(name) for name in names}
    job = timing.Job(contenders, "random", Path(), torch.device("cuda:0"), 1, plan, measuring=True)
    seen: list[dict[str, Any]] = []
    take = timing._by_turns

    def watched(group: dict[str, Any], *more: Any) -> Any:
        before = count("recordings")
        times = take(group, *more)
        made = count("recordings") - before
        seen.append({"contenders": [*group], "recordings": made, "graphs": count("graphs")})
        return times

    with warnings.catch_warnings(), patch.object(timing, "_by_turns", watched):
        # The products are calls of cuBLAS alone, which put nothing into a graph here.
        warnings.filterwarnings("ignore", "The CUDA Graph is empty")
        samples = timing.measure(job)
    release_memory(job.device)
    yield {"measured": [*samples.measuring], "graphs": count("graphs"), "seen": seen}


def command(*arguments: str) -> Iterator[dict[str, Any]]:
    """`pfa` with these arguments, Python's collector running inside recordings, too; Figure 3's simulations left out."""
    sys.argv = ["pfa", *arguments]
    code, printed, before = 0, io.StringIO(), count("recordings")
    gc.unfreeze()
    with (
        patch.object(launch, "ensure"),
        patch.object(gpu, "TRIAL_SECONDS", 0.01),
        redirect_stdout(printed),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0  # type: ignore[assignment]
    if code == 0:  # else the GPU may be lost
        release_memory(torch.device("cuda:0"), idle=True)
    left = {"bytes": count("bytes"), "graphs": count("graphs"), "collected": len(gc.get_objects())}
    yield {"code": code, "printed": printed.getvalue(), "recordings": count("recordings") - before} | left


def done(name: str, *arguments: str) -> dict[str, Any]:
    """What a part found, and what it did that the runtime forbids."""
    before, beside = len(violations()), count("recordings beside others")
    found = list(globals()[name](*arguments))
    beside = count("recordings beside others") - beside
    return {"found": found, "violations": violations()[before:], "beside": beside}


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # imports half of torch when it is first made
    gc.freeze()  # what the imports made is not looked through at every collection
    Tally._fetch = some_images(Tally._fetch)  # type: ignore[method-assign]
    Trainer.train_step = collecting(Trainer.train_step)  # type: ignore[method-assign]
    print(json.dumps([done(*json.loads(part)) for part in sys.argv[1:]]))
