"""Cells side by side in threads, as on a GPU; here they share the CPU, and their numbers must not know of one another."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import run_cases
import torch

from pfa_cli.data import default_data_dir, load_dataset
from pfa_cli.records import EpochRecord
from pfa_cli.runs import gpu
from pfa_cli.runs.backend import Setup, Task
from pfa_cli.runs.events import Broken, Ended, EpochDone, Event, Note
from pfa_cli.runs.gpu import Lanes, cells_at_a_time, other_precisions, precision_note, trial
from pfa_cli.runs.plan import Plan
from pfa_cli.signals import StopRequest
from pfa_cli.training.trainer import Trainer

CPU = torch.device("cpu")


FEW = ["bp", "wm", "pal", "pfa"]  # whose state differs most


def like_alone(db: Path, small_runs: Path) -> bool:
    """Whether the cells of FEW are those trained one by one."""
    found, alone = run_cases.results(db), run_cases.results(small_runs)
    assert {algorithm for _, algorithm, *_ in found} == set(FEW)
    return found.items() <= alone.items()


def train(
    db: Path, plan: Plan, lanes: int, stop: StopRequest, on_event: object = None
) -> list[Event | Broken]:
    told: list[Event | Broken] = []

    def report(event: Event | Broken) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append(event)
        if callable(on_event):
            on_event(event)

    Lanes(Setup(str(db), "cpu", default_data_dir()), lanes, report, stop).run(run_cases.tasks(db, plan))
    return told


def test_cells_in_four_lanes_are_those_trained_one_by_one(tmp_path: Path, small_runs: Path) -> None:
    told = train(tmp_path / "pfa.db", run_cases.plan(), 4, StopRequest())
    assert {event.outcome for event in told if isinstance(event, Ended)} == {"done"}
    assert run_cases.results(tmp_path / "pfa.db") == run_cases.results(small_runs)


def test_a_stop_saves_every_lane(tmp_path: Path, small_runs: Path) -> None:
    stop = StopRequest()

    def ask(event: Event | Broken) -> None:
        if isinstance(event, EpochDone):  # of epoch 0, four before the last: they are told in another thread
            stop.set()

    db = tmp_path / "pfa.db"
    told = train(db, run_cases.plan(FEW), 3, stop, ask)
    outcomes = [event.outcome for event in told if isinstance(event, Ended)]
    assert "interrupted" in outcomes
    train(db, run_cases.plan(FEW), 3, StopRequest())
    assert like_alone(db, small_runs)


def test_a_database_that_is_gone_ends_all_lanes(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"

    def remove(event: Event | Broken) -> None:
        db.unlink(missing_ok=True)

    told = train(db, run_cases.plan(), 2, StopRequest(), remove)
    assert any(isinstance(event, Broken) for event in told)


@pytest.mark.parametrize(
    ("speeds", "most", "expected"),
    [
        ({1: 100.0, 2: 105.0}, 45, 1),  # no gain
        (
            {1: 100.0, 2: 150.0, 4: 300.0, 8: 310.0},
            45,
            8,
        ),  # the last five train four at a time and then one, or five at once
        ({1: 100.0, 2: 150.0, 4: 300.0, 8: 290.0}, 45, 4),
        ({1: 100.0, 2: 150.0, 3: 200.0}, 3, 3),
        (
            {1: 312.0, 2: 421.0, 4: 472.0, 8: 482.0, 9: 490.0},
            9,
            9,
        ),  # an H200: eight at a time would leave one alone
        ({1: 312.0, 2: 421.0, 4: 472.0, 8: 482.0, 9: 300.0}, 9, 4),  # about as fast as eight
        ({1: 100.0}, 1, 1),
    ],
)
def test_so_many_at_a_time_that_all_are_done_first(
    speeds: dict[int, float], most: int, expected: int
) -> None:
    assert cells_at_a_time(speeds.__getitem__, most) == (expected, speeds[1])


def test_doubling_ends_where_memory_does() -> None:
    def throughput(cells: int) -> float:
        if cells > 2:
            raise torch.OutOfMemoryError
        return 100.0 * cells

    assert cells_at_a_time(throughput, 45) == (2, 100.0)
    assert cells_at_a_time(throughput, 3) == (2, 100.0)


def test_a_trial_counts_the_steps_of_all_lanes() -> None:
    configuration = run_cases.plan(["pfa"]).cells[0].configuration
    dataset = load_dataset(configuration, default_data_dir(), CPU)
    with trial(configuration, dataset, CPU, seconds=0.2) as throughput:
        assert throughput(1) > 0
        assert throughput(2) > 0


def test_the_start_says_what_faster_precisions_would_do() -> None:
    said = precision_note("fp32", 350.4, {"tf32": 470.0, "bf16": 1510.0})
    assert (
        said
        == "note: a cell in fp32 does 350 steps/s here; --precision tf32 would do 470, --precision bf16 would do 1,510"
    )
    assert precision_note("fp32", 350.4, {"tf32": 360.0}) is None


def test_other_precisions_are_tried_where_the_device_has_them() -> None:
    configuration = run_cases.plan(["bp"]).cells[0].configuration
    dataset = load_dataset(configuration, default_data_dir(), CPU)
    found = other_precisions(configuration, dataset, CPU, seconds=0.05)
    assert set(found) == {"bf16"} and found["bf16"] > 0  # a CPU has no TF32


def test_an_error_in_a_trial_is_not_lost() -> None:
    configuration = run_cases.plan(["bp"]).cells[0].configuration
    dataset = load_dataset(configuration, default_data_dir(), CPU)
    dataset.batch = lambda *request: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError), trial(configuration, dataset, CPU, seconds=0.2) as throughput:
        throughput(2)


def limited(monkeypatch: pytest.MonkeyPatch, room: int, lanes: int) -> list[int]:
    """Trainers that run out of memory where more than ``room`` train at once; the numbers at which they did."""
    training, ran_out, lock, real = [0], [], threading.Lock(), Trainer.epochs
    all_lanes = threading.Barrier(lanes)  # else the first cell may be done before the last one begins

    def epochs(self: Trainer, *args: object) -> Iterator[EpochRecord]:
        with lock:
            training[0] += 1
        if not ran_out:
            all_lanes.wait(run_cases.LIMIT_SECONDS)
        try:
            for record in real(self, *args):  # type: ignore[arg-type]
                if training[0] > room:
                    ran_out.append(training[0])
                    raise torch.OutOfMemoryError("CUDA out of memory")
                yield record
        finally:
            with lock:
                training[0] -= 1

    monkeypatch.setattr(Trainer, "epochs", epochs)
    return ran_out


@pytest.mark.parametrize("room", [2, 1])
def test_a_small_gpu_still_finishes_all_cells(
    room: int, tmp_path: Path, small_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran_out = limited(monkeypatch, room, 4)
    told = train(tmp_path / "pfa.db", run_cases.plan(FEW), 4, StopRequest())
    assert ran_out
    assert {event.outcome for event in told if isinstance(event, Ended)} == {"done"}
    assert any(isinstance(event, Note) and "out of memory beside" in event.message for event in told)
    assert like_alone(tmp_path / "pfa.db", small_runs)


def test_a_cell_that_does_not_fit_alone_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 0, 3)
    told = train(tmp_path / "pfa.db", run_cases.plan(["bp", "fa", "kp"]), 3, StopRequest())
    ended = [event for event in told if isinstance(event, Ended)]
    assert [event.outcome for event in ended] == ["failed"] * 3
    assert all("accumulation=2" in (event.error or "") for event in ended)


def test_a_gpu_that_is_lost_ends_all_lanes_and_fails_no_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_lost", lambda device: True)
    real = Trainer.advance

    def advance(self: Trainer, request: object) -> None:
        if self.epochs_done == 2:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with…")
        real(self, request)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "advance", advance)
    db = tmp_path / "pfa.db"
    told = train(db, run_cases.plan(), 3, StopRequest())
    (broken,) = [event for event in told if isinstance(event, Broken)]
    assert "illegal memory access" in broken.message and "The same command resumes them" in broken.message
    assert "\n" not in broken.message
    assert set(run_cases.states(db)) == {"interrupted", "queued"}


def test_why_cudnn_does_the_work_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Trainer._build

    def without(self: Trainer) -> None:
        build(self)
        self.left_to_cudnn = "Triton is not installed"

    monkeypatch.setattr(Trainer, "_build", without)
    monkeypatch.setattr("pfa_cli.runs.worker._told", set())
    told = train(tmp_path / "pfa.db", run_cases.plan(["bp", "fa", "kp"]), 2, StopRequest())
    (note,) = [event for event in told if isinstance(event, Note)]
    assert "done by cuDNN" in note.message and "Triton is not installed" in note.message


def test_cells_train_beside_others_whose_precision_needs_the_same_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    precisions = ("fp32", "tf32", "bf16", "tf32", "fp16", "fp32")
    plans = [run_cases.plan(["bp"], seeds=[seed]) for seed in range(len(precisions))]
    tasks = [
        Task(n, n, plan.cells[0].configuration.model_copy(update={"precision": precision}), n)
        for n, (plan, precision) in enumerate(zip(plans, precisions, strict=True))
    ]
    groups = []
    monkeypatch.setattr(Lanes, "run", lambda self, tasks: groups.append([task.cell for task in tasks]))
    gpu.Gpu(Setup("pfa.db", "cuda:0", default_data_dir(), 4)).run(tasks, print, StopRequest())
    assert groups == [[0, 5], [1, 3], [2, 4]]


@pytest.mark.parametrize("cells", [1, 3])
def test_a_trial_that_fails_leaves_it_to_the_cells_to_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cells: int
) -> None:
    def fails(trainer: Trainer, images: torch.Tensor, labels: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "train_step", fails)
    tasks = [
        Task(n, n, cell.configuration, cell.seed) for n, cell in enumerate(run_cases.plan().cells[:cells])
    ]
    backend = gpu.Gpu(Setup(str(tmp_path / "pfa.db"), "cpu", default_data_dir()))
    assert backend.workers(tasks) == 1 and not backend.notes
