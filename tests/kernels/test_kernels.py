"""The kernels as Triton's interpreter does them, on the CPU; in processes of their own: Triton decides so as it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it comes with torch's CUDA builds for Linux")


@pytest.mark.parametrize("name", ["batch_norm", "convolution", "pal"])
def test_each_kernel_is_what_torch_does_in_float64(name: str) -> None:
    cases = Path(__file__).with_name(f"interpreted_{name}.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
