"""Cells that read one stream of images give the numbers of separate runs, and decode once."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import run_cases
import torch
from torch import Tensor

from pfa_cli.data.pipeline import Loader, Request
from pfa_cli.errors import StoppedWaiting
from pfa_cli.recipes import load_recipe
from pfa_cli.registry import TABLE_1
from pfa_cli.runs import launch
from pfa_cli.runs.backend import Setup, Task
from pfa_cli.runs.events import Broken, Ended, Event, Said
from pfa_cli.runs.plan import Plan
from pfa_cli.runs.shared_stream import Pass, SharedStream, Stream, shares_by_default
from pfa_cli.signals import StopRequest
from pfa_cli.training.trainer import Trainer


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photographs")


CPU = torch.device("cpu")
FEW = ("bp", "wm", "pal", "pfa")  # whose state differs most
ALGORITHMS = [pytest.param(FEW, id="four"), pytest.param(TABLE_1, id="nine", marks=pytest.mark.long)]
Separate = Callable[[Sequence[str]], dict[Any, Any]]


@pytest.fixture(scope="module")
def separate(photographs: Path) -> Separate:
    """Gives the results of some algorithms, trained one after the other, each once."""
    db = photographs / "separate.db"

    def trained(algorithms: Sequence[str]) -> dict[Any, Any]:
        code, said = run_cases.train(db, run_cases.resnet_plan(photographs, algorithms), photographs)
        assert code == 0, said
        return {key: found for key, found in run_cases.results(db).items() if key[1] in algorithms}

    return trained


def train(
    db: Path,
    plan: Plan,
    data_dir: Path,
    on_event: Callable[[Event | Said | Broken, StopRequest], None] = lambda event, stop: None,
    jobs: int | None = None,
) -> list[Event | Said | Broken]:
    told: list[Event | Said | Broken] = []
    stop = StopRequest()

    def report(event: Event | Said | Broken) -> None:
        told.append(event)
        on_event(event, stop)

    backend = SharedStream(Setup(str(db), "cpu", data_dir, jobs, together=True))
    backend.run(run_cases.tasks(db, plan), report, stop)
    return told


def outcomes(told: list[Event | Said | Broken]) -> Counter[str]:
    return Counter(event.outcome for event in told if isinstance(event, Ended))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What was decoded, in this process."""
    monkeypatch.setenv("PFA_WORKERS", "0")
    seen: list[Request] = []
    take = Loader.__getitem__

    def watched(self: Loader, request: Request) -> Any:
        seen.append(request)
        return take(self, request)

    monkeypatch.setattr(Loader, "__getitem__", watched)
    return seen


@pytest.mark.parametrize("algorithms", ALGORITHMS)
def test_cells_are_those_trained_one_by_one_and_each_image_is_decoded_once(
    algorithms: Sequence[str], tmp_path: Path, photographs: Path, separate: Separate, decoded: list[Request]
) -> None:
    expected = separate(algorithms)
    decoded.clear()
    db = tmp_path / "pfa.db"
    told = train(db, run_cases.resnet_plan(photographs, algorithms), photographs)
    assert outcomes(told) == {"done": len(algorithms)}
    assert run_cases.results(db) == expected
    # 18 images in each of 3 epochs, 6 evaluated before and after each, 6 in the probe.
    assert len(decoded) == 3 * 18 + 4 * 6 + 6


