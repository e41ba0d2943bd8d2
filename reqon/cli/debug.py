"""`--debug`: one step at a time, on a terminal, with the mission's own lines (spec/daemon.md 1)."""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

from reqon.diagnostics import Span, escape_controls
from reqon.lang.operators import PagedResult, StoreHandle
from reqon.runtime.debugging import Stop
from reqon.secrets import SECRETS
from reqon.values import Value, encode

_PROMPT = "[s]tep  [i]nto  [o]ver  [c]ontinue  [v]ariables  [q]uit > "
_COMMANDS = ("step", "into", "over", "continue", "variables", "quit")
_HELP = """  step       stop at the next step; actions that it calls run through
  into       stop at the next step, in called actions too
  over       stop at the next step of this list; loops, arms and called actions run through
  continue   run to the end
  variables  show response and what is bound here; `variables NAME` shows all of one
  quit       end the run; what it did is saved, and --resume goes on
  An empty line repeats the last command."""
_SHORT, _LINES_AROUND = 100, 2


class TerminalDebugger:
    """Asks a person before each step. `on_quit` is told before the run is cancelled."""

    def __init__(self, on_quit: Callable[[], None], *, read: TextIO | None = None, write: TextIO | None = None) -> None:
        self._on_quit = on_quit
        self._read, self._write = read or sys.stdin, write or sys.stderr
        self._last = "step"
        self._wanted: Callable[[Stop], bool] = lambda _: True

    def before(self, stop: Stop) -> None:
        """Show the step and ask, if this is one to stop at."""
        if not self._wanted(stop):
            return
        self._show(stop)
        while not self._obey(self._ask(), stop):
            pass

    def _ask(self) -> str:
        self._write.write(_PROMPT)
        self._write.flush()
        # The event loop waits for us: nobody else can see a Ctrl+C now. The loop hears of it as soon as it runs again.
        known = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            line = self._read.readline()
        except KeyboardInterrupt:
            return "continue"
        finally:
            signal.signal(signal.SIGINT, known)
        if not line:  # nobody is there any more
            self._say("")
            return "continue"
        return line.strip() or self._last

    def _obey(self, line: str, stop: Stop) -> bool:
        """Do what was typed; whether the step may run now."""
        word, _, rest = line.partition(" ")
        command = next((c for c in _COMMANDS if word and c.startswith(word.lower())), None)
        calls, nesting = stop.depth
        match command:
            case "step":
                self._wanted = lambda other: other.depth[0] <= calls
            case "into":
                self._wanted = lambda _: True
            case "over":
                self._wanted = lambda other: other.depth <= (calls, nesting)
            case "continue":
                self._wanted = lambda _: False
            case "variables":
                self._variables(stop, rest.strip())
            case "quit":
                self._on_quit()
                raise asyncio.CancelledError
            case _:
                self._say(_HELP)
        if command in ("step", "into", "over"):
            self._last = command
        return command in ("step", "into", "over", "continue")

    def _say(self, text: str) -> None:
        lines = SECRETS.redact(text).expandtabs(4).split("\n")
        self._write.write("\n".join(map(escape_controls, lines)) + "\n")

    def _show(self, stop: Stop) -> None:
        where = f"{stop.step.span} in {stop.action}"
        if stop.round is not None:
            where += f", round {stop.round + 1}"
        self._say("\n" + where + "\n" + _excerpt(stop.step.span))

    def _variables(self, stop: Stop, name: str) -> None:
        known: Mapping[str, Value] = {"response": stop.response, **stop.variables()}
        if name:
            self._say(
                f"  {name} = {_text(known[name])}" if name in known else f"  nothing named '{name}' is bound here"
            )
            return
        width = max(map(len, known))
        for key, value in known.items():
            text = _text(value)
            self._say(f"  {key.ljust(width)} = {text if len(text) <= _SHORT else text[: _SHORT - 1] + '…'}")


def _excerpt(span: Span) -> str:
    """The lines around a step, the step itself marked."""
    source, line = span.source, span.line
    first, last = max(1, line - _LINES_AROUND), min(len(source.line_starts), line + _LINES_AROUND)
    width = len(str(last))
    shown: list[str] = []
    for number in range(first, last + 1):
        text = source.line(number)
        shown.append(f"  {number:>{width}} | {text}")
        if number == line:
            marked = min(span.end - span.start, len(text) - span.column + 1)
            shown.append(f"  {' ' * width} | {' ' * (span.column - 1)}{'^' * max(1, marked)}")
    return "\n".join(shown)


def _text(value: Value) -> str:
    if isinstance(value, StoreHandle):
        return f"a store of {value.store.count()} records"
    if isinstance(value, PagedResult):
        return f"{len(value.items_)} items of all pages, and {encode(value).decode()}"
    return encode(value).decode()
