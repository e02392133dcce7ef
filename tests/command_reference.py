"""Writes docs/commands.md from the parser: `python tests/command_reference.py`. A test sees that it is up to date."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

FILE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

Made from the command line's own help by `python tests/command_reference.py`.

Exit codes, of every command: 0 it did what was asked; 1 something went wrong, which one sentence on standard error says,
with the cure; 2 wrong usage, and nothing was done; 130 after Ctrl-C; 143 after another signal. `pfa run` exits with 0 also
where another live `pfa run` has the cells that are left, and with 1 if a cell failed; `pfa db check` with 1 if it found damage.

`~` is the home folder in every path, in `--out=~/x` and `sqlite:///~/x.db` too. Results go to standard output, all else to
standard error. Text from a database or a recipe is shown with its control characters as `\\u001b`; bytes of a file name that
are not UTF-8 as `\\xff`. Only regular files are read as databases and recipes, and only those are overwritten.
"""


def reference() -> str:
    """The whole document."""
    from pfa_cli.cli import app

    return "\n".join([HEAD, *_sections(typer.main.get_command(app), "pfa")])


def _sections(command: Any, path: str) -> Iterator[str]:
    for name, child in getattr(command, "commands", {}).items():
        yield from _sections(child, f"{path} {name}")
    if not hasattr(command, "commands"):
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join([path, *(_argument(parameter) for parameter in arguments)])
        yield f"## {path}\n\n`{usage}`\n\n{' '.join(command.help.split())}\n"
        rows = [_row(parameter) for parameter in command.params]
        if rows:
            yield "\n".join(["| | | default |", "|---|---|---|", *rows]) + "\n"


def _argument(parameter: Any) -> str:
    name = parameter.metavar + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar}`"
    else:
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    shown = parameter.show_default
    default = shown if isinstance(shown, str) else getattr(parameter.default, "value", parameter.default)
    plain = default in (None, False, ()) or parameter.required
    return f"| {names} | {parameter.help} | {'' if plain else f'{default}'.replace('True', 'yes')} |"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(reference(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
