"""Python syntax built by hand: short names for the nodes that generated expressions are made of."""

import ast
from typing import Any

_LOAD = ast.Load()
_STORE = ast.Store()
_SCALARS = (str, bool, int, float, type(None))
_COMPARISONS: dict[str, ast.cmpop] = {
    "==": ast.Eq(),
    "!=": ast.NotEq(),
    "<": ast.Lt(),
    "<=": ast.LtE(),
    ">": ast.Gt(),
    ">=": ast.GtE(),
    "is": ast.Is(),
    "is not": ast.IsNot(),
    "in": ast.In(),
    "not in": ast.NotIn(),
}


class Name(ast.Name):
    """A name somewhere: reading or binding a local or global of generated code never fails, so no place is needed."""

    lineno, col_offset, end_lineno, end_col_offset = 1, 0, 1, 0


class Constant(ast.Constant):
    """A literal somewhere."""

    lineno, col_offset, end_lineno, end_col_offset = 1, 0, 1, 0


# Nodes that need no place of their own. They may stand in several trees.
LEAVES = frozenset((Name, Constant))


def name(identifier: str) -> ast.Name:
    return Name(identifier, _LOAD)


def constant(value: Any) -> ast.Constant:
    return Constant(value)


def is_scalar(value: Any) -> bool:
    """Whether Python code can hold the value as a constant."""
    return type(value) in _SCALARS


def call(function: ast.expr | str, *arguments: ast.expr) -> ast.Call:
    target = name(function) if isinstance(function, str) else function
    return ast.Call(func=target, args=list(arguments), keywords=[])


def method(target: ast.expr, word: str, *arguments: ast.expr) -> ast.Call:
    return call(ast.Attribute(value=target, attr=word, ctx=_LOAD), *arguments)


def named(identifier: str, value: ast.expr) -> ast.NamedExpr:
    return ast.NamedExpr(Name(identifier, _STORE), value)


def choose(test: ast.expr, then: ast.expr, otherwise: ast.expr) -> ast.expr:
    return ast.IfExp(test=test, body=then, orelse=otherwise)


def compare(left: ast.expr, *rest: ast.expr | str) -> ast.Compare:
    """`compare(a, "<", b, "<=", c)`."""
    operators = [_COMPARISONS[word] for word in rest[::2] if isinstance(word, str)]
    operands = [operand for operand in rest[1::2] if isinstance(operand, ast.expr)]
    return ast.Compare(left=left, ops=operators, comparators=operands)


def type_is(value: ast.expr, *types: str, again: ast.expr | None = None) -> ast.expr:
    """Whether the value's type is one of these; `again` reads the value a second time."""
    tests: list[ast.expr] = [compare(call("type", value), "is", name(types[0]))]
    if again is not None:
        tests += [compare(call("type", again), "is", name(word)) for word in types[1:]]
    return either(*tests)


def both(*tests: ast.expr) -> ast.expr:
    """`a and b …`; constant truths are left out."""
    kept = [test for test in tests if not is_true(test)]
    if len(kept) < 2:
        return kept[0] if kept else constant(value=True)
    return ast.BoolOp(op=ast.And(), values=kept)


def either(*tests: ast.expr) -> ast.expr:
    """`a or b …`."""
    return tests[0] if len(tests) == 1 else ast.BoolOp(op=ast.Or(), values=list(tests))


def is_true(test: ast.expr) -> bool:
    return isinstance(test, ast.Constant) and test.value is True


def negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(op=ast.Not(), operand=test)


def function(parameters: list[str], body: ast.expr) -> ast.Lambda:
    arguments = ast.arguments(
        posonlyargs=[],
        args=[ast.arg(arg=parameter) for parameter in parameters],
        kwonlyargs=[],
        kw_defaults=[],
        defaults=[],
    )
    return ast.Lambda(args=arguments, body=body)


def multiplied(left: ast.expr, right: ast.expr) -> ast.BinOp:
    return ast.BinOp(left=left, op=ast.Mult(), right=right)


def added(left: ast.expr, right: ast.expr) -> ast.BinOp:
    return ast.BinOp(left=left, op=ast.Add(), right=right)


def subtracted(left: ast.expr, right: ast.expr) -> ast.BinOp:
    return ast.BinOp(left=left, op=ast.Sub(), right=right)


def tuple_of(*values: ast.expr) -> ast.Tuple:
    return ast.Tuple(elts=list(values), ctx=_LOAD)


def list_of(*values: ast.expr) -> ast.List:
    return ast.List(elts=list(values), ctx=_LOAD)


def starred(value: ast.expr) -> ast.Starred:
    return ast.Starred(value=value, ctx=_LOAD)


def subscript(value: ast.expr, at: ast.expr) -> ast.Subscript:
    return ast.Subscript(value=value, slice=at, ctx=_LOAD)


def joined(parts: list[ast.expr]) -> ast.expr:
    """One text of parts that are texts (or integers) already; neighbouring constants are merged."""
    merged: list[ast.expr] = []
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            last = merged[-1].value if merged and isinstance(merged[-1], ast.Constant) else None
            if isinstance(last, str):
                merged[-1] = constant(last + part.value)
            elif part.value:
                merged.append(constant(part.value))
        else:
            merged.append(ast.FormattedValue(value=part, conversion=-1))
    if not merged:
        return constant("")
    if len(merged) == 1 and isinstance(merged[0], ast.Constant):
        return merged[0]
    return ast.JoinedStr(values=merged)


def fresh(tree: ast.expr) -> ast.expr:
    """A copy without positions, to stand at another place."""
    if type(tree) in LEAVES:
        return tree
    if type(tree) is ast.Name:
        return name(tree.id)
    fields: dict[str, Any] = {}
    for word, value in ast.iter_fields(tree):
        if isinstance(value, ast.expr):
            fields[word] = fresh(value)
        elif isinstance(value, list):
            fields[word] = [fresh(inner) if isinstance(inner, ast.expr) else inner for inner in value]
        else:
            fields[word] = value
    return type(tree)(**fields)


def name_first_read(made: ast.expr, local: str, value: ast.expr) -> bool:
    """Bind a local where the tree reads it first, if that is what the tree does before anything else."""
    if not isinstance(made, ast.IfExp):
        return False
    parent: ast.AST = made
    word, here = "test", made.test
    while not isinstance(here, ast.Name):
        step = _evaluated_first(here)
        if step is None:
            return False
        parent, word, here = here, *step
    if here.id != local:
        return False
    bound = named(local, value)
    if type(here) not in LEAVES:
        ast.copy_location(bound, here)
    if isinstance(getattr(parent, word), list):
        getattr(parent, word)[0] = bound
    else:
        setattr(parent, word, bound)
    return True


def _evaluated_first(node: ast.expr) -> tuple[str, ast.expr] | None:
    """The field and node of what Python evaluates first in a node; a global function's name does not count."""
    match node:
        case ast.Compare(left=first):
            return "left", first
        case ast.BoolOp(values=[first, *_]):
            return "values", first
        case ast.IfExp(test=first):
            return "test", first
        case ast.UnaryOp(operand=first):
            return "operand", first
        case ast.NamedExpr(value=first):
            return "value", first
        case ast.Call(func=ast.Name(), args=[first, *_]) if not isinstance(first, ast.Starred):
            return "args", first
    return None
