"""`{expression}` in the string literal of a path: the parts a path is made of (spec/language.md 1.6, 7.2)."""

from collections.abc import Iterator
from dataclasses import dataclass

from reqon.diagnostics import Diagnostic, Span
from reqon.lang import nodes
from reqon.lang.parser import parse_expression


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `{expression}`: its text and its tree, None where it does not parse."""

    text: str
    expression: nodes.Expression | None


def split(literal: nodes.Literal_) -> tuple[list[str | Placeholder], list[Diagnostic]]:
    """A path literal as texts and placeholders, and what is wrong with them. `{{` and `}}` are plain braces."""
    parts: list[str | Placeholder] = []
    findings: list[Diagnostic] = []
    text = ""
    for kind, start, end in _pieces(literal.value):
        if kind == "text":
            text += literal.value[start:end]
            continue
        if kind == "open":
            findings.append(
                Diagnostic("syntax", "'{' in a path is not closed", _span(literal, start, end), "write {{ for a brace")
            )
            continue
        if text:
            parts.append(text)
            text = ""
        inner = literal.value[start:end]
        place = _span(literal, start, end)
        tree, problems = parse_expression(place.source, start=place.start, end=place.end)
        findings += problems
        parts.append(Placeholder(inner.strip(), tree))
    if text or not parts:
        parts.append(text)
    return parts, findings


def _span(literal: nodes.Literal_, start: int, end: int) -> Span:
    """The place of characters of the value. A literal with escapes has other lengths: then the whole literal."""
    span = literal.span
    if span.end - span.start == len(literal.value) + 2:
        return Span(span.source, span.start + 1 + start, span.start + 1 + end)
    written = span.source.text.find(literal.value[start:end], span.start, span.end)
    return Span(span.source, written, written + end - start) if written >= 0 else span


def _pieces(text: str) -> Iterator[tuple[str, int, int]]:
    """(kind, start, end) of each text and expression; braces inside an expression are matched, strings skipped."""
    at = begin = 0
    while at < len(text):
        pair = text[at : at + 2]
        if pair in ("{{", "}}"):
            yield "text", begin, at + 1
            at = begin = at + 2
        elif text[at] == "{":
            if begin < at:
                yield "text", begin, at
            end = _closing(text, at + 1)
            if end < 0:
                yield "open", at, len(text)
                return
            yield "expression", at + 1, end
            at = begin = end + 1
        else:
            at += 1
    if begin < at:
        yield "text", begin, at


def _closing(text: str, at: int) -> int:
    depth = 0
    quote = ""
    while at < len(text):
        character = text[at]
        if quote:
            if character == "\\":
                at += 1
            elif character == quote:
                quote = ""
        elif character in "\"'":
            quote = character
        elif character == "{":
            depth += 1
        elif character == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    return -1
