"""The report: one page that needs nothing else, says everything, and depends on the database alone."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic import OWNER, add_run

from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.findings import Findings
from pfa_cli.analysis.paper import paper
from pfa_cli.errors import PfaError
from pfa_cli.recipes import load_recipe
from pfa_cli.report import write_report
from pfa_cli.report.ledger import ledger
from pfa_cli.report.tables import tight
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.writer import claim, ensure_run, finish, start_attempt

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """A page taken apart: every tag closed in order, attributes, and the text of each section."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.sections: dict[str, str] = {}
        self.tags: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        plain = data.replace("\u00a0", " ").replace("\u2060", "")
        self.sections[self._section] = self.sections.get(self._section, "") + plain + "\n"


@pytest.fixture(scope="module")
def text(compared_database: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    with open_store(str(compared_database), write=False) as store:
        return write_report(store, tmp_path_factory.mktemp("report")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_it_needs_nothing_else(text: str, page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert value.startswith("#"), f"{tag} {name}={value[:60]}"
    assert not re.search(r"url\((?!#)|@import", text)
    assert "http://" not in text and "https://" not in text
    assert len(text) < 700_000


def test_every_link_leads_somewhere(page: Page) -> None:
    anchors = [value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert set(anchors) == set(page.sections) - {""}
    assert len(anchors) == 9


def test_it_has_every_figure_as_a_drawing_with_words(page: Page, text: str) -> None:
    assert page.tags.count("svg") == page.tags.count("figure") == 7
    captions = page.sections["figures"]
    assert all(f"Figure {n}" in captions for n in (2, 3, 4, 5))
    said = [
        value
        for tag, name, value in page.attributes
        if (tag, name) == ("div", "aria-label") and "Panel" in value
    ]
    assert len(said) == 7
    assert not any(one.rstrip(".") in captions for one in said)
    assert "Panel a: test accuracy percent of BP, FA, DFA, SF, PFA, PFA-o." in said[0]


def test_ids_are_not_used_twice_and_every_reference_has_one(page: Page, text: str) -> None:
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]*)\)", text) + [
        v[1:] for _, name, v in page.attributes if name == "xlink:href"
    ]
    assert used and set(used) <= set(ids)


def test_what_scrolls_can_be_reached_by_keyboard_and_no_head_is_empty(text: str) -> None:
    scrolled = re.findall(r'<div class="wide"[^>]*>', text)
    assert scrolled and all('tabindex="0"' in one and 'aria-label="' in one for one in scrolled)
    assert not re.search(r"<th[^>]*>\s*</th>", text)


def test_it_says_what_the_comparison_says(page: Page, findings: Findings) -> None:
    for one in findings.claims:
        assert one.claim in page.sections["claims"]
    assert "not at the paper's scale, hence not counted" in page.sections["claims"]
    assert "Fig. 2, MNIST" in page.sections["curves"]
    assert (
        "Not compared, each shown where it ends (BP, FA, DFA, PFA): 3 epochs in place of 200"
        in page.sections["curves"]
    )
    assert "BP-level task performance" in page.sections["table1"]


def test_it_says_what_diverged_and_what_was_not_run(page: Page) -> None:
    assert "Diverged: mnist, KP, seed 1 (40 epochs): at epoch 3" in page.sections["failures"]
    missing = page.sections["missing"]
    assert "Recipe mnist: WM, PAL." in missing
    assert "mnist, FA, 40 epochs: seed 0 at epoch 5" in missing
    assert "Fig. 4, CIFAR-10: SF, PFA-o not run" in missing


def test_it_says_what_was_run_where(page: Page) -> None:
    runs = page.sections["runs"]
    assert "imagenette-mini (10 classes), 900 train / 300 test" in runs
    assert "expansion 50.0" in runs
    assert "30 attempts" in runs


