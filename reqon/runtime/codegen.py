"""Python statements from templates: how steps become functions.

A template is Python text in which names in CAPITALS are holes. `Code.add` fills the holes with expressions, statements
or local names and gives every node the place of the mission's step, so that a traceback through generated code shows
the mission's own line.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from reqon.diagnostics import Span
from reqon.lang.compiler import Unit
from reqon.lang.nodes import Node
from reqon.lang.places import complete

Hole: TypeAlias = "ast.expr | str | Sequence[ast.stmt] | None"


@cache
def _parsed(template: str) -> tuple[ast.stmt, ...]:
    return tuple(ast.parse(template).body)


class _Stamp:
    """Copies a template, its holes filled, every node at one place."""

    def __init__(self, holes: Mapping[str, Hole], place: Mapping[str, int]) -> None:
        self._holes = holes
        self._place = place

    def statements(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for statement in body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Name):
                filling = self._holes.get(statement.value.id)
                if isinstance(filling, list | tuple):
                    out.extend(filling)
                    continue
            copied = self.node(statement)
            assert isinstance(copied, ast.stmt)
            out.append(copied)
        return out

    def node(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Name) and node.id in self._holes:
            filling = self._holes[node.id]
            if isinstance(filling, str):
                return ast.Name(filling, node.ctx, **self._place)
            assert isinstance(filling, ast.expr), node.id
            return filling
        kind = type(node)
        if isinstance(node, ast.arg) and isinstance(renamed := self._holes.get(node.arg), str):
            return ast.copy_location(ast.arg(renamed), ast.Pass(**self._place))
        values = [self._field(getattr(node, name, None)) for name in kind._fields]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and isinstance(self._holes.get(node.name), str):
            values[0] = self._holes[node.name]
        # Contexts and operators have no place; from Python 3.13 on they refuse one.
        return kind(*values, **self._place) if kind._attributes else kind(*values)  # noqa: SLF001  # documented so

    def _field(self, value: object) -> object:
        if isinstance(value, ast.AST):
            return self.node(value)
        if isinstance(value, list):
            if value and isinstance(value[0], ast.stmt):
                return self.statements(value)
            return [self._field(v) for v in value]
        return value


def place_of_span(span: Span) -> dict[str, int]:
    """A span as the position fields of Python's syntax tree (columns count UTF-8 bytes from 0)."""
    source = span.source
    line, column = source.position(span.start)
    end_line, end_column = source.position(span.end)
    start_of_line = source.line_starts[line - 1]
    start_of_end = source.line_starts[end_line - 1]
    text = source.text
    return {
        "lineno": line,
        "col_offset": len(text[start_of_line : start_of_line + column - 1].encode()),
        "end_lineno": end_line,
        "end_col_offset": len(text[start_of_end : start_of_end + end_column - 1].encode()),
    }


class Code:
    """A list of statements being written for one generated function."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.statements: list[ast.stmt] = []

    def add(self, template: str, node: Node, **holes: Hole) -> None:
        """Append a template at the place of a node."""
        stamp = _Stamp(holes, place_of_span(node.span))
        self.statements += stamp.statements(_parsed(template))

    def child(self) -> "Code":
        """An empty list for a nested block of the same function."""
        return Code(self.unit)

    def body(self) -> list[ast.stmt]:
        """The statements; a `pass` if there are none."""
        return self.statements or [ast.Pass(lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)]


def expression(template: str, node: Node, **holes: Hole) -> ast.expr:
    """One expression from a template, at the place of a node."""
    stamp = _Stamp(holes, place_of_span(node.span))
    (statement,) = stamp.statements(_parsed(template))
    assert isinstance(statement, ast.Expr)
    return statement.value


def load(name: str) -> ast.expr:
    """A local name, read."""
    return ast.Name(name, ast.Load(), lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)


def constant(value: object) -> ast.expr:
    """A literal."""
    return ast.Constant(value, lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)  # type: ignore[arg-type]


def define(unit: Unit, definitions: Sequence[ast.stmt], names: Sequence[str]) -> list[Callable[..., Any]]:
    """Compile function definitions of one unit; the functions, in the order of their names."""
    module = ast.Module(list(definitions), [])
    complete(module)
    exec(compile(module, unit.source.name, "exec"), unit.globals)  # noqa: S102  # built from nodes, nothing to inject
    return [unit.globals[name] for name in names]  # type: ignore[misc]


def function_of(unit: Unit, parameters: str, value: ast.expr, node: Node) -> Callable[..., Any]:
    """A function of one expression."""
    made = ast.Expression(expression(f"lambda {parameters}: VALUE", node, VALUE=value))
    complete(made)
    function: Callable[..., Any] = eval(compile(made, unit.source.name, "eval"), unit.globals)  # noqa: S307  # as above
    return function
