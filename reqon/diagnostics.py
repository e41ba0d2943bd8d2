"""Findings in a text: where, what, what to do; and the form in which they are shown (spec/language.md 5)."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from reqon.secrets import SECRETS

Severity = Literal["error", "warning"]
_LONGEST = 8 * 1024  # characters of a message that are shown
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, eq=False)
class Source:
    """A text with the name it was read under: a path as the user gave it."""

    name: str
    text: str

    @cached_property
    def line_starts(self) -> list[int]:
        """The offset at which each line begins."""
        starts = [0]
        find = self.text.find
        at = find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = find("\n", at + 1)
        return starts

    @cached_property
    def is_ascii(self) -> bool:
        """Whether characters and UTF-8 bytes count the same."""
        return self.text.isascii()

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1; a tab is one column."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def offset(self, line: int, column: int) -> int:
        """The offset of a line and column, both from 1."""
        return min(self.line_starts[min(line, len(self.line_starts)) - 1] + column - 1, len(self.text))

    def line(self, number: int) -> str:
        """One line's text without its line break."""
        start = self.line_starts[number - 1]
        end = self.text.find("\n", start)
        return (self.text[start:] if end < 0 else self.text[start:end]).rstrip("\r")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` of a source, the end excluded."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.start)[1]

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def to(self, other: "Span") -> "Span":
        """From here to the end of another span of the same source."""
        return Span(self.source, self.start, other.end)

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.name}:{line}:{column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding. Tests and tools name the code, people read the rest."""

    code: str
    message: str
    span: Span | None = None
    hint: str | None = None
    severity: Severity = field(default="error", kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: severity, code, message, hint, file, line, column, endLine, endColumn."""
        found: dict[str, Any] = {"severity": self.severity, "code": self.code, "message": self.message}
        if self.hint:
            found["hint"] = self.hint
        if self.span:
            line, column = self.span.source.position(self.span.start)
            end_line, end_column = self.span.source.position(self.span.end)
            found |= {"file": self.span.source.name, "line": line, "column": column}
            found |= {"endLine": end_line, "endColumn": end_column}
        return found


def escape_controls(text: str) -> str:
    r"""Control characters, ESC and line breaks as `\x1b`: a line stays one line and moves no cursor."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def render(diagnostic: Diagnostic) -> str:
    """The printed form: place, severity, message, code; the line with its caret; the hint. No final newline.

    Secrets that stand on the line are masked; the caret is where its text then is. Messages and hints may quote what an
    API said: control characters in them are escaped.
    """
    message = diagnostic.message
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]}…"
    head = escape_controls(f"{diagnostic.severity}: {message} [{diagnostic.code}]")
    lines = [head]
    span = diagnostic.span
    if span is not None:
        lines = [f"{escape_controls(str(span))}: {head}"]
        line, column = span.source.position(span.start)
        text = span.source.line(line)
        before = SECRETS.redact_source(text[: column - 1])
        meant = SECRETS.redact_source(text[column - 1 :][: span.end - span.start])
        # A tab stays a tab under itself, so that the caret meets its column however wide tabs are shown.
        pad = "".join("\t" if c == "\t" else " " for c in before)
        # As wide as the caret thinks.
        shown = _CONTROL.sub(lambda m: m[0] if m[0] == "\t" else "\ufffd", SECRETS.redact_source(text))
        lines += [f"    {shown}", f"    {pad}{'^' * max(1, len(meant))}"]
    if diagnostic.hint:
        hint = escape_controls(diagnostic.hint)
        lines.append(f"hint: {hint}" if hint.endswith((".", "?", "}", "!", '"', "…")) else f"hint: {hint}.")
    return "\n".join(lines)


def render_all(diagnostics: Iterable[Diagnostic]) -> str:
    """All of them in order of file, line and column, a blank line between two."""
    return "\n\n".join(render(d) for d in sorted(diagnostics, key=_place))


def _place(diagnostic: Diagnostic) -> tuple[str, int, str]:
    span = diagnostic.span
    return (span.source.name, span.start, diagnostic.code) if span else ("", 0, diagnostic.code)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant: within two edits, and at most a third of the longer word."""
    best: tuple[int, str] | None = None
    letters, plain = set(word), _plain(word)
    for candidate in known:
        limit = min(2, max(len(word), len(candidate)) // 3)
        if abs(len(candidate) - len(word)) <= limit:
            if _plain(candidate) == plain:
                distance = 0
            elif len(letters ^ set(candidate)) <= 2 * limit:  # an edit changes two letters at most
                distance = _edits(word, candidate, limit)
            else:
                continue
            if distance <= limit and (best is None or (distance, candidate) < best):
                best = (distance, candidate)
    return best[1] if best else None


def _plain(word: str) -> str:
    """A word without what people mix up: case, and `retries` for `retry`."""
    lower = word.lower()
    return f"{lower[:-3]}y" if lower.endswith("ies") else lower


def did_you_mean(word: str, known: Sequence[str], label: str) -> str:
    """`did you mean 'pallets'? Declared stores: pallets, rejects.` or only its second half."""
    names = sorted(known)
    shown = ", ".join(names[:30]) or "none"
    guess = nearest(word, known)
    listing = f"{label}: {shown}." if len(names) <= 30 else f"{label}: {shown} and {len(names) - 30} more."
    return f"did you mean '{guess}'? {listing[0].upper()}{listing[1:]}" if guess else listing


def _edits(a: str, b: str, limit: int) -> int:
    """Edits between two words, a swap of neighbours being one; above `limit` some number above it."""
    previous: list[int] = []
    current = list(range(len(b) + 1))
    for i, ca in enumerate(a, 1):
        before, previous, current = previous, current, [i] + [0] * len(b)
        for j, cb in enumerate(b, 1):
            current[j] = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (ca != cb))
            if i > 1 and j > 1 and ca == b[j - 2] and a[i - 2] == cb:
                current[j] = min(current[j], before[j - 2] + 1)
        if min(current) > limit:
            return limit + 1
    return current[-1]
