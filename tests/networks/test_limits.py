"""What can never be trained is a usage error, in the dry run too, before anything is stored."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Call

from pfa_cli.errors import UsageError
from pfa_cli.networks import build_network, check_network
from pfa_cli.recipes import load_recipe

BIG = "too large for memory"
SMALL_IMAGES = ("--set=image_size=32", "--algos=bp")
ONE_VALUE = (
    "leaves the BatchNorm layers of resnet18 a single value per channel to normalise: make it at least 2"
)

REFUSED = [
    (["mnist", "--set=hidden_sizes=[1000000,1000000]"], f"hidden_sizes (=[1000000, 1000000]): {BIG}"),
    (["mnist", "--set=hidden_sizes=[1000000000000000000]"], BIG),
    (["mnist", "--set=expansion=1e9"], f"expansion (=1000000000.0): {BIG}"),
    (["mnist", "--set=expansion=1e308"], BIG),
    (["mnist", "--set=mirror_samples=10000000000000"], f"mirror_samples (=10000000000000): {BIG}"),
    (["imagenet", "--set=image_size=1000000"], f"image_size (=1000000): {BIG}"),
    (["imagenet", "--set=batch_size=100000000"], f"batch_size (=100000000): {BIG}"),
    (
        ["mnist", "--set=learning_rate_factor=1e308"],
        "learning_rate_factor (=1e+308) makes the learning rate infinite",
    ),
    (["imagenet", "--set=batch_size=1", *SMALL_IMAGES], f"batch_size (=1) {ONE_VALUE}"),
    (
        ["imagenet", "--set=batch_size=4", "--set=accumulation=4", *SMALL_IMAGES],
        f"accumulation (=4) {ONE_VALUE}",
    ),
    (["imagenet", "--set=probe_images=1", *SMALL_IMAGES], f"probe_images (=1) {ONE_VALUE}"),
]
WHOLE = ("epochs", "batch_size", "train_images", "test_images", "validation_images", "split_seed", "image_size",
         "probe_images", "accumulation", "wm.mirror_samples", "milestones", "hidden_sizes")  # fmt: skip


@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "real"])
@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_can_never_be_trained_is_refused_before_anything_is_stored(
    call: Call, tmp_path: Path, arguments: list[str], message: str, dry: list[str]
) -> None:
    done = call("run", *arguments, *dry)
    assert done.code == 2 and message in " ".join(done.err.split()), done
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["9223372036854775808", "-9223372036854775809", "1" + "0" * 400])
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_that_the_database_cannot_hold_is_refused_in_every_setting(
    call: Call, tmp_path: Path, name: str, value: str
) -> None:
    text = f"[{value}]" if name in ("milestones", "hidden_sizes") else value
    done = call("run", "mnist", "--dry-run", f"--set={name}={text}")
    assert done.code == 2 and name.rpartition(".")[2] in done.err and "2^63" in done.err, done
    assert len(done.err) < 400 and not list(tmp_path.iterdir())


def test_one_image_at_a_time_is_no_matter_where_there_is_more_to_normalise() -> None:
    check_network(load_recipe("mnist").configuration("bp", {"batch_size": 1}))  # no BatchNorm
    check_network(load_recipe("cifar10").configuration("bp", {"batch_size": 1}))  # its last map is 8 × 8
    of_ranks = load_recipe("imagenet").configuration("bp", {"image_size": 32, "batch_size": 2})
    check_network(of_ranks)
    with pytest.raises(UsageError, match=r"batch_size \(=2\) on 2 ranks leaves the BatchNorm"):
        check_network(of_ranks, ranks=2)


def test_a_plugins_network_is_checked_once_its_images_are_known(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, n_classes):\n"
        "    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, n_classes))\n"
    )
    overrides = {"network": f"{tmp_path}/own.py:net", "batch_size": 1, "validation_images": 0}
    one = load_recipe("cifar10").configuration("bp", overrides)
    with pytest.raises(
        UsageError, match=r"batch_size \(=1\) leaves the BatchNorm layers of own a single value"
    ):
        build_network(one, 2, (4,))
    build_network(load_recipe("cifar10").configuration("bp", overrides | {"batch_size": 2}), 2, (4,))


def test_usual_sizes_are_checked_without_torch() -> None:
    code = (
        "import sys; from pfa_cli.recipes import list_recipes; from pfa_cli.networks import check_network\n"
        "from pfa_cli.registry import ALGORITHMS\n"
        "[check_network(r.configuration(name)) for r in list_recipes() for name in ALGORITHMS]\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
