"""Kernels of our own for NVIDIA GPUs, written in Triton, for what the libraries are slow at: small convolutions, few channels.

Measured on an H200 (torch 2.11, deterministic, ResNet-20, batch 128): cuDNN's weight gradient of a 16-to-16-channel convolution
takes 56 µs in TF32 and 182 in fp32, its BatchNorm of 16 channels 43 µs (channels last) and 144 (channels first). Every sum here
has one order, so that a run repeats bit for bit. The modules beside this one import Triton, which torch brings along on Linux;
whoever uses them asks `reason_against` first. Triton starts a kernel on the current GPU, which need not be that of the tensors:
hence `device_of`.
"""

import os
import subprocess
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from threading import Lock

import torch

_OLDEST = (8, 0)  # Ampere, the first with products in TF32 and bf16
_NEEDS = "Triton needs a C compiler, Python's headers and a folder to write to (~/.triton, $TRITON_CACHE_DIR)"

_trying = Lock()  # one thread tries, the others wait for what it found


def reason_against(device: torch.device) -> str | None:
    """Why these kernels cannot be used on ``device``, in a few words; None where they can. Tries them the first time.

    Raises:
        torch.OutOfMemoryError: there is no memory to try them.
    """
    with _trying:
        return _found(device)


@cache
def _found(device: torch.device) -> str | None:
    if device.type != "cuda" or torch.version.cuda is None:
        return "they are for NVIDIA GPUs"
    if torch.cuda.get_device_capability(device) < _OLDEST:
        return f"{torch.cuda.get_device_name(device)} is older than NVIDIA's Ampere"
    if find_spec("triton") is None:
        return "Triton is not installed; it comes with torch's CUDA builds for Linux"
    try:
        _compile()
        from pfa_cli.kernels import batch_norm, convolution, pal

        with torch.enable_grad(), torch.autocast(device.type, enabled=False):  # wherever this was asked for
            for module in (batch_norm, convolution, pal):
                module.try_out(device)
    except torch.OutOfMemoryError:
        raise
    except subprocess.CalledProcessError as error:
        return f"{error.cmd[0]} failed with exit code {error.returncode}. {_NEEDS}"
    except Exception as error:  # of a driver or Triton itself
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"{first.rstrip('.')}. {_NEEDS}"
    return None


def _compile() -> None:
    """Has the compiler that Triton would take compile against Python's headers, in Triton's cache folder.

    With what an earlier run left there Triton may do without both, until it meets a kernel that is new.
    """
    from triton import knobs

    compiler = os.environ.get("CC") or which("gcc") or which("clang")
    if compiler is None:
        raise RuntimeError("no C compiler is found")
    default = (
        sysconfig.get_default_scheme()
    )  # Debian's is posix_local, where no headers are; Triton does as here
    headers = sysconfig.get_path("include", default.replace("posix_local", "posix_prefix"))
    Path(knobs.cache.dir).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=knobs.cache.dir) as folder:
        source, library = Path(folder, "try.c"), Path(folder, "try.so")
        source.write_text("#include <Python.h>\n")
        command = [compiler, str(source), "-shared", "-fPIC", f"-I{headers}", "-o", str(library)]
        subprocess.run(command, capture_output=True, check=True)
