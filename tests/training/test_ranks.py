"""Two processes that train together give what one process gives, for every algorithm."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stand_ins import Pictures, configuration

from pfa_cli.errors import UsageError
from pfa_cli.launched import launched
from pfa_cli.ranks import Ranks
from pfa_cli.registry import TABLE_1
from pfa_cli.training.trainer import Trainer

EVERY_DAY = ["bp", "dfa", "wm", "pal", "pfa"]
LONG = [name for name in (*TABLE_1, "pfa literal") if name not in EVERY_DAY]
CASES = [*EVERY_DAY, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)]


def trained(case: str, ranks: Ranks) -> tuple[Trainer, list[dict[str, float | None]]]:
    """ResNet-20 after an epoch and a half; what each epoch measured. In float64, where rounding hides nothing."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    try:
        return _trained(case, ranks)
    finally:
        torch.set_default_dtype(torch.float32)


def _trained(case: str, ranks: Ranks) -> tuple[Trainer, list[dict[str, float | None]]]:
    name, _, form = case.partition(" ")
    options: dict[str, object] = {"form": form, "expansion": 1} if form else {}
    if name == "wm":
        options = {"mirror_samples": 16, "mirror_rate": 0.5}
    if name == "pal":
        options = {"rate": 0.1}
    settings = configuration(
        name,
        options=options,
        dataset="cifar10",
        network="resnet20",
        hidden_sizes=None,
        epochs=2,
        batch_size=8,
        learning_rate=0.01,
        milestones=(),
    )
    trainer = Trainer(settings, Pictures(), 0, torch.device("cpu"), ranks)
    records = trainer.epochs(lambda: trainer.epochs_done == 1 and trainer.step == 1)
    keep = ("train_loss", "train_accuracy_percent", "test_loss", "test_accuracy_percent")
    measured = [{name: getattr(record, name) for name in keep} for record in records]
    assert trainer.step == 1 and trainer.epochs_done == 1
    return trainer, measured


def main(out: Path, cases: Sequence[str]) -> None:
    ranks = Ranks.join(launched(), "cpu")
    for case in cases:
        trainer, measured = trained(case, ranks)
        tensors, _ = trainer.state()
        mine = {name: t.clone().contiguous() for name, t in tensors.items()}
        save_file(mine, out / f"{case}.{ranks.rank}.safetensors")
        (out / f"{case}.{ranks.rank}.json").write_text(json.dumps(measured))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture
def together(case: str, folder: Path) -> Path:
    """The folder with what two ranks saved of this case, each for itself; they train those of every day in one start."""
    cases = EVERY_DAY if case in EVERY_DAY else LONG
    if (folder / f"{case}.1.json").exists():
        return folder
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, str(folder)]
    paths = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, *cases],
        env=_environment() | paths,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_give_what_one_process_gives(case: str, together: Path) -> None:
    trainer, measured = trained(case, Ranks())
    expected, _ = trainer.state()
    found = load_file(together / f"{case}.0.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )
    for ours, theirs in zip(measured, json.loads((together / f"{case}.0.json").read_text()), strict=True):
        for name, number in ours.items():
            assert theirs[name] == (None if number is None else pytest.approx(number, rel=1e-9)), name


@pytest.mark.parametrize("case", CASES)
def test_the_ranks_stay_identical(case: str, together: Path) -> None:
    first, second = (load_file(together / f"{case}.{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="divisible by ranks"):
        Trainer(configuration("bp", batch_size=10), Pictures(), 0, torch.device("cpu"), Ranks(0, 4))


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
