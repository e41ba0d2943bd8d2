"""How `--help` reads: options and commands in sections, whole sentences, plain text within the terminal's width."""

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose arguments are shown as they are written, and whose options stand under their panel's name."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        # `run` is what `reqon` does when no command is named.
        path = "reqon" if self.name == "run" else ctx.command_path
        arguments = [_name(p) for p in self.get_params(ctx) if p.param_type_name == "argument"]
        formatter.write_usage(path, " ".join([*arguments, "[OPTIONS]"]))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                sections["Arguments"].append((_name(parameter), getattr(parameter, "help", "") or ""))
            elif (row := parameter.get_help_record(ctx)) is not None:
                panel = getattr(parameter, "rich_help_panel", None) or "Options"
                sections.setdefault(panel, []).append(row)
        _write(formatter, sections)


class Commands(TyperGroup):
    """A group whose commands stand under their panel's name, each with its first sentence."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage(ctx.command_path, "PATH... | COMMAND [OPTIONS]")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None) or "Commands"
                sections.setdefault(panel, []).append((name, _first_sentence(command.help or "")))
        _write(formatter, sections)


def _write(formatter: Any, sections: "dict[str, list[tuple[str, str]]]") -> None:
    width = max((len(name) for rows in sections.values() for name, _ in rows), default=0)
    for title, rows in sections.items():
        if not rows:
            continue
        with formatter.section(title):
            # One column for all sections: the first row of each is as wide as the widest of all.
            formatter.write_dl(list(_padded(rows, width)))


def _padded(rows: Iterable[tuple[str, str]], width: int) -> Iterable[tuple[str, str]]:
    return ((name.ljust(width), text) for name, text in rows)


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _first_sentence(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line.partition(". ")[0].rstrip(".")
