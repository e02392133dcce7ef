"""Algorithms, networks and data sets from outside: a file that the user names, or an installed package."""

import json
import os
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Call

from pfa_cli import registry
from pfa_cli.algorithms import Algorithm, convert
from pfa_cli.configuration import Configuration
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.recipes import load_recipe
from pfa_cli.signals import Stopped

ROOT = Path(__file__).parents[1]
README = ROOT / "pfa_cli/algorithms/README.md"
OUTSIDE = Path(__file__).with_name("outside")
FRSF, NET, DATA = f"{OUTSIDE}/frsf.py:FRSF", f"{OUTSIDE}/mynet.py:net", f"{OUTSIDE}/mydata.py:load"
SMALL = ("--set=train_images=640", "--set=test_images=100", "--set=hidden_sizes=[32]", "--device=cpu")

RECIPE = """
title = "Squares"
[base]
dataset = "mydata.py:load"
network = "mynet.py:net"
width = 12
epochs = 2
batch_size = 20
learning_rate = 0.05
milestones = []
learning_rate_factor = 1.0
momentum = 0.9
weight_decay = 0.0
[algorithms."frsf.py:FRSF"]
learning_rate = 0.02
"""


@pytest.fixture(autouse=True)
def no_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figure 3's, which `pfa run` makes at its end: seconds, and no matter of these tests."""
    monkeypatch.setattr("pfa_cli.runs.launch.ensure", lambda store: None)


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """A recipe with its network, data set and algorithm in files beside it."""
    (tmp_path / "own").mkdir()
    for name in ("frsf.py", "mynet.py", "mydata.py"):
        (tmp_path / "own" / name).write_bytes((OUTSIDE / name).read_bytes())
    (tmp_path / "own" / "squares.toml").write_text(RECIPE)
    return tmp_path / "own" / "squares.toml"


