"""The kernels as Triton's interpreter does them, on the CPU; in processes of their own: Triton decides so as it is imported."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pfa_cli import kernels

pytest.importorskip("triton", reason="Triton is not installed; it comes with torch's CUDA builds for Linux")


@pytest.mark.parametrize("name", ["batch_norm", "convolution", "pal"])
def test_each_kernel_is_what_torch_does_in_float64(name: str) -> None:
    cases = Path(__file__).with_name(f"interpreted_{name}.py")
    # Triton 3.6, of torch 2.11, takes arrays of one number for numbers: NumPy warns of it, and from 2.4 on refuses.
    ignored = "ignore:Conversion of an array:DeprecationWarning"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", ignored, str(cases)],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    if "only 0-dimensional arrays can be converted to Python scalars" in done.stdout:
        pytest.skip("the interpreter of this Triton does not work with NumPy 2.4 or newer")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_triton_the_tests_of_kernels_are_skipped_in_words() -> None:
    folders = [Path(kernels.__file__).parent, Path(__file__).parent]
    code = "import sys; sys.modules['triton'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    arguments = ["-q", "-rs", "-p", "no:cacheprovider", *map(str, folders)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert "Triton is not installed" in done.stdout and "error" not in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("changed", "said"), [({"CC": "false"}, "false"), ({"PATH": "", "CC": ""}, "no C compiler"), ({}, "file")]
)
def test_what_triton_needs_is_looked_for_whatever_its_cache_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / ("cache" if changed else "file")))
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    if not changed and shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    with pytest.raises((OSError, RuntimeError, subprocess.CalledProcessError), match=said):
        kernels._compile()


def test_a_lack_of_memory_is_no_reason_against_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the cell that met it, which is trained again alone; the next one tries anew."""
    outcomes = iter(
        [torch.OutOfMemoryError("CUDA out of memory"), PermissionError(13, "Permission denied", "/triton")]
    )

    def try_out(device: torch.device) -> None:
        raise next(outcomes)

    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("pfa_cli.kernels.batch_norm.try_out", try_out)
    monkeypatch.setattr(kernels, "_compile", lambda: None)
    device = torch.device("cuda", 99)
    with pytest.raises(torch.OutOfMemoryError):
        kernels.reason_against(device)
    reason = kernels.reason_against(device)
    assert reason is not None and "'/triton'. Triton needs a C compiler" in reason
    assert kernels.reason_against(device) == reason  # found once
