"""Brace lists of options: keys, words, constant values (spec/language.md 2.2-2.8)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from reqon.diagnostics import Span, did_you_mean
from reqon.lang import nodes
from reqon.lang.checks.expressions import Expressions
from reqon.lang.checks.findings import Findings
from reqon.lang.checks.scope import Scope
from reqon.lang.kinds import (
    NOT_CONSTANT,
    BadOptionError,
    Expr,
    Headers,
    Kind,
    Milliseconds,
    Paging,
    Registered,
    SinceValue,
    SourceName,
    StoreName,
    Table,
    Text,
    block_of,
    can_be_sent,
    constant,
    read_value,
)
from reqon.secrets import SECRETS

# Long tables are no help in a hint; the nearest word is.
_LISTED_KEYS = 12

_NOUNS = {"auth": "auth provider", "pagination": "pagination strategy", "state store": "state store"}


@dataclass(frozen=True, slots=True)
class Written:
    """One option as written: in an option list, or as an entry of a nested block."""

    key: str
    key_span: Span
    value: nodes.Expression | nodes.Since | nodes.Paginate


@dataclass(frozen=True, slots=True, kw_only=True)
class Extensions:
    """The words that Python code registered, by what they name."""

    auth: frozenset[str] = frozenset()
    pagination: frozenset[str] = frozenset()
    state_stores: frozenset[str] = frozenset()

    def of(self, what: str) -> frozenset[str]:
        return {"auth": self.auth, "pagination": self.pagination}.get(what, self.state_stores)


@dataclass(slots=True)
class Options:
    """Checks option lists by their tables."""

    expressions: Expressions
    findings: Findings
    extensions: Extensions = field(default_factory=Extensions)

    def check(
        self,
        options: Sequence[nodes.Option],
        table: Table,
        scope: Scope,
        *,
        own: Mapping[str, Scope] | None = None,
    ) -> dict[str, Written]:
        """Check a list; what was written by its documented key. `own` gives keys a scope of their own.

        `paginate` and `since` are left to the caller.
        """
        return self._all([Written(o.key, o.key_span, o.value) for o in options], table, scope, own or {})

    def block(self, value: nodes.ObjectLiteral, table: Table, scope: Scope) -> dict[str, Written]:
        """Check a nested block."""
        for entry in value.entries:
            if isinstance(entry, nodes.Spread):
                self.expressions.check(entry.value, scope)
        written = [Written(e.key, e.key_span, e.value) for e in value.entries if isinstance(e, nodes.Entry)]
        return self._all(written, table, scope, {})

    def _all(
        self, options: Sequence[Written], table: Table, scope: Scope, own: Mapping[str, Scope]
    ) -> dict[str, Written]:
        found: dict[str, Written] = {}
        seen: set[str] = set()
        for option in options:
            if option.key in seen:
                self.expressions.duplicate_key(option.key, option.key_span, "this block")
                continue
            seen.add(option.key)
            kind = table.kind(option.key)
            if kind is None:
                self.unknown(option, table, scope)
            else:
                name = table.aliases.get(option.key, option.key)
                found.setdefault(name, option)
                self.value(option, kind, own.get(name, scope))
        return found

    def unknown(self, option: Written, table: Table, scope: Scope) -> None:
        hint = did_you_mean(option.key, table.spellings, "valid keys")
        if "did you mean" in hint and len(table.spellings) > _LISTED_KEYS:
            hint = hint.partition("? ")[0] + "?"
        self.findings.error("unknown-option", f"unknown option '{option.key}' {table.place}", option.key_span, hint)
        if not isinstance(option.value, nodes.Since | nodes.Paginate):
            # Whatever it was meant to be: a bare word in it is no second mistake.
            self.ignoring_words(option.value, scope)

    def ignoring_words(self, value: nodes.Expression, scope: Scope) -> None:
        """Check an expression of unknown purpose, in which bare words may be words."""
        if isinstance(value, nodes.ObjectLiteral):
            for entry in value.entries:
                self.ignoring_words(entry.value, scope)
        elif not isinstance(value, nodes.Name):
            self.expressions.check(value, scope)

    def value(self, option: Written, kind: Kind, scope: Scope) -> None:
        """Check one option's value by its kind."""
        value = option.value
        if isinstance(value, nodes.Since | nodes.Paginate) or isinstance(kind, Paging | SinceValue):
            return
        table = block_of(kind)
        if isinstance(kind, SourceName):
            self._source_name(value, scope)
        elif table is not None and isinstance(value, nodes.ObjectLiteral):
            self.block(value, table, scope)
        elif isinstance(value, nodes.Name) and _takes_store(kind):
            self.findings.declared("store", value.name, value.span, self.expressions.names.stores)
        elif type(kind) is Expr:
            self.expressions.check(value, scope)
        else:
            self._constant_or_computed(option, kind, value, scope)
            if isinstance(kind, Headers) and isinstance(value, nodes.ObjectLiteral):
                self._header_names(value)

    def _header_names(self, headers: nodes.ObjectLiteral) -> None:
        for entry in headers.entries:
            if isinstance(entry, nodes.Entry) and not can_be_sent(entry.key):
                message = f"a header named '{entry.key}' cannot be sent: the request will fail"
                self.findings.warn("bad-option-value", message, entry.key_span)

    def _constant_or_computed(self, option: Written, kind: Kind, value: nodes.Expression, scope: Scope) -> None:
        known = constant(value, kind)
        if known is NOT_CONSTANT or isinstance(value, nodes.ObjectLiteral):
            self.expressions.check(value, scope)
        if known is NOT_CONSTANT or known is None:
            return
        try:
            read_value(option.key, kind, known, lenient=False, written=_written(value))
        except BadOptionError as problem:
            found = problem.diagnostics[0]
            self.findings.error(found.code, found.message, value.span, found.hint)
            return
        if isinstance(kind, Registered):
            self._registered(kind, known, value.span)
        elif isinstance(kind, Text) and kind.secret and known:
            SECRETS.add(known)  # findings print the lines that they mean
            self.findings.warn("literal-secret", "secret written in the mission", value.span, 'use env("…")')
        elif isinstance(kind, Milliseconds) and kind.short and not isinstance(known, timedelta) and 0 < known < 1000:
            message = f"{option.key} {known} means {known} milliseconds"
            self.findings.warn("ambiguous-unit", message, value.span, f"seconds? write {known} seconds")

    def _registered(self, kind: Registered, word: str, span: Span) -> None:
        known = (*kind.words, *self.extensions.of(kind.what))
        if word not in known:
            code = "bad-option-value" if kind.what == "state store" else f"undefined-{kind.what}"
            self.findings.error(
                code, f"no {_NOUNS[kind.what]} named '{word}'", span, did_you_mean(word, known, "known")
            )

    def _source_name(self, value: nodes.Expression, scope: Scope) -> None:
        """`source:` is a declared source by name or text, else an expression."""
        sources = self.expressions.names.sources
        if isinstance(value, nodes.Literal_) and isinstance(value.value, str):
            self.findings.declared("source", value.value, value.span, sources)
        elif isinstance(value, nodes.Name):
            binding = None if value.name in sources else scope.find(value.name)
            if binding is not None:
                binding.used = True
            elif not self.expressions.resolves(value.name, scope):
                self.findings.undefined("source", value.name, value.span, tuple(sources))
        else:
            self.expressions.check(value, scope)


def _written(value: nodes.Expression) -> str | None:
    """How a message shows a value that is neither a text nor a word: as it is written, if that is short."""
    text = value.span.text
    return None if isinstance(value, nodes.Literal_ | nodes.Name) or len(text) > 40 or "\n" in text else text


def _takes_store(kind: Kind) -> bool:
    return isinstance(kind, StoreName) or any(isinstance(one, StoreName) for one in getattr(kind, "kinds", ()))