def stored(db: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(db)
    found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_an_algorithm_from_a_file_is_trained_beside_ours(call: Call, tmp_path: Path) -> None:
    command = ("run", "mnist", f"--algos=bp,{FRSF}", "--epochs=2", "--jobs=1", *SMALL)
    done = call(*command)
    assert done.code == 0, done
    runs = json.loads(call("status", "--json").out)
    assert [(run["algorithm"], run["state"], run["epochs_done"]) for run in runs] == [
        ("bp", "done", 2),
        ("frsf", "done", 2),
    ]
    assert runs[1]["test_accuracy_percent"] > 50
    assert "nothing to do" in call(*command).out
    (text,) = stored(tmp_path / "results/pfa.db", "select sources from runs where algorithm = 'frsf'")
    assert json.loads(str(text[0])) == {"frsf.py": (OUTSIDE / "frsf.py").read_text()}
    angles = stored(
        tmp_path / "results/pfa.db",
        "select weight_angle_degrees from layers join runs on runs.id = run_id where algorithm = 'frsf'",
    )
    assert all(30 < float(str(angle[0])) < 45 for angle in angles)  # of the signs and random magnitudes


def test_its_results_are_shown_merged_and_exported_when_its_file_is_gone(
    call: Call, squares: Path, tmp_path: Path
) -> None:
    run = ("run", "mnist", f"--algos=bp,fa,{squares.parent}/frsf.py:FRSF", "--epochs=1", "--jobs=1", *SMALL)
    assert call(*run).code == 0
    (squares.parent / "frsf.py").unlink()
    for command in (
        ["status"],
        ["merge", "results/pfa.db", "--db", "merged.db"],
        ["export", "--out", "layers.csv", "--table", "layers", "--db", "merged.db"],
        ["db", "check", "--db", "merged.db"],
        ["status", "--json", "--db", "merged.db"],
    ):
        answer = call(*command)
        assert answer.code == 0, answer
    assert [run["algorithm"] for run in json.loads(answer.out)] == ["bp", "fa", "frsf"]
    assert "frsf" in (tmp_path / "layers.csv").read_text()
    for command in (
        ["figures", "--out", "drawn"],
        ["compare"],
        ["compare", "--json"],
        ["report", "--out", "drawn"],
    ):
        answer = call(*command, "--db", "merged.db")
        assert answer.code == 0, answer
    assert ",frsf," in (tmp_path / "drawn/fig2-supplement.csv").read_text()  # its angles
    for shown in ("table1.md", "report.html"):
        assert "FRSF" in (tmp_path / "drawn" / shown).read_text(), shown  # its label, from its stored text
    again = call(*run)
    assert again.code == 2 and "No such file" in again.err


def test_a_killed_run_resumes_bit_for_bit(call: Call, squares: Path, tmp_path: Path) -> None:
    """Trained by worker processes, which are killed in the middle; against a run that is never interrupted."""
    run = ["run", str(squares), f"--algos=bp,{squares.parent}/frsf.py:FRSF", "--epochs=20", "--device=cpu"]
    killed = [sys.executable, "-m", "pfa_cli", *run, "--jobs=2", "--db", str(tmp_path / "a.db")]
    began = subprocess.Popen(killed, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert began.stdout is not None
    assert any("frsf" in line and "epoch 3/20" in line for line in began.stdout)
    os.killpg(began.pid, signal.SIGKILL)
    began.stdout.close()
    began.wait()
    for db in ("a.db", "b.db"):
        done = call(*run, "--jobs=1", "--db", db)
        assert done.code == 0, done
    query = (
        "select r.algorithm, e.epoch, e.train_loss, e.test_accuracy_percent from epochs e "
        "join runs r on r.id = e.run_id order by r.algorithm, e.epoch"
    )
    interrupted, whole = (stored(tmp_path / db, query) for db in ("a.db", "b.db"))
    assert len(whole) == 42 and interrupted == whole
    assert len(stored(tmp_path / "a.db", "select id from attempts")) > 2


def test_network_and_data_set_from_files_beside_the_recipe(call: Call, squares: Path, tmp_path: Path) -> None:
    done = call(
        "run",
        str(squares),
        f"--algos=bp,{squares.parent}/frsf.py:FRSF",
        "--jobs=1",
        "--device=cpu",
        "--set=width=16",
    )
    assert done.code == 0, done
    rows = stored(tmp_path / "results/pfa.db", "select configuration, sources from runs order by algorithm")
    bp, frsf = (json.loads(str(configuration)) for configuration, _ in rows)
    assert (bp["network"], bp["dataset"], bp["network_options"]) == ("mynet", "mydata", {"width": 16})
    assert (bp["learning_rate"], frsf["learning_rate"]) == (0.05, 0.02)
    assert set(bp["sources"]) == {"network", "dataset"} and set(frsf["sources"]) == {
        "algorithm",
        "network",
        "dataset",
    }
    assert json.loads(str(rows[1][1])).keys() == {"frsf.py", "mynet.py", "mydata.py"}
    runs = json.loads(call("status", "--json").out)
    assert all(run["test_accuracy_percent"] > 80 for run in runs)
    page = call("recipes", str(squares))
    assert page.code == 0 and "frsf" in page.out and "0.02" in page.out
    assert "units of the hidden layer" in " ".join(page.out.split())
    done = call("run", str(squares), "--algos=frsf", "--dry-run", "--set=width=16", "--set=frsf.momentum=0.9")
    # By its name, since the recipe says where it is.
    assert done.code == 0 and "1 cell, 0 to train" in done.out


def test_a_dry_run_says_why_a_data_set_of_ones_own_gives_no_estimate(call: Call, squares: Path) -> None:
    done = call("run", "mnist", "--algos=bp", "--dry-run", f"--set=dataset={squares.parent}/mydata.py:load")
    told = " ".join(done.out.split())
    assert done.code == 0, done.err
    assert "no estimate of the time of bp: data set mydata does not say how large it is" in told


def test_network_and_data_set_from_the_command_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ("--set=batch_size=20", "--epochs=1", "--jobs=1", "--device=cpu", "--algos=pfa")
    done = call(
        "run",
        "cifar10",
        *small,
        f"--set=dataset={DATA}",
        f"--set=network={NET}",
        "--set=validation_images=20",
    )
    assert done.code == 0, done
    done = call("run", "cifar10", "--dry-run", f"--set=network={NET}", "--set=wdth=3")
    assert done.code == 2 and "unknown setting 'wdth': did you mean 'width'?" in done.err


def test_another_network_takes_none_of_the_recipes_settings_of_the_one_before() -> None:
    recipe = load_recipe("mnist")
    mlp, own = recipe.configuration("bp"), recipe.configuration("bp", {"network": NET, "width": 4})
    assert (mlp.hidden_sizes, own.hidden_sizes, own.network_options) == ((512, 512), None, {"width": 4})
    of_photographs = {"dataset": "imagefolder", "image_size": 32, "corrupt_share_percent": 1.0}
    assert recipe.configuration("bp", of_photographs | {"network": "resnet18"}).hidden_sizes is None
    with pytest.raises(
        UsageError, match="hidden_sizes is a setting of network mlp, not of mynet: leave it out"
    ):
        recipe.configuration("bp", {"network": NET, "hidden_sizes": [8]})


def test_a_configuration_takes_its_plugins_to_other_processes(squares: Path) -> None:
    """As spawned workers and the ranks of torchrun get it."""
    planned = load_recipe(str(squares)).configuration(f"{squares.parent}/frsf.py:FRSF")
    code = (
        "import pickle, sys; c = pickle.load(sys.stdin.buffer)\n"
        "print(c.hash, c.algorithm_entry.load().__name__, c.network_entry.load().__name__, c.dataset_entry.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(planned), capture_output=True, cwd="/"
    )
    assert done.stdout.decode().split() == [planned.hash, "FRSF", "net", "mydata"], done.stderr


def test_a_sweep_finds_every_file_beside_the_recipe(squares: Path) -> None:
    grid = '[{algorithm = ["bp", "frsf.py:FRSF"], network = ["mynet.py:net"], dataset = "mydata.py:load"}]'
    squares.write_text(f"{RECIPE}[sweeps.files]\nseeds = 1\ngrid = {grid}")
    found = load_recipe(str(squares)).sweep("files")
    assert [(c.algorithm, c.network, c.dataset) for c, _ in found] == [
        ("bp", "mynet", "mydata"),
        ("frsf", "mynet", "mydata"),
    ]


def test_another_network_differs_in_its_own_settings_only(squares: Path) -> None:
    squares.write_text(RECIPE.replace("width = 12\n", ""))
    recipe = load_recipe(str(squares))
    overrides = {"network": "mlp", "hidden_sizes": [8]}
    assert recipe.differing(recipe.configuration("bp", overrides)) == overrides


def test_an_edited_file_is_another_configuration(squares: Path) -> None:
    recipe = load_recipe(str(squares))
    algorithm = squares.parent / "frsf.py"
    before = [recipe.configuration(name).hash for name in ("bp", f"{algorithm}:FRSF")]
    moved = algorithm.rename(squares.parent / "moved.py")
    assert recipe.configuration(f"{moved}:FRSF").hash == before[1]  # the content counts, not the place
    moved.write_text(moved.read_text() + "\n")
    assert recipe.configuration(f"{moved}:FRSF").hash != before[1]
    (squares.parent / "mynet.py").write_text((OUTSIDE / "mynet.py").read_text() + "\n")
    assert recipe.configuration("bp").hash != before[0]


@pytest.mark.parametrize("entry", ["", 'entry = registry.NetworkEntry("nets")\n'])
def test_two_networks_or_data_sets_of_one_file_are_two_configurations(tmp_path: Path, entry: str) -> None:
    """Whether they are functions, classes, or made of a function of the file."""
    (tmp_path / "nets.py").write_text(
        "from functools import partial\nfrom torch import nn\nfrom pfa_cli import registry\n"
        f"{entry}def small(shape, n_classes): pass\nclass Small(nn.Module): pass\n"
        "def make(shape, n_classes, n): pass\nmade = partial(make, n=3)\n"
    )
    recipe = load_recipe("mnist")
    names = ["small", "Small", "made"]
    networks = [recipe.configuration("bp", {"network": f"{tmp_path}/nets.py:{name}"}) for name in names]
    assert [one.network for one in networks] == ["nets-small", "nets-Small", "nets-made"]
    assert len({one.hash for one in networks}) == 3
    (tmp_path / "data.py").write_text("def easy(c, d, e): pass\ndef hard(c, d, e): pass")
    data = [
        recipe.configuration("bp", {"dataset": f"{tmp_path}/data.py:{name}"}) for name in ("easy", "hard")
    ]
    assert data[0].hash != data[1].hash and data[0].dataset_identity != data[1].dataset_identity


def test_two_algorithms_of_one_file_have_two_names(tmp_path: Path) -> None:
    text = (OUTSIDE / "frsf.py").read_text()
    (tmp_path / "two.py").write_text(f"{text}\n\nclass Other(FRSF):\n    entry = Entry('frsf')\n")
    with pytest.raises(UsageError, match="FRSF in the same file has the name 'frsf', too: give one of them"):
        load_recipe("mnist").configuration(f"{tmp_path}/two.py:Other")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "draw(self, layer, stream): return layer.weight",
            'draw must return a dict of tensors by name, such as {"V": V}',
        ),
        (
            "draw(self, layer, stream): return {'V': layer.weight.detach().T}",
            "must be a tensor of the shape of W",
        ),
        ("path(self, layer): pass", "must be a tensor of the shape of W, [3, 4], not None"),
    ],
)
def test_a_feedback_path_of_another_form_is_one_sentence(body: str, message: str) -> None:
    import torch
    from torch import nn

    rule: dict[str, type[Algorithm]] = {}
    exec(f"from pfa_cli.algorithms import Algorithm\nclass Rule(Algorithm):\n    def {body}", rule)
    network = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    with pytest.raises(PfaError, match=re.escape(message)):
        convert(network, rule["Rule"])(torch.ones(1, 5)).sum().backward()


