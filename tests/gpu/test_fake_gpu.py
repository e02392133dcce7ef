"""Training on a CUDA runtime without a GPU: forbidden calls, waits, launches, memory, and what goes on when one fails.

All of torch's own GPU code runs, but no kernel computes anything (see `fake_cuda.cpp`). The whole matrix of algorithms,
networks and precisions takes minutes, a lost GPU and torchrun's ranks need three more starts of torch: these are marked long.
"""

import json
import socket
from pathlib import Path
from typing import Any

import fake_cuda
import pytest
import run_cases

from pfa_cli.algorithms import ALGORITHMS

pytestmark = pytest.mark.skipif(fake_cuda.missing() is not None, reason=str(fake_cuda.missing()))
CHILD = str(Path(__file__).with_name("on_fake_gpu.py"))
CASES = [*ALGORITHMS, "wm every", "wm wishart", "pfa literal", "pfa-o literal"]
SMALL = [
    "run",
    "mnist",
    "--device=cuda",
    "--epochs=4",
    "--set=train_images=640",
    "--set=test_images=200",
    "--set=hidden_sizes=[32]",
]
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # as `pfa` sets it before torch is loaded
BENCHED = ["bp", "pal", "pfa literal"]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_cuda.build(tmp_path_factory.mktemp("fake-cuda"))


