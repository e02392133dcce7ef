"""Errors meant for a person: one message that says what is wrong and how to mend it."""

from collections.abc import Iterable
from difflib import get_close_matches


def shown(text: object) -> str:
    r"""``text`` as it can be printed and stored: the bytes of a file name that are not UTF-8 as ``\xff``.

    >>> print(shown("caf\udce9.png"))
    caf\xe9.png
    """
    try:
        return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character that comes from no file name
        return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


class PfaError(Exception):
    """Something went wrong that the user can mend; shown without a traceback."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(shown(message))


class UsageError(PfaError):
    """What was asked for does not exist or makes no sense."""

    exit_code = 2


def unknown(kind: str, name: str, valid: Iterable[str]) -> UsageError:
    """The error for a misspelled name.

    >>> print(unknown("algorithm", "pfao", ["bp", "pfa", "pfa-o"]))
    unknown algorithm 'pfao': did you mean 'pfa-o'? Valid: bp, pfa, pfa-o
    """
    names = sorted(valid)
    nearest = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f": did you mean {nearest[0]!r}?" if nearest else "."
    return UsageError(f"unknown {kind} {name!r}{hint} Valid: {', '.join(names)}")