def test_runs_of_two_versions_of_a_file_are_told_apart(call: Call, squares: Path) -> None:
    file = squares.parent / "frsf.py"
    for text in (file.read_text(), file.read_text() + "\n"):
        file.write_text(text)
        assert call("run", str(squares), "--algos=frsf", "--epochs=1", "--jobs=1", "--device=cpu").code == 0
    variants = [run["variant"] for run in json.loads(call("status", "--json").out)]
    assert len(set(variants)) == 2 and all(
        re.fullmatch("algorithm_file=[0-9a-f]{8}", one) for one in variants
    )


def test_an_algorithm_from_outside_departs_in_nothing_from_the_papers_experiment() -> None:
    from pfa_cli.analysis.paper import departures

    stored = load_recipe("mnist").configuration(FRSF).model_dump(mode="json")
    assert departures(stored, "MNIST, 60000 train / 10000 test") == {}
    stored = load_recipe("mnist").configuration(FRSF, {"epochs": 1})
    assert "epochs" in departures(stored.model_dump(mode="json"), "MNIST, 60000 train / 10000 test")


def test_a_file_that_changes_or_goes_between_plan_and_training_is_one_sentence(squares: Path) -> None:
    file = squares.parent / "frsf.py"
    planned = load_recipe(str(squares)).configuration(f"{file}:FRSF")
    assert planned.algorithm_entry.load().__name__ == "FRSF"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(
        PfaError, match=r"frsf\.py:FRSF was edited after this run was planned: give the command again"
    ):
        _ = planned.algorithm_entry
    file.unlink()
    with pytest.raises(PfaError, match=r"frsf\.py:FRSF: cannot read it \(No such file or directory\)"):
        _ = planned.algorithm_entry


