"""The colours are told apart by people with any kind of colour vision, and nothing on a page is clipped or covered."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from synthetic import add_run

from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.paper import paper
from pfa_cli.figures import style
from pfa_cli.figures.beyond import ACCURACY
from pfa_cli.figures.catalogue import catalogue
from pfa_cli.figures.drawing import Drawing, Options
from pfa_cli.registry import ALGORITHMS
from pfa_cli.store.engine import open_store

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.0888])


def lab(colour: str, vision: str) -> np.ndarray:
    srgb = np.array(to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    ratios = TO_XYZ @ np.clip(np.array(VISION[vision]) @ linear, 0, 1) / WHITE
    f = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_algorithms_are_told_apart(vision: str) -> None:
    for a, b in itertools.combinations(style.colours(ALGORITHMS).values(), 2):
        assert np.linalg.norm(lab(a, vision) - lab(b, vision)) > 15, (a, b)


@pytest.mark.parametrize("vision", VISION)
def test_the_first_algorithms_of_ones_own_have_colours_of_their_own(vision: str) -> None:
    own = style.colours([*ALGORITHMS, "zeta", "eta", "theta"])
    assert len(set(own.values())) == len(own)
    for a, b in itertools.combinations(own.values(), 2):
        assert np.linalg.norm(lab(a, vision) - lab(b, vision)) > 15, (a, b)


@pytest.mark.parametrize("colour", [*style.colours(ALGORITHMS).values(), *style.OTHERS])
def test_colours_are_seen_on_white(colour: str) -> None:
    assert lab(colour, "normal")[0] < 75


def test_layers_go_from_dark_to_light() -> None:
    lightness = [lab(colour, "normal")[0] for colour in style.layer_colours(20)]
    assert lightness == sorted(lightness)
    assert style.layer_colours(1) == style.layer_colours(3)[:1]


def contrast(colour: str) -> float:
    """To white, as the W3C defines it."""
    return 1.05 / (((lab(colour, "normal")[0] + 16) / 116) ** 3 + 0.05)


def test_layers_and_published_curves_have_enough_contrast() -> None:
    for colour in (*style.layer_colours(20), style.PUBLISHED["color"]):
        assert contrast(colour) >= 3, colour


@pytest.mark.parametrize("vision", VISION)
def test_published_curves_are_told_apart_from_every_algorithm(vision: str) -> None:
    for name, colour in style.colours(ALGORITHMS).items():
        assert np.linalg.norm(lab(colour, vision) - lab(style.PUBLISHED["color"], vision)) > 15, name


@pytest.mark.parametrize(
    "name", sorted(paper().figures.keys() - {"fig5-imagenette"})
)  # as fig5, of a recipe without runs here
def test_nothing_is_clipped_or_covered(name: str, evidence: Evidence) -> None:
    expect_clear(catalogue(evidence)[name].draw(evidence, Options()))


def test_nothing_is_covered_in_large_words(evidence: Evidence) -> None:
    expect_clear(
        catalogue(evidence)["fig2"].draw(evidence, Options(panels=["a", "d"], width=10, font_size=14))
    )


@pytest.fixture(scope="module")
def beyond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """All that Figure 6 shows."""
    with open_store(str(tmp_path_factory.mktemp("beyond") / "pfa.db"), write=True) as store:
        settings: list[tuple[str, dict[str, float]]] = [("bp", {})]
        for name in ("pfa", "pfa-o", "pfa-l"):
            settings += [(name, {"expansion": x}) for x in (0.02, 0.1, 0.5, 1.0, 10.0, 100.0)]
        settings += [("pfa", {option: q}) for option in ("b_density", "r_density") for q in (0.02, 0.5)]
        settings += [
            ("mix", {"fa_share": x, "kp_share": 0.09, "pfa_share": 0.91 - x}) for x in (0.05, 0.22, 0.8)
        ]
        for name, options in settings:
            for seed in range(2):
                add_run(store, "mnist", name, seed, epochs=1, **options)
        yield Evidence(store)


@pytest.mark.parametrize("options", [Options(), Options(panels=["c"], width=89 / 25.4)])
def test_figure_6_with_all_its_runs(options: Options, beyond: Evidence) -> None:
    drawing = catalogue(beyond)["fig6"].draw(beyond, options)
    expect_clear(drawing)
    assert drawing is not None
    trained = drawing.shown[(drawing.shown["source"] == "trained") & (drawing.shown["quantity"] == ACCURACY)]
    counted = trained.groupby("panel")["value"].nunique().to_dict()
    assert counted == {p: n for p, n in {"b": 6, "c": 3, "d": 3}.items() if p in (options.panels or "bcd")}
    points = [
        ax.transData.transform(line.get_xydata()) for ax in drawing.figure.axes for line in ax.get_lines()
    ]
    for legend in drawing.figure.findobj(Legend):
        inside = legend.get_window_extent()
        for line in points:
            assert not any(inside.contains(*point) for point in line)


def expect_clear(drawing: Drawing | None) -> None:
    """All text is on the page, no text covers another, and no legend of the figure a panel."""
    with style.house_style(Options()):
        assert drawing is not None
        figure = drawing.figure
        figure.canvas.draw()
        page = figure.bbox
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
        for words, box in boxes:
            assert page.x0 <= box.x0 and box.x1 <= page.x1, words
            assert page.y0 <= box.y0 and box.y1 <= page.y1, words
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            assert not covers(a, b), (one, other)
        panels = [ax.get_window_extent() for ax in figure.axes]
        for legend in figure.findobj(Legend):
            if legend.axes is None:
                assert not any(covers(legend.get_window_extent(), panel) for panel in panels)


def texts(figure: Figure) -> list[Text]:
    """All that is drawn; tick labels outside of the axis limits exist, but are not."""
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    labels = {
        id(one) for axis in axes for t in axis.majorTicks + axis.minorTicks for one in (t.label1, t.label2)
    }
    drawn = {
        id(one)
        for axis in axes
        if axis.get_visible()
        for t in axis._update_ticks()
        for one in (t.label1, t.label2)
    }
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in found if id(text) not in labels or id(text) in drawn]


def covers(a: Bbox, b: Bbox) -> bool:
    """Whether they overlap by more than a pixel or two."""
    overlap = Bbox.intersection(a, b)
    return overlap is not None and overlap.width > 2 and overlap.height > 2
