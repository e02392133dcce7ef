"""The report as Chromium shows it: narrow and wide, light and dark, in one start of it; axe-core looks for barriers."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from synthetic import add_grid, add_run

from pfa_cli.report import write_report
from pfa_cli.store.engine import open_store

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS, SCHEMES = (390, 1280), ("light", "dark")
# Each frame is as a window of this width: media queries, and what the page prefers, go by the frame.
LOOK = """
async function look(frame, text, axe) {
    await new Promise(done => { frame.onload = done; frame.srcdoc = text; });
    const [inside, page] = [frame.contentWindow, frame.contentDocument];
    for (const folded of page.querySelectorAll("details")) folded.open = true;
    const cells = [...page.querySelectorAll("table.cards td")].filter(cell => cell.offsetWidth > 0);
    const seen = {
        needs: page.documentElement.scrollWidth,
        dark: inside.getComputedStyle(page.body).backgroundColor !== "rgb(255, 255, 255)",
        cell: Math.min(...cells.map(cell => cell.offsetWidth)),
        violations: null,
    };
    if (axe && ["390 light", "1280 dark"].includes(frame.title)) {  // it takes long
        inside.eval(axe);
        const found = await inside.axe.run({exclude: ["svg"]});  // each drawing is one image, with a text
        seen.violations = found.violations.map(one => `${one.id}: ${one.nodes[0].html}`);
    }
    return seen;
}
async function all(text, axe) {
    const found = {};
    for (const frame of document.querySelectorAll("iframe")) found[frame.title] = await look(frame, text, axe);
    document.body.textContent = JSON.stringify(found);
}
"""


def _axe() -> str:
    """The text of axe-core where npm has installed it globally, or where ``AXE_CORE`` says; else nothing."""
    place = os.environ.get("AXE_CORE")
    if place is None and (npm := shutil.which("npm")):
        root = subprocess.run(
            [npm, "root", "-g"], capture_output=True, text=True, timeout=60, check=False
        ).stdout
        place = f"{root.strip()}/axe-core/axe.min.js"
    return Path(place).read_text(encoding="utf-8") if place and Path(place).exists() else ""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if BROWSER is None:
        pytest.skip("no Chromium here (apt install chromium): the report is not looked at in a browser")
    folder = tmp_path_factory.mktemp("browser")
    with open_store(str(folder / "pfa.db"), write=True) as store:
        add_grid(store, "mnist", ["bp", "pfa"], range(2), epochs=2)
        add_run(store, "mnist", "kp", 0, epochs=2, diverge_at=1)
        report = write_report(store, folder).read_text(encoding="utf-8")
    frames = "".join(
        f'<iframe title="{width} {scheme}" width="{width}" height="900" style="border: 0; color-scheme: {scheme}"></iframe>'
        for width in WIDTHS
        for scheme in SCHEMES
    )
    given = ", ".join(json.dumps(text).replace("<", "\\u003c") for text in (report, _axe()))
    page = folder / "frames.html"
    page.write_text(
        f"<!DOCTYPE html><body>{frames}<script>{LOOK}all({given});</script></body>", encoding="utf-8"
    )
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=100000",
        f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    body = re.search(r"<body>(\{.*\})</body>", ran.stdout, re.DOTALL)
    assert body, ran.stdout[-300:] + ran.stderr[-300:]
    found: dict[str, Any] = json.loads(html.unescape(body[1]))
    return found


def test_the_page_never_scrolls_sideways(seen: dict[str, Any]) -> None:
    assert len(seen) == len(WIDTHS) * len(SCHEMES)
    for name, one in seen.items():
        assert one["needs"] <= int(name.split()[0]), name


def test_cells_of_a_narrow_page_take_its_whole_width(seen: dict[str, Any]) -> None:
    assert seen["390 light"]["cell"] > 330
    assert seen["1280 light"]["cell"] < 330  # there they stand beside each other


def test_it_is_dark_where_the_reader_wants_it_dark(seen: dict[str, Any]) -> None:
    assert {name.split()[1]: one["dark"] for name, one in seen.items()} == {"light": False, "dark": True}


def test_axe_finds_no_barrier(seen: dict[str, Any]) -> None:
    found = {name: one["violations"] for name, one in seen.items()}
    if not any(one is not None for one in found.values()):
        pytest.skip("axe-core is not installed here (npm install -g axe-core, or AXE_CORE=…/axe.min.js)")
    assert (found["390 light"], found["1280 dark"]) == ([], [])
