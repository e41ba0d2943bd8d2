"""The typer application: every command with its options, and how usage errors are answered."""

from collections.abc import Callable
from typing import Any

import typer

from reqon.cli.check import check
from reqon.cli.cleanup import cleanup
from reqon.cli.control import alert_trial, cancel, config, pause, reload, trigger, unpause, why
from reqon.cli.exits import CONFIGURATION
from reqon.cli.fmt import fmt
from reqon.cli.help import Command, Commands
from reqon.cli.look import history, logs, status
from reqon.cli.run import run

_HELP = """Keep your own copy of other people's data right.

\b
  reqon PATH...            run every mission found, now
  reqon PATH... --daemon   run them on their schedules
  reqon check PATH...      find every mistake, run nothing

`reqon COMMAND --help` tells the options of each command.
"""

app = typer.Typer(
    name="reqon",
    cls=Commands,
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_SECTIONS: dict[str, dict[str, Callable[..., None]]] = {
    "Missions": {"run": run, "check": check, "fmt": fmt},
    "What ran": {"status": status, "history": history, "logs": logs, "cleanup": cleanup},
    "The running daemon": {
        "trigger": trigger,
        "pause": pause,
        "unpause": unpause,
        "cancel": cancel,
        "reload": reload,
        "why": why,
    },
    "Set-up": {"config": config, "test-alert": alert_trial},
}
for section, commands in _SECTIONS.items():
    for name, command in commands.items():
        app.command(name, cls=Command, rich_help_panel=section)(command)


def invoke(arguments: list[str]) -> int:
    """Run a command; the exit code. What typer itself refuses is a usage error: 3."""
    try:
        app(args=arguments, prog_name="reqon", standalone_mode=True)
    except SystemExit as over:
        return _code(over.code)
    return 0


def _code(code: Any) -> int:
    if code is None or code == 0:
        return 0
    return code if isinstance(code, int) and code > 2 else CONFIGURATION