def test_attempts_with_their_machine(new_store: Store, tmp_path: Path) -> None:
    configuration = load_recipe("mnist").configuration("bp", {})
    facts = {
        "host": "big<machine>", "device": "A GPU", "threads": 4, "python_version": "3.12.1", "torch_version": "2.11.0",
        "cuda_version": "12.8", "pfa_version": "0.1.0", "git_sha": "0123456789abcdef", "git_dirty": True,
        "dataset": "MNIST",
    }  # fmt: skip
    owned = claim(new_store, ensure_run(new_store, configuration, 0), OWNER, is_alive=lambda row: False)
    assert owned is not None
    start_attempt(new_store, owned, facts)
    finish(new_store, owned, "failed", "the disk <burned>")
    add_run(new_store, "mnist", "fa", 0, epochs=2)
    page = Page(write_report(new_store, tmp_path).read_text(encoding="utf-8"))
    for word in ("A GPU", "3.12.1", "2.11.0", "12.8", "0123456789 with changes"):
        assert word in page.sections["runs"]
    assert "Failed: mnist, BP, seed 0 (40 epochs): the disk <burned>" in page.sections["failures"]
    assert all(
        f"Recipe {recipe}: nothing." in page.sections["missing"] for recipe in list(paper().experiments)[1:]
    )


def test_an_empty_database_writes_nothing(new_store: Store, tmp_path: Path) -> None:
    with pytest.raises(PfaError, match="no results yet"):
        write_report(new_store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_only_begun(new_store: Store, tmp_path: Path) -> None:
    add_run(new_store, "mnist", "pfa", 0, epochs=40, stop_after=0)
    page = Page(write_report(new_store, tmp_path).read_text(encoding="utf-8"))
    assert "mnist, PFA, 40 epochs: seed 0 at epoch 0" in page.sections["missing"]


def test_numbers_are_not_torn_apart() -> None:
    assert tight("98.4 ± 0.1 %, [−0.1, +0.2] & 3–5") == (
        "98.4\u00a0±\u00a00.1\u00a0%, [−0.1,\u00a0+0.2] & 3\u2060–\u20605"
    )


def test_the_settings_tell_configurations_apart(new_store: Store) -> None:
    """What departs from the paper's experiment; for another recipe, what its runs differ in. Epochs have a column."""
    for recipe, algorithm, changed in (
        ("cifar10", "bp", {"epochs": 2}),
        ("cifar10", "bp", {"learning_rate": 0.001, "train_images": 500}),
        ("mnist", "bp", {}),
        ("mnist", "bp", {"draws": "published", "weight_decay": 9e-5, "milestones": (10,)}),
        ("imagenette", "bp", {"learning_rate": 0.05}),
        ("imagenette", "bp", {"learning_rate": 0.1, "epochs": 2}),
    ):
        ensure_run(new_store, load_recipe(recipe).configuration(algorithm, changed), 0)
    settings = sorted((row[0], *row[2].split(": ")[1:]) for row in ledger(Evidence(new_store)).runs.rows)
    assert settings == [
        ("cifar10",),
        ("cifar10", "learning_rate 0.001, train_images 500"),
        ("imagenette", "learning_rate 0.05"),
        ("imagenette", "learning_rate 0.1"),
        ("mnist",),
        ("mnist", "draws published, milestones [10], weight_decay 9e-05"),
    ]


def test_attempts_that_failed_before_others_finished_the_run(new_store: Store) -> None:
    configuration = load_recipe("mnist").configuration("bp", {"epochs": 2})
    for _ in range(2):
        owned = claim(new_store, ensure_run(new_store, configuration, 0), OWNER, is_alive=lambda row: False)
        assert owned is not None
        start_attempt(new_store, owned, {})
        finish(new_store, owned, "failed", "no memory")
    add_run(new_store, "mnist", "bp", 0, epochs=2)
    resumed = "2 attempts failed, and later ones took up these runs: 1"
    assert ledger(Evidence(new_store)).failures == [f"No run failed for good. {resumed}"]
