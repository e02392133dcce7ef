"""Every verdict on every kind of claim, from databases written by the real writer."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic
from synthetic import add_grid, add_run

from pfa_cli.analysis.claims import Judgement
from pfa_cli.analysis.findings import Findings
from pfa_cli.analysis.paper import paper
from pfa_cli.analysis.statistics import t_interval
from pfa_cli.report import compare
from pfa_cli.store import queries
from pfa_cli.store.engine import Store, open_store

PFA_IS_BP = "PFA = BP on MNIST"
PATH_ANGLE = "PFA: path angle 17.55° at λ = 0.1, MNIST"
TO_ZERO = "PFA-o: path angle → 0°, MNIST"
RATIO = "PFA: path norm ratio ≈ 1, MNIST"
SWEEP = "PFA: path angle follows arccos(1/√(1+λ)) at every expansion ratio, MNIST"


def claim(found: Findings | Store, title: str) -> Judgement:
    whole = compare(found) if isinstance(found, Store) else found
    return next(one for one in whole.claims if one.claim == title)


def ends_with(monkeypatch: pytest.MonkeyPatch, recipe: str, **percent: float) -> None:
    """What the synthetic runs of these algorithms end with, in percent."""
    for name, value in percent.items():
        monkeypatch.setitem(synthetic.ACCURACY[recipe], name, value)


def test_the_issues_claims_are_all_there() -> None:
    titles = [one.title for one in paper().claims]
    assert len(titles) == len(set(titles))
    for task in ("MNIST", "CIFAR-10", "ImageNet"):
        assert {f"PFA = BP on {task}", f"PFA-o = BP on {task}", f"PFA-o: path angle → 0°, {task}"} <= set(
            titles
        )
        assert f"PFA: path angle 17.55° at λ = 0.1, {task}" in titles
        assert {f"PFA: path norm ratio ≈ 1, {task}", f"PFA-o: path norm ratio ≈ 1, {task}"} <= set(titles)
    assert {"SF < BP on ImageNet", "FA ≪ BP on CIFAR-10", "DFA ≪ BP on CIFAR-10"} <= set(titles)


def test_accuracy_is_a_paired_interval_over_seeds(findings: Findings, compared_store: Store) -> None:
    found = claim(findings, PFA_IS_BP)
    last = queries.epochs_frame(compared_store, "mnist").query(
        "algorithm in ('bp', 'pfa') and epoch == 40 and not (expansion == 50)"
    )
    accuracy = last.set_index(["algorithm", "seed"])["test_accuracy_percent"]
    expected = t_interval([accuracy["pfa", seed] - accuracy["bp", seed] for seed in range(3)])
    (measured,) = found.measured
    assert (measured.interval.mean, measured.interval.low) == pytest.approx((expected.mean, expected.low))
    assert found.n == 3 and len(found.run_ids) == 6
    assert measured.region.high == pytest.approx(0.1 * (100 - accuracy["bp"].mean()))
    assert f"[{expected.low:+.2f}".replace("-", "−") in found.ours


@pytest.fixture(scope="module")
def bp_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bp") / "bp.db"
    with open_store(str(path), write=True) as store:
        add_grid(store, "mnist", ["bp"], range(8), epochs=40)
    return path


@pytest.fixture
def new_bp(bp_database: Path, tmp_path: Path) -> Iterator[Store]:
    """BP at the paper's scale, eight seeds of 98.38 %, to add runs to."""
    shutil.copy(bp_database, tmp_path / "copy.db")
    with open_store(str(tmp_path / "copy.db"), write=True) as opened:
        yield opened


@pytest.mark.parametrize(
    ("pfa", "verdict"), [(98.38, "supported"), (98.0, "contradicted"), (98.8, "contradicted")]
)
def test_equality(new_bp: Store, monkeypatch: pytest.MonkeyPatch, pfa: float, verdict: str) -> None:
    ends_with(monkeypatch, "mnist", pfa=pfa)
    add_grid(new_bp, "mnist", ["pfa"], range(8), epochs=40)
    assert claim(new_bp, PFA_IS_BP).verdict == verdict


