"""How many cells one GPU should train at a time, found by trying: the number at which most steps are done in a second."""

import time
from collections.abc import Callable
from threading import Barrier, Thread

import torch

from pfa_cli.configuration import Configuration
from pfa_cli.data import Dataset
from pfa_cli.training.cuda_graph import EAGER_STEPS, side_stream
from pfa_cli.training.trainer import Trainer

WORTH_IT = 1.1  # what twice the cells must gain in steps per second, since each takes memory, and longer
SECONDS = 0.5


def cells_at_a_time(throughput: Callable[[int], float], most: int) -> int:
    """1, 2, 4, … up to ``most``: the last number that was worth doubling to.

    ``throughput``: steps per second of that many cells together; running out of memory ends the search.
    """
    best, speed = 1, throughput(1)
    while 2 * best <= most:
        try:
            faster = throughput(2 * best)
        except torch.OutOfMemoryError:
            break
        if faster < WORTH_IT * speed:
            break
        best, speed = 2 * best, faster
    return best


class Trial:
    """Trains copies of a cell side by side for a moment; nothing of it is kept."""

    def __init__(
        self, configuration: Configuration, dataset: Dataset, device: torch.device, seconds: float = SECONDS
    ) -> None:
        self._configuration, self._dataset, self._device = configuration, dataset, device
        self._seconds = seconds
        self._trainers: list[Trainer] = []

    def throughput(self, cells: int) -> float:
        """Steps per second of ``cells`` cells together, evaluation and metrics not counted."""
        while len(self._trainers) < cells:
            seed = len(self._trainers)
            self._trainers.append(Trainer(self._configuration, self._dataset, seed, self._device))
        barrier, speeds, failed = Barrier(cells), [0.0] * cells, []

        def train(lane: int) -> None:
            try:
                with side_stream(self._device):
                    speeds[lane] = self._train(self._trainers[lane], barrier)
            except Exception as error:  # a thread's error would only be printed
                failed.append(error)
                barrier.abort()

        threads = [Thread(target=train, args=(lane,), daemon=True) for lane in range(cells)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        return sum(speeds)

    def _train(self, trainer: Trainer, barrier: Barrier) -> float:
        """The steps per second that ``trainer`` does, once all lanes are ready."""
        trainer.begin_epoch(1)
        request = next(iter(self._dataset.requests(0, 1, self._configuration.batch_size)))
        for _ in range(EAGER_STEPS + 1):
            trainer.advance(request)
        trainer.wait()
        barrier.wait()
        done, passed, since = 0, 0.0, time.perf_counter()
        while passed < self._seconds:
            for _ in range(_BETWEEN_LOOKS):
                trainer.advance(request)
            trainer.wait()
            done, passed = done + _BETWEEN_LOOKS, time.perf_counter() - since
        return done / passed


_BETWEEN_LOOKS = (
    20  # steps, so that waiting for them costs little and an epoch of the slowest is not begun in vain
)
