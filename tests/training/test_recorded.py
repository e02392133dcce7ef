"""The recorded step against the eager one. On the CPU the recorder is a tape that keeps to what a CUDA graph can do."""

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
from pfa_cli.training.recorded import EAGER_STEPS, RecordedStep, cuda_graphs, side_stream
from pfa_cli.training.trainer import Trainer

CPU = torch.device("cpu")
CASES = [*ALGORITHMS, "pfa literal", "pfa-o literal"]
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="CUDA graphs need a GPU, and torch finds none here"
)


def trainer(case: str, network: str, record: Any, device: torch.device = CPU, **settings: object) -> Trainer:
    name, _, form = case.partition(" ")
    options: dict[str, object] = {"form": form, "expansion": 1} if form else {}
    if name == "wm":
        options = {"mirror_samples": 16, "mirror_rate": 0.5}
    images = Blobs() if network == "mlp" else Pictures()
    if network != "mlp":
        settings |= {"network": network, "dataset": "cifar10", "hidden_sizes": None}
        settings |= {"batch_size": 4, "epochs": 2, "probe_images": 2}
    return Trainer(
        configuration(name, options=options, **settings), images.to(device), 0, device, record=record
    )


def timeless(record: EpochRecord) -> str:
    return repr(replace(record, seconds=None, images_per_second=None))


@pytest.mark.parametrize("network", ["mlp", "resnet20"])
@pytest.mark.parametrize("case", CASES)
def test_a_recorded_step_is_the_step(case: str, network: str) -> None:
    """Over epochs with other learning rates and decays, and without asking the device for anything within an epoch."""
    eager, recorded = (trainer(case, network, record) for record in (None, tape))
    assert [timeless(r) for r in recorded.epochs()] == [timeless(r) for r in eager.epochs()]
    for name, value in eager.network.state_dict().items():
        assert torch.equal(value, recorded.network.state_dict()[name]), name


@pytest.mark.parametrize("case", ["bp", "kp", "wm", "pal"])
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

    recorded = RecordedStep(step, counting_recorder(log))
    for value in range(EAGER_STEPS + 3):
        recorded([torch.tensor(float(value))])
    recorded.forget()
    recorded([torch.tensor(-1.0)])
    assert log == ["recorded"] * 2
    assert seen == [0, 1, 2, 3, 4, 5, -1]
    assert len(set(held[EAGER_STEPS : EAGER_STEPS + 3])) == 1  # replayed on the same tensor


def test_learning_rates_of_three_epochs_are_three_recordings() -> None:
    log: list[str] = []
    list(trainer("bp", "mlp", counting_recorder(log)).epochs())
    assert log == ["recorded"] * 3


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
    cuda = torch.device("cuda")
    eager, recorded = (
        trainer(case, network, record, cuda) for record in (lambda work, _: work, cuda_graphs(cuda))
    )
    for expected, found in zip(eager.epochs(), recorded.epochs(), strict=True):
        assert found.test_accuracy_percent == pytest.approx(expected.test_accuracy_percent, abs=1)
    for name, value in eager.network.state_dict().items():
        torch.testing.assert_close(recorded.network.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


@needs_gpu
def test_no_step_waits_for_the_gpu() -> None:
    cuda = torch.device("cuda")
    current = trainer("pal", "mlp", None, cuda)
    requests = list(current.dataset.requests(0, 1, 16))
    current.begin_epoch(1)
    with side_stream(cuda):
        for request in requests[:6]:
            current.advance(request)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for request in requests[6:]:
                current.advance(request)
        finally:
            torch.cuda.set_sync_debug_mode("default")
