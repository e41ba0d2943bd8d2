"""`paginate`: strategies, their arguments and their parameter (spec/language.md 2.8, 7.2)."""

from dataclasses import dataclass

from reqon.diagnostics import Source, Span, did_you_mean
from reqon.lang import nodes
from reqon.lang.checks.expressions import Expressions
from reqon.lang.checks.findings import Findings
from reqon.lang.checks.options import Options, Written
from reqon.lang.checks.scope import Scope
from reqon.lang.kinds import NOT_CONSTANT, Block, Param, Whole, constant
from reqon.lang.options import PAGINATE, PAGINATION_NAMES
from reqon.lang.parser import parse_expression


@dataclass(slots=True)
class Paging:
    """Checks the `paginate` option of requests."""

    expressions: Expressions
    options: Options
    findings: Findings

    def paginate(self, option: nodes.Option, scope: Scope) -> str | None:
        """Check `paginate`; the name of its parameter, which `until` can read."""
        page = scope.inner()
        page.current = True
        value = option.value
        if isinstance(value, nodes.Paginate):
            return self._strategy_call(value, scope, page)
        if isinstance(value, nodes.ObjectLiteral):
            return self._strategy_object(value, scope)
        if not isinstance(value, nodes.Since):
            self.expressions.check(value, scope)
            kind = "offset(…), page(…), cursor(…), link(…) or an object"
            self.findings.error("bad-option-value", f"paginate must be {kind}", value.span)
        return None

    def _strategy_call(self, node: nodes.Paginate, scope: Scope, page: Scope) -> str | None:
        strategy, arguments = node.strategy.text, node.arguments
        if strategy not in PAGINATION_NAMES:
            known = self.options.extensions.pagination
            if strategy not in known:
                self._unknown_strategy(strategy, node.strategy.span)
            for argument in arguments:
                if not isinstance(argument, nodes.Name):
                    self.expressions.check(argument, page)
            return arguments[0].name if arguments and isinstance(arguments[0], nodes.Name) else None
        if not _good_count(strategy, len(arguments)):
            message = f"{strategy}() takes {_COUNTS[strategy]}, got {len(arguments)}"
            self.findings.error("wrong-arity", message, node.strategy.span, f"for example {_EXAMPLES[strategy]}")
            return None
        if strategy == "link":
            for argument in arguments:
                self.options.value(Written("rel", argument.span, argument), Param(), scope)
            return None
        if strategy == "cursor" and len(arguments) == 1:
            self._cursor_path(arguments[0], page)
            return "cursor"
        self.options.value(Written("the parameter", arguments[0].span, arguments[0]), Param(), scope)
        self.options.value(Written("the page size", arguments[1].span, arguments[1]), Whole(1), scope)
        if len(arguments) > 2:
            self._cursor_path(arguments[2], page)
        return _word(arguments[0])

    def _strategy_object(self, node: nodes.ObjectLiteral, scope: Scope) -> str | None:
        entries = {entry.key: entry for entry in node.entries if isinstance(entry, nodes.Entry)}
        kind = _word(entries["type"].value) if "type" in entries else None
        if kind in self.options.extensions.pagination:
            self.options.ignoring_words(node, scope)
            return _word(entries["param"].value) if "param" in entries else kind
        self.options.value(Written("paginate", node.span, node), Block(PAGINATE), scope)
        if "type" not in entries:
            hint = 'for example paginate: { type: cursor, param: after, cursorPath: "next" }'
            self.findings.error("bad-option-value", "paginate needs a type", node.span, hint)
        if kind == "cursor" and "cursorPath" not in entries:
            hint = 'say where a page holds the next cursor: cursorPath: "paging.next"'
            self.findings.error("bad-option-value", "paginate of type cursor needs cursorPath", node.span, hint)
        if "cursorPath" in entries:
            self.expression_text(entries["cursorPath"].value)
        return _word(entries["param"].value) if "param" in entries else kind

    def _unknown_strategy(self, name: str, span: Span) -> None:
        known = (*PAGINATION_NAMES, *self.options.extensions.pagination)
        message = f"no pagination strategy named '{name}'"
        self.findings.error("undefined-pagination", message, span, did_you_mean(name, known, "known"))

    def _cursor_path(self, node: nodes.Expression, page: Scope) -> None:
        if isinstance(node, nodes.Literal_):
            self.expression_text(node)
        else:
            self.expressions.check(node, page)

    def expression_text(self, node: nodes.Expression, *, without: str | None = None) -> None:
        """A text that is itself an expression over the page, in which names are fields.

        `without` is what is no part of it: in `data[].changedAt`, the newest of the items, the brackets are none.
        """
        if not isinstance(node, nodes.Literal_) or not isinstance(node.value, str):
            return
        span = node.span
        if without is None or without not in node.value:
            tree, diagnostics = parse_expression(span.source, start=span.start + 1, end=span.end - 1)
            self.findings.add(diagnostics)
            inner = self.expressions
        else:
            # Its places are none of the file: what is wrong is said of the whole text.
            tree, diagnostics = parse_expression(Source(span.source.name, node.value.replace(without, "")))
            inner = Expressions(self.expressions.names, Findings())
            inner.findings.add(diagnostics)
        if tree is not None and not diagnostics:
            inner.check(tree, Scope("action", current=True, fields=True))
        if inner is not self.expressions:
            for found in inner.findings.found:
                if found.severity == "error":
                    self.findings.error(found.code, found.message, span, found.hint)


_COUNTS = {
    "offset": "a parameter and a page size",
    "page": "a parameter and a page size",
    "cursor": "a parameter, a page size and a path, or a path alone",
    "link": "nothing or a rel",
}
_EXAMPLES = {
    "offset": "offset(offset, 100)",
    "page": "page(page, 100)",
    "cursor": 'cursor(after, 100, "paging.next")',
    "link": "link(next)",
}


def _good_count(strategy: str, count: int) -> bool:
    return count in {"offset": (2,), "page": (2,), "cursor": (1, 3), "link": (0, 1)}[strategy]


def _word(node: nodes.Expression) -> str | None:
    if isinstance(node, nodes.Name):
        return node.name
    value = constant(node)
    return value if isinstance(value, str) and value is not NOT_CONSTANT else None


def strategy_of(option: Written) -> str | None:
    value = option.value
    if isinstance(value, nodes.Paginate):
        return value.strategy.text
    if isinstance(value, nodes.ObjectLiteral):
        kind = next((e.value for e in value.entries if isinstance(e, nodes.Entry) and e.key == "type"), None)
        return _word(kind) if kind is not None else None
    return None