OWN = "from pfa_cli.algorithms import *\nfrom pfa_cli.algorithms.bp import BP\nclass A(BP):\n entry = Entry('a', {})"
BROKEN = [
    (OWN.format("options={'scale': 0.5}"), "A", "options (={'scale': 0.5}) is not of the right form"),
    (OWN.format("options={'Big': Option(1, 'x')}"), "A", "options must be of the form {'small_letters': Option(...)}"),
    (OWN.format("options={'epochs': Option(1, 'x')}"), "A", "its option epochs has the name of another setting"),
    (OWN.format("label=3"), "A", "label (=3) is not of the right form"),
    ("import nonesuch", "A", "cannot be imported (ModuleNotFoundError: No module named 'nonesuch')"),
    ("raise SystemExit(3)", "A", "cannot be imported (SystemExit: 3)"),
    ("def", "A", "not valid Python (SyntaxError"),
    ("\x00", "A", "not valid Python"),
    ("A = 3", "A", "3 must be a class derived from pfa_cli.algorithms.Algorithm"),
    ("class A: pass", "A", "must be a class derived from pfa_cli.algorithms.Algorithm"),
    ("class Abc: pass", "Abd", "unknown name in", ),
    ("class Abc: pass", "", "say what in that file, for example own.py:MyName"),
    ("from pfa_cli.algorithms import Algorithm\nclass A(Algorithm): pass", "A", "A has no feedback path: it needs one of"),
    (
        "from pfa_cli.algorithms import Algorithm\nclass A(Algorithm):\n entry = 3\n def path(self, layer): pass",
        "A",
        "A.entry must be an Entry(...)",
    ),
    (
        "from pfa_cli.algorithms.bp import BP\nclass PFA(BP): pass",
        "PFA",
        "'pfa' is the name of one of pfa's own; give it another",
    ),
    (
        "from pfa_cli.algorithms import *\nfrom pfa_cli.algorithms.bp import BP\nclass A(BP):\n entry = Entry('A b')",
        "A",
        "its name (='A b') must be of small letters",
    ),
    (
        "from pfa_cli.algorithms import *\nfrom pfa_cli.algorithms.bp import BP\n"
        "class A(BP):\n entry = Entry('a', colour='red')",
        "A",
        "colour (='red') is not of the right form (write it as #RRGGBB)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name", "message"), BROKEN)
