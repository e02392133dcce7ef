"""The command line: its commands (pfa_cli/commands), and how it begins and ends."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pfa_cli.commands import measuring, results, training
from pfa_cli.commands.upkeep import data_app, db_app, runs_app
from pfa_cli.errors import PfaError, in_words
from pfa_cli.terminal import output, prepare_streams, show_error

# The parser's own exceptions: typer brings them along under names that differ between its versions.
_CommandLineError: Any = typer.BadParameter.__mro__[2]
# Bytes. A socket's path has 107 at most; those of worker processes and of torch add up to 45 to their folder's.
_LONGEST_FOLDER_OF_SOCKETS = 62

app = typer.Typer(
    name="pfa",
    help="Train networks by eight credit-assignment algorithms and rebuild the figures of "
    "'Deep Learning without Weight Symmetry'.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(runs_app, name="runs")
app.add_typer(db_app, name="db")
app.add_typer(data_app, name="data")


def main() -> None:
    """Runs `pfa`: an error that the user can mend is one message and an exit code (2 for wrong usage, 1 otherwise)."""
    _prepare_environment()
    prepare_streams()
    try:
        code = app(prog_name="pfa", standalone_mode=False) or 0
    except PfaError as error:
        show_error(str(error))
        code = error.exit_code
    except _CommandLineError as error:
        code = _wrong_command_line(error)
    except OSError as error:
        show_error(in_words(error))
        code = 1
    sys.exit(code)


def _prepare_environment() -> None:
    """Figures are drawn to files whatever MPLBACKEND says; sockets need a temporary folder with a short name.

    torch's C++ code says on the terminal, past Python's warnings, that memory ran out, which a lane mends by itself.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ["MPLBACKEND"] = "agg"  # a notebook's back end is not there for its child processes
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER_OF_SOCKETS and os.access("/tmp", os.W_OK):
        os.environ["TMPDIR"] = "/tmp"
        tempfile.tempdir = None  # to be found anew


def _wrong_command_line(error: Any) -> int:
    """What the parser says of a command line that it cannot read; its exit code."""
    if message := error.format_message():  # empty where typer has shown the help in its place
        command = error.ctx.command_path if error.ctx else "pfa"
        end = "" if message.endswith((".", "?")) else "."
        show_error(f"{message}{end} `{command} --help` says what it takes.")
    return error.exit_code


def _show_version(wanted: bool) -> None:
    if wanted:
        from pfa_cli.source import version

        output.say(version())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    try:
        Path.cwd()
    except FileNotFoundError:  # torch's libraries would end the process
        raise PfaError("the working directory was deleted: change to one that exists") from None


_COMMANDS: tuple[Callable[..., None], ...] = (
    training.run,
    training.reproduce,
    training.submit,
    results.status,
    results.best,
    results.figures,
    results.compare,
    results.report,
    results.recipes,
    results.export,
    results.merge,
    measuring.simulate,
    measuring.cortex,
    measuring.bench,
    measuring.doctor,
)
# `pfa submit` gives options that it does not know to `pfa run`.
_PASSES_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
for _command in _COMMANDS:
    app.command(context_settings=_PASSES_ON if _command is training.submit else None)(_command)
