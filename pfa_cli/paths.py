"""Files and folders as users name them: on the command line, in the environment, in a recipe."""

from pathlib import Path

from pfa_cli.errors import UsageError


def expanded(name: str | Path) -> Path:
    """The path that a user calls ``name``; ``~`` is the home folder, in ``--out=~/x`` too, where shells leave it.

    Raises:
        UsageError: it names nothing, or there is no such home folder.
    """
    text = str(name)
    if not text or "\0" in text or "://" in text:
        raise UsageError(f"{text!r} is no name of a file or folder")
    path = Path(text)
    if not text.startswith("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        raise UsageError(
            f"{text}: no home folder is known for it; name the whole path, or ./{text} if that is meant"
        ) from None


def expanded_database(name: str) -> str:
    """The database that a user calls ``name``, a file or an SQLAlchemy URL, with ``~`` expanded as in a path."""
    scheme, separator, file = name.partition(":///")
    if separator and scheme.startswith("sqlite"):
        return f"{scheme}:///{expanded(file)}" if file.startswith("~") else name
    return name if "://" in name else str(expanded(name))


def expanded_recipe(name: str) -> str:
    """The recipe that a user calls ``name``: expanded if it is a file."""
    return str(expanded(name)) if name.endswith(".toml") else name
