"""Expressions inside strings: placeholders of a path, and texts that are an expression (spec/language.md 1.6, 7.2)."""

from collections.abc import Callable
from typing import TypeAlias

from reqon.diagnostics import Diagnostic, Source, Span
from reqon.lang.cursor import Abandoned, Mismatch
from reqon.lang.expressions import ExpressionParser
from reqon.lang.lexer import END, lex
from reqon.lang.nodes import Expression, Literal_

Template: TypeAlias = tuple[str | Expression, ...]


def has_placeholders(text: str) -> bool:
    """Whether a path literal is more than its own text."""
    return "{" in text or "}}" in text


def read_template(literal: Literal_) -> tuple[Template, list[Diagnostic]]:
    """The texts and placeholder expressions of a path literal, in order, and what is wrong with them.

    `{{` and `}}` are braces. Expressions have their true places, unless the literal has escapes before them.
    """
    text: str = literal.value
    if not has_placeholders(text):
        return (text,), []
    source, start = _inside(literal)
    parts: list[str | Expression] = []
    found: list[Diagnostic] = []
    plain = ""
    at = 0
    while at < len(text):
        char = text[at]
        if char in "{}" and text[at : at + 2] == char * 2:
            plain += char
            at += 2
        elif char == "{":
            close = _closing(text, at + 1)
            if close < 0:
                span = Span(source, start + at, start + at + 1)
                hint = "close it with '}', or write '{{' for a brace"
                found.append(Diagnostic("syntax", "placeholder is not closed in this string", span, hint))
                break
            if plain:
                parts.append(plain)
                plain = ""
            expression = _read(source, start + at + 1, start + close, found)
            if expression is not None:
                parts.append(expression)
            at = close + 1
        else:
            plain += char
            at += 1
    if plain:
        parts.append(plain)
    return tuple(parts), found


def read_text(literal: Literal_) -> tuple[Expression | None, list[Diagnostic]]:
    """The expression that a text is (a cursor path, `updateFrom`), and what is wrong with it."""
    source, start = _inside(literal)
    found: list[Diagnostic] = []
    return _read(source, start, start + len(literal.value), found), found


def _read(source: Source, start: int, end: int, found: list[Diagnostic]) -> Expression | None:
    span = Span(source, start, max(end, start + 1))
    if not source.text[start:end].strip():
        found.append(Diagnostic("syntax", "there is no expression here", span))
        return None
    parser = ExpressionParser(source, lex(source, start, end))
    expression = _attempt(parser.expression)
    if expression is not None and parser.kind != END:
        parser.report(
            "syntax", f"expected the end of the expression, found {parser.found()}", parser.span_of(parser.token)
        )
    found += parser.diagnostics
    return None if parser.diagnostics else expression


def _attempt(read: Callable[[], Expression]) -> Expression | None:
    try:
        return read()
    except (Mismatch, Abandoned):
        return None


def _inside(literal: Literal_) -> tuple[Source, int]:
    """A source in which the text of a literal stands without escapes, and where it begins there."""
    span = literal.span
    source, value = span.source, literal.value
    if span.text[1:-1] == value:
        return source, span.start + 1
    # With escapes the text is laid over what is written: positions up to the literal stay, and so does its line.
    padded = value.replace("\n", " ").ljust(span.end - span.start - 2)
    return Source(source.name, source.text[: span.start + 1] + padded + source.text[span.end - 1 :]), span.start + 1


def _closing(text: str, at: int) -> int:
    """Where the placeholder that begins at `at` ends, -1 if it does not; braces and strings inside it count."""
    depth, quote = 0, ""
    while at < len(text):
        char = text[at]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    return -1
