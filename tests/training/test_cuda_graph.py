"""The recorded step against the eager one. On the CPU the recorder is a tape that keeps to what a CUDA graph can do."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from stand_ins import Blobs, Pictures, configuration
from tape import tape
from torch import Tensor

from pfa_cli.algorithms import ALGORITHMS
from pfa_cli.records import EpochRecord
from pfa_cli.training import trainer as cuda_graph_trainer
from pfa_cli.training.cuda_graph import EAGER_STEPS, NotRecorded, Recorded, side_stream
from pfa_cli.training.device import make_repeatable
from pfa_cli.training.trainer import Trainer

CPU = torch.device("cpu")
CASES = [*ALGORITHMS, "wm every 5", "wm wishart", "pfa literal", "pfa-o literal"]
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="CUDA graphs need a GPU, and torch finds none here"
)


def trainer(
    case: str, network: str, record: Any, device: torch.device = CPU, eager: bool = False, **settings: object
) -> Trainer:
    name, _, form = case.partition(" ")
    options: dict[str, object] = {"form": form, "expansion": 1} if form else {}
    if name == "wm":
        more: dict[str, object] = {"every 5": {"mirror_every": 5}, "wishart": {"mirror_noise": "wishart"}}
        options = {"mirror_samples": 64, "mirror_rate": 0.5, **more.get(form, {})}
    images = Blobs() if network == "mlp" else Pictures()
    if network != "mlp":
        settings |= {"network": network, "dataset": "cifar10", "hidden_sizes": None}
        settings |= {"batch_size": 4, "epochs": 2, "probe_images": 2}
    return Trainer(
        configuration(name, options=options, **settings),
        images.to(device),
        0,
        device,
        record=record,
        eager=eager,
    )


def timeless(record: EpochRecord) -> str:
    return repr(replace(record, seconds=None, images_per_second=None))


@pytest.mark.parametrize("network", ["mlp", "resnet20"])
@pytest.mark.parametrize("case", CASES)
def test_a_recorded_step_is_the_step(case: str, network: str) -> None:
    """Over epochs with other learning rates and decays, and without asking the device for anything within an epoch."""
    cuda_graph_trainer._compared.clear()
    eager, recorded = (trainer(case, network, record) for record in (None, tape))
    assert [timeless(r) for r in recorded.epochs()] == [timeless(r) for r in eager.epochs()]
    assert set(recorded._recordings) == {"training", "evaluation", "measuring angles"}  # all were recorded
    assert len(recorded._recordings["training"]) == 1 + (case == "wm every 5")
    for name, value in eager.network.state_dict().items():
        assert torch.equal(value, recorded.network.state_dict()[name]), name


@pytest.mark.parametrize("case", ["bp", "kp", "wm", "wm every 5", "wm wishart", "pal"])
def test_what_was_recorded_does_not_outlive_a_restore(case: str) -> None:
    expected = [timeless(record) for record in trainer(case, "mlp", None).epochs()]
    current, found, steps = trainer(case, "mlp", tape), [], 0
    while not current.finished:

        def now_and_then() -> bool:
            nonlocal steps
            steps += 1
            return steps % 7 == 0

        found += [timeless(record) for record in current.epochs(now_and_then)]
        current.restore(*current.state())
    assert found == expected


def test_gradients_accumulate_in_a_recording() -> None:
    eager, recorded = (trainer("pfa", "mlp", record, accumulation=4) for record in (None, tape))
    assert [timeless(r) for r in recorded.epochs()] == [timeless(r) for r in eager.epochs()]


def counting_recorder(log: list[str]) -> Any:
    def record(work: Callable[[], None], generators: object) -> Callable[[], None]:
        log.append("recorded")
        return work

    return record


def test_recorded_once_and_again_when_a_number_changes() -> None:
    log: list[str] = []
    seen: list[float] = []
    held: list[int] = []

    def step(x: Tensor) -> None:
        seen.append(x.item())
        held.append(x.data_ptr())

    recorded = Recorded(counting_recorder(log))
    for value in range(EAGER_STEPS + 3):
        recorded(step, [torch.tensor(float(value))])
    recorded.forget()
    recorded(step, [torch.tensor(-1.0)])
    assert log == ["recorded"] * 2
    assert seen == [0, 1, 2, 3, 4, 5, -1]
    assert len(set(held[EAGER_STEPS : EAGER_STEPS + 3])) == 1  # replayed on the same tensor


def test_learning_rates_of_three_epochs_are_three_recordings() -> None:
    log: list[str] = []
    current = trainer("bp", "mlp", counting_recorder(log))
    list(current.epochs())
    assert log == ["recorded"] * (3 + 1 + 1)  # of the step, of evaluation, of the metrics


def test_tensors_of_other_shapes_are_worked_on_directly() -> None:
    seen: list[tuple[int, int]] = []
    recorded = Recorded(counting_recorder([]), eager_steps=0)
    for n in (2, 3, 2):
        recorded(lambda x: seen.append((len(x), x.data_ptr())), [torch.zeros(n)])
    assert [n for n, _ in seen] == [2, 3, 2] and seen[0] == seen[2]


# What cannot be recorded, or not rightly, goes on without


class Refusing:
    """A recorder that fails, as a GPU does on what it cannot record, and leaves the generators as they must not be."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, work: Callable[[], None], generators: list[torch.Generator]) -> Callable[[], None]:
        for generator in generators:
            generator.manual_seed(1234)
        raise self.error