def test_between_equal_and_different_it_is_undecided(new_bp: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ends_with(monkeypatch, "mnist", pfa=98.22)  # at the margin
    add_grid(new_bp, "mnist", ["pfa"], range(2), epochs=40)
    assert claim(new_bp, PFA_IS_BP).verdict == "undecided"


def test_a_diverged_seed_rules_out_equality(new_bp: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ends_with(monkeypatch, "mnist", pfa=98.38)
    add_grid(new_bp, "mnist", ["pfa"], range(7), epochs=40)
    add_run(new_bp, "mnist", "pfa", 7, epochs=40, diverge_at=2)
    found = claim(new_bp, PFA_IS_BP)
    assert found.verdict == "contradicted"
    assert "PFA: 1 of 8 seeds diverged" in found.remark


def test_only_the_pairs_count(new_bp: Store) -> None:
    pfa = [add_run(new_bp, "mnist", "pfa", seed, epochs=40) for seed in (2, 5, 9)]  # BP has 0 to 7
    found = claim(new_bp, PFA_IS_BP)
    assert found.n == 2
    assert found.run_ids == (3, 6, *pfa[:2])


def test_seeds_that_all_diverged_are_evidence(new_bp: Store) -> None:
    for seed in range(2):
        add_run(new_bp, "mnist", "pfa", seed, epochs=40, diverge_at=2)
    found = compare(new_bp)
    assert (claim(found, PFA_IS_BP).verdict, claim(found, PFA_IS_BP).n) == ("contradicted", 0)
    assert claim(found, PFA_IS_BP).remark == "PFA: 2 of 2 seeds diverged"
    assert (claim(found, PATH_ANGLE).verdict, claim(found, PATH_ANGLE).ours) == (
        "undecided",
        "no layer has a value",
    )


def test_far_below_on_cifar10_with_one_seed_borrows_the_published_scatter(new_store: Store) -> None:
    add_grid(new_store, "cifar10", ["bp", "fa"], [0], epochs=200)
    found = compare(new_store)
    fa, dfa = claim(found, "FA ≪ BP on CIFAR-10"), claim(found, "DFA ≪ BP on CIFAR-10")
    assert (fa.verdict, fa.n) == ("supported", 1)
    assert "scatter over seeds as published" in fa.ours
    assert (dfa.verdict, dfa.remark) == ("not run", "DFA not run")


def test_far_below_is_contradicted_by_a_good_algorithm(
    new_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_with(monkeypatch, "cifar10", fa=91.0)
    add_grid(new_store, "cifar10", ["bp", "fa"], [0], epochs=200)
    assert claim(new_store, "FA ≪ BP on CIFAR-10").verdict == "contradicted"


@pytest.mark.parametrize(("sf", "verdict"), [(64.6, "supported"), (69.7, "contradicted")])
def test_sf_on_imagenet(new_store: Store, monkeypatch: pytest.MonkeyPatch, sf: float, verdict: str) -> None:
    monkeypatch.setitem(synthetic.DATASETS, "imagenet", "ImageNet (1000 classes), 1281167 train / 50000 test")
    ends_with(monkeypatch, "imagenet", sf=sf)
    add_grid(new_store, "imagenet", ["bp", "sf"], range(2), epochs=75)
    found = claim(new_store, "SF < BP on ImageNet")
    assert found.verdict == verdict
    assert "one run each: no interval" in found.published  # the paper trained one network each


def test_one_seed_without_published_scatter_is_undecided(
    new_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(synthetic.DATASETS, "imagenet", "ImageNet (1000 classes), 1281167 train / 50000 test")
    add_grid(new_store, "imagenet", ["bp", "sf"], [0], epochs=75)
    found = claim(new_store, "SF < BP on ImageNet")
    assert (found.verdict, found.remark) == ("undecided", "one seed: no interval")


def test_a_shortened_run_never_counts(findings: Findings) -> None:
    for title in (
        "FA ≪ BP on CIFAR-10",
        "PFA = BP on CIFAR-10",
        "PFA: path angle 17.55° at λ = 0.1, CIFAR-10",
    ):
        found = claim(findings, title)
        assert found.verdict == "trial only"
        assert "not at the paper's scale, hence not counted: 3 epochs in place of 200" in found.remark
        assert found.ours and found.n == 2  # but shown


def test_another_data_set_never_counts_however_long(new_store: Store) -> None:
    add_grid(new_store, "imagenet", ["bp", "sf"], range(2), epochs=75)
    found = claim(new_store, "SF < BP on ImageNet")
    assert found.verdict == "trial only"
    assert "imagenette-mini (10 classes), 900 train / 300 test in place of ImageNet" in found.remark
    assert "epochs in place of" not in found.remark


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"learning_rate": 0.5}, "learning rate 0.5 in place of 0.01"),
        ({"train_images": 1000}, "train images 1000"),
        ({"expansion": 20.0}, "expansion 20.0 in place of 10.0"),
    ],
)
def test_other_settings_never_count(new_store: Store, override: dict[str, float], said: str) -> None:
    for seed in range(2):
        add_run(new_store, "mnist", "pfa", seed, epochs=40, **override)
    found = claim(new_store, PATH_ANGLE)
    assert found.verdict == "trial only"
    assert said in found.remark


