"""``draws = "published"``: the published runs' own weights, feedback weights and order of images."""

import math
import random
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from pfa_cli.analysis import published
from pfa_cli.configuration import Configuration
from pfa_cli.data import default_data_dir, load_dataset
from pfa_cli.data.augment import CropAndFlip
from pfa_cli.data.fetch import NotFetched, without_fetching
from pfa_cli.data.in_memory import InMemoryDataset, LabelledImages
from pfa_cli.errors import UsageError
from pfa_cli.networks import build_network
from pfa_cli.published_draws import PublishedOrder
from pfa_cli.recipes import load_recipe
from pfa_cli.training import checkpoint
from pfa_cli.training.trainer import Trainer

CPU = torch.device("cpu")
ALGORITHMS = ("fa", "sf", "pfa", "pfa-o")


def replayed(recipe: str, algorithm: str, **overrides: object) -> Configuration:
    return load_recipe(recipe).configuration(algorithm, {"draws": "published", **overrides})


class NoImages:
    """What a trainer asks of a data set before it trains."""

    n_classes, device, splits = 10, CPU, ()

    def __init__(self, configuration: Configuration) -> None:
        self.input_shape = configuration.input_shape

    def steps_per_epoch(self, batch_size: int) -> int:
        return 1


def alignment(trainer: Trainer) -> pd.DataFrame:
    """Angle between W and V in degrees, and ‖V‖ / ‖W‖, of each layer, in double precision."""
    rows = []
    for layer in trainer.algorithm.layers:
        W, V = layer.weight.detach().double(), trainer.algorithm.path(layer).double()
        cosine = float((W * V).sum() / (W.norm() * V.norm()))
        rows.append((math.degrees(math.acos(cosine)), float(V.norm() / W.norm())))
    return pd.DataFrame(rows, columns=["angle_degrees", "norm_ratio"])


def published_alignment(recipe: str, algorithm: str, epoch: int) -> pd.DataFrame:
    curves = published.alignment()
    of_epoch = curves[
        (curves.recipe == recipe) & (curves.algorithm == algorithm) & (curves.epochs_trained == epoch)
    ]
    return of_epoch.sort_values("layer_index")[["angle_degrees", "norm_ratio"]].reset_index(drop=True)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("recipe", "layers"), [("mnist", 3), ("cifar10", 20)])
def test_at_epoch_zero_every_published_angle_and_ratio_is_met_in_all_digits(
    recipe: str, layers: int, algorithm: str
) -> None:
    configuration = replayed(recipe, algorithm)
    ours = alignment(Trainer(configuration, NoImages(configuration), 0, CPU))  # type: ignore[arg-type]
    theirs = published_alignment(recipe, algorithm, 0)
    assert ours.shape == theirs.shape == (layers, 2) and theirs.notna().all(axis=None)
    # Five decimals, read from a picture.
    assert (ours - theirs).abs().max().tolist() == [pytest.approx(0, abs=2e-5), pytest.approx(0, abs=1e-5)]


@pytest.mark.parametrize("algorithm", ["pfa-o"])  # by hand also fa, sf and pfa, and three epochs
def test_mnists_first_epoch_on_their_draws_ends_at_the_published_angles(algorithm: str) -> None:
    configuration = replayed("mnist", algorithm, weight_decay=9e-5)
    try:
        with without_fetching():
            dataset = load_dataset(configuration, default_data_dir(), CPU)
    except NotFetched as reason:
        pytest.skip(str(reason))
    trainer = Trainer(configuration, dataset, 0, CPU)
    for record in trainer.epochs():
        ours, theirs = alignment(trainer), published_alignment("mnist", algorithm, record.epoch)
        assert (ours - theirs)["angle_degrees"].abs().max() < 0.05
        if record.epoch == 1:
            break


