"""A training loop of one's own: `attach` does what it would have to do, and what it leaves out is said, once."""

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from oracle.comparison import assert_same_network, sgd
from torch import nn
from torch.nn import functional as F

from pfa_cli.algorithms import Algorithm, FeedbackLayer, attach, convert
from pfa_cli.errors import PfaError
from pfa_cli.registry import ALGORITHMS


def network(algorithm: str | type[Algorithm], **options: object) -> nn.Module:
    torch.manual_seed(0)
    if algorithm == "wm":
        options = {"mirror_rate": 0.5, "mirror_samples": 4}
    return convert(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), algorithm, **options)


def steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 3, then: Callable[[], None] | None = None
) -> None:
    draw = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(8, 4, generator=draw)
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.arange(8) % 3).backward()
        optimizer.step()
        if then is not None:
            then()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_attached_optimiser_does_what_the_loop_would(algorithm: str) -> None:
    ours, written_out = network(algorithm), network(algorithm)
    optimizer = sgd(ours)
    for _ in range(2):  # a cell of a notebook may be run again
        attach(ours, optimizer)
    steps(ours, optimizer)
    optimizer = sgd(written_out)
    written_out.algorithm.prepare()
    steps(written_out, optimizer, then=lambda: written_out.algorithm.after_step(optimizer))
    assert_same_network(ours, written_out, tolerance=0)


class Follows(Algorithm):
    """A rule as one would write it first: with W as it is, not detached."""

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, torch.Tensor]:
        return {"V": layer.weight.sign(), "trace": layer.weight * 0}

    def prepare(self) -> None:
        for layer in self.layers:
            layer.V += layer.weight

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        for layer in self.layers:
            layer.V += 0.1 * (layer.weight.sign() - layer.V)
            layer.trace = 0.9 * layer.trace + layer.weight


def test_a_rule_that_computes_with_w_keeps_no_graph_of_the_steps() -> None:
    ours = network(Follows)
    optimizer = sgd(ours)
    ours.algorithm.prepare()
    steps(ours, optimizer, then=lambda: ours.algorithm.after_step(optimizer))
    assert not [name for name, buffer in ours.named_buffers() if buffer.requires_grad]


FORGETFUL = [
    name for name, entry in ALGORITHMS.items() if entry.load().after_step is not Algorithm.after_step
]


@pytest.mark.parametrize("algorithm", FORGETFUL)
def test_a_loop_without_after_step_is_warned_at_its_second_pass_and_once(algorithm: str) -> None:
    model = network(algorithm)
    model.algorithm.prepare()
    with pytest.warns(UserWarning, match=r"after_step\(optimizer\) was not called.*attach") as caught:
        steps(model, sgd(model), count=2)
    assert [warning.filename for warning in caught] == [__file__]
    steps(model, sgd(model))


def test_a_loop_without_prepare_is_warned_once() -> None:
    model = network("wm")
    optimizer = sgd(model)
    with pytest.warns(UserWarning, match=r"prepare\(\) was not called.*attach") as caught:
        steps(model, optimizer, then=lambda: model.algorithm.after_step(optimizer))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("algorithm", ["bp", "fa", "sf", "dfa", "pal", "readout"])
def test_algorithms_that_need_neither_are_silent(algorithm: str) -> None:
    model = network(algorithm)
    steps(model, sgd(model))


def test_a_loop_that_is_right_is_silent() -> None:
    """Several passes for one step, evaluation, a pass before training, loading a state: none of it misses a step."""
    model = network("pfa")
    optimizer = sgd(model)
    start = copy.deepcopy(model.state_dict())
    model(torch.zeros(1, 4))
    steps(model, optimizer, then=lambda: model.algorithm.after_step(optimizer))
    for _ in range(2):
        F.cross_entropy(model(torch.randn(3, 4)), torch.arange(3)).backward()
    model.load_state_dict(start)
    steps(model, optimizer, count=1, then=lambda: model.algorithm.after_step(optimizer))
    model.eval()(torch.zeros(1, 4))


def test_a_state_that_was_loaded_whole_was_prepared() -> None:
    trained, model = network("wm"), network("wm")
    attach(trained, sgd(trained))
    model.load_state_dict(trained.state_dict())
    optimizer = sgd(model)
    attach(model, optimizer)
    assert torch.equal(model[0].V, trained[0].V)
    steps(model, optimizer)


def test_a_copy_of_an_attached_network_is_watched_anew() -> None:
    model = network("kp")
    attach(model, sgd(model))
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.warns(UserWarning, match="after_step"):
            steps(made, sgd(made), count=2)


@pytest.mark.parametrize(
    "optimizer_of",
    [
        lambda model: torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1),
        lambda model: torch.optim.SGD([p for name, p in model.named_parameters() if "R" not in name], lr=0.1),
    ],
    ids=["of another network", "made before convert"],
)
def test_an_optimiser_that_cannot_be_right_is_refused(
    optimizer_of: Callable[[nn.Module], torch.optim.Optimizer],
) -> None:
    model = network("pfa", form="literal")
    with pytest.raises(PfaError, match="make it after `convert`"):
        attach(model, optimizer_of(model))


def test_a_network_that_is_not_converted_is_refused() -> None:
    plain = nn.Linear(2, 2)
    with pytest.raises(PfaError, match="has no algorithm: `convert"):
        attach(plain, torch.optim.SGD(plain.parameters()))


def test_a_gradscaler_that_skips_a_step_skips_after_step() -> None:
    model = network("kp")
    optimizer = sgd(model)
    attach(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    loss = F.cross_entropy(model(torch.ones(3, 4)), torch.arange(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaler.scale(loss * 1e6).backward()
        scaler.step(optimizer)
        scaler.update()
    assert model.algorithm.alpha == 1.0
