"""How a command line is written and read: options and arguments as the commands declare them.

A command is a function whose parameters are `Annotated[type, Option(…)]` or `Annotated[type, Argument(…)]`. Two read
them: `read` here, for the command lines that are right, and typer (`reqon.cli.app`), which explains the rest and writes
`--help`. So nobody who only wants to run a mission pays for typer, and nothing is declared twice.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin

Command = Callable[..., None]
_READERS: dict[Any, Callable[[str], Any]] = {str: str, int: int, Path: Path}


class Option:
    """An option: its flags, and what `--help` says of it. A `bool` is a switch, a `list` may be given repeatedly."""

    __slots__ = ("flags", "help", "metavar", "min", "panel")

    def __init__(
        self,
        *flags: str,
        metavar: str | None = None,
        help: str = "",  # noqa: A002  # as typer calls it
        min: int | None = None,  # noqa: A002
        panel: str | None = None,
    ) -> None:
        self.flags, self.metavar, self.help, self.min, self.panel = flags, metavar, help, min, panel


class Argument:
    """A word that belongs to no option; a `list` takes all of them."""

    __slots__ = ("help", "metavar")

    def __init__(self, *, metavar: str, help: str = "") -> None:  # noqa: A002
        self.metavar, self.help = metavar, help


class Parameter(NamedTuple):
    """One parameter of a command. `kind` is bool, str, int or Path; `many` if it is a list of these."""

    name: str
    kind: Any
    many: bool
    optional: bool
    written: Option | Argument

    def value(self, word: str) -> Any:
        """What a word means.

        Raises:
            ValueError: it is no such value.
        """
        value = _READERS[self.kind](word)
        if isinstance(self.written, Option) and self.written.min is not None and value < self.written.min:
            raise ValueError(word)
        return value


def parameters(command: Command) -> list[Parameter]:
    """The parameters of a command, in the order of its signature."""
    defaults = len(command.__defaults__ or ())
    annotations = [(n, a) for n, a in command.__annotations__.items() if n != "return"]
    required = len(annotations) - defaults
    return [_parameter(name, annotation, optional=i >= required) for i, (name, annotation) in enumerate(annotations)]


def _parameter(name: str, annotation: Any, *, optional: bool) -> Parameter:
    kind, written = get_args(annotation)
    kinds = [k for k in get_args(kind) if k is not NoneType] if NoneType in get_args(kind) else [kind]
    many = get_origin(kinds[0]) is list
    return Parameter(name, get_args(kinds[0])[0] if many else kinds[0], many, optional, written)


def read(command: Command, words: Sequence[str]) -> dict[str, Any] | None:
    """What the command is to be called with; None: there is something to explain, which is typer's business."""
    known = parameters(command)
    options = {flag: p for p in known if isinstance(p.written, Option) for flag in p.written.flags}
    arguments = [p for p in known if isinstance(p.written, Argument)]
    given: dict[str, Any] = {}
    left = iter(words)
    try:
        for word in left:
            if not word.startswith("-"):
                _add(given, next(p for p in arguments if p.many or p.name not in given), word)
                continue
            flag, equals, text = word.partition("=")
            option = options[flag]
            if option.kind is not bool:
                _add(given, option, text if equals else _value(next(left)))
            elif equals or given.setdefault(option.name, True) is not True:
                return None
    except (KeyError, StopIteration, ValueError):
        return None
    return given if all(p.optional or p.name in given for p in known) else None


def _value(word: str) -> str:
    if word.startswith("-"):
        raise ValueError(word)
    return word


def _add(given: dict[str, Any], parameter: Parameter, word: str) -> None:
    value = parameter.value(word)
    if parameter.many:
        given.setdefault(parameter.name, []).append(value)
    else:
        given[parameter.name] = value
