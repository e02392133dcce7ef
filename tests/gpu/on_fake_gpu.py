"""What tests have done on a fake GPU, in a process of its own: `python on_fake_gpu.py WHAT ARGUMENTS`; prints JSON.

Kernels compute nothing there: all tensors on the device stay 0, so numbers are not looked at.
"""

import ctypes
import gc
import json
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from stand_ins import Blobs, Pictures, configuration

from pfa_cli.training.cuda_graph import release_memory, side_stream
from pfa_cli.training.device import make_repeatable
from pfa_cli.training.tally import Tally
from pfa_cli.training.trainer import Trainer

runtime = ctypes.CDLL(None)
runtime.fake_cuda_count.restype = ctypes.c_long
runtime.fake_cuda_violations.restype = ctypes.c_char_p
fetch = Tally._fetch
Tally._fetch = lambda self: [max(1.0, fetch(self)[0]), *fetch(self)[1:]]  # of 0 images there is no mean


def count(*names: str) -> int:
    return sum(runtime.fake_cuda_count(name.encode()) for name in names)


def violations() -> list[str]:
    return runtime.fake_cuda_violations().decode().splitlines()


class Photographs(Pictures):
    n_classes, input_shape, train_size = 20, (3, 64, 64), 64

    def __init__(self) -> None:
        super().__init__()
        self.images, self.labels = torch.randn(300, 3, 64, 64), torch.randint(20, (300,))


def trainer(case: str, network: str, precision: str, device: str = "cuda:0", **more: Any) -> Trainer:
    name, _, form = case.partition(" ")
    settings: dict[str, Any] = {"options": {"form": form, "expansion": 1} if form else {}, "probe_images": 4}
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


def collecting(current: Trainer) -> None:
    """Leaves garbage with a recording in it, and has Python collect garbage inside every step, recorded or not."""
    take = current.train_step

    def step(*batch: torch.Tensor) -> None:
        take(*batch)
        gc.collect()

    current.train_step = step  # type: ignore[method-assign]


def litter() -> None:
    """A trainer that has recorded, in a reference cycle that nobody holds."""
    cell = trainer("bp", "mlp", "fp32", settings={"epochs": 1, "milestones": ()})
    list(cell.epochs())
    cell.myself = cell  # type: ignore[attr-defined]


def whole_life(case: str, network: str, precision: str) -> dict[str, Any]:
    """One cell: steps, recording, replays, another learning rate, evaluation, metrics, a checkpoint, and on from it."""
    said: list[str] = []
    litter()
    current = trainer(case, network, precision, say=said.append)
    collecting(current)
    requests = list(current.dataset.requests(0, 1, current.configuration.batch_size)) * 4
    with side_stream(current.device):
        current.algorithm.prepare()
        current.measure()
        current.begin_epoch(1)
        for request in requests[:5]:
            current.advance(request)
        watched = ("launches", "graph launches", "waits", "cudaMalloc", "cudaHostAlloc", "kernels")
        before = {name: count(name) for name in watched}
        current.advance(requests[5])
        step = {name: count(name) - before[name] for name in watched}
        current.begin_epoch(2)
        current.advance(requests[6])
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
    return {"step": step, "measuring": measuring, "said": said, "recorded": sorted(current._recordings)}


def matrix(networks: str, precisions: str, cases: str) -> Iterator[dict[str, Any]]:
    for network in networks.split(","):
        for precision in precisions.split(","):
            for case in cases.split(","):
                yield {"cell": f"{case} {network} {precision}"} | whole_life(case, network, precision)


def rerecordings() -> Iterator[dict[str, Any]]:
    """Memory after each of many recordings of the step, each with a learning rate of its own."""
    current = trainer("pfa", "resnet20", "fp32", settings={"epochs": 14, "milestones": tuple(range(1, 14))})
    for _ in current.epochs():
        yield {"bytes": count("bytes"), "graphs": count("graphs"), "streams": count("cudaStreamCreate")}
    del current
    release_memory(torch.device("cuda:0"))
    yield {"bytes": count("bytes"), "graphs": count("graphs"), "streams": count("cudaStreamCreate")}


def second_gpu() -> Iterator[dict[str, Any]]:
    for case in ("wm", "pfa"):
        list(trainer(case, "mlp", "fp32", "cuda:1").epochs())
    yield {"contexts": [count(f"context on {n}") for n in (0, 1)]}


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


if __name__ == "__main__":
    warnings.simplefilter("error")
    found = list(globals()[sys.argv[1]](*sys.argv[2:]))
    print(
        json.dumps({"found": found, "violations": violations(), "beside": count("recordings beside others")})
    )
