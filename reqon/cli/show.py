"""How things look: tables and colours on a terminal, plain text in a pipe, JSON for machines."""

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from reqon.cli.exits import LOST
from reqon.clock import SYSTEM
from reqon.diagnostics import Diagnostic, escape_controls, render_all
from reqon.observe.plain import line_safe
from reqon.secrets import SECRETS
from reqon.values import encode

_NARROWEST = 12  # a last column below this tells nothing
_PAIR = 2  # a table of fields and values: its values wrap
_STYLES = {"completed": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}


def out(text: str = "") -> None:
    """A line on stdout; it stays one line whatever an API or an item put into it."""
    block(escape_controls(text))


def block(text: str) -> None:
    """Text of our own on stdout, as it is. What stdout cannot take ends nothing: missions may still be running."""
    try:
        print(text)  # noqa: T201  # this is what the command line is for
    except OSError as error:
        LOST.append(error)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # for what follows


def err(text: str) -> None:
    """A line on stderr, likewise, if anybody can read it."""
    rendered(escape_controls(text))


def rendered(text: str) -> None:
    """What is printed already, such as `error.format()`, on stderr as it is."""
    with suppress(OSError):
        print(text, file=sys.stderr)  # noqa: T201  # as above


def warning(sentence: str) -> None:
    """`warning: …` on stderr, likewise."""
    err(f"warning: {sentence}")


def as_json(value: Any) -> None:
    """A value on stdout, pretty-printed."""
    block(line_safe(encode(value, pretty=True).decode()))


def as_json_line(value: Any) -> None:
    """A value on stdout, in one line."""
    block(line_safe(encode(value).decode()))


def findings(diagnostics: Iterable[Diagnostic], *, quiet: bool = False) -> None:
    """Diagnostics on stderr, in their printed form; with `quiet` only errors."""
    shown = [d for d in diagnostics if not quiet or d.severity == "error"]
    if shown:
        rendered(render_all(shown))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, status_column: int | None = None) -> None:
    """Rows under headings: aligned columns everywhere, colours on a terminal."""
    rows = [[escape_controls(SECRETS.redact(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, rows, status_column)
        return
    widths = [max(len(row[i]) for row in [list(columns), *rows]) for i in range(len(columns))]
    for row in [list(columns), *rows]:
        out("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], status_column: int | None) -> None:
    from rich.console import Console  # noqa: PLC0415  # 40 ms that a pipe need not pay
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    # All but the last column stand as they are: an id that was cut could not be copied. The last takes what is left.
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns) - 1)]
    fixed = sum(widths) + 2 * len(widths)
    room = console.width - fixed
    shown = len(columns) if room >= _NARROWEST or len(columns) == _PAIR else len(columns) - 1
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns[:shown]):
        last = number == len(columns) - 1
        drawn.add_column(
            column,
            min_width=None if last else widths[number],
            no_wrap=not last or len(columns) > _PAIR,
            overflow="ellipsis" if last else "ignore",
        )
    for row in rows:
        cells = [Text(cell) for cell in row[:shown]]
        if status_column is not None:
            cells[status_column].stylize(_STYLES.get(row[status_column], ""))
        drawn.add_row(*cells)
    if shown < len(columns):
        console = Console(width=max(console.width, fixed))
    console.print(drawn, crop=False)


def moment(instant: datetime | None) -> str:
    """A time as people read it: relative on a terminal, RFC 3339 to the second in a pipe."""
    if instant is None:
        return "-"
    if not sys.stdout.isatty():
        return instant.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{ago(SYSTEM.now() - instant)} ago"


def ago(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def length(milliseconds: int | None) -> str:
    """A duration: `0.42 s`, `3 min 5 s`."""
    if milliseconds is None:
        return "-"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
