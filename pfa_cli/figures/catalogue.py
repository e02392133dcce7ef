"""From a database to files: every figure and Table 1."""

from collections.abc import Callable, Sequence
from pathlib import Path

from pfa_cli.errors import PfaError
from pfa_cli.figures import fig2, fig3, fig4, fig5, table1, table1_files
from pfa_cli.figures.drawing import Drawing, Wishes
from pfa_cli.figures.evidence import Evidence
from pfa_cli.figures.page import check_formats, save_figure, save_frame
from pfa_cli.figures.style import house_style
from pfa_cli.store.engine import Store

FIGURES: dict[str, tuple[Callable[[Evidence, Wishes], Drawing | None], str]] = {
    "fig2": (fig2.FIGURE.draw, "pfa run mnist"),
    "fig2-supplement": (fig2.SUPPLEMENT.draw, "pfa run mnist --algos bp,kp,wm,pal,dfa"),
    "fig3": (fig3.draw, "pfa simulate"),
    "fig4": (fig4.FIGURE.draw, "pfa run cifar10"),
    "fig4-supplement": (fig4.SUPPLEMENT.draw, "pfa run cifar10 --algos bp,kp,wm,pal,dfa"),
    "fig5": (fig5.FIGURE.draw, "pfa run imagenet --algos bp,sf,pfa,pfa-o"),
}
"""Each figure, and the command that makes what it needs."""


def build(
    store: Store,
    out: Path,
    only: Sequence[str] | None,
    formats: Sequence[str],
    *,
    published: bool,
    validation: bool,
) -> tuple[list[Path], list[str]]:
    """See ``pfa_cli.figures.build``; here with a message for each figure that was passed over."""
    check_formats(formats)
    wishes = Wishes(published, validation)
    evidence = Evidence(store)
    paths, passed_over = [], []
    with house_style():
        for name in only or (*FIGURES, "table1"):
            if name == "table1":
                cure = "pfa run mnist"
                written = [] if evidence.runs.empty else table1_files.write_all(table1.judge(evidence), out)
            else:
                draw, cure = FIGURES[name]
                drawing = draw(evidence, wishes)
                written = []
                if drawing:
                    written = save_figure(drawing.figure, out, name, formats)
                    written.append(save_frame(drawing.shown, out / f"{name}.csv"))
            paths += written
            if not written:
                passed_over.append(f"{name}: nothing of it is in {store.name}; `{cure}` makes it.")
    if passed_over and (only or not paths):
        raise PfaError(" ".join(passed_over))
    return paths, passed_over
