"""The trainer: what it measures, and that stopping and going on changes nothing."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from stand_ins import Blobs, Pictures, configuration
from torch import nn

from pfa_cli.networks import build_network
from pfa_cli.randomness import generator
from pfa_cli.records import EpochRecord
from pfa_cli.registry import ALGORITHMS, TABLE_1
from pfa_cli.training import checkpoint
from pfa_cli.training.initialise import initialise
from pfa_cli.training.trainer import Trainer

CPU = torch.device("cpu")
CASES = [*TABLE_1, "pfa literal", "pfa-l", "mix", "readout"]


def trainer(case: str, **settings: object) -> Trainer:
    name, _, form = case.partition(" ")
    options: dict[str, object] = {"form": form} if form else {}
    if name == "wm":
        more: dict[str, object] = {"every 5": {"mirror_every": 5}, "wishart": {"mirror_noise": "wishart"}}
        options = {"mirror_samples": 64, "mirror_rate": 0.1, **more.get(form, {})}
    return Trainer(configuration(name, options=options, **settings), Blobs(), 0, CPU)


def timeless(record: EpochRecord) -> EpochRecord:
    return replace(record, seconds=None, images_per_second=None)


@pytest.mark.parametrize("case", [*CASES, "wm every 5", "wm wishart"])
def test_stopped_at_any_step_and_restored_it_goes_on_bit_for_bit(case: str, tmp_path: Path) -> None:
    whole = trainer(case)
    expected = [timeless(record) for record in whole.epochs()]

    steps = 0
    found: list[EpochRecord] = []
    current = trainer(case)
    while not current.finished:
        budget = steps + 5

        def out_of_budget(budget: int = budget) -> bool:
            nonlocal steps
            steps += 1
            return steps >= budget

        found += [timeless(record) for record in current.epochs(out_of_budget)]
        checkpoint.save(tmp_path, current)
        current, name, damaged = checkpoint.restore(tmp_path, lambda: trainer(case))
        assert name and not damaged
    assert found == expected
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, current.network.state_dict()[name]), name


def test_algorithms_share_initial_weights_and_order_but_not_feedback() -> None:
    networks = [trainer(case).network for case in ALGORITHMS]
    for network in networks[1:]:
        assert torch.equal(network.layer2.weight, networks[0].layer2.weight)
    fa = trainer("fa")
    assert not torch.equal(fa.network.layer2.V, fa.network.layer2.weight)


def test_epoch_zero_is_the_network_before_training() -> None:
    records = list(trainer("fa").epochs())
    assert [record.epoch for record in records] == [0, 1, 2, 3]
    start = records[0]
    assert start.train_loss is None and start.learning_rate is None
    assert start.test_accuracy_percent is not None and start.validation_loss is not None
    assert [record.learning_rate for record in records[1:]] == [0.05, 0.025, 0.0125]
    assert [record.weight_decay for record in records[1:]] == [0.03, 1e-4, 1e-4]
    assert records[-1].test_accuracy_percent > start.test_accuracy_percent
    assert [layer.name for layer in start.layers] == ["layer1", "layer2", "layer3"]


@pytest.mark.parametrize("case", TABLE_1)
def test_each_algorithm_reports_the_measures_it_has(case: str) -> None:
    *_, last = trainer(case).epochs()
    for layer in last.layers:
        defined = {name for name, value in asdict(layer).items() if value is not None} - {"index", "name"}
        weight = {"weight_norm", "weight_angle_degrees", "weight_norm_ratio", "error_angle_degrees"}
        if case in ("pfa", "pfa-o"):
            assert defined == weight | {"path_angle_degrees", "path_norm_ratio"}
            assert (layer.weight_angle_degrees, layer.weight_norm_ratio) == (90, 0)
        elif case == "dfa" and layer.name != "layer3":
            assert defined == weight - {"weight_angle_degrees"}
        else:
            assert defined == weight
    assert last.layers[-1].error_angle_degrees == pytest.approx(0, abs=1e-4)
    if case == "bp":
        assert all(layer.weight_angle_degrees == 0 and layer.weight_norm_ratio == 1 for layer in last.layers)
        assert all(layer.error_angle_degrees == 0 for layer in last.layers)
    elif case != "sf":
        assert last.layers[0].error_angle_degrees > 1


def test_bp_in_the_trainer_is_plain_torch() -> None:
    """The same losses and weights as a loop that knows nothing of pfa."""
    data, ours = Blobs(), trainer("bp")
    list(ours.epochs())
    plain = build_network(ours.configuration, data.n_classes, data.input_shape)
    initialise(plain, generator(0, "weights"))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, fused=True)
    for epoch in range(1, 4):
        optimizer.param_groups[0].update(
            lr=0.05 * 0.5 ** (epoch - 1), weight_decay=0.03 if epoch == 1 else 1e-4
        )
        for x, y in data.train_batches(0, epoch, 16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
    for name, value in plain.named_parameters():
        assert torch.equal(value, ours.network.get_parameter(name)), name


def test_a_run_that_diverges_ends_there_and_says_so() -> None:
    wild = trainer("bp", learning_rate=1e6, epochs=5, milestones=(4,))
    records = list(wild.epochs())
    assert records[-1].diverged and math.isnan(records[-1].train_loss)
    assert not any(record.diverged for record in records[:-1])
    assert wild.finished and records[-1].epoch < 5
    assert math.isnan(records[-1].layers[0].weight_norm)


@pytest.mark.parametrize("case", ["bp", "pfa", "pal"])
def test_measuring_leaves_no_trace(case: str) -> None:
    measured, left_alone = trainer(case), trainer(case)
    for one, times in ((measured, 3), (left_alone, 0)):
        one.algorithm.start_epoch(1)
        one.network.train()
        for x, y in one.dataset.train_batches(0, 1, 16):
            for _ in range(times):
                one.measure()
                one.network.train()
            one.train_step(x, y)
    for name, value in measured.network.state_dict().items():
        assert torch.equal(value, left_alone.network.state_dict()[name]), name


@pytest.mark.parametrize("case", ["bp", "pfa", "dfa", "pfa literal"])
def test_accumulating_a_batch_in_parts_gives_the_same_step(case: str) -> None:
    whole, parts = trainer(case), trainer(case, accumulation=4)
    for one in (whole, parts):
        list(one.epochs())
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_pal_learns_as_much_from_a_batch_in_parts() -> None:
    """Its parts are smaller minibatches, with noise of their own, but of V₀ they leave what the whole batch leaves."""
    left = []
    for accumulation in (1, 4):
        one = trainer("pal", accumulation=accumulation)
        layer = one.network.layer1
        start = layer.V.clone()
        one.algorithm.options["rate"] = 0.02
        list(one.epochs())
        left.append(((layer.V * start).sum() / start.square().sum()).item())
    assert left == pytest.approx([0.98**36] * 2, abs=0.08)


@pytest.mark.parametrize("case", CASES)
def test_a_convolutional_network_resumes_bit_for_bit_too(case: str, tmp_path: Path) -> None:
    """ResNet-20, whose tensors lie in memory in another order than in the file."""
    name, _, form = case.partition(" ")
    options: dict[str, object] = {"form": form} if form else {}
    if name == "wm":
        options = {"mirror_samples": 16, "mirror_rate": 0.5}
    if form:
        options["expansion"] = 1
    settings = configuration(
        name,
        options=options,
        dataset="cifar10",
        network="resnet20",
        hidden_sizes=None,
        epochs=1,
        milestones=(),
        batch_size=4,
    )

    def fresh() -> Trainer:
        return Trainer(settings, Pictures(), 0, CPU)

    whole = fresh()
    expected = [timeless(record) for record in whole.epochs()]
    stopped = fresh()
    found = [timeless(record) for record in stopped.epochs(lambda: stopped.step == 2)]
    assert stopped.step == 2 and not stopped.finished
    checkpoint.save(tmp_path, stopped)
    resumed, _, _ = checkpoint.restore(tmp_path, fresh)
    found += [timeless(record) for record in resumed.epochs()]
    assert found == expected
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


@pytest.mark.parametrize("case", ["wm", "pal"])
def test_noise_begun_on_a_gpu_goes_on_on_the_cpu_and_does_not_come_again(case: str) -> None:
    """A generator's state is of no use on another kind of device; what it has drawn already must not be drawn twice."""
    begun = trainer(case)
    list(begun.epochs(lambda: begun.step == 5))
    tensors, facts = begun.state()
    facts["algorithm"]["noise_device"] = "cuda:3"
    tensors["algorithm.generator"] = torch.arange(16, dtype=torch.uint8)  # as long as a GPU's
    noises = []
    for _ in range(2):
        resumed = trainer(case)
        resumed.restore(tensors, facts)
        noises.append(resumed.algorithm.noise((8,), CPU, torch.float32))
    of_this_epoch = generator(0, "noise", 1)
    assert torch.equal(*noises)  # from the checkpoint alone
    assert not torch.equal(noises[0], torch.randn(8, generator=of_this_epoch))
    assert [record.epoch for record in resumed.epochs()] == [1, 2, 3]
    assert torch.equal(
        resumed.algorithm.generator.get_state()[:8], generator(0, "noise", 3).get_state()[:8]
    )  # the next epoch has its own noise again