@pytest.fixture(scope="session")
def parts(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one child does, one part after the other, as its start takes longer than most of them."""
    folder = tmp_path_factory.mktemp("fake-gpu")
    all_nine = "--algos=bp,fa,dfa,sf,kp,wm,pal,pfa,pfa-o"
    wanted = {
        "second_gpu": [],  # first, while there is nothing yet on the first GPU
        "beside_another_gpu": [],
        "without_a_compiler": [],
        "matrix": [
            "mlp:fp32,bf16,fp16:pfa,pal",
            "mlp:fp32:wm every,wm wishart",
            "resnet20:bf16:bp,dfa,pfa literal",
            "resnet20:tf32:bp,wm,pal",
        ],
        "rerecordings": [],
        "after_a_trial": [],
        "command": [
            *SMALL,
            all_nine,
            "--set=wm.mirror_samples=32",
            "--jobs=8",
            f"--db={folder / 'eight.db'}",
        ],
        "small_gpu": [*SMALL, "--algos=bp,kp,pal,pfa", f"--db={folder / 'small.db'}", "--jobs=4"],
        "bench": BENCHED,
        "refused": [],
        "recorded_alone": [],
        "dropped_beside_a_recording": [],
        "probe_of_one_for_all": [],
    }
    done = in_child(
        library, *([name, *arguments] for name, arguments in wanted.items()), FAKE_CUDA_GPUS=2, **QUIET
    )
    return dict(zip(wanted, done, strict=True))


def in_child(library: Path, *parts: list[str], **settings: object) -> list[dict[str, Any]]:
    """What a child reports of its parts, having warned of nothing."""
    printed = fake_cuda.run(library, CHILD, *map(json.dumps, parts), **settings)
    reports: list[dict[str, Any]] = json.loads(printed.splitlines()[-1])
    return reports


def checked(report: dict[str, Any], violations: int = 0) -> list[dict[str, Any]]:
    """What a part found, having broken no rule of recordings."""
    assert len(report["violations"]) == violations, report["violations"]
    assert report["beside"] == 0  # no recording was made beside another
    found: list[dict[str, Any]] = report["found"]
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def check_matrix(found: list[dict[str, Any]]) -> None:
    for cell in found:
        name, step = cell["cell"], cell["step"]
        assert cell["said"] == [], name
        if name.endswith("fp16"):  # its scaler asks the device after every step whether to skip it
            assert cell["recorded"] == ["evaluation", "measuring angles"], name
            continue
        assert cell["recorded"] == ["evaluation", "measuring angles", "training"], name
        # torch hands the generator's seed and offset to a graph by two kernels of its own.
        noise = 2 if name.startswith(("wm", "pal")) else 0
        assert (step["graph launches"], step["launches"]) == (1, 1 + noise), name
        assert step["waits"] == step["cudaMalloc"] == step["cudaHostAlloc"] == 0, name
        assert cell["measuring"]["waits"] <= 4, name  # sums of training and of each split, and the angles


def test_no_rule_is_broken_and_a_replayed_step_is_one_launch(parts: dict[str, dict[str, Any]]) -> None:
    """With garbage that holds a recording, and with collections inside every recording."""
    check_matrix(checked(parts["matrix"]))


@pytest.mark.parametrize(("algorithm", "most"), [("wm", 2), ("pal", 22)])
def test_feedback_that_learns_takes_few_kernels_for_each_layer(
    parts: dict[str, dict[str, Any]], algorithm: str, most: int
) -> None:
    """Beyond BP's, the products of the libraries left out: what is small is done for all 20 layers together."""
    kernels = {cell["cell"].split()[0]: cell["kernels"] for cell in parts["matrix"]["found"][-3:]}
    assert 0 < kernels[algorithm] - kernels["bp"] <= 20 * most, kernels


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("network", ["mlp", "resnet20", "resnet18"])
def test_the_whole_matrix(library: Path, network: str, precision: str) -> None:
    (report,) = in_child(library, ["matrix", f"{network}:{precision}:{','.join(CASES)}"])
    check_matrix(checked(report))


def test_memory_is_flat_over_recordings_and_free_after_them(parts: dict[str, dict[str, Any]]) -> None:
    *epochs, end = checked(parts["rerecordings"])
    assert len(epochs) == 15
    assert len({epoch["bytes"] for epoch in epochs[2:]}) == 1
    assert {epoch["graphs"] for epoch in epochs[2:]} == {3}
    assert (end["bytes"], end["graphs"]) == (0, 0)


def test_a_trial_gives_its_memory_back(parts: dict[str, dict[str, Any]]) -> None:
    trials = checked(parts["after_a_trial"])
    assert all(all(one["tried"]) and one["graphs"] == 0 for one in trials)
    assert len({one["bytes"] for one in trials}) == 1 and trials[0]["bytes"] < 16e6  # the data set


def test_eight_cells_side_by_side(parts: dict[str, dict[str, Any]]) -> None:
    (found,) = checked(parts["command"])
    assert found["code"] == 0 and "9 cells: 9 done" in found["printed"]
    assert found["recordings"] >= 9 * (2 + 3)  # evaluation, metrics, and a step for each learning rate
    assert (found["bytes"], found["graphs"]) == (0, 0)
    assert found["collected"] < 150_000  # objects for a collection to look through; with all modules' 400,000


def test_a_small_gpu_finishes_all_cells(parts: dict[str, dict[str, Any]]) -> None:
    (found,) = checked(parts["small_gpu"])
    assert found["code"] == 0 and "4 cells: 4 done" in found["printed"]
    assert "out of memory beside other cells" in found["printed"]


def test_a_batch_that_others_have_read_is_dropped_beside_a_recording(
    parts: dict[str, dict[str, Any]],
) -> None:
    (found,) = checked(parts["dropped_beside_a_recording"])
    assert found == {"read": 2 * 3 * 2**20, "left": 4}


def test_what_one_cell_made_for_all_is_there_before_another_reads_it(
    parts: dict[str, dict[str, Any]],
) -> None:
    (found,) = checked(parts["probe_of_one_for_all"])
    assert found["waits"] == 1


def test_bench_measures_one_contender_after_the_other_as_a_cuda_graph(
    parts: dict[str, dict[str, Any]],
) -> None:
    (found,) = checked(parts["bench"])
    contenders = [[name] for name in ("products", "plain torch", *BENCHED)]
    assert [one["contenders"] for one in found["seen"]] == contenders
    assert {(one["recordings"], one["graphs"]) for one in found["seen"]} == {(1, 1)}
    assert (found["measured"], found["graphs"]) == (BENCHED, 0)


@pytest.mark.long
def test_photographs_are_decoded_once_for_all_cells(library: Path, tmp_path: Path) -> None:
    run_cases.resnet_plan(tmp_path, ["bp"])  # makes the recipe and the photographs
    recipe, db = tmp_path / "resnet20.toml", tmp_path / "pfa.db"
    arguments = [
        "run",
        str(recipe),
        "--device=cuda",
        "--algos=bp,kp,pfa",
        f"--db={db}",
        f"--data-dir={tmp_path}",
    ]
    (report,) = in_child(library, ["command", *arguments], PFA_WORKERS=1, **QUIET)
    (found,) = checked(report)
    assert found["code"] == 0 and "3 cells: 3 done" in found["printed"]
    assert "decoded once for all" in found["printed"]
    assert (found["bytes"], found["graphs"]) == (0, 0)
    assert found["collected"] < 150_000


@pytest.mark.long
def test_the_trial_at_the_start_takes_other_precisions_and_gives_its_memory_back(
    library: Path, tmp_path: Path
) -> None:
    arguments = [*SMALL, "--algos=bp,pfa", f"--db={tmp_path / 'pfa.db'}"]
    (report,) = in_child(library, ["command", *arguments], **QUIET)
    (found,) = checked(report)
    assert found["code"] == 0 and "2 cells: 2 done" in found["printed"]
    assert found["recordings"] >= 2 * (2 + 3) + 3  # the cells', and those of three precisions
    assert (found["bytes"], found["graphs"]) == (0, 0)


@pytest.mark.long
def test_a_lost_gpu_ends_the_command_and_no_cell_has_failed(library: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, "--algos=bp,kp,pfa", f"--db={tmp_path / 'pfa.db'}", "--jobs=3"]
    child = fake_cuda.start(library, CHILD, json.dumps(["command", *arguments]), FAKE_CUDA_LOST_AFTER=600)
    out, err = child.communicate(timeout=120)
    (line,) = [line for line in err.splitlines() if "can do nothing more for this process" in line]
    assert "illegal memory access" in line
    assert " failed" not in out


def test_what_cannot_be_recorded_goes_on_without(parts: dict[str, dict[str, Any]]) -> None:
    (found,) = checked(parts["refused"], violations=1)
    assert len(found["said"]) == 1 and found["said"][0].startswith("training goes on without a CUDA graph")
    assert found["epochs"] == 4 and found["recorded"] == ["evaluation", "measuring angles"]
    assert found["steps"] == 36 + 1  # every step, and the one that was to be recorded


def test_a_step_is_recorded_again_where_it_is_the_only_recording(parts: dict[str, dict[str, Any]]) -> None:
    (found,) = checked(parts["recorded_alone"])
    assert found["recorded"] and found["said"] == []


def test_a_second_gpu_is_used_alone(parts: dict[str, dict[str, Any]]) -> None:
    assert checked(parts["second_gpu"])[-1]["contexts"] == [0, 1]


def with_own_kernels(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was found of the kernels on the second GPU; skips where Triton cannot compile them."""
    (found,) = checked(parts["beside_another_gpu"])
    if found["reason"]:
        pytest.skip(f"kernels of our own cannot be used here: {found['reason']}")
    return found


def test_kernels_of_our_own_run_on_the_gpu_of_their_tensors(parts: dict[str, dict[str, Any]]) -> None:
    assert with_own_kernels(parts)["launches"] > 5  # of BatchNorm, the weight gradient and PAL's noise


def test_without_a_compiler_cudnn_does_the_work(parts: dict[str, dict[str, Any]]) -> None:
    with_own_kernels(parts)
    (found,) = checked(parts["without_a_compiler"])
    assert found["reason"].startswith("false failed with exit code 1. Triton needs a C compiler")
    assert len(found["reason"]) < 200 and found["epochs"] == 2


@pytest.mark.long
def test_ranks_keep_to_their_gpus_and_memory(library: Path, tmp_path: Path) -> None:
    ranks, port = [], free_port()
    for number in range(2):
        torchrun = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        torchrun |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "here"}  # type: ignore[dict-item]
        ranks.append(fake_cuda.start(library, CHILD, '["rank"]', FAKE_CUDA_GPUS=2, **torchrun))
    for number, child in enumerate(ranks):
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        (report,) = json.loads(out.splitlines()[-1])
        epochs = checked(report)
        assert len(epochs) == 9 and len({epoch["bytes"] for epoch in epochs[2:]}) == 1
        assert epochs[-1]["contexts"] == [int(number == 0), int(number == 1)]
