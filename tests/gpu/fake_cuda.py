"""Builds `fake_cuda.cpp` for the torch at hand, and starts Python on it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

TORCH = Path(torch.__file__).parent
_TESTS = Path(__file__).parents[1]
_LIBRARIES = ("libtorch_cuda", "libtorch_python", "libtorch_cuda_linalg", "libc10_cuda", "libcaffe2_nvrtc")
_REPLACED = re.compile(r"(__)?(cuda|cublas|cudnn|nccl|cu[A-Z])")
_KEPT = re.compile(
    r"cudnn.*(Version|Error|Property)|cublasLtGetVersion"
)  # of the libraries themselves, which need no GPU for it
# CUDA's headers include this one, which is not in torch's wheels; without a device there is nothing to say in it.
_HOST_DEFINES = """
#define CUDARTAPI
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __cudart_builtin__
#define __host__
#define __device__
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))
"""


def missing() -> str | None:
    """Why it cannot be built here, in words; None where it can."""
    if torch.version.cuda is None:
        return "the fake CUDA runtime needs a CUDA build of torch, and this one is for the CPU"
    if not sys.platform.startswith("linux"):
        return "the fake CUDA runtime is for Linux"
    for program in ("g++", "nm"):
        if shutil.which(program) is None:
            return f"the fake CUDA runtime is compiled first, and {program} is not installed"
    if _headers() is None:
        return "the fake CUDA runtime needs CUDA's headers, which this torch came without"
    return None


def build(folder: Path) -> Path:
    """Compiles it in ``folder``; returns the library to preload."""
    headers = _headers()
    assert headers is not None
    (folder / "crt").mkdir(parents=True)
    (folder / "crt" / "host_defines.h").write_text(_HOST_DEFINES)
    (folder / "crt" / "host_config.h").write_text("")
    source, thing = Path(__file__).with_name("fake_cuda.cpp"), folder / "fake_cuda.o"
    compiler = ["g++", "-O1", "-fPIC", "-w"]
    _do(*compiler, "-std=c++17", f"-I{folder}", f"-I{headers}", "-c", str(source), "-o", str(thing))
    defined = _symbols(thing, "--defined-only")
    libraries = [TORCH / "lib" / f"{name}.so" for name in _LIBRARIES]
    needed = set().union(*(_symbols(path, "-D", "--undefined-only") for path in libraries if path.exists()))
    others = sorted(name for name in needed - defined if _REPLACED.match(name) and not _KEPT.match(name))
    stubs = folder / "stubs.cpp"
    stubs.write_text("\n".join(f'extern "C" int {name}() {{ return 0; }}' for name in others))
    library = folder / "libcuda.so.1"  # the driver's name, by which torch loads it a second time
    _do(*compiler, "-shared", str(thing), str(stubs), "-o", str(library), "-ldl", "-lpthread")
    return library


def run(library: Path, *arguments: str, **settings: object) -> str:
    """What a Python on the fake runtime prints; ``settings`` are its environment. Fails unless it ends well, in silence."""
    done = start(library, *arguments, **settings)
    out, err = done.communicate(timeout=900)
    assert done.returncode == 0 and not err.strip(), (
        f"exit code {done.returncode}\n{out[-4000:]}\n{err[-8000:]}"
    )
    return out


def start(library: Path, *arguments: str, **settings: object) -> "subprocess.Popen[str]":
    """A Python on the fake runtime."""
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": str(library.parent),
        "PYTHONPATH": os.pathsep.join([str(_TESTS.parent), str(_TESTS / "training"), str(_TESTS / "runs")]),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "error",
    }
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment | {name: str(value) for name, value in settings.items()},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _headers() -> Path | None:
    return next((path.parent for path in (TORCH.parent / "nvidia").glob("*/include/driver_types.h")), None)


def _symbols(path: Path, *options: str) -> set[str]:
    listed = _do("nm", *options, str(path))
    return {line.split()[-1].split("@")[0] for line in listed.splitlines() if line.strip()}


def _do(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return done.stdout