class Numbered(torch.utils.data.Dataset):
    """Ten small pictures in colour, as `torchvision` would give them; the label is the picture's number."""

    images = torch.randint(
        256, (10, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )

    def __init__(self, *moves: nn.Module) -> None:
        self.move = v2.Compose([v2.Identity(), *moves])

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.move(self.images[index]), index


def in_memory(configuration: Configuration, n: int = 10) -> InMemoryDataset:
    shape = configuration.input_shape
    assert shape is not None
    images = torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pictures = LabelledImages(Numbered.images if n == 10 else images, torch.arange(n) % 10)
    moves = CropAndFlip() if len(shape) == 3 else None
    return InMemoryDataset("numbers", pictures, pictures, configuration, CPU, [0.0], [1 / 255], moves)


@pytest.mark.parametrize("batch_size", [4, 3])
def test_the_order_and_the_augmentation_are_those_of_torchs_own_loader(batch_size: int) -> None:
    """Torch's modules, its DataLoader and torchvision's transforms draw from the global generator, as the published code."""
    configuration = replayed("cifar10", "bp", validation_images=0, batch_size=batch_size)
    ours = in_memory(configuration)
    flip_then_crop = (v2.RandomHorizontalFlip(), v2.RandomCrop(32, padding=4))
    training = DataLoader(Numbered(*flip_then_crop), batch_size, shuffle=True, drop_last=True)
    validation = DataLoader(Numbered(), batch_size)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        plain = build_network(configuration, 10, (3, 32, 32))
        by_name = {name: m for name, m in plain.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        for name in sorted(by_name, key=lambda name: (name not in ("conv1", "linear"), name)):
            old = by_name[name]
            if isinstance(old, nn.Linear):
                new: nn.Module = nn.Linear(old.in_features, old.out_features)
            else:
                new = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, bias=False)
            nn.init.xavier_uniform_(new.weight)
        for epoch in (1, 2):
            theirs = list(training)
            list(validation)
            batches = list(ours.train_batches(0, epoch, batch_size))
            assert len(batches) == len(theirs) == 10 // batch_size
            for (images, labels), (their_images, their_labels) in zip(batches, theirs, strict=True):
                assert torch.equal(labels, their_labels)
                assert torch.equal(images, their_images.float())
    later = list(ours.train_batches(0, 2, batch_size, start_step=1))
    assert torch.equal(later[-1][0], batches[-1][0]) and len(later) == len(batches) - 1


def test_pythons_random_chooses_the_validation_images() -> None:
    kept, held_out = PublishedOrder(replayed("cifar10", "bp")).hold_out(50_000, 5_000, 0)
    random.seed(0)
    assert held_out.tolist() == random.sample(range(50_000), 5_000)
    assert kept.tolist() == sorted(set(range(50_000)) - set(held_out.tolist()))


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "bp"])
def test_stopped_at_a_step_and_restored_it_goes_on_bit_for_bit(algorithm: str, tmp_path: Path) -> None:
    configuration = replayed("mnist", algorithm, hidden_sizes=[12, 12], epochs=2, batch_size=16)

    def trainer() -> Trainer:
        return Trainer(configuration, in_memory(configuration, 100), 3, CPU)

    whole, first = trainer(), trainer()
    list(whole.epochs())
    list(first.epochs(lambda: first.epochs_done == 1 and first.step == 4))
    assert (first.epochs_done, first.step) == (1, 4)
    checkpoint.save(tmp_path, first)
    second, _, _ = checkpoint.restore(tmp_path, trainer)
    list(second.epochs())
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_the_literal_form_starts_from_the_same_matrices() -> None:
    closed, literal = (
        alignment(Trainer(c, NoImages(c), 0, CPU))  # type: ignore[arg-type]
        for c in (
            replayed("mnist", "pfa", form=form, hidden_sizes=[30, 20]) for form in ("closed", "literal")
        )
    )
    assert (closed - literal).abs().max().max() < 1e-4


@pytest.mark.parametrize(
    ("recipe", "algorithm", "overrides", "reason"),
    [
        ("mnist", "dfa", {}, "known for bp, fa, sf, pfa and pfa-o, not for dfa"),
        ("mnist", "pfa-l", {}, "not for pfa-l"),
        (
            "imagenet",
            "bp",
            {},
            "known for mlp on mnist and resnet20 on cifar10, not for resnet18 on imagefolder",
        ),
        ("cifar10", "bp", {"network": "resnet18"}, "not for resnet18 on cifar10"),
        ("mnist", "fa", {"density": 0.5}, r"known for density = 1.0 only, not 0.5"),
        ("mnist", "pfa-o", {"expansion": 2.0}, r"known for expansion = 1.0 only, not 2.0"),
    ],
)
def test_what_the_published_code_has_not_is_refused_in_words(
    recipe: str, algorithm: str, overrides: dict[str, object], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        replayed(recipe, algorithm, **overrides)


def test_a_replay_is_another_configuration_and_shares_no_data_set() -> None:
    own = load_recipe("mnist").configuration("pfa")
    theirs = replayed("mnist", "pfa")
    assert own.draws == "own" and own.hash != theirs.hash
    assert own.dataset_identity != theirs.dataset_identity != replayed("mnist", "fa").dataset_identity
