"""Requests: their source, path, paging and sync options (spec/language.md 7.2)."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from reqon.diagnostics import Span
from reqon.lang import nodes
from reqon.lang.checks.expressions import Expressions
from reqon.lang.checks.findings import Findings, guess
from reqon.lang.checks.options import Options, Written
from reqon.lang.checks.paging import Paging, strategy_of
from reqon.lang.checks.scope import Binding, Scope
from reqon.lang.kinds import Text, constant
from reqon.lang.options import SINCE, fetch_table
from reqon.lang.placeholders import split
from reqon.lang.walk import walk

# Operation ids of the OpenAPI document of a source, each with its path parameters; None: the document can't be had.
Operations: TypeAlias = Callable[[nodes.SourceDef], Mapping[str, Collection[str]] | None]

# The keys of an object that only the run knows.
ANYTHING: Final[Collection[str]] = frozenset(("*",))

_SHORT_PAGE = ("offset", "page")
_NEEDS_SINCE = ("sinceParam", "sinceFormat", "sinceOverlap")
_AT_LEAST_ONCE = ("post", "patch")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A request that keeps a checkpoint under the name of its path, and the parameters that tell it from others."""

    key: str
    parameters: nodes.Expression | None
    span: Span


@dataclass(slots=True)
class Requests:
    """Checks the fetch and `call` steps of a mission."""

    expressions: Expressions
    options: Options
    findings: Findings
    paging: Paging
    operations: Operations | None = None
    checkpoints: list[Checkpoint] = field(default_factory=list)

    def fetch(self, step: nodes.Fetch, scope: Scope) -> None:
        """`get "/path" { … }` and its kin."""
        span = step.span
        word = Span(span.source, span.start, span.start + len(step.method))
        written = self._options(step.options, step.method, scope)
        source = self._source(step.source, written, word)
        self.path_of(step.path, scope, _params(step.options))
        if step.method == "get" and "body" in written:
            self.findings.warn(
                "get-with-body", "body of a get is sent as query parameters", written["body"].key_span, "use params"
            )
        if step.method in _AT_LEAST_ONCE and "retry" in written:
            self._may_repeat(step.method, source, written)
        since = written.get("since")
        if source is not None and since is not None and "syncKey" not in written:
            self._remember_checkpoint(step, source, since, written)

    def call(self, step: nodes.CallStep, scope: Scope) -> None:
        """`call Source.operation { … }`."""
        self._options(step.options, "call", scope)
        names = self.expressions.names
        if self.findings.declared("source", step.source.text, step.source.span, names.sources):
            self._operation(step, names.sources[step.source.text], scope)

    # --- the source and the operation ---------------------------------------------------------------------------------

    def _source(self, name: nodes.Word | None, written: Mapping[str, Written], word: Span) -> nodes.SourceDef | None:
        """The source of a request, as far as the text says it."""
        sources = self.expressions.names.sources
        if name is not None:
            return sources[name.text] if self.findings.declared("source", name.text, name.span, sources) else None
        if "source" in written:
            value = written["source"].value
            chosen: object = value.name if isinstance(value, nodes.Name) else constant(value)
            return sources.get(chosen) if isinstance(chosen, str) else None
        for default, source in sources.items():
            self.findings.use("source", default)
            return source
        message = f"this mission declares no source, so '{word.text}' has no target"
        self.findings.error("no-source", message, word, 'declare one: source Api { base: "https://…" }')
        return None

    def _operation(self, step: nodes.CallStep, source: nodes.SourceDef, scope: Scope) -> None:
        name, operation = step.source.text, step.operation
        if source.spec is None:
            hint = f'give it a document: source {name} from "openapi.yaml"; or use get, post, put, patch or delete'
            self.findings.error("undefined-operation", f"source '{name}' has no OpenAPI document", operation.span, hint)
            return
        operations = self.operations(source) if self.operations is not None else None
        if operations is None:
            # Any variable in sight may stand for a parameter in its path.
            for variable in (*scope.visible(), *self.expressions.names.lets):
                self._is_variable(variable, operation.span, scope)
            return
        parameters = operations.get(operation.text)
        if parameters is None:
            similar = _similar(operation.text, operations)
            listed = f"operations with a similar name: {', '.join(similar)}" if similar else None
            message = f"source '{name}' has no operation '{operation.text}'"
            self.findings.error("undefined-operation", message, operation.span, listed)
            return
        given = _params(step.options)
        for parameter in parameters if given is not ANYTHING else ():
            # A variable of the parameter's name stands for it.
            if parameter not in given and not self._is_variable(parameter, operation.span, scope):
                self._missing_parameter(parameter, operation.span, given)

    def _is_variable(self, name: str, span: Span, scope: Scope) -> bool:
        if scope.find(name) is None and name not in self.expressions.names.lets:
            return False
        self.expressions.check(nodes.Name(name=name, span=span), scope)
        return True

    def _missing_parameter(self, name: str, span: Span, given: Collection[str]) -> None:
        hint = guess(name, given, f"add it to params: {{ {name}: … }}")
        self.findings.error("missing-path-param", f"path parameter '{name}' has no value", span, hint)

    # --- the path -----------------------------------------------------------------------------------------------------

    def path_of(self, value: nodes.Expression, scope: Scope, given: Collection[str] | None) -> None:
        """A path: a literal with placeholders, or any expression. `given` are its params; None: it can have none."""
        if not isinstance(value, nodes.Literal_) or not isinstance(value.value, str):
            self.expressions.check(value, scope)
            return
        if "{" not in value.value:
            return
        parts, diagnostics = split(value)
        self.findings.add(diagnostics)
        for part in parts:
            if not isinstance(part, str) and part.expression is not None:
                self._placeholder(part.expression, scope, given)

    def _placeholder(self, node: nodes.Expression, scope: Scope, given: Collection[str] | None) -> None:
        first = next((found for found in walk(node) if isinstance(found, nodes.Name)), None)
        if first is None or self._means_something(first.name, scope):
            self.expressions.check(node, scope)
            return
        if first.name.isupper() or (given is not None and first.name in given) or given is ANYTHING:
            inner = scope.inner()
            inner.names[first.name] = Binding("page", first.span)
            self.expressions.check(node, inner)
            return
        names = self.expressions.names
        hint = guess(first.name, [*scope.visible(), *names.lets, *(given or ())])
        if hint is None and given is not None:
            hint = f"add it to params: {{ {first.name}: … }}"
        message = f"path parameter '{first.name}' has no value"
        self.findings.error("missing-path-param", message, first.span, hint)

    def _means_something(self, name: str, scope: Scope) -> bool:
        return scope.find(name) is not None or self.expressions.resolves(name, scope)

    # --- options ------------------------------------------------------------------------------------------------------

    def _options(self, options: nodes.Options, word: str, scope: Scope) -> dict[str, Written]:
        paginate = next((option for option in options if option.key == "paginate"), None)
        parameter = self.paging.paginate(paginate, scope) if paginate is not None else None
        page = scope.inner()
        page.current = True
        for option in options:
            page.names["hasMore"] = Binding("page", option.key_span)
            if parameter is not None:
                page.names[parameter] = Binding("page", option.key_span)
        written = self.options.check(options, fetch_table(word), scope, own={"until": page})
        since = written.get("since")
        if since is not None:
            self._since(since, scope)
        self._without_effect(options, written)
        return written

    def _without_effect(self, options: nodes.Options, written: Mapping[str, Written]) -> None:
        paginate, until = written.get("paginate"), written.get("until")
        if until is not None and paginate is None:
            self.findings.warn("until-without-paginate", "'until' has no effect without 'paginate'", until.key_span)
        if paginate is not None and until is None and strategy_of(paginate) in _SHORT_PAGE:
            hint = "add until: …"
            self.findings.warn(
                "paginate-without-until", "pagination stops at the first short page", paginate.key_span, hint
            )
        if "since" in written:
            return
        needless = [written[key] for key in _NEEDS_SINCE if key in written]
        if "syncKey" in written and not _reads_last_sync(options):
            needless.append(written["syncKey"])
        for option in needless:
            message = f"'{option.key}' has no effect without 'since'"
            self.findings.warn("since-options-without-since", message, option.key_span, "add since: lastSync")

    def _may_repeat(self, method: str, source: nodes.SourceDef | None, written: Mapping[str, Written]) -> None:
        key = next((o for o in source.options if o.key == "idempotencyKey"), None) if source is not None else None
        headers = _keys_of(written.get("headers"))
        if source is None or (key is not None and constant(key.value) is not False):
            return
        if headers is None or any(header.lower() == "idempotency-key" for header in headers):
            return
        message = f"a {method} with 'retry' may be done twice"
        hint = f"if the API knows Idempotency-Key, add idempotencyKey: true to source {source.name.text}"
        self.findings.warn("retry-may-repeat", message, written["retry"].key_span, hint)

    # --- incremental sync ---------------------------------------------------------------------------------------------

    def _since(self, option: Written, scope: Scope) -> None:
        value = option.value
        if isinstance(value, nodes.Since):
            if value.key is not None:
                self.options.value(Written("the key of lastSync", value.key.span, value.key), Text(), scope)
            written = self.options.check(value.options, SINCE, scope)
            path = written.get("updateFrom")
            if path is not None and isinstance(path.value, nodes.Literal_):
                self._update_path(path.value)
        elif not isinstance(value, nodes.Paginate):
            self.expressions.check(value, scope)

    def _update_path(self, node: nodes.Literal_) -> None:
        if isinstance(node.value, str):
            self.paging.expression_text(node, without="[]")

    def _remember_checkpoint(
        self, step: nodes.Fetch, source: nodes.SourceDef, since: Written, written: Mapping[str, Written]
    ) -> None:
        value, path = since.value, constant(step.path)
        if not isinstance(value, nodes.Since) or value.key is not None or not isinstance(path, str) or "{" in path:
            return
        if any(option.key == "key" for option in value.options):
            return
        params = written.get("params")
        key = f"{source.name.text}-{path.partition('?')[0].rstrip('/') or '/'}"
        parameters = params.value if params is not None and not isinstance(params.value, nodes.Since) else None
        self.checkpoints.append(
            Checkpoint(key, None if isinstance(parameters, nodes.Paginate) else parameters, since.key_span)
        )

    def shared_checkpoints(self) -> None:
        """Warn about requests that share a checkpoint although they ask for different things."""
        first: dict[str, Checkpoint] = {}
        for checkpoint in self.checkpoints:
            known = first.setdefault(checkpoint.key, checkpoint)
            if known.parameters != checkpoint.parameters:
                message = f"line {known.span.line} has the same checkpoint '{checkpoint.key}' and other parameters"
                self.findings.warn("shared-sync-key", message, checkpoint.span, 'give it its own: syncKey: "…"')


def _params(options: nodes.Options) -> Collection[str]:
    """The keys of `params` and `query` together; ANYTHING if the text doesn't say."""
    found: list[str] = []
    for option in options:
        if option.key in ("params", "query"):
            keys = _keys_of(Written(option.key, option.key_span, option.value))
            if keys is None:
                return ANYTHING
            found += keys
    return found


def _keys_of(option: Written | None) -> Collection[str] | None:
    """The keys of an object option; none if it isn't written, None if the text doesn't say."""
    if option is None:
        return ()
    if not isinstance(option.value, nodes.ObjectLiteral):
        return None
    if any(isinstance(entry, nodes.Spread) for entry in option.value.entries):
        return None
    return [entry.key for entry in option.value.entries if isinstance(entry, nodes.Entry)]


def _reads_last_sync(options: nodes.Options) -> bool:
    return any(
        isinstance(found, nodes.Name) and found.name == "lastSync" for option in options for found in walk(option)
    )


def _similar(word: str, known: Collection[str]) -> list[str]:
    from difflib import get_close_matches  # noqa: PLC0415  # only for this one message

    by_lower = {name.lower(): name for name in known}
    return [by_lower[match] for match in get_close_matches(word.lower(), by_lower, n=5, cutoff=0.5)]
