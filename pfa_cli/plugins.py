"""Code from outside this package: plain files that the user names, and the entry points of installed packages.

A plug-in is one file. The content of that file identifies it: what ran is what was read and hashed, and an edited file is
another plug-in. Nothing is run that the user has not named: no text from a database, no checkpoint.
"""

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pfa_cli import files
from pfa_cli.errors import UsageError, unknown
from pfa_cli.paths import expanded
from pfa_cli.signals import Stopped

_FILE = re.compile(r"(?P<path>.+\.py)(:(?P<attribute>\w*))?")


@dataclass(frozen=True)
class Source:
    """Where a plug-in was found: ``reference`` finds it again, ``sha256`` says that it is still the same.

    ``reference`` is "/path/file.py:Name", or the name of an entry point; ``file`` is the file's name without folders.
    """

    reference: str
    file: str
    sha256: str
    text: str


@dataclass(frozen=True)
class Plugin:
    """What a reference names, the module around it, and where it was found."""

    value: Any
    module: ModuleType
    source: Source

    @property
    def own(self) -> dict[str, Any]:
        """The functions and classes that its file itself defines, by name; none whose name begins with _."""
        return {
            name: value
            for name, value in vars(self.module).items()
            if callable(value)
            and not name.startswith("_")
            and getattr(value, "__module__", None) == self.module.__name__
        }


def is_file(reference: str) -> bool:
    """Whether ``reference`` is that of a file: "frsf.py:FRSF".

    >>> is_file("frsf.py:FRSF"), is_file("frsf.py"), is_file("frsf")
    (True, True, False)
    """
    return _FILE.fullmatch(reference) is not None


def absolute(reference: str, folder: Path) -> str:
    """``reference``, if it is that of a file, with the file's full path; relative paths start in ``folder``.

    UsageError if there is no such home folder (``~name``).

    >>> absolute("mynet.py:Net", Path("/recipes")), absolute("mlp", Path("/recipes"))
    ('/recipes/mynet.py:Net', 'mlp')
    """
    found = _FILE.fullmatch(reference)
    if found is None:
        return reference
    path = folder.absolute() / expanded(found["path"])
    return f"{path}{found[2] or ''}"


def load_file(kind: str, reference: str) -> Plugin:
    """What "path/file.py:Name" names. UsageError, in one sentence, where the file cannot be read, run, or lacks the name."""
    reference = absolute(reference, Path())
    found = _FILE.fullmatch(reference)
    assert found is not None
    path = Path(found["path"])
    try:
        content = files.read(path)
    except OSError as error:
        raise UsageError(f"{kind} {reference}: cannot read it ({error.strerror})") from None
    module, text = _run(path, content)
    if not found["attribute"]:
        raise UsageError(f"{kind} {reference}: say what in that file, for example {path.name}:MyName")
    digest = hashlib.sha256(content).hexdigest()
    return Plugin(
        _attribute(module, found["attribute"], str(path)),
        module,
        Source(reference, path.name, digest, text),
    )


def installed(group: str) -> Mapping[str, EntryPoint]:
    """The entry points of ``group`` that installed packages declare, by name."""
    return _installed(group, tuple(sys.path))


@cache
def _installed(group: str, path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """As `installed`; to look through all packages takes milliseconds, and ``path`` is where they are."""
    return {point.name: point for point in entry_points(group=group)}


def load_installed(kind: str, point: EntryPoint) -> Plugin:
    """What an entry point names. UsageError, in one sentence, where its package cannot be imported."""
    where = f"{kind} {point.name}: the entry point {point.value!r} of {_package(point)}"
    try:
        spec = find_spec(point.module)
        if spec is None or spec.origin is None:
            raise UsageError(f"{where} names no module: reinstall or remove that package")
        content = Path(spec.origin).read_bytes()
        value = point.load()
    except (KeyboardInterrupt, Stopped, UsageError):
        raise
    except BaseException as error:
        raise UsageError(f"{where} cannot be imported ({_one_line(error)}): mend or remove it") from None
    source = Source(
        point.name,
        Path(spec.origin).name,
        hashlib.sha256(content).hexdigest(),
        content.decode("utf-8", "replace"),
    )
    return Plugin(value, sys.modules[point.module], source)


@cache
def _run(path: Path, content: bytes) -> tuple[ModuleType, str]:
    """The module that a file makes, and its text; the same module for the same content."""
    module = ModuleType(f"pfa_plugin_{path.stem}_{hashlib.sha256(content).hexdigest()[:12]}")
    module.__file__ = str(path)
    try:
        text = content.decode("utf-8-sig")
        code = compile(text, str(path), "exec")
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not valid Python ({_one_line(error)})") from None
    sys.modules[module.__name__] = module  # where dataclasses and pickle look for it
    try:
        exec(code, module.__dict__)
    except (KeyboardInterrupt, Stopped):
        raise
    except BaseException as error:  # SystemExit too: a file's mistake must not end the command without a word
        del sys.modules[module.__name__]
        hint = ""
        if isinstance(error, ImportError):
            hint = ". A plug-in is one file: it may import what is installed, but no file beside it"
        raise UsageError(f"{path}: cannot be imported ({_one_line(error)}){hint}") from None
    return module, text


def _attribute(module: ModuleType, name: str, where: str) -> Any:
    if not hasattr(module, name):
        raise unknown(f"name in {where}", name, [name for name in vars(module) if not name.startswith("_")])
    return getattr(module, name)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an installed package"


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