def test_the_literal_form_and_another_precision_are_the_same_experiment(new_store: Store) -> None:
    for seed in range(3):
        add_run(new_store, "mnist", "pfa", seed, epochs=40, form="literal", precision="tf32")
    assert claim(new_store, PATH_ANGLE).verdict == "supported"


def test_unfinished_runs_decide_nothing(new_bp: Store) -> None:
    for seed in range(3):
        add_run(new_bp, "mnist", "pfa", seed, epochs=40, stop_after=39)
    found = compare(new_bp)
    for title in (PFA_IS_BP, PATH_ANGLE, RATIO):
        assert (claim(found, title).verdict, claim(found, title).remark) == ("undecided", "unfinished")


def test_angles_of_every_layer(findings: Findings) -> None:
    found = claim(findings, PATH_ANGLE)
    assert found.verdict == "supported"
    assert [one.label for one in found.measured] == ["fc1", "fc2", "fc3"]
    assert found.measured[0].region == pytest.approx((12.55, 22.55), abs=0.005)
    assert found.published == "seed 0: 18.98 / 19.50 / 23.27°"


def test_a_limit_not_reached_is_contradicted_only_where_it_stands_still(
    new_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(synthetic.ANGLE, "pfa-o", 30.0)
    add_grid(new_store, "mnist", ["pfa-o"], range(4), epochs=40)
    assert claim(new_store, TO_ZERO).verdict == "contradicted"


def test_a_limit_still_approached_is_undecided(new_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = synthetic._layer

    def slowly(algorithm, i, count, name, epoch, *rest):
        record = whole(algorithm, i, count, name, epoch, *rest)
        angle = 60 - epoch + 0.1 * float(rest[-1].normal())
        values = {"path_angle_degrees": angle, "error_angle_degrees": angle}
        return type(record)(**{**vars(record), **values})

    monkeypatch.setattr(synthetic, "_layer", slowly)
    add_grid(new_store, "mnist", ["pfa-o"], range(3), epochs=40)
    found = claim(new_store, TO_ZERO)
    assert found.verdict == "undecided"
    assert found.remark == "the limit is not reached, but the layers outside still approach it"
    assert claim(new_store, "PFA-o: error angle to BP → 0°, MNIST").verdict == "undecided"


def test_norm_ratios(findings: Findings, new_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert claim(findings, RATIO).verdict == "supported"
    whole = synthetic._layer

    def larger(*arguments):
        record = whole(*arguments)
        return type(record)(**{**vars(record), "path_norm_ratio": record.path_norm_ratio + 0.5})

    monkeypatch.setattr(synthetic, "_layer", larger)
    add_grid(new_store, "mnist", ["pfa"], range(3), epochs=40)
    assert claim(new_store, RATIO).verdict == "contradicted"


def test_the_error_angle_leaves_the_output_layer_out(findings: Findings) -> None:
    found = claim(findings, "PFA-o: error angle to BP → 0°, MNIST")
    assert [one.label for one in found.measured] == ["fc1", "fc2"]


def test_the_sweep_holds_each_ratio_against_its_own_angle(findings: Findings) -> None:
    found = claim(findings, SWEEP)
    assert found.verdict == "supported"
    assert "(17.5° predicted, supported); 1/λ = 50: " in found.ours
    regions = {one.label.split(",")[0]: one.region for one in found.measured}
    assert sum(regions["1/λ = 50"]) / 2 == pytest.approx(math.degrees(math.acos(1 / math.sqrt(1.02))))
    assert found.n == 2


def test_a_single_ratio_is_no_sweep(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["pfa"], range(2), epochs=40)
    assert claim(new_store, SWEEP).verdict == "not run"


def test_what_was_run_with_other_settings_only_is_said(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp"], range(2), epochs=40)
    add_run(new_store, "mnist", "pfa", 0, epochs=2)
    found = claim(new_store, PFA_IS_BP)
    assert (found.verdict, found.remark) == ("not run", "PFA run with other settings only")


def test_the_papers_own_numbers_are_under_the_same_rule(findings: Findings) -> None:
    assert claim(findings, "FA ≪ BP on CIFAR-10").published.endswith(": supported")
    assert claim(findings, "PFA-o = BP on ImageNet").published.startswith("epoch 66: 69.26 vs ")
    # Its PFA is 0.74 points below BP on CIFAR-10, which 5 seeds do not place inside the margin.
    assert claim(findings, "PFA = BP on CIFAR-10").published.endswith(": undecided")


def own_claim(store: Store, title: str) -> Judgement:
    return next(one for one in compare(store).own_claims if one.claim == title)


def test_claims_of_our_own_stand_apart_and_are_judged_alike(
    new_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_with(monkeypatch, "mnist", **{"pfa-l": 98.38, "mix": 97.0})
    add_grid(new_store, "mnist", ["bp", "pfa-l", "mix"], range(3), epochs=40)
    assert own_claim(new_store, "PFA-l = BP on MNIST").verdict == "supported"
    cortex = "mix = BP on MNIST, with 9 % of the units by KP, 22 % by FA and 69 % by PFA"
    assert own_claim(new_store, cortex).verdict == "contradicted"
    assert not any("PFA-l" in one.claim for one in compare(new_store).claims)


def test_the_mixture_is_judged_at_the_shares_that_the_claim_names(new_store: Store) -> None:
    add_grid(new_store, "mnist", ["bp"], range(2), epochs=40)
    add_run(new_store, "mnist", "mix", 0, epochs=40, pfa_share=0.86, fa_share=0.05)
    found = [one for one in compare(new_store).own_claims if one.claim.startswith("mix")]
    assert [(one.verdict, one.remark) for one in found] == [("not run", "run with other settings only")]


@pytest.mark.parametrize(
    ("few", "verdict", "said"),
    [
        (90.0, "supported", "at its level from 1/λ = 0.1 on"),
        (80.0, "contradicted", "at its level from 1/λ = 1 on"),
    ],
)
def test_the_smallest_expansion_ratio_at_the_others_level(
    new_store: Store, monkeypatch: pytest.MonkeyPatch, few: float, verdict: str, said: str
) -> None:
    ends_with(monkeypatch, "mnist", **{"bp": 90.0, "pfa-o": 90.0})
    add_grid(new_store, "mnist", ["bp", "pfa-o"], range(3), epochs=40)
    ends_with(monkeypatch, "mnist", **{"pfa-o": few})
    for seed in range(3):
        add_run(new_store, "mnist", "pfa-o", seed, epochs=40, expansion=0.1, least_units=10)
    found = own_claim(new_store, "PFA-o = BP on MNIST at an expansion ratio below 1")
    assert (found.verdict, found.n) == (verdict, 3)
    assert said in found.ours and "1/λ = 0.1: " in found.ours
