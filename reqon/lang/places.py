"""The mission's positions on Python's syntax trees, and the way back from a traceback."""

import ast
from itertools import islice
from types import TracebackType

from reqon.diagnostics import Source, Span
from reqon.lang import tree
from reqon.lang.scope import SOURCE

_Place = tuple[int, int, int, int]
_START: _Place = (1, 0, 1, 0)
# Fields of Python's nodes that hold no node with a place.
_PLAIN_FIELDS = frozenset(("arg", "attr", "conversion", "ctx", "id", "kind", "name", "op", "ops", "type_comment"))


class Positions:
    """Puts spans on trees. Python counts columns in UTF-8 bytes from 0, missions in characters from 1."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], _Place] = {}

    def put(self, made: ast.AST, span: Span) -> None:
        """Place a tree that has no place yet. Of what is below it, `complete` places there what has none of its own."""
        if "lineno" not in made.__dict__ and type(made) not in tree.LEAVES:
            made.lineno, made.col_offset, made.end_lineno, made.end_col_offset = self._place(span)  # type: ignore[attr-defined]

    def _place(self, span: Span) -> _Place:
        key = (id(span.source), span.start, span.end)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = place_of_span(span)
        return known


def complete(made: ast.AST) -> None:
    """Place what has no place where the node around it is. Leaves are left alone: nothing is raised there."""
    stack: list[tuple[ast.AST, _Place]] = [(made, _START)]
    pop, push = stack.pop, stack.append
    while stack:
        node, place = pop()
        own = node.__dict__
        if "lineno" in own:
            line, column = own["lineno"], own["col_offset"]
            place = line, column, own.get("end_lineno") or line, own.get("end_col_offset") or column
        # Nodes that take no place, such as a function's list of parameters, may carry one all the same.
        own["lineno"], own["col_offset"], own["end_lineno"], own["end_col_offset"] = place
        for name in _NODE_FIELDS[type(node)]:
            value = own.get(name)
            if type(value) is list:
                for item in value:
                    if item is not None and type(item) not in tree.LEAVES:
                        push((item, place))
            elif value is not None and type(value) not in tree.LEAVES:
                push((value, place))


class _NodeFields(dict[type[ast.AST], tuple[str, ...]]):
    """The fields of a kind of node that hold nodes with places."""

    def __missing__(self, kind: type[ast.AST]) -> tuple[str, ...]:
        names = () if kind is ast.Constant else tuple(n for n in kind._fields if n not in _PLAIN_FIELDS)
        self[kind] = names
        return names


_NODE_FIELDS = _NodeFields()


def place_of_span(span: Span) -> _Place:
    """A span as Python's syntax trees have it: line and column of its start, line and column of its end."""
    return (*_bytes_at(span.source, span.start), *_bytes_at(span.source, span.end))


def _bytes_at(source: Source, offset: int) -> tuple[int, int]:
    line, column = source.position(offset)
    if source.is_ascii:
        return line, column - 1
    start = source.line_starts[line - 1]
    return line, len(source.text[start : start + column - 1].encode("utf-8", "surrogatepass"))


def place_of(error: BaseException) -> Span | None:
    """Where in a mission an error was raised: the innermost expression of its traceback. None if there is none."""
    place: tuple[Source, TracebackType] | None = None
    traceback = error.__traceback__
    while traceback is not None:
        source = traceback.tb_frame.f_globals.get(SOURCE)
        if isinstance(source, Source) and traceback.tb_frame.f_code.co_filename == source.name:
            place = source, traceback
        traceback = traceback.tb_next
    return _span(*place) if place else None


def _span(source: Source, traceback: TracebackType) -> Span | None:
    positions = traceback.tb_frame.f_code.co_positions()
    found = next(islice(positions, traceback.tb_lasti // 2, None), (None,) * 4)
    line, end_line, column, end_column = found
    if line is None or line > len(source.line_starts):
        return None
    if end_line is None or column is None or end_column is None:
        start = source.line_starts[line - 1]
        return Span(source, start, start + len(source.line(line)))
    return Span(source, _offset(source, line, column), _offset(source, end_line, end_column))


def _offset(source: Source, line: int, column: int) -> int:
    start = source.line_starts[line - 1]
    text = source.line(line).encode("utf-8", "surrogatepass")[:column]
    return min(start + len(text.decode("utf-8", "replace")), len(source.text))