def test_cells_at_different_epochs_wait_for_those_behind(
    tmp_path: Path, photographs: Path, separate: Separate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of an epoch, one cell goes on alone, others begin later; with a process that decodes."""
    expected = separate(FEW)
    monkeypatch.setenv("PFA_WORKERS", "1")
    db = tmp_path / "pfa.db"
    some = run_cases.resnet_plan(photographs, ["bp", "wm", "pal"])
    advance, steps = Trainer.advance, Counter[int]()
    stops: list[StopRequest] = []

    def stopping(self: Trainer, request: Any) -> None:
        advance(self, request)
        steps[0] += 1
        if stops and steps[0] >= 13:
            stops[0]._signal = 15

    monkeypatch.setattr(Trainer, "advance", stopping)

    def remember(event: object, stop: StopRequest) -> None:
        stops[:] = [stop]

    assert outcomes(train(db, some, photographs, remember)) == {"interrupted": 3}
    steps.clear()
    stops.clear()
    alone = run_cases.resnet_plan(photographs, ["pal"])
    assert outcomes(train(db, alone, photographs, remember)) <= Counter(interrupted=1, done=1)
    stops.clear()
    told = train(db, run_cases.resnet_plan(photographs, FEW), photographs)
    assert set(outcomes(told)) == {"done"}
    assert run_cases.results(db) == expected


def test_a_cell_that_fails_or_diverges_does_not_stop_the_others(
    tmp_path: Path,
    photographs: Path,
    separate: Separate,
    decoded: list[Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone, advance = separate(["bp", "pfa"]), Trainer.advance

    def failing(self: Trainer, request: Any) -> None:
        if self.epochs_done == 1 and self.configuration.algorithm == "fa":
            raise RuntimeError("one cell's own fault")
        if self.epochs_done == 1 and self.configuration.algorithm == "sf":
            with torch.no_grad():
                next(iter(self.network.parameters())).fill_(float("nan"))
        advance(self, request)

    monkeypatch.setattr(Trainer, "advance", failing)
    db = tmp_path / "pfa.db"
    told = train(db, run_cases.resnet_plan(photographs, ["bp", "fa", "sf", "pfa"]), photographs)
    assert outcomes(told) == {"done": 3, "failed": 1}
    found = run_cases.results(db)
    assert len(found) == 4
    assert alone.items() <= found.items()


def test_a_database_that_is_gone_ends_every_cell(
    tmp_path: Path, photographs: Path, decoded: list[Request]
) -> None:
    db = tmp_path / "pfa.db"

    def remove(event: object, stop: StopRequest) -> None:
        db.unlink(missing_ok=True)

    told = train(db, run_cases.resnet_plan(photographs, ["bp", "fa"]), photographs, remove)
    assert not outcomes(told)["done"]
    assert outcomes(told)["failed"] or any(isinstance(event, Broken) for event in told)


def test_only_cells_of_one_order_of_images_share_a_stream() -> None:
    tasks = [
        Task(4 * seed + n, 0, cell.configuration, seed)
        for seed in (0, 1)
        for n, cell in enumerate(
            [*run_cases.plan(["bp", "fa", "kp"]).cells, *run_cases.plan(["bp"], batch_size=16).cells]
        )
    ]
    groups = SharedStream(Setup(None, "cpu", Path(), together=True))._groups(tasks)
    assert [[task.cell for task in group] for group in groups] == [[0, 1, 2], [3], [4, 5, 6], [7]]
    groups = SharedStream(Setup(None, "cpu", Path(), 2, together=True))._groups(tasks)
    assert [[task.cell for task in group] for group in groups] == [[0, 1], [2], [3], [4, 5], [6], [7]]
    c = run_cases.plan(["bp"]).cells[0].configuration
    precisions = enumerate(("fp32", "bf16", "tf32", "fp16"))
    tasks = [Task(n, 0, c.model_copy(update={"precision": name}), 0) for n, name in precisions]
    groups = SharedStream(Setup(None, "cpu", Path(), together=True))._groups(tasks)
    assert [[task.cell for task in group] for group in groups] == [[0], [1, 3], [2]]


def test_a_run_says_where_together_would_decode_less() -> None:
    def hints(together: bool, photographs: bool) -> list[str]:
        settings: dict[str, object] = {
            "dataset": "imagefolder",
            "image_size": 8,
            "corrupt_share_percent": 0.0,
        }
        tasks = [
            Task(n, n, cell.configuration.model_copy(update=settings if photographs else {}), 0)
            for n, cell in enumerate(run_cases.plan(["bp", "fa"]).cells)
        ]
        return list(launch._hints(Setup(None, "cpu", Path(), together=together), tasks))

    assert "--together" in hints(False, True)[0] and "up to 2 of these cells" in hints(False, True)[0]
    assert "--apart" in hints(True, True)[0]
    assert hints(True, False) == hints(False, False) == []


# The stream by itself


def test_whatever_readers_do_each_gets_its_batches_and_nobody_waits_for_ever() -> None:
    """Readers that enter at any step, leave early, and are slow; 30 draws."""
    for draw in range(30):
        chance = random.Random(draw)
        readers = chance.randint(1, 6)
        stream = Stream(readers, threading.BoundedSemaphore(2), CPU)
        begun: Counter[Pass] = Counter()
        failed: list[str] = []

        def read(
            number: int,
            seed: int,
            stream: Stream = stream,
            begun: Counter[Pass] = begun,
            failed: list[str] = failed,
        ) -> None:
            own = random.Random(seed)
            try:
                for epoch in range(own.randint(0, 2), 4):
                    wanted, start = Pass(epoch, 0), own.randint(0, 12)

                    def begin(step: int, wanted: Pass = wanted) -> Iterator[tuple[Tensor, ...]]:
                        begun[wanted] += 1
                        return ((torch.tensor([wanted.epoch, n]),) for n in range(step, 12))

                    last = own.choice([12, 12, own.randint(start, 12)])
                    seen: list[Any] = []
                    batches = stream.read(number, wanted, start, begin, lambda: False)
                    while len(seen) < last - start and (batch := next(batches, None)) is not None:
                        seen.append(batch[0].tolist())
                        if own.random() < 0.1:
                            time.sleep(0.001)
                    batches.close()
                    if seen != [[epoch, n] for n in range(start, last)]:
                        failed.append(f"reader {number}: {seen}")
            finally:
                stream.depart()

        threads = [
            threading.Thread(target=read, args=(n, chance.random()), daemon=True) for n in range(readers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(run_cases.LIMIT_SECONDS)
            assert not thread.is_alive(), f"draw {draw}"
        assert not failed, f"draw {draw}: {failed}"
        assert set(begun.values()) <= {1}


def test_an_error_of_the_source_reaches_every_reader() -> None:
    stream, met = Stream(2, nullcontext(), CPU), []

    def begin(step: int) -> Iterator[tuple[Tensor, ...]]:
        yield (torch.zeros(1),)
        raise OSError("the disk is gone")

    def read(number: int) -> None:
        try:
            list(stream.read(number, Pass(1, 0), 0, begin, lambda: False))
        except OSError as error:
            met.append(str(error))
        finally:
            stream.depart()

    threads = [threading.Thread(target=read, args=(n,), daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(run_cases.LIMIT_SECONDS)
    assert met == ["the disk is gone"] * 2


def test_a_reader_that_waits_for_others_can_be_stopped() -> None:
    stream = Stream(2, nullcontext(), CPU)
    with pytest.raises(StoppedWaiting):
        next(stream.read("ahead", Pass(2, 0), 0, lambda step: iter(()), lambda: True))


def test_one_stream_is_the_default_for_photographs_on_a_gpu_only() -> None:
    photographs, digits = (load_recipe(name).configuration("bp") for name in ("imagenet", "mnist"))
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert shares_by_default([photographs, photographs], gpu)
    assert not shares_by_default([photographs, photographs], cpu)
    assert not shares_by_default([photographs, digits], gpu) and not shares_by_default([], gpu)
