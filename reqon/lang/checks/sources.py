"""Sources and stores (spec/language.md 2.4)."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from reqon.diagnostics import did_you_mean
from reqon.lang import nodes
from reqon.lang import options as tables
from reqon.lang.checks.expressions import Expressions
from reqon.lang.checks.findings import Findings
from reqon.lang.checks.options import Options, Written
from reqon.lang.checks.scope import Scope
from reqon.lang.functions import BUILTINS
from reqon.lang.kinds import Block, Kind, Text, constant

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(slots=True)
class Sources:
    """Checks source and store declarations."""

    expressions: Expressions
    options: Options
    findings: Findings

    def source(self, node: nodes.SourceDef) -> None:
        """Check a source: its options, and that it has a base."""
        scope = Scope("start")
        if node.spec is not None:
            self.options.value(Written("from", node.spec.span, node.spec), Text(), scope)
        written = self.options.check(node.options, tables.SOURCE, scope)
        base = written.get("base")
        if base is None:
            if node.spec is None:
                message = f"source '{node.name.text}' needs base or an OpenAPI document"
                hint = 'add base: "https://…", or: source X from "openapi.yaml"'
                self.findings.error("missing-base", message, node.name.span, hint)
        else:
            self._base(base, written)

    def _base(self, base: Written, written: dict[str, Written]) -> None:
        if isinstance(base.value, nodes.Since | nodes.Paginate):
            return
        url = constant(base.value)
        if not isinstance(url, str):
            return
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            parts, host = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not host:
            hint = 'for example base: "https://api.example.com/v1"'
            self.findings.error(
                "bad-option-value", f"base must be an absolute http(s) URL, not '{url}'", base.value.span, hint
            )
        elif parts.username or parts.password or parts.query or parts.fragment:
            message = "base must have no user, query or fragment"
            self.findings.error("bad-option-value", message, base.value.span, "credentials are options of their own")
        elif parts.scheme == "http" and host not in _LOOPBACK and "auth" in written:
            self._plain(base, written["auth"])

    def _plain(self, base: Written, auth: Written) -> None:
        value = auth.value
        word = value.name if isinstance(value, nodes.Name) else getattr(value, "value", None)
        if word not in ("none", None):
            message = "credentials would be sent unencrypted"
            self.findings.warn("insecure-basic", message, base.value.span, "use https://")

    def store(self, node: nodes.StoreDef) -> None:
        """Check a store: the expression must come down to an adapter call."""
        self._adapter(node.adapter, node, Scope("start"))

    def _adapter(self, value: nodes.Expression, node: nodes.StoreDef, scope: Scope) -> None:
        match value:
            case nodes.Call(form="plain"):
                self._adapter_call(value, scope)
            case nodes.Conditional():
                self.expressions.check(value.condition, scope)
                self._adapter(value.then, node, scope)
                self._adapter(value.otherwise, node, scope)
            case nodes.MatchExpression():
                if value.subject is not None:
                    self.expressions.check(value.subject, scope)
                for arm in value.arms:
                    inner = self.expressions.arm(arm, scope, subject=value.subject is not None)
                    self._adapter(arm.value, node, inner)
            case _:
                name = node.name.text
                hint = f'for example store {name}: file("{name}")'
                self.findings.error("undefined-adapter", f"store '{name}' needs an adapter", value.span, hint)

    def _adapter_call(self, call: nodes.Call, scope: Scope) -> None:
        word, arguments = call.name.text, call.arguments
        known: Collection[str] = self.expressions.names.adapters
        if word not in known:
            message = f"no store adapter named '{word}'"
            if word in BUILTINS:
                message = f"'{word}' is a function, no store adapter"
            self.findings.error("undefined-adapter", message, call.name.span, did_you_mean(word, tuple(known), "known"))
        least = 0 if word == "memory" or word not in tables.ADAPTER_NAMES else 1
        if not least <= len(arguments) <= 2:
            counts = "1 or 2 arguments" if least else "up to 2 arguments"
            message = f"{word}() takes {counts}, got {len(arguments)}"
            self.findings.error("wrong-arity", message, call.name.span, f'for example {word}("name")')
        table = tables.STORE_TABLES.get(word)
        kinds: list[Kind] = [Text(), Kind() if table is None else Block(table)]
        for argument, kind, what in zip(arguments, kinds, ("the name", "the options"), strict=False):
            if isinstance(argument, nodes.Lambda | nodes.Spread):
                self.findings.error("bad-lambda", f"{word}() takes a name and options", argument.span)
            else:
                self.options.value(Written(f"{what} of {word}()", argument.span, argument), kind, scope)