def wrong(work: Callable[[], None], generators: object) -> Callable[[], None]:
    """A recorder whose recordings do too little."""
    return lambda: None


@pytest.mark.parametrize("recorder", [Refusing(RuntimeError("operation not permitted\nsee there")), wrong])
@pytest.mark.parametrize("case", ["wm", "pal", "pfa"])
def test_what_cannot_be_recorded_is_done_without_and_said_once(case: str, recorder: Any) -> None:
    cuda_graph_trainer._compared.clear()
    said: list[str] = []
    expected = [timeless(record) for record in trainer(case, "mlp", None).epochs()]
    current = trainer(case, "mlp", recorder)
    if recorder is wrong:  # there is nothing to compare evaluation and metrics with
        current._recordings = {"training": current._recordings["training"]}
    current._say = said.append
    assert [timeless(record) for record in current.epochs()] == expected
    assert len([line for line in said if line.startswith("training goes on without a CUDA graph: ")]) == 1
    assert not current._recordings and "\n" not in "".join(said)


def test_memory_that_runs_out_while_recording_is_not_hidden() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        list(trainer("bp", "mlp", Refusing(torch.OutOfMemoryError("no more"))).epochs())


def test_the_comparison_is_made_once_and_leaves_no_trace() -> None:
    steps: list[int] = []
    cuda_graph_trainer._compared.clear()
    for _ in range(2):
        current, n = trainer("wm", "mlp", tape), 0
        take = current.train_step

        def step(images: Tensor, labels: Tensor, take: Any = take) -> None:
            nonlocal n
            n += 1
            take(images, labels)

        current.train_step = step  # type: ignore[method-assign]
        list(current.epochs())
        steps.append(n)
    # Three eager steps, and one to record for each of three learning rates; two more to compare.
    assert steps == [EAGER_STEPS + 3 + 2, EAGER_STEPS + 3]


def test_bits_are_compared_not_numbers() -> None:
    zero, number = torch.zeros(2), torch.full((2,), torch.nan)

    def record(value: float) -> Any:
        return lambda work, generators: lambda: zero.fill_(value)

    for value, same in ((0.0, True), (-0.0, False)):
        recorded = Recorded(record(value), eager_steps=0)
        work = lambda x: (zero.fill_(0.0), number.fill_(torch.nan))  # noqa: E731
        try:
            recorded(work, [torch.ones(1)], changes=lambda: [zero, number])
            assert same
        except NotRecorded:
            assert not same


def test_the_tape_refuses_what_a_graph_cannot_do() -> None:
    with pytest.raises(AssertionError, match="waits for the device"):
        tape(lambda: print(torch.ones(()).item()), [])
    with pytest.raises(AssertionError, match="unregistered"):
        tape(lambda: print(torch.randn(2, generator=torch.Generator()).shape), [])
    total, number = torch.zeros(()), 0

    def work() -> None:
        nonlocal number
        number += 1
        total.add_(number)

    play = tape(work, [])
    play(), play()
    assert total == 2  # not 1 + 2: the recording holds the number of its time


@needs_gpu
@pytest.mark.parametrize("network", ["mlp", "resnet20"])
@pytest.mark.parametrize("case", CASES)
def test_a_cuda_graph_is_the_eager_step(case: str, network: str) -> None:
    cuda = torch.device("cuda", 0)
    make_repeatable(cuda)
    eager, recorded = (trainer(case, network, None, cuda, eager=eager) for eager in (True, False))
    assert [timeless(r) for r in recorded.epochs()] == [timeless(r) for r in eager.epochs()]
    for name, value in eager.network.state_dict().items():
        assert torch.equal(recorded.network.state_dict()[name], value), name


@needs_gpu
def test_no_step_waits_for_the_gpu() -> None:
    cuda = torch.device("cuda", 0)
    make_repeatable(cuda)
    current = trainer("pal", "mlp", None, cuda)
    requests = list(current.dataset.requests(0, 1, 16))
    current.begin_epoch(1)
    with side_stream(cuda):
        for request in requests[:6]:
            current.advance(request)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        try:
            for request in requests[6:]:
                current.advance(request)
        finally:
            torch.cuda.set_sync_debug_mode("default")
