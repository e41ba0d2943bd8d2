"""The typer application: explains every command, and answers usage errors. Right command lines need none of it."""

from collections.abc import Callable
from inspect import Parameter as Slot
from inspect import signature
from typing import Annotated, Any

import typer

from reqon.cli.commands import SECTIONS, load
from reqon.cli.exits import CONFIGURATION
from reqon.cli.help import Command, Commands
from reqon.cli.options import Argument, Parameter, parameters

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


def _as_typer_reads(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the same parameters, declared in typer's words."""

    def called(**given: Any) -> None:
        command(**given)

    form = signature(command)
    slots = [
        form.parameters[p.name].replace(annotation=_annotation(p, form.parameters[p.name])) for p in parameters(command)
    ]
    called.__signature__ = form.replace(parameters=[s.replace(kind=Slot.KEYWORD_ONLY) for s in slots])  # type: ignore[attr-defined]
    called.__annotations__ = {s.name: s.annotation for s in slots}
    called.__doc__ = command.__doc__
    return called


def _annotation(parameter: Parameter, slot: Slot) -> Any:
    kind = slot.annotation.__origin__
    written = parameter.written
    if isinstance(written, Argument):
        return Annotated[kind, typer.Argument(metavar=written.metavar, help=written.help, show_default=False)]
    return Annotated[
        kind,
        typer.Option(
            *written.flags,
            metavar=written.metavar,
            help=written.help,
            min=written.min,
            rich_help_panel=written.panel,
        ),
    ]


for section, commands in SECTIONS.items():
    for name in commands:
        app.command(name, cls=Command, rich_help_panel=section)(_as_typer_reads(load(name)))


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
