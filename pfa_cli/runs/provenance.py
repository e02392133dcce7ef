"""What an attempt was made with: code, versions, machine. A resume may be elsewhere, so each has its own."""

import platform
import sys
from pathlib import Path

import torch

import pfa_cli
from pfa_cli import kernels
from pfa_cli.source import commit
from pfa_cli.training.device import deterministic_flags
from pfa_cli.training.precision import memory_format


def attempt_facts(
    device: torch.device, precision: str, dataset: str, lanes: int = 1, graphs: bool = False, ranks: int = 1
) -> dict[str, object]:
    """The columns of the table ``attempts`` that describe this process training on ``device``.

    On a GPU, ``lanes`` cells at a time, with CUDA graphs or without. ``ranks``: the processes that train the cell together.
    """
    sha, dirty = commit()
    return {
        "git_sha": sha,
        "git_dirty": dirty,
        "argv": sys.argv,
        "pfa_version": pfa_cli.__version__,
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
        "cuda_version": torch.version.cuda if device.type == "cuda" else None,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "deterministic": deterministic_flags(device) | _of_gpu(device, precision, lanes, graphs),
        "dataset": dataset,
        "ranks": ranks,
    }


def _of_gpu(device: torch.device, precision: str, lanes: int, graphs: bool) -> dict[str, object]:
    """What else numbers and speed on a GPU depend on."""
    if device.type != "cuda":
        return {}
    return {
        "cudnn_version": torch.backends.cudnn.version(),
        "own_kernels": kernels.reason_against(device) or "used",
        "memory_format": str(memory_format(precision, device)).removeprefix("torch."),
        "cuda_graphs": graphs,
        "cells_at_a_time": lanes,
    }


def device_name(device: torch.device) -> str:
    """The model of the GPU or the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