def test_a_broken_plugin_is_named_in_one_sentence_before_anything_is_stored(
    call: Call, tmp_path: Path, text: str, name: str, message: str
) -> None:
    (tmp_path / "own.py").write_text(text)
    done = call("run", "mnist", f"--algos=bp,own.py:{name}")
    assert done.code == 2 and "own.py" in done.err, done
    assert message in " ".join(done.err.split())
    assert {path.name for path in tmp_path.iterdir()} == {"own.py"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("network=resnet21", "unknown network 'resnet21': did you mean 'resnet20'?"),
        ("dataset=minst", "unknown data set 'minst': did you mean 'mnist'?"),
        ("network=absent.py:Net", "cannot read it (No such file or directory)"),
        ("network=/dev/zero.py:Net", "cannot read it"),
        ("network=~nobody-at-all/net.py:Net", "no home folder is known for it"),
        ("network=own.py:number", "3 must be a function or a class"),
        ("dataset=own.py:number", "3 must be a function or a class"),
    ],
)
def test_an_unknown_or_broken_network_or_data_set_is_a_usage_error(
    call: Call, tmp_path: Path, setting: str, message: str
) -> None:
    (tmp_path / "own.py").write_text("number = 3")
    done = call("run", "mnist", "--dry-run", "--algos=bp", f"--set={setting}")
    assert done.code == 2 and message in " ".join(done.err.split()), done


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "must return a Dataset, or four tensors"),
        ("return ['a', 'b', 'c', 'd']", "data set own: what its function returned cannot be tensors"),
        (
            "return (torch.zeros(8, 3), torch.zeros(7), torch.zeros(8, 3), torch.zeros(8))",
            "labels [n], not [8, 3] and [7]",
        ),
        (
            "x = torch.zeros(80, 3); return x, x[:, 0], x, x[:, 0].long()",
            "of an integer type, not torch.float32",
        ),
        ("x = torch.ones(80, 3); y = x[:, 0].long(); return x, y, x, y + 1", "whole numbers from 0 to 1"),
        (
            "x = torch.zeros(80, 3).int(); return x, x[:, 0], x, x[:, 0]",
            "must be uint8 or float, not torch.int32",
        ),
    ],
)
def test_a_data_set_of_another_form_fails_its_cell_with_a_sentence(
    call: Call, tmp_path: Path, body: str, message: str
) -> None:
    (tmp_path / "own.py").write_text(f"import torch\ndef load(configuration, data_dir, device):\n    {body}")
    done = call(
        "run", "mnist", "--algos=bp", "--set=dataset=own.py:load", "--epochs=1", "--jobs=1", "--device=cpu"
    )
    assert done.code == 1 and message in " ".join((done.out + done.err).split()), done


