"""Steps: their names, bindings, options and order (spec/language.md 2.7, 4.3, 7)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from reqon.diagnostics import Span, did_you_mean
from reqon.lang import flow, nodes
from reqon.lang import options as tables
from reqon.lang.checks.arms import check_arms, is_exhaustive
from reqon.lang.checks.expressions import Expressions
from reqon.lang.checks.findings import Findings, first_word, guess
from reqon.lang.checks.options import Options, Written
from reqon.lang.checks.requests import Requests
from reqon.lang.checks.schemas import missing_fields
from reqon.lang.checks.scope import Scope
from reqon.lang.kinds import Whole

_REQUEST_WORDS = ("get", "post", "put", "patch", "delete", "call", "wait")
_VALUE_WORDS = ("map", "apply", "validate", "let", "store", "clear", "queue")
_ORDER_WORDS = ("for", "match", "run", "skip", "continue", "abort", "retry", "jump")
STEP_WORDS = (*_REQUEST_WORDS, *_VALUE_WORDS, *_ORDER_WORDS)

_Check = TypeVar("_Check", bound=Callable[..., None])
_CHECKS: dict[type, Callable[["Steps", Any, Scope], None]] = {}


def _of(*kinds: type) -> Callable[[_Check], _Check]:
    """Declare the method that checks steps of these classes."""

    def declare(check: _Check) -> _Check:
        _CHECKS.update(dict.fromkeys(kinds, check))
        return check

    return declare


@dataclass(slots=True)
class Steps:
    """Checks the steps of actions. `handlers` are the words of registered extension steps."""

    expressions: Expressions
    options: Options
    requests: Requests
    findings: Findings
    handlers: frozenset[str]
    _may_continue: bool = False
    _guarding: bool = False

    def action(self, action: nodes.ActionDef) -> None:
        """Check an action: its options, its steps and what its retries repeat."""
        self.options.check(action.options, tables.ACTION, Scope("start"))
        self._list(action.steps, Scope("action", current=True))
        for found in flow.retry_targets(action.steps):
            if found.request is None:
                self._nothing_to_repeat(found.directive)

    def _nothing_to_repeat(self, directive: nodes.Retry | nodes.Jump) -> None:
        span = directive.span
        word = "retry" if isinstance(directive, nodes.Retry) else "jump"
        self.findings.error(
            "retry-without-fetch",
            "retry has no request to repeat",
            Span(span.source, span.start, span.start + len(word)),
            "put the match after a get, post, put, patch, delete or call in the same action or loop body",
        )

    def _list(self, steps: Sequence[nodes.Step], scope: Scope) -> None:
        """Check the steps of one block, whose names are those of `scope`."""
        left: nodes.Step | None = None
        for index, step in enumerate(steps):
            if left is not None:
                word = left.span.text.split(None, 1)[0]
                message = f"steps after '{word}' never run"
                self.findings.warn("unreachable-step", message, first_word(step.span), "remove them, or move them up")
            self._guarding = type(step) is nodes.MatchStep and flow.guarding_match(steps, index)
            _CHECKS[type(step)](self, step, scope)
            left = step if left is None and index + 1 < len(steps) and flow.leaves(step) else None
        self.unused_lets(scope)

    def unused_lets(self, scope: Scope) -> None:
        """Warn about the variables of a block that nothing reads."""
        for name, binding in scope.names.items():
            if binding.kind == "let" and not binding.used and not name.startswith("_"):
                self.findings.warn("unused-let", f"'{name}' is never used", binding.span, "remove it")

    # --- requests -----------------------------------------------------------------------------------------------------

    @_of(nodes.Fetch)
    def _fetch(self, step: nodes.Fetch, scope: Scope) -> None:
        self.requests.fetch(step, scope)

    @_of(nodes.CallStep)
    def _call(self, step: nodes.CallStep, scope: Scope) -> None:
        self.requests.call(step, scope)

    @_of(nodes.Wait)
    def _wait(self, step: nodes.Wait, scope: Scope) -> None:
        item = scope.with_current()
        for option in step.options:
            if option.key == "path" and isinstance(option.value, nodes.Literal_):
                self.requests.path_of(option.value, scope, None)
        self.options.check(step.options, tables.WAIT, scope, own={"eventFilter": item, "storage": item})
        for option in step.options:
            if option.key == "path" and isinstance(option.value, nodes.Literal_):
                self._endpoint_path(option.value)
            elif option.key == "signature" and isinstance(option.value, nodes.ObjectLiteral):
                self._signature(option.value)

    def _endpoint_path(self, path: nodes.Literal_) -> None:
        whole = str(path.value)
        text = whole.partition("{")[0]
        own = whole == text and text in ("", "/", "/health", "/_health")
        if "://" in text or "?" in text or own:
            message = "this cannot be the path of an endpoint"
            self.findings.error("bad-option-value", message, path.span, 'a path of its own, such as "/hooks/orders"')

    def _signature(self, written: nodes.ObjectLiteral) -> None:
        given = {entry.key for entry in written.entries if isinstance(entry, nodes.Entry)}
        missing = [name for name in ("secret", "header") if name not in given]
        if missing and len(given) == len(written.entries):
            message = f"a signature needs {' and '.join(missing)}"
            hint = 'write signature: { secret: env("…"), header: "X-Signature" }'
            self.findings.error("bad-option-value", message, written.span, hint)

    # --- stores -------------------------------------------------------------------------------------------------------

    def _store(self, name: nodes.Word) -> None:
        self.findings.declared("store", name.text, name.span, self.expressions.names.stores)

    @_of(nodes.Delete)
    def _delete(self, step: nodes.Delete, scope: Scope) -> None:
        self._store(step.store)
        self.expressions.check(step.key, scope)

    @_of(nodes.Clear)
    def _clear(self, step: nodes.Clear, scope: Scope) -> None:
        del scope
        self._store(step.store)

    @_of(nodes.StoreStep)
    def _store_step(self, step: nodes.StoreStep, scope: Scope) -> None:
        self.expressions.check(step.value, scope)
        self._store(step.store)
        if step.options:
            self.options.check(step.options, tables.STORE_STEP, scope, own={"key": scope.with_current()})

    @_of(nodes.Queue)
    def _queue(self, step: nodes.Queue, scope: Scope) -> None:
        if step.store is not None:
            self._store(step.store)
        elif "dlq" in self.expressions.names.stores:
            self.findings.use("store", "dlq")
        self.options.check(step.options, tables.QUEUE, scope, own={"key": scope.with_current()})

    # --- values -------------------------------------------------------------------------------------------------------

    @_of(nodes.Let)
    def _let(self, step: nodes.Let, scope: Scope) -> None:
        self.expressions.check(step.value, scope)
        scope.bind(step.name, "let", self.findings)

    @_of(nodes.Map)
    def _map(self, step: nodes.Map, scope: Scope) -> None:
        self.expressions.check(step.value, scope)
        if step.mapping is not None:
            self.expressions.object(step.mapping, scope.with_current())
        target = step.target
        schemas = self.expressions.names.schemas
        if target.text in schemas:
            self.findings.use("schema", target.text)
            if step.mapping is not None:
                missing_fields(target, step.mapping, schemas, self.findings)
        elif "." in target.text:
            self.expressions.undefined_schema(target)
        else:
            scope.rebind(nodes.Word(text=target.text, span=target.span), self.findings)

    @_of(nodes.Apply)
    def _apply(self, step: nodes.Apply, scope: Scope) -> None:
        name = step.transform
        self.findings.declared("transform", name.text, name.span, self.expressions.names.transforms)
        self.expressions.check(step.value, scope)
        if step.name is not None:
            scope.bind(step.name, "apply", self.findings)

    @_of(nodes.Validate)
    def _validate(self, step: nodes.Validate, scope: Scope) -> None:
        if step.target is not None:
            self.expressions.check(step.target, scope)
        item = scope.with_current()
        for constraint in step.constraints:
            self.constraint(constraint, item)
        if step.otherwise is not None:
            self._body(step.otherwise, item)

    def constraint(self, node: nodes.Assume, item: Scope) -> None:
        """Check one `assume`, of a validate step or a schema."""
        self.expressions.check_all((node.condition, *node.constraints, node.message), item)

    # --- order --------------------------------------------------------------------------------------------------------

    @_of(nodes.For)
    def _for(self, step: nodes.For, scope: Scope) -> None:
        self.expressions.check(step.collection, scope)
        inner = scope.inner()
        inner.current = True
        inner.bind(step.variable, "loop", self.findings)
        self.expressions.check_all(step.conditions, inner)
        if step.checkpoint is not None:
            self.options.value(Written("checkpoint every", step.checkpoint.span, step.checkpoint), Whole(1), scope)
        outside, self._may_continue = self._may_continue, False
        self._list(step.body, inner)
        self._may_continue = outside

    @_of(nodes.MatchStep)
    def _match(self, step: nodes.MatchStep, scope: Scope) -> None:
        guarded = self._guarding
        schemas = self.expressions.names.schemas
        if step.subject is not None:
            self.expressions.check(step.subject, scope)
        for arm in step.arms:
            self._arm(arm, scope, subject=step.subject is not None)
        check_arms(step.arms, schemas, self.findings, guarded=guarded)
        if not is_exhaustive(step.arms, schemas):
            span = Span(step.span.source, step.span.start, step.span.start + len("match"))
            self.findings.warn("non-exhaustive-match", "no arm for other values", span, "add: _ -> continue")
        for arm in step.catch:
            self._arm(arm, scope, subject=True)
        check_arms(step.catch, schemas, self.findings, guarded=False)

    def _arm(self, arm: nodes.Arm, scope: Scope, *, subject: bool) -> None:
        inner = self.expressions.arm(arm, scope, subject=subject)
        self._body(arm.body, inner.with_current() if subject else inner)

    def _body(self, body: nodes.ArmBody, scope: Scope) -> None:
        """An arm body, or the body of `or`: a block of its own, in which `continue` has a meaning."""
        outside, self._may_continue = self._may_continue, True
        self._list(flow.steps_of(body), scope.inner())
        self._may_continue = outside

    # --- directives ---------------------------------------------------------------------------------------------------

    @_of(nodes.Continue)
    def _continue(self, step: nodes.Continue, scope: Scope) -> None:
        del scope
        if not self._may_continue:
            hint = "use 'skip' to go to the next element"
            self.findings.error("continue-not-in-arm", "'continue' is only allowed in a match arm", step.span, hint)

    @_of(nodes.Skip)
    def _skip(self, step: nodes.Skip, scope: Scope) -> None:
        pass

    @_of(nodes.Abort)
    def _abort(self, step: nodes.Abort, scope: Scope) -> None:
        if step.message is not None:
            self.expressions.check(step.message, scope)

    @_of(nodes.Retry)
    def _retry(self, step: nodes.Retry, scope: Scope) -> None:
        self.options.check(step.options, tables.RETRY_STEP, scope)

    @_of(nodes.Jump)
    def _jump(self, step: nodes.Jump, scope: Scope) -> None:
        self._action(step.action)
        self.options.check(step.options, tables.RETRY_STEP, scope)

    @_of(nodes.Run)
    def _run(self, step: nodes.Run, scope: Scope) -> None:
        self.pipeline(step, scope)

    def pipeline(self, run: nodes.Run, scope: Scope) -> None:
        """Check the stages of a `run`."""
        for stage in run.stages:
            for name in stage.actions:
                self._action(name)
            if stage.condition is not None:
                self.expressions.check(stage.condition, scope)

    def _action(self, name: nodes.Qualified) -> None:
        self.findings.declared("action", name.text, name.span, self.expressions.names.actions)

    @_of(nodes.Extension)
    def _extension(self, step: nodes.Extension, scope: Scope) -> None:
        word = step.word
        if word.text not in self.handlers:
            hint = guess(word.text, (*STEP_WORDS, *self.handlers))
            if hint is None:
                hint = did_you_mean(word.text, tuple(self.handlers), "registered steps")
            self.findings.error("undefined-step", f"no step named '{word.text}'", word.span, hint)
            for option in step.options:
                if not isinstance(option.value, nodes.Since | nodes.Paginate):
                    self.options.ignoring_words(option.value, scope)
            return
        for option in step.options:
            if not isinstance(option.value, nodes.Since | nodes.Paginate):
                self.expressions.check(option.value, scope)
