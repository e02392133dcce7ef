"""Batches of the data sets that live on the device: order, augmentation, splits, normalisation."""

from typing import Any

import numpy as np
import pytest
import torch

from pfa_cli.data.augment import CropAndFlip
from pfa_cli.data.in_memory import InMemoryDataset, LabelledImages
from pfa_cli.errors import UsageError
from pfa_cli.randomness import generator
from pfa_cli.recipes import load_recipe

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def numbered(n: int, start: int = 0) -> LabelledImages:
    """Random 3 × 8 × 8 images; the label is the image's number."""
    images = torch.randint(
        256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(start)
    )
    return LabelledImages(images, torch.arange(start, start + n))


def dataset(augmentation: CropAndFlip | None = None, **overrides: Any) -> InMemoryDataset:
    configuration = load_recipe("cifar10").configuration("bp", {"validation_images": 10, **overrides})
    return InMemoryDataset(
        "numbers",
        numbered(60),
        numbered(20, 100),
        configuration,
        torch.device("cpu"),
        MEAN,
        STD,
        augmentation,
    )


def labels(data: InMemoryDataset, seed: int, epoch: int, **kwargs: int) -> list[int]:
    return torch.cat([y for _, y in data.train_batches(seed, epoch, 8, **kwargs)]).tolist()


def test_an_epoch_is_a_permutation_that_drops_the_last_incomplete_batch() -> None:
    data = dataset()
    assert data.train_size == 50 and data.steps_per_epoch(8) == 6
    seen = labels(data, 0, 1)
    assert len(seen) == len(set(seen)) == 48
    assert seen == labels(data, 0, 1)
    assert seen != labels(data, 0, 2) and seen != labels(data, 1, 1)
    assert labels(dataset(CropAndFlip()), 0, 1) == seen


@pytest.mark.parametrize("augmentation", [None, CropAndFlip()])
def test_an_epoch_entered_at_a_step_goes_on_with_the_same_batches(augmentation: CropAndFlip | None) -> None:
    whole = list(dataset(augmentation).train_batches(3, 5, 8))
    rest = list(dataset(augmentation).train_batches(3, 5, 8, start_step=4))
    assert len(rest) == 2
    for (x, y), (x_again, y_again) in zip(whole[4:], rest, strict=True):
        assert torch.equal(x, x_again) and torch.equal(y, y_again)


def test_images_are_normalised_per_channel_and_keep_their_label() -> None:
    data, originals = dataset(), numbered(60).images.numpy()
    mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    batches = [*data.train_batches(0, 1, 8), data.probe(5), *data.evaluation_batches("validation")]
    for x, y in batches:
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        expected = (originals[y.numpy()] / 255 - mean) / std
        np.testing.assert_allclose(x.numpy(), expected, atol=1e-5)


def test_validation_images_come_out_of_training_by_split_seed_alone() -> None:
    data = dataset()
    assert data.splits == ("validation", "test")
    assert data.description == "numbers, 50 train / 10 validation / 20 test"

    def held_out(data: InMemoryDataset) -> list[int]:
        return torch.cat([y for _, y in data.evaluation_batches("validation", 4)]).tolist()

    assert sorted({*held_out(data), *data.probe(50)[1].tolist()}) == list(range(60))
    assert held_out(data) == held_out(dataset(learning_rate=0.5, train_images=8))
    assert held_out(data) != held_out(dataset(split_seed=1))
    assert torch.cat([y for _, y in data.evaluation_batches("test", 7)]).tolist() == list(range(100, 120))
    assert dataset(validation_images=0).splits == ("test",)


def test_trials_take_the_first_images_after_the_split() -> None:
    data = dataset(train_images=9, test_images=3)
    assert data.train_size == 9 and data.probe(100)[1].tolist() == dataset().probe(9)[1].tolist()
    assert [len(y) for _, y in data.evaluation_batches("test")] == [3]
    with pytest.raises(UsageError, match=r"batch_size \(=10\) must be at most the number of training images"):
        list(data.train_batches(0, 1, 10))
    with pytest.raises(UsageError, match=r"validation_images \(=60\) must leave some of the 60"):
        dataset(validation_images=60)
    with pytest.raises(UsageError, match="did you mean 'validation'"):
        list(data.evaluation_batches("valid"))


def test_crop_and_flip_is_what_numpy_does_image_by_image() -> None:
    augment = CropAndFlip(padding=4)
    images = numbered(200).images
    moves = augment.draw(200, generator(0, "augmentation", 1))
    expected = []
    for image, (top, left, mirrored) in zip(images.numpy(), moves.tolist(), strict=True):
        crop = np.pad(image, ((0, 0), (4, 4), (4, 4)))[:, top : top + 8, left : left + 8]
        expected.append(crop[:, :, ::-1] if mirrored else crop)
    np.testing.assert_array_equal(augment.apply(images, moves).numpy(), np.stack(expected))
    assert torch.equal(augment.apply(images, torch.tensor([[4, 4, 0]]).expand(200, 3)), images)


def test_crops_and_flips_are_uniform() -> None:
    moves = CropAndFlip(padding=4).draw(81_000, generator(0, "augmentation", 1))
    places = (moves[:, 0] * 9 + moves[:, 1]).bincount(minlength=81)
    assert len(places) == 81
    chi_squared = ((places - 1000.0) ** 2 / 1000).sum().item()
    assert chi_squared < 80 + 4 * np.sqrt(160)  # four standard deviations
    assert abs(moves[:, 2].float().mean().item() - 0.5) < 4 * 0.5 / np.sqrt(81_000)


def test_training_batches_are_augmented_and_evaluation_is_not() -> None:
    plain, moved = dataset(), dataset(CropAndFlip())
    (x, _), (x_moved, _) = next(plain.train_batches(0, 1, 8)), next(moved.train_batches(0, 1, 8))
    assert not torch.equal(x, x_moved)
    for split in plain.splits:
        for (x, _), (x_moved, _) in zip(
            plain.evaluation_batches(split), moved.evaluation_batches(split), strict=True
        ):
            assert torch.equal(x, x_moved)
    assert torch.equal(plain.probe(8)[0], moved.probe(8)[0])
