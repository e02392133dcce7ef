"""The few pieces of HTML that the report is made of. Text is escaped here and in ``tables``."""

import base64
from collections.abc import Iterable, Mapping
from html import escape as _escape
from importlib.resources import files

from pfa_cli.errors import shown as printable


def document(title: str, *parts: str) -> str:
    """A whole page, its style inside it."""
    style = (files("pfa_cli.report") / "report.css").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def section(anchor: str, title: str, *parts: str) -> str:
    """A section with its heading; nothing at all if it has no content."""
    content = "".join(parts)
    return f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n{content}</section>\n' if content else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; ``kind`` is its class."""
    return f"<p{_class(kind)}>{escape(text)}</p>\n" if text else ""


def bullets(lines: Iterable[str]) -> str:
    """A list; nothing if it is empty."""
    items = "".join(f"<li>{escape(line)}</li>\n" for line in lines)
    return f"<ul>\n{items}</ul>\n" if items else ""


def picture(png: bytes, alt: str, caption: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(png).decode()
    image = f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
    return f"<figure>\n{image}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n"


def folded(summary: str, content: str) -> str:
    """Content that opens on a click; nothing if there is none."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{content}</details>\n" if content else ""


def contents(sections: Mapping[str, str]) -> str:
    """Links to the sections by anchor."""
    links = "".join(f'<a href="#{anchor}">{escape(title)}</a>\n' for anchor, title in sections.items())
    return f"<nav>\n{links}</nav>\n"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def escape(text: str) -> str:
    """Text that a page shows as it is, control characters included."""
    return _escape(printable(text))
