"""`reqon`: which command is meant, and what the process answers (spec/daemon.md 1).

Exit codes, no others: 0 done; 1 a mission failed or a resume was refused; 2 the mission text is wrong; 3 usage,
configuration, state, ports; 130 / 143 interrupted; 128 + signal after a second signal.
"""

import os
import resource
import signal
import sys
from collections.abc import Sequence

from reqon import collector
from reqon.__about__ import __version__
from reqon.cli.ahead import load_client_for
from reqon.cli.commands import COMMANDS, load
from reqon.cli.exits import CONFIGURATION, LOST, Done
from reqon.cli.options import read


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Never returns."""
    # Until a command says otherwise Ctrl+C just ends us: there is nothing to save, and a traceback tells nothing.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    collector.rest()
    _open_streams()
    code = answer(list(sys.argv[1:] if arguments is None else arguments))
    sys.exit(_flushed(code))


def _open_streams() -> None:
    """Give back what our starter closed: a state file must never become somebody's stderr."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115  # for ever


def _flushed(code: int) -> int:
    """The exit code, once stdout has taken everything. Whoever stopped reading, as `head` does, is no failure."""
    try:
        sys.stdout.flush()
    except OSError as error:
        LOST.append(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again, and complain
    lost = next((error for error in LOST if not isinstance(error, BrokenPipeError)), None)
    if lost is None:
        return code
    print(f"error: the output could not be written: {lost.strerror}", file=sys.stderr)  # noqa: T201  # the product's face
    return code or CONFIGURATION


def answer(arguments: list[str]) -> int:
    """Run one command line; its exit code."""
    if arguments in (["--version"], ["-V"]):
        print(f"reqon {__version__}")  # noqa: T201  # before anything heavy is imported
        return 0
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    from reqon.errors import ReqonError  # noqa: PLC0415  # `--version` need not pay for it

    try:
        return _invoke(_with_command(arguments))
    except Done as done:
        return done.code
    except ReqonError as error:
        print(error.format(), file=sys.stderr)  # noqa: T201  # the product's face
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does; that is no failure.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # so that closing it says nothing either
        return 0


def _invoke(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        if arguments[0] == "run":
            load_client_for(arguments)
        command = load(arguments[0])
        given = read(command, arguments[1:])
        if given is not None:
            command(**given)
            return 0
    from reqon.cli.app import invoke  # noqa: PLC0415  # typer costs 100 ms, for whoever wants something explained

    return invoke(arguments)


def _with_command(arguments: list[str]) -> list[str]:
    """`reqon PATH…` means `reqon run PATH…`. A path that shares its name with a command is written `./status`.

    Raises:
        ConfigurationError: the first word is neither, but nearly a command.
    """
    if not arguments or arguments[0] in COMMANDS or arguments[0] in ("--help", "-h"):
        return arguments
    _refuse_slip(arguments[0])
    return ["run", *arguments]


def _refuse_slip(word: str) -> None:
    from reqon.diagnostics import nearest  # noqa: PLC0415  # as above
    from reqon.errors import ConfigurationError  # noqa: PLC0415

    if word.startswith("-") or not word.replace("-", "").isalpha() or os.path.lexists(word):
        return
    if guess := nearest(word, sorted(COMMANDS)):
        raise ConfigurationError(
            f"'{word}' is no command, and no mission file or folder has this name",
            code="unknown-command",
            hint=f"did you mean `reqon {guess}`? Commands: {', '.join(sorted(COMMANDS))}",
        )
