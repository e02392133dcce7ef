"""Numbers as a person reads them, the same in every message and table."""

import math
import re


def duration(seconds: float | None) -> str:
    """A length of time in at most two units; empty if it is not known.

    >>> [duration(s) for s in (4.2, 75, 3 * 3600 + 240, 100 * 3600, None)]
    ['4 s', '1 min 15 s', '3 h 04 min', '4 d 4 h', '']
    """
    if seconds is None or not math.isfinite(seconds):
        return ""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 1:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def percent(value: float | None) -> str:
    """A percentage without its sign; empty if there is none.

    >>> percent(97.314), percent(None), percent(float("nan"))
    ('97.31', '', 'nan')
    """
    return "" if value is None else f"{value:.2f}"


def rate(value: float | None) -> str:
    """Images per second, in whole images; empty if it is not known.

    >>> rate(41234.5), rate(None)
    ('41,234', '')
    """
    return "" if value is None or not math.isfinite(value) else f"{value:,.0f}"


def count(n: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "cell"), count(4500, "cell"), count(2, "batch")
    ('1 cell', '4,500 cells', '2 batches')
    """
    ending = "" if n == 1 else "es" if noun.endswith(("ss", "tch")) else "s"
    return f"{n:,} {noun}{ending}"


def setting(name: str, value: object) -> str:
    """A setting as `--set` takes it.

    >>> setting("expansion", 20.0), setting("milestones", [5, 8])
    ('expansion=20', 'milestones=[5,8]')
    """
    if isinstance(value, float):
        return f"{name}={value:g}"
    return f"{name}={str(value).replace(' ', '')}"


def in_number_order(text: str) -> list[str | float]:
    """A key by which texts are sorted with the numbers in them by size.

    >>> sorted(["expansion=10", "expansion=2", "expansion=0.5", ""], key=in_number_order)
    ['', 'expansion=0.5', 'expansion=2', 'expansion=10']
    """
    # Texts and numbers take turns, so that like is compared with like.
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text)
    return [float(part) if place % 2 else part for place, part in enumerate(parts)]
