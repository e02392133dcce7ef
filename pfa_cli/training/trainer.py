"""The epoch loop: one network, one data set, one seed. It knows no algorithm by name."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pfa_cli import kernels, published_draws
from pfa_cli.algorithms import Algorithm, attach, convert
from pfa_cli.algorithms.base import FeedbackConv2d
from pfa_cli.data import Dataset, Part
from pfa_cli.errors import PfaError, StoppedWaiting
from pfa_cli.networks import build_network
from pfa_cli.randomness import generator
from pfa_cli.ranks import Ranks, share_statistics
from pfa_cli.records import EpochRecord
from pfa_cli.signals import interruptible
from pfa_cli.training import schedule
from pfa_cli.training.cuda_graph import (
    NotRecorded,
    Recorded,
    Recorder,
    cuda_graphs,
    on_side_stream,
    side_stream,
    undisturbing,
)
from pfa_cli.training.initialise import initialise
from pfa_cli.training.metrics import LayerNumbers
from pfa_cli.training.precision import Precision
from pfa_cli.training.tally import Tally

if TYPE_CHECKING:
    from pfa_cli.configuration import Configuration


class Trainer:
    """Trains the cell (configuration, seed) on ``dataset``.

    The initial weights, the order of the data and the augmentation come from the seed alone, the same for every
    algorithm; the feedback weights from a stream of their own. (With ``draws = "published"`` all as
    `pfa_cli.published_draws` says.) All of its state passes through `state` and `restore`, at the end of an epoch or in the
    middle of one, and a restored trainer goes on bit for bit like one never interrupted (on the same kind of device, number
    of threads and version of torch).

    Where several ``ranks`` train together, each has a trainer and calls it alike; each takes its part of every batch.

    ``eager``: never records on a GPU. ``record``: makes the recordings (see `pfa_cli.training.cuda_graph`); by default CUDA
    graphs on a GPU. The results are the same with and without. ``say`` is told, in a line, what could not be recorded,
    and what takes long before the first epoch.

    Raises:
        UsageError: a precision that the device has not, or a batch that does not divide among the ranks.
    """

    def __init__(
        self,
        configuration: "Configuration",
        dataset: "Dataset",
        seed: int,
        device: torch.device,
        ranks: Ranks | None = None,
        record: Recorder | None = None,
        eager: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.configuration, self.dataset, self.seed, self.device = configuration, dataset, seed, device
        self.ranks = ranks or Ranks()
        self._part = Part(self.ranks.rank, self.ranks.size)  # of every batch
        configuration.check_ranks(self.ranks.size)
        self.entry = configuration.algorithm_entry
        self.precision = Precision(configuration.precision, device)
        self._say = say
        with side_stream(device):
            self._build()
        self.epochs_total = configuration.epochs
        self.steps_per_epoch = dataset.steps_per_epoch(configuration.batch_size)
        self.epochs_done = 0  # epochs trained to their end
        self.step = 0  # steps taken in the epoch now in training
        self.diverged = False
        self._measured_start = False
        self._seconds = 0.0  # of the epoch now in training
        if record is None and device.type == "cuda" and not eager:
            record = cuda_graphs(device)
        self._steps = 0  # taken since the first epoch began
        self._recordings: dict[str, defaultdict[int, Recorded]] = {}  # of each kind of that work
        # Within it, work is done without a recording; where nothing is recorded at all, nobody has to wait for it.
        self._directly: Callable[[], AbstractContextManager[None]] = undisturbing if record else nullcontext
        if record is not None:
            once = partial(Recorded, record, 1)
            self._recordings = {_EVALUATION: defaultdict(once), _METRICS: defaultdict(once)}
            # Ranks talk to one another through the CPU, and of a step that may be skipped the host must know.
            if self.ranks.size == 1 and self.precision.keeps_every_step:
                self._recordings[_STEP] = defaultdict(partial(Recorded, record))
        self._recorded_for: tuple[float, float] | None = None  # learning rate and weight decay of the step

    def _build(self) -> None:
        """The network and all else that lies on the device."""
        c, device = self.configuration, self.device
        network = build_network(c, self.dataset.n_classes, self.dataset.input_shape, self.ranks.size)
        drawn = None
        if c.draws == "published":
            drawn = published_draws.initialise(network, c, self.seed)
        else:
            initialise(network, generator(self.seed, "weights"))
        network.to(device)
        if device.type == "cuda":  # else cuDNN would turn the kernels to the images' format at every call
            network.to(memory_format=self.precision.memory_format)
        network = share_statistics(network, self.ranks, device)
        has_work = device.type == "cuda" and any(isinstance(m, torch.nn.Conv2d) for m in network.modules())
        # Why what `pfa_cli.kernels` could do is left to cuDNN; None where it is not.
        self.left_to_cudnn = kernels.reason_against(device) if has_work else None
        own_kernels = has_work and self.left_to_cudnn is None
        if own_kernels:
            from pfa_cli.kernels import batch_norm

            batch_norm.adopt(network)
        self.network = convert(
            network, self.entry.load(), seed=self.seed, ignore=(), drawn=drawn, **c.options
        )
        algorithm = self.algorithm
        algorithm.ranks, algorithm.parts = self.ranks, c.accumulation
        for layer in algorithm.layers:
            if isinstance(layer, FeedbackConv2d):
                layer.own_kernel = own_kernels
        self._shared_network = self.ranks.wrap(self.network)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=c.learning_rate,
            momentum=c.momentum,
            fused=self.precision.keeps_every_step,
        )
        attach(self.network, self.optimizer, prepare=False)
        self._tally = Tally(device)  # of the epoch now in training
        self._evaluated = Tally(device, top5=self.dataset.n_classes > 10)
        self._numbers = LayerNumbers(self.network, device)

    @property
    def algorithm(self) -> Algorithm:
        algorithm = self.network.algorithm
        assert isinstance(algorithm, Algorithm)
        return algorithm

    @property
    def records_steps(self) -> bool:
        """Whether its steps are, or will be, replayed as recordings."""
        return _STEP in self._recordings

    @property
    def finished(self) -> bool:
        """Nothing is left to train: all epochs are done, or the run diverged and more of it would tell nothing."""
        return self.diverged or self.epochs_done >= self.epochs_total

    @property
    def running_accuracy_percent(self) -> float | None:
        """Training accuracy of the epoch so far, on this rank's part; None on a GPU, which would have to be waited for."""
        return self._tally.accuracy_percent if self.device.type == "cpu" else None

    def epochs(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        on_step: Callable[["Trainer"], None] | None = None,
    ) -> Iterator[EpochRecord]:
        """Yields epoch 0, the network at initialisation, then each epoch when it is done.

        Asks ``should_stop`` after every step, and ends there when it says so; calls ``on_step`` after every step.
        """
        self._check_agreement()
        if not self._measured_start:
            with interruptible():
                self._prepare()
                record = self.measure()
            self._measured_start = True
            yield record
        while not self.finished:
            if not self._train_epoch(should_stop, on_step):
                return
            record = self.measure()
            self.epochs_done, self.step = record.epoch, 0
            self.diverged = record.diverged
            self._reset_sums()
            yield record

    def _check_agreement(self) -> None:
        """PfaError unless this rank goes on from where the first one does."""
        here = (self.epochs_done, self.step)
        first = self.ranks.from_first(here)
        if here != first:
            raise PfaError(
                f"this process restored epoch {here[0]}, step {here[1]}, and the first one epoch {first[0]}, step {first[1]}: "
                "the checkpoints must lie in a folder that all processes see"
            )

    @on_side_stream
    def _prepare(self) -> None:
        if self.algorithm.preparation:
            self._say(self.algorithm.preparation)
        self.algorithm.prepare()

    @on_side_stream
    def _train_epoch(
        self, should_stop: Callable[[], bool], on_step: Callable[["Trainer"], None] | None
    ) -> bool:
        """Trains the rest of the epoch; False if it was stopped before its end."""
        epoch = self.epochs_done + 1
        self.begin_epoch(epoch)
        since = time.perf_counter()
        requests = self.dataset.requests(
            self.seed, epoch, self.configuration.batch_size, start_step=self.step, part=self._part
        )
        try:
            for request in requests:
                self.advance(request)
                self.step += 1
                if on_step is not None:
                    on_step(self)
                if self.ranks.any(should_stop()) and self.step < self.steps_per_epoch:
                    break
        except StoppedWaiting:
            if self.ranks.size > 1:  # the others are in the step
                raise
        self.wait()
        self._seconds += time.perf_counter() - since
        return self.step == self.steps_per_epoch

    def begin_epoch(self, epoch: int) -> None:
        """Sets what holds for all steps of ``epoch``, 1 being the first."""
        rate = schedule.learning_rate(self.configuration, epoch)
        decay = schedule.weight_decay(self.configuration, epoch, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = rate, decay
        if _STEP in self._recordings and self._recorded_for != (rate, decay):
            for recording in self._recordings[_STEP].values():
                recording.forget()
            self._recorded_for = rate, decay
        self._steps = (epoch - 1) * self.steps_per_epoch + self.step
        self.algorithm.steps = self._steps
        if self.step == 0:
            self.algorithm.start_epoch(epoch)
        self.network.train()

    def advance(self, request: Sequence[Tensor]) -> None:
        """One step on the batch that ``request`` asks of the data set; on a GPU within `side_stream`."""
        c, kind = self.configuration, self.algorithm.step_kind
        chosen = (value for value in c.options.values() if isinstance(value, str))
        alike = (c.algorithm, *chosen, c.network, c.precision, self.precision.device, kind)
        self._do(_STEP, self._step_on, request, None if alike in _compared else self._changing, kind)
        if _STEP in self._recordings and self._recordings[_STEP][kind].recorded:
            _compared.add(alike)
        self._steps += 1
        self.algorithm.steps = self._steps  # a recorded step counts nothing

    def _do(
        self,
        name: str,
        work: Callable[..., None],
        inputs: Sequence[Tensor],
        changes: Callable[[], list[Tensor]] | None = None,
        kind: int = 0,
    ) -> None:
        """Does ``work`` of this ``kind`` by its recording; without one from now on where it cannot be recorded."""
        if name in self._recordings:
            drawn_from = self.algorithm.generator
            try:
                self._recordings[name][kind](
                    work, inputs, [] if drawn_from is None else [drawn_from], changes
                )
                return
            except NotRecorded as reason:
                del self._recordings[name]
                if drawn_from is not None:
                    self.algorithm.generator = torch.Generator(device=drawn_from.device)
                    self.algorithm.generator.set_state(*reason.generators)
                self._say(f"{name} goes on without a CUDA graph: {reason}")
        with self._directly():
            work(*inputs)

    def _changing(self) -> list[Tensor]:
        """Every tensor that a step changes."""
        momenta = [t for state in self.optimizer.state.values() for t in state.values()]
        kept = [*momenta, *self._tally.state().values(), *vars(self.algorithm).values()]
        return [
            *self.network.parameters(),
            *self.network.buffers(),
            *(tensor for tensor in kept if isinstance(tensor, Tensor)),
        ]

    def _step_on(self, *request: Tensor) -> None:
        self.algorithm.steps = self._steps  # a new recording is compared with this step done twice
        self.train_step(*self.dataset.batch(*request))

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """One optimiser step on a batch."""
        parts = self.configuration.accumulation
        self.optimizer.zero_grad()
        for part, (x, y) in enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True), start=1):
            # Ranks exchange gradients once a step, with the last part's.
            with nullcontext() if part == parts else self.ranks.apart(self._shared_network):
                with self.precision.autocast():
                    logits = self._shared_network(self.precision.lay_out(x))
                    loss = F.cross_entropy(logits, y)
                self.precision.scaler.scale(loss / parts if parts > 1 else loss).backward()
            self._tally.add(logits, y, loss)
        self.precision.scaler.step(self.optimizer)
        self.precision.scaler.update()

    @on_side_stream
    def measure(self) -> EpochRecord:
        """What the network is like now, with the sums of the epoch just trained, if one was."""
        trained: dict[str, Any] = {}
        epoch = self.epochs_done
        since = time.perf_counter()
        means = self._tally.over(self.ranks).means()
        images_seen = means.pop("images")
        if self.step:  # an epoch was trained
            epoch += 1
            trained = {f"train_{name}": value for name, value in means.items()} | {
                "learning_rate": schedule.learning_rate(self.configuration, epoch),
                "weight_decay": schedule.weight_decay(self.configuration, epoch, self.steps_per_epoch),
                "images_per_second": images_seen / self._seconds if self._seconds else None,
                "diverged": not math.isfinite(means["loss"]),
            }
        for split in self.dataset.splits:
            trained |= {f"{split}_{name}": value for name, value in self._evaluate(split).items()}
        images, labels = self.dataset.probe(self.configuration.probe_images)
        self._do(_METRICS, self._numbers.measure, [self.precision.lay_out(images), labels])
        layers = self._numbers.records(self.entry.measure)
        return EpochRecord(
            epoch, seconds=self._seconds + time.perf_counter() - since, layers=layers, **trained
        )

    @torch.no_grad()
    def _evaluate(self, split: str) -> dict[str, float]:
        """Mean loss and top-1 accuracy in percent, and top-5 where there are more than ten classes."""
        self.network.eval()
        self._evaluated.clear()
        for batch in self.dataset.evaluation_batches(split, part=self._part):
            self._do(_EVALUATION, self._evaluate_on, batch)
        means = self._evaluated.over(self.ranks).means()
        del means["images"]
        return means

    def _evaluate_on(self, images: Tensor, labels: Tensor) -> None:
        with self.precision.autocast():
            logits = self.network(self.precision.lay_out(images))
        if logits.ndim != 2 or logits.shape[1] < self.dataset.n_classes:
            raise PfaError(
                f"network {self.configuration.network}: its output must be [images, classes], here [{len(labels)}, "
                f"{self.dataset.n_classes}], not {list(logits.shape)}"
            )
        self._evaluated.add(logits, labels, F.cross_entropy(logits.float(), labels))

    def wait(self) -> None:
        """Until the device has done every step so far; not for other cells that train on it."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _reset_sums(self) -> None:
        self._tally.clear()
        self._seconds = 0.0

    # Everything a resumed run needs

    @on_side_stream
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and JSON-able facts. Every rank calls it, since they add up their sums for it.

        On the CPU the tensors are the trainer's own; of those on a GPU they are copies, in the CPU's memory.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        streams, facts = self.algorithm.state()
        tensors |= {f"algorithm.{name}": tensor for name, tensor in streams.items()}
        tensors |= {f"tally.{name}": tensor for name, tensor in self._tally.over(self.ranks).state().items()}
        progress = {
            "epochs_done": self.epochs_done,
            "step": self.step,
            "seconds": self._seconds,
            "diverged": self.diverged,
        }
        return on_host(tensors), {
            "algorithm": facts,
            "progress": progress,
            "scaler": self.precision.scaler.state_dict(),
        }

    def _needs_momentum(self, progress: Mapping[str, Any]) -> bool:
        """Whether a checkpoint must have it: steps were taken, and more are to come. An fp16 step may have been skipped."""
        taken = progress["epochs_done"] > 0 or progress["step"] > 0
        more = progress["epochs_done"] < self.epochs_total and not progress["diverged"]
        return taken and more and self.configuration.momentum > 0 and self.precision.keeps_every_step

    @on_side_stream
    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Takes back what `state` gave, possibly in another process. PfaError: the state is another version's."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        for kinds in self._recordings.values():
            for recording in kinds.values():
                recording.forget()
        try:
            self.network.load_state_dict(part("network."))
        except RuntimeError as error:
            raise PfaError(
                f"the checkpoint is not of this network; another version of pfa wrote it ({error}). Go on with that version, "
                "or move the checkpoints away to train from the start"
            ) from error
        momentum, progress = part("momentum."), facts["progress"]
        if self._needs_momentum(progress) and len(momentum) < sum(
            parameter.requires_grad for parameter in self.network.parameters()
        ):
            raise PfaError("the checkpoint has no momentum for some of the parameters")
        for name, parameter in self.network.named_parameters():
            if name in momentum:
                # In memory as the parameter lies, aligned: another order of summing would round otherwise.
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(
                    momentum[name]
                )
        self.algorithm.restore(part("algorithm."), facts["algorithm"])
        self.precision.scaler.load_state_dict(facts["scaler"])
        if self.ranks.first:  # the sums of all ranks
            self._tally.restore(part("tally."))
        else:
            self._tally.clear()
        self._seconds = progress["seconds"]
        self.epochs_done, self.step, self.diverged = (
            progress["epochs_done"],
            progress["step"],
            progress["diverged"],
        )
        self._measured_start = True


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` in the CPU's memory; those of a GPU by one transfer for each dtype, since each waits for the GPU."""
    found = dict(tensors)
    by_dtype: dict[torch.dtype, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.is_cuda:
            by_dtype.setdefault(tensor.dtype, []).append(name)
    for names in by_dtype.values():
        flat = torch.cat([tensors[name].detach().reshape(-1) for name in names]).cpu()
        parts = flat.split([tensors[name].numel() for name in names])
        found |= {name: part.view(tensors[name].shape) for name, part in zip(names, parts, strict=True)}
    return found


# What is recorded, as notes name it.
_STEP, _EVALUATION, _METRICS = "training", "evaluation", "measuring angles"

_compared: set[tuple[object, ...]] = (
    set()
)  # kinds of cells whose recording was found to be the step, in this process
