"""Python statements from templates: how steps become functions.

A template is Python text in which names in CAPITALS are holes. `Code.add` fills the holes with expressions, statements
or local names and gives every node the place of the mission's step, so that a traceback through generated code shows
the mission's own line.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

from reqon.lang import tree
from reqon.lang.compiler import Unit
from reqon.lang.nodes import Node
from reqon.lang.places import complete, place_of_span

Hole: TypeAlias = "ast.expr | str | Sequence[ast.stmt] | None"


# What a template's node becomes once its holes are known.
_Builder = Callable[[Mapping[str, Hole]], Any]


@cache
def _template(text: str, holes: frozenset[str]) -> Callable[[Mapping[str, Hole]], list[ast.stmt]]:
    """What makes copies of a template: parsed once, and once found out where its holes are."""
    return _Template(holes).statements(ast.parse(text).body)


class _Template:
    """Turns a template's nodes into functions that copy them, the holes filled. Copies have no places yet."""

    def __init__(self, holes: frozenset[str]) -> None:
        self._holes = holes

    def statements(self, body: Sequence[ast.stmt]) -> Callable[[Mapping[str, Hole]], list[ast.stmt]]:
        builders = [self._statement(statement) for statement in body]

        def build(holes: Mapping[str, Hole]) -> list[ast.stmt]:
            made: list[ast.stmt] = []
            for builder in builders:
                made += builder(holes)
            return made

        return build

    def _statement(self, statement: ast.stmt) -> Callable[[Mapping[str, Hole]], Sequence[ast.stmt]]:
        copy = self._node(statement)
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Name)):
            return lambda holes: (copy(holes),)
        hole = statement.value.id

        def build(holes: Mapping[str, Hole]) -> Sequence[ast.stmt]:
            filling = holes.get(hole)
            return filling if isinstance(filling, list | tuple) else (copy(holes),)

        return build

    def _node(self, node: ast.AST) -> _Builder:
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Constant):
            return _always(tree.constant(node.value))
        kind = type(node)
        fixed: list[Any] = []
        varying: list[tuple[int, _Builder]] = []
        for number, name in enumerate(kind._fields):
            value = getattr(node, name, None)
            builder = self._text(node, value) if name in ("name", "arg") else self._field(value)
            fixed.append(value)
            if builder is not None:
                varying.append((number, builder))

        def build(holes: Mapping[str, Hole]) -> ast.AST:
            values = fixed.copy()
            for number, builder in varying:
                values[number] = builder(holes)
            return kind(*values)

        return build

    def _name(self, node: ast.Name) -> _Builder:
        word, context = node.id, node.ctx
        if word not in self._holes:
            return _always(tree.Name(word, context))

        def build(holes: Mapping[str, Hole]) -> ast.expr:
            filling = holes[word]
            if isinstance(filling, str):
                return tree.Name(filling, context)
            assert isinstance(filling, ast.expr), word
            return filling

        return build

    def _text(self, node: ast.AST, word: str | None) -> _Builder | None:
        """A parameter's or function's name may be a hole too; a keyword of a call is none."""
        if word not in self._holes or isinstance(node, ast.keyword):
            return None
        return lambda holes: filling if isinstance(filling := holes[word], str) else word

    def _field(self, value: object) -> _Builder | None:
        if isinstance(value, ast.AST):
            return self._node(value) if value._fields else None
        if not isinstance(value, list):
            return None
        if value and isinstance(value[0], ast.stmt):
            return self.statements(value)
        builders = [self._node(item) if isinstance(item, ast.AST) else _always(item) for item in value]
        return lambda holes: [builder(holes) for builder in builders]


def _always(value: object) -> _Builder:
    return lambda _: value


def _filled(template: str, node: Node, holes: Mapping[str, Hole]) -> list[ast.stmt]:
    """A template's statements at the place of a node; `complete` gives it to what is in them."""
    made = _template(template, frozenset(holes))(holes)
    line, column, end_line, end_column = place_of_span(node.span)
    for statement in made:
        if "lineno" not in statement.__dict__:
            statement.lineno, statement.col_offset = line, column
            statement.end_lineno, statement.end_col_offset = end_line, end_column
    return made


class Code:
    """A list of statements being written for one generated function."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.statements: list[ast.stmt] = []

    def add(self, template: str, node: Node, **holes: Hole) -> None:
        """Append a template at the place of a node."""
        self.statements += _filled(template, node, holes)

    def child(self) -> "Code":
        """An empty list for a nested block of the same function."""
        return Code(self.unit)

    def body(self) -> list[ast.stmt]:
        """The statements; a `pass` if there are none."""
        return self.statements or [ast.Pass(lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)]


def expression(template: str, node: Node, **holes: Hole) -> ast.expr:
    """One expression from a template, at the place of a node."""
    (statement,) = _filled(template, node, holes)
    assert isinstance(statement, ast.Expr)
    value = statement.value
    if type(value) not in tree.LEAVES and "lineno" not in value.__dict__:
        ast.copy_location(value, statement)
    return value


def load(name: str) -> ast.expr:
    """A local name, read."""
    return tree.name(name)


def constant(value: object) -> ast.expr:
    """A literal."""
    return tree.constant(value)


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
