"""`+` and text forms in generated code: chains that join texts become one formatted string."""

import ast
from collections.abc import Callable

from reqon.errors import EvaluatorError
from reqon.lang import nodes, operators, tree
from reqon.lang.code import NUMBERS, Code, Emitter, Kind
from reqon.lang.scope import Scope

# Longer chains are added by one call, so that Python's compiler meets no deep nesting.
_NESTED = 12
# So many types are compared in one chained comparison, which evaluates them all.
_HELD_BY_COMPARISON = 2
_JOINED = (Kind.TEXT, Kind.ANY, Kind.BOOLEAN, Kind.NULL, *NUMBERS)


class Sums:
    """Compiles `+` for one emitter of expressions."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def code(self, node: nodes.Binary, scope: Scope) -> Code:
        """`a + b + c …`, from the left."""
        operands = self._folded([self._emitter.code(part, scope) for part in _operands(node)])
        if len(operands) == 1:
            return operands[0]
        if any(code.kind is Kind.TEXT for code in operands) and _may_join(operands):
            return self._text_chain(operands)
        kind = Kind.NUMBER if all(code.kind in NUMBERS for code in operands) else Kind.ANY
        return Code(self._added([code.tree for code in operands]), kind)

    def text(self, code: Code) -> ast.expr:
        """The text form of a value."""
        if code.kind is Kind.TEXT:
            return code.tree
        if code.is_constant:
            return tree.constant(operators.text(code.value))
        if code.kind is Kind.INTEGER:
            return tree.call("str", code.tree)
        held, again = self._emitter.hold(code)
        return tree.choose(tree.type_is(held, "str"), again(), self._emitter.call(operators.text, again()))

    def _folded(self, operands: list[Code]) -> list[Code]:
        """Leading constants added up now; the sum goes from the left, so only those can be."""
        while len(operands) > 1 and operands[0].is_constant and operands[1].is_constant:
            try:
                total = self._emitter.constant(operators.add(operands[0].value, operands[1].value))
            except EvaluatorError:
                break
            operands = [total, *operands[2:]]
        return operands

    def _added(self, operands: list[ast.expr]) -> ast.expr:
        if len(operands) > _NESTED:
            return self._emitter.call(operators.add_all, *operands)
        made = operands[0]
        for operand in operands[1:]:
            made = self._emitter.call(operators.add, made, operand)
        return made

    def _text_chain(self, operands: list[Code]) -> Code:
        first = operands[0]
        if first.is_constant and first.kind is Kind.TEXT and first.value and not first.value[0].isdigit():
            # What starts like this is never a date, so a duration cannot move it: everything is joined.
            return Code(self._limited(tree.joined([self._part(code) for code in operands])), Kind.TEXT)
        unknown = [code for code in operands if code.kind is Kind.ANY]
        if not unknown:
            return Code(self._limited(tree.joined([self._part(code) for code in operands])), Kind.TEXT)
        return self._joined_if_texts(operands, unknown)

    def _part(self, code: Code) -> ast.expr:
        """Something that a formatted string shows as the value's text form."""
        return code.tree if code.kind is Kind.INTEGER and not code.is_constant else self.text(code)

    def _joined_if_texts(self, operands: list[Code], unknown: list[Code]) -> Code:
        """One formatted string where all that is unknown turns out to be text; else the sum, step by step."""
        if len(unknown) > _HELD_BY_COMPARISON and all(code.repeatable for code in operands):
            return self._joined_by_repeating(operands, unknown)
        again: dict[int, Callable[[], ast.expr]] = {}
        evaluated: dict[int, ast.expr] = {}
        for code in operands:
            if not code.is_simple or code.kind is Kind.ANY:
                evaluated[id(code)], again[id(code)] = self._emitter.hold(code)
        if len(unknown) <= _HELD_BY_COMPARISON and len(evaluated) == len(unknown):
            test = _all_texts_at_once([evaluated[id(code)] for code in unknown])
        else:
            # Each operand is evaluated once and in order, whatever the types turn out to be.
            test = tree.both(tree.tuple_of(*evaluated.values()), *(_is_text(again[id(code)]()) for code in unknown))
        read = [Code(again[id(code)](), code.kind, code.value) if id(code) in again else code for code in operands]
        slow = [again[id(code)]() if id(code) in again else tree.fresh(code.tree) for code in operands]
        return self._text_or_sum(test, read, slow)

    def _joined_by_repeating(self, operands: list[Code], unknown: list[Code]) -> Code:
        """As `_joined_if_texts`. Reading a few fields again where they are no texts saves the everyday case a tuple."""
        again: dict[int, Callable[[], ast.expr]] = {}
        tests: list[ast.expr] = []
        for code in unknown:
            held, again[id(code)] = self._emitter.hold(code)
            tests.append(_is_text(held))
        read = [Code(again[id(code)](), code.kind, code.value) if id(code) in again else code for code in operands]
        return self._text_or_sum(tree.both(*tests), read, [tree.fresh(code.tree) for code in operands])

    def _text_or_sum(self, test: ast.expr, read: list[Code], slow: list[ast.expr]) -> Code:
        quick = [code.tree if code.kind is Kind.ANY else self._part(code) for code in read]
        # Of no kind that is known: a duration may turn out to move a date.
        return Code(tree.choose(test, self._limited(tree.joined(quick)), self._added(slow)))

    def _limited(self, joined: ast.expr) -> ast.expr:
        if isinstance(joined, ast.Constant):
            return joined
        local = self._emitter.unit.local("joined")
        return tree.choose(
            tree.compare(tree.call("len", tree.named(local, joined)), "<=", tree.constant(operators.MAX_TEXT)),
            tree.name(local),
            self._emitter.call(operators.too_large, tree.constant("a text")),
        )


def _is_text(value: ast.expr) -> ast.expr:
    return tree.compare(tree.call("type", value), "is", tree.name("str"))


def _all_texts_at_once(values: list[ast.expr]) -> ast.expr:
    """`type(a) is type(b) is str`: both are evaluated before the first test can fail."""
    first, *rest = (tree.call("type", value) for value in values)
    return tree.compare(first, *(part for value in rest for part in ("is", value)), "is", tree.name("str"))


def _operands(node: nodes.Binary) -> list[nodes.Expression]:
    found: list[nodes.Expression] = []
    here: nodes.Expression = node
    while isinstance(here, nodes.Binary) and here.operator == "+":
        found.append(here.right)
        here = here.left
    return [here, *reversed(found)]


def _may_join(operands: list[Code]) -> bool:
    """Whether the chain joins from its start on, if all that is unknown in it is text."""
    first, second = operands[:2]
    return all(code.kind in _JOINED for code in operands) and (
        first.kind in (Kind.TEXT, Kind.ANY) or second.kind in (Kind.TEXT, Kind.ANY)
    )
