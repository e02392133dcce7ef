"""`pfa doctor`: what a run would get on this machine, without training anything; and a trial of CUDA graphs."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch

from pfa_cli import __version__, kernels
from pfa_cli.configuration import Configuration
from pfa_cli.cores import decoding_processes, physical_cores, usable_cores
from pfa_cli.data import default_data_dir, prepare_data
from pfa_cli.data.fetch import NotFetched, without_fetching
from pfa_cli.data.in_memory import from_tensors
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.recipes import Recipe
from pfa_cli.registry import ALGORITHMS
from pfa_cli.runs.provenance import device_name
from pfa_cli.store.engine import check_writable, database_file, database_name
from pfa_cli.store.sqlite import network_warning
from pfa_cli.training.cuda_graph import EAGER_STEPS, collect_without_modules, release_memory, side_stream
from pfa_cli.training.device import choose_device, deterministic_flags, make_repeatable
from pfa_cli.training.precision import Precision
from pfa_cli.training.trainer import Trainer

LEAST_FREE_BYTES = 10**9  # a checkpoint of ResNet-18 has 0.1 GB, two are kept, a tenth is written beside them
_PRECISIONS = get_args(Configuration.model_fields["precision"].annotation)
_AMPERE = 8  # the first compute capability with TF32 and bf16


class Finding(NamedTuple):
    """One line of the report; ``in_the_way``: what was asked for cannot run so."""

    what: str
    found: str
    in_the_way: bool = False


def examine(
    recipes: Sequence[Recipe],
    wanted_device: str,
    precision: str | None,
    db: str | None,
    data_dir: Path | None,
    *,
    named: bool,
) -> Iterator[Finding]:
    """All findings but those of `try_graphs`. ``named``: these recipes are to run; else any that can."""
    yield Finding("versions", f"pfa {__version__}, torch {torch.__version__}")
    try:
        device = choose_device(wanted_device)
    except UsageError as error:
        yield Finding("device", str(error), in_the_way=True)
        device = torch.device("cpu")
    else:
        yield Finding("device", f"{device}: {device_name(device)}")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        yield Finding("GPU memory", f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free")
        yield Finding("CUDA", f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
        try:
            reason = kernels.reason_against(device)
        except torch.OutOfMemoryError:
            reason = "there is no memory to try our own"
        yield Finding("own kernels", f"cuDNN's are used: {reason}" if reason else "used")
    make_repeatable(device)
    flags = ", ".join(f"{name}={value}" for name, value in deterministic_flags(device).items())
    yield Finding("repeatable by", flags)
    if precision is None and named:
        precision = recipes[0].configuration("bp").precision
    yield from _precisions(precision, device)
    cells = "found by a trial" if device.type == "cuda" else f"{physical_cores()}"
    yield Finding("cores", f"{usable_cores()} to use; cells at a time: {cells}")
    try:
        yield Finding("decoding processes", f"{decoding_processes()}, shared by the cells at a time")
    except UsageError as error:
        yield Finding("decoding processes", str(error), in_the_way=True)
    yield from _data(recipes, data_dir or default_data_dir(), named)
    yield from _database(db)


def _precisions(asked: str | None, device: torch.device) -> Iterator[Finding]:
    able = [name for name in _PRECISIONS if _can(name, device)]
    yield Finding("precisions", ", ".join(able))
    if asked is not None and asked not in able:
        yield Finding("precision", f"{asked} cannot be had on {device}", in_the_way=True)


def _can(precision: str, device: torch.device) -> bool:
    try:
        Precision(precision, device)
    except UsageError:
        return False
    new = device.type == "cpu" or torch.cuda.get_device_capability(device)[0] >= _AMPERE
    return new or precision in ("fp32", "fp16")


def _data(recipes: Sequence[Recipe], folder: Path, needed: bool) -> Iterator[Finding]:
    configurations = [(recipe.configuration("bp"), recipe.argument) for recipe in recipes]
    for name, (configuration, recipe) in {each[0].dataset: each for each in configurations}.items():
        if configuration.dataset_entry.source is not None:
            yield Finding(f"data: {name}", "a plug-in's, which shows when it is loaded")
            continue
        try:
            with without_fetching():
                prepare_data(configuration, folder)
        except NotFetched:
            missing = f"not in {folder}; `pfa data fetch {recipe}` fetches them"
            yield Finding(f"data: {name}", missing, in_the_way=needed)
        except (PfaError, OSError) as error:
            yield Finding(f"data: {name}", str(error), in_the_way=needed)
        else:
            yield Finding(f"data: {name}", f"in {folder}")


def _database(db: str | None) -> Iterator[Finding]:
    try:
        check_writable(db)
    except (PfaError, OSError) as error:
        yield Finding("database", str(error), in_the_way=True)
        return
    yield Finding("database", f"{database_name(db)}: can be written")
    file = database_file(db)
    if file is None:
        return
    if warning := network_warning(file):
        yield Finding("file system", warning)
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    yield Finding("disk", f"{free / 1e9:.0f} GB are free in {folder}", in_the_way=free < LEAST_FREE_BYTES)


def try_graphs(wanted_device: str, precision: str | None) -> Iterator[Finding]:
    """Every algorithm's step on the GPU as a CUDA graph and without, on random pixels: equal bit for bit, or why not."""
    try:
        device = choose_device(wanted_device if wanted_device != "auto" else "cuda")
        if device.type != "cuda":
            raise UsageError(f"--gpu tries CUDA graphs, and {device} has none: leave --gpu out, or --device")
    except UsageError as error:
        yield Finding("CUDA graphs", str(error), in_the_way=True)
        return
    make_repeatable(device)
    collect_without_modules(device)
    for algorithm in ALGORITHMS:
        for name, change in _SMALL.items():
            settings = _BASE | change | {"algorithm": algorithm, "precision": precision or "fp32"}
            try:
                said, failed = _try(Configuration.model_validate(settings), device), False
            except Exception as error:
                said, failed = f"{type(error).__name__}: {error}".splitlines()[0], True
            yield Finding(f"{algorithm}, {name}", said, failed)


def _try(configuration: Configuration, device: torch.device) -> str:
    """What became of recording the cell's step."""
    shape = configuration.input_shape
    assert shape is not None
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (64, *shape), dtype=torch.uint8, generator=stream)
    labels = torch.arange(64) % 10
    dataset = from_tensors("random pixels", (images, labels, images, labels), configuration, device)
    said: list[str] = []
    trainer = Trainer(configuration, dataset, 0, device, say=said.append)
    with side_stream(device):
        trainer.algorithm.prepare()
        trainer.begin_epoch(1)
        request = next(dataset.requests(0, 1, configuration.batch_size))
        for _ in range(EAGER_STEPS + 1):
            trainer.advance(request)
        trainer.wait()
    if not said:
        equal = "a CUDA graph, equal to the step bit for bit"
        said = [equal if trainer.records_steps else f"no CUDA graph, as always in {configuration.precision}"]
    del trainer
    release_memory(device)
    return "; ".join(said)


_BASE: dict[str, Any] = {
    "recipe": "doctor",
    "epochs": 1,
    "batch_size": 32,
    "learning_rate": 0.01,
    "milestones": (),
    "learning_rate_factor": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "probe_images": 8,
}
_SMALL: dict[str, dict[str, Any]] = {
    "MLP": {"dataset": "mnist", "network": "mlp", "hidden_sizes": (64, 64)},
    "ResNet-20": {"dataset": "cifar10", "network": "resnet20"},
}