def test_a_network_with_too_few_outputs_fails_its_cell_and_a_rerun_of_it_names_the_cure(
    call: Call, tmp_path: Path
) -> None:
    net = (
        "from torch import nn\ndef net(input_shape, n_classes): return nn.Linear(*input_shape, n_classes - 1)"
    )
    (tmp_path / "own.py").write_text(net)
    done = call(
        "run", "mnist", "--algos=bp", "--set=network=own.py:net", "--epochs=1", *SMALL[:2], "--device=cpu"
    )
    said = " ".join((done.out + done.err).split())
    assert (
        done.code == 1
        and "network own: its output must be [images, classes], here [100, 10], not [100, 9]" in said
    )
    done = call("runs", "rerun", "1", "--yes")
    assert done.code == 1 and "`pfa runs delete 1`, then the `pfa run` that made it" in " ".join(
        done.err.split()
    )


def install(folder: Path, text: str, points: str) -> None:
    """A package as pip leaves it in ``folder``."""
    (folder / "outside_package.py").write_text(text)
    info = folder / "outside_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)


def test_a_stop_signal_while_a_plugin_is_imported_is_no_fault_of_the_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from pfa_cli.signals import Stopped\nraise Stopped(15)\n"
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(Stopped):
        registry.algorithm(f"{tmp_path}/own.py:A")
    install(tmp_path, text, "[pfa.algorithms]\na = outside_package:A\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Stopped):
        registry.algorithm("a")


def test_an_installed_package_adds_algorithms_by_name(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(
        site,
        (OUTSIDE / "frsf.py").read_text(),
        "[pfa.algorithms]\nfrsf = outside_package:FRSF\nbroken = nonesuch:X\n",
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", f"{site}:{os.environ.get('PYTHONPATH', '')}")
    try:
        done = call("run", "mnist", "--algos=frsf,bp", "--epochs=1", "--jobs=2", *SMALL)
        assert done.code == 0, done
        assert registry.described("frsf").label == "FRSF"
        assert registry.described("broken").label == "broken"
        done = call("run", "mnist", "--algos=bp,broken")
        assert done.code == 2 and "'nonesuch:X' of outside-package" in " ".join(done.err.split())
        assert "Valid: bp, broken, dfa, fa, frsf" in call("run", "mnist", "--algos=frfs").err
    finally:
        sys.modules.pop("outside_package", None)


def test_convert_takes_a_class_and_a_file() -> None:
    import torch
    from torch import nn

    cls = registry.algorithm(FRSF).load()
    networks = []
    for algorithm in (cls, FRSF):
        torch.manual_seed(0)
        networks.append(
            convert(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), algorithm, seed=1)
        )
    paths = [network.algorithm.path(network[2]) for network in networks]
    assert torch.equal(*paths) and torch.equal(paths[0].sign(), networks[0][2].weight.sign())


def test_a_plugins_table_in_a_recipe_is_checked_as_ours_are(squares: Path) -> None:
    squares.write_text(RECIPE + "epochs = 0\n")
    with pytest.raises(UsageError, match=r"squares\.toml: epochs \(=0\) must be greater than 0"):
        load_recipe(str(squares))


def test_two_algorithms_of_one_name_are_two_configurations_but_not_of_one_command(
    call: Call, tmp_path: Path
) -> None:
    other = tmp_path / "frsf.py"
    other.write_text((OUTSIDE / "frsf.py").read_text() + "\n")
    recipe = load_recipe("mnist")
    assert recipe.configuration(FRSF).hash != recipe.configuration(f"{other}:FRSF").hash
    done = call("run", "mnist", "--dry-run", f"--algos={FRSF},frsf.py:FRSF")
    assert done.code == 2 and "two different algorithms are called 'frsf'" in done.err


def test_nothing_from_a_database_is_run(call: Call, tmp_path: Path) -> None:
    """A row may name a file; only its user may."""
    assert call("run", "mnist", "--algos=bp", "--epochs=1", "--jobs=1", *SMALL).code == 0
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    connection = sqlite3.connect(tmp_path / "results/pfa.db")
    connection.execute("update runs set algorithm = ?", (f"{trap}:A",))
    connection.execute("update runs set sources = ?", (json.dumps({"trap.py": trap.read_text()}),))
    connection.commit()
    connection.close()
    for command in (["status"], ["export", "--out", "x.csv"], ["db", "check"], ["status", "--json"]):
        call(*command)
    assert registry.described(f"{trap}:A").label == f"{trap}:A"
    assert not (tmp_path / "sprung").exists()


def test_an_unknown_stored_algorithm_is_a_usage_error() -> None:
    planned = load_recipe("mnist").configuration(FRSF)
    with pytest.raises(UsageError, match="unknown algorithm 'frsf'"):
        Configuration.model_validate(planned.model_dump(mode="json"))


def examples(language: str) -> dict[str, str]:
    """The README's examples in ``language``: the file's name, in the first line, and the text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    return {block.split("\n")[0].removeprefix("# "): block for block in blocks}


def test_every_example_of_the_readme_runs(call: Call, tmp_path: Path) -> None:
    for name, text in (examples("python") | examples("toml")).items():
        (tmp_path / name).write_text(text)
    commands = "".join(examples("sh").values()).splitlines()
    assert len(commands) == 4
    for command in commands:
        jobs = ["--jobs=1"] if command.startswith("pfa run") else []  # no processes to start
        done = call(*command.split()[1:], *jobs)
        assert done.code == 0, (command, done)
    runs = json.loads(call("status", "--json").out)
    accuracy = {(run["recipe"], run["algorithm"]): run["test_accuracy_percent"] for run in runs}
    assert accuracy.keys() == {
        ("mnist", "bp"),
        ("mnist", "frsf"),
        ("mnist", "decay"),
        *(("squares", name) for name in ("bp", "pfa", "frsf")),
    }
    assert accuracy["squares", "frsf"] > 50
    loop = subprocess.run([sys.executable, "loop.py"], cwd=tmp_path, capture_output=True, text=True)
    assert loop.returncode == 0, loop.stderr


def test_one_of_ours_is_one_file(tmp_path: Path) -> None:
    """In a copy of the package, which finds the file by itself, without torch."""
    shutil.copytree(ROOT / "pfa_cli", tmp_path / "pfa_cli", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    for name, folder in (("frsf.py", "algorithms"), ("mynet.py", "networks"), ("mydata.py", "data")):
        text = (OUTSIDE / name).read_text()
        text = text.replace(
            'NetworkEntry("mynet"', 'NetworkEntry("mynet", implementation="pfa_cli.networks.mynet:net"'
        )
        if name == "mydata.py":
            text += (
                "\nfrom pfa_cli.registry import DatasetEntry\n"
                'entry = DatasetEntry("mydata", implementation="pfa_cli.data.mydata:load", train_images=400)\n'
            )
        (tmp_path / "pfa_cli" / folder / name).write_text(text)

    def pfa(*arguments: str) -> subprocess.CompletedProcess[str]:
        run = [sys.executable, "-X", "importtime", "-m", "pfa_cli", *arguments]
        return subprocess.run(
            run, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""}
        )

    done = pfa("recipes", "cifar10")
    assert done.returncode == 0 and "CIFAR-10" in done.stdout
    assert "pfa_cli.registry" in done.stderr and not re.search(r"\| +torch$", done.stderr, re.M)
    own = (
        "--set=dataset=mydata",
        "--set=network=mynet",
        "--set=width=12",
        "--dry-run",
        "--set=validation_images=0",
    )
    done = pfa("run", "cifar10", "--algos=frsf,bp", *own)
    assert done.returncode == 0 and "cifar10 frsf" in done.stdout, done
    done = pfa("run", "cifar10", "--algos=frsf,bp", *own, "--set=batch_size=401")
    assert done.returncode == 2 and "must be at most the number of training images (=400)" in done.stderr
