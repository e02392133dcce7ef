"""Errors meant for a person: one message that says what is wrong and how to mend it."""

import errno
import os
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

# Control characters, format characters (among them those that turn the direction of writing), halves of surrogate
# pairs (bytes of a file name that are not UTF-8), line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def shown(text: object) -> str:
    r"""``text`` as it can be printed and stored: no character of it is obeyed or hidden by a terminal.

    Bytes of a file name that are not UTF-8 become ``\xff``, control and format characters ``\u001b``, as in JSON, which
    stays valid by it. Newlines and tabs stay.

    >>> print(shown("caf\udce9 a\x1b[2J b\u202e"))
    caf\xe9 a\u001b[2J b\u202e
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        _escape(character)
        if character not in "\n\t" and unicodedata.category(character) in _HIDDEN
        else character
        for character in text
    )


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"


class PfaError(Exception):
    """Something went wrong that the user can mend; shown without a traceback."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(shown(message))


class UsageError(PfaError):
    """What was asked for does not exist or makes no sense."""

    exit_code = 2


class StoppedWaiting(PfaError):
    """The process was asked to stop while it waited for something that did not come."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> UsageError:
    """The error for a misspelled name.

    >>> print(unknown("algorithm", "pfao", ["bp", "pfa", "pfa-o"]))
    unknown algorithm 'pfao': did you mean 'pfa-o'? Valid: bp, pfa, pfa-o
    """
    names = sorted(valid)
    nearest = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f": did you mean {nearest[0]!r}?" if nearest else "."
    return UsageError(f"unknown {kind} {name!r}{hint} Valid: {', '.join(names)}")


def names_in(option: str, text: str) -> list[str]:
    """The names in ``text``, which commas separate; UsageError if there is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"{option} {text!r} names nothing; leave {option} out, or name some")
    return names


_CURES = {
    errno.ENAMETOOLONG: "Give a shorter name.",
    errno.ELOOP: "Its symbolic links form a circle; name another.",
    errno.EACCES: "See who may read and write it and the folders above it, or name another.",
    errno.EPERM: "See who may read and write it and the folders above it, or name another.",
    errno.EROFS: "It lies on a disk that cannot be written to; name another.",
    errno.ENOSPC: "Free some space, then run the same command again.",
    errno.EDQUOT: "Free some space, then run the same command again.",
    errno.EMFILE: "Raise the limit (`ulimit -n`), or ask for fewer --jobs.",
    errno.EAGAIN: "The limit of processes is reached (`ulimit -u`); ask for fewer --jobs.",
}
_LONGEST_NAME = 200  # characters


def in_words(error: OSError) -> str:
    """One sentence with the cure for an error of the operating system that nothing else explains.

    >>> print(in_words(OSError(36, "File name too long", "x" * 5000)).replace("x" * 200, "..."))
    file name too long: .... Give a shorter name.
    """
    words = (error.strerror or str(error) or type(error).__name__).strip()
    words = words[:1].lower() + words[1:]
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    named = f": {name[:_LONGEST_NAME]}" if name else ""
    return f"{words}{named}. {_CURES.get(error.errno or 0, 'Name another file or folder.' if name else '')}".strip()
