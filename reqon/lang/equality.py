"""`==` in generated code: Python's own wherever it means the same (spec/language.md 3.5)."""

import ast

from reqon.lang import operators, tree
from reqon.lang.code import NUMBERS, Code, Emitter, Kind
from reqon.lang.instants import read_instant


def equals(emitter: Emitter, left: ast.expr, right: Code) -> ast.expr:
    """Whether `left`, of any kind, equals `right`; a boolean."""
    if right.is_constant:
        found = _equals_constant(emitter, left, right)
        if found is not None:
            return found
    held, again = emitter.hold(Code(left))
    other, other_again = emitter.hold(right)
    if right.kind is Kind.TEXT:
        test = tree.compare(tree.call("type", held), "is", tree.name("str"))
        # The right side is read after the left one, so it must not hide in one branch only.
        if not right.is_simple:
            test = tree.compare(tree.call("type", held), "is", tree.call("type", other), "is", tree.name("str"))
    else:
        test = tree.compare(tree.call("type", held), "is", tree.call("type", other), "is", tree.name("str"))
    return tree.choose(
        test,
        tree.compare(again(), "==", other_again()),
        emitter.call(operators.equal, again(), other_again()),
    )


def _equals_constant(emitter: Emitter, left: ast.expr, right: Code) -> ast.expr | None:
    value = right.value
    if value is None or type(value) is bool:
        return tree.compare(left, "is", tree.constant(value))
    if plainly_comparable(right):
        if right.kind in NUMBERS and value in (0, 1):  # Python's False is 0 and True is 1
            held, again = emitter.hold(Code(left))
            return tree.both(
                tree.compare(held, "==", right.tree), tree.compare(again(), "is not", tree.constant(value == 1))
            )
        return tree.compare(left, "==", right.tree)
    return None


def plainly_comparable(code: Code) -> bool:
    """Whether Python's `==` with this constant means the same, but for 0 and 1, which equal its booleans."""
    if code.kind is Kind.TEXT:
        return read_instant(code.value) is None  # else a datetime may equal it
    return code.kind in NUMBERS
