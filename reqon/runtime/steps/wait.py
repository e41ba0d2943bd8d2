"""`wait`: an endpoint registered, and the step that blocks until its events came (spec/language.md 7.9)."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from reqon.diagnostics import Diagnostic
from reqon.errors import ConfigurationError, ReqonError
from reqon.http.paths import assemble
from reqon.lang import flow, nodes
from reqon.lang.compiler import Scope, free_names
from reqon.lang.options import WAIT
from reqon.runtime.codegen import Code, constant, expression, function_of, load
from reqon.runtime.endpoints import TokenRule, WaitSpec, endpoint_path
from reqon.runtime.settings import seconds
from reqon.runtime.steps.directives import option_value
from reqon.runtime.steps.emit import Emitter, Place
from reqon.runtime.steps.fetch import path_parts, path_target
from reqon.runtime.steps.storing import key_text
from reqon.runtime.waiting import begin_wait, finish_wait
from reqon.webhooks.signatures import ALGORITHMS, ENCODINGS

_EVALUATED = ("timeout", "expectedEvents", "retryOnTimeout")
_SIGNATURE_WORDS = frozenset((*ALGORITHMS, *ENCODINGS))


def emit_wait(e: Emitter, step: nodes.Wait, scope: Scope, code: Code, place: Place) -> Scope:
    spec = e.waits[id(step)]
    options = _options(step)
    indices = e.indices(place, step)
    path = options.get("path")
    target = constant(None)
    if path is not None and spec.path is None:
        target = path_target(e, path, path_parts(e, path, scope, {})[0])
    ticket = e.unit.local("ticket")
    code.add(
        "TICKET = begin_wait(f, SPEC, TARGET, OPTIONS, INDICES)",
        step,
        TICKET=ticket,
        begin_wait=e.constant(begin_wait, "begin_wait"),
        SPEC=e.constant(spec, "wait"),
        TARGET=target,
        OPTIONS=_evaluated(e, step, options, spec, scope),
        INDICES=indices,
    )
    accepts, key = _accepts(e, options, scope), _key(e, options, scope)
    inside = [step, *e.following]
    if e.runs_inside_wait(inside, 1):
        scope = _told(e, inside[1], scope, code, place, ticket)
    code.add(
        "RESPONSE, META = await finish_wait(f, TICKET, ACCEPTS, KEY)",
        step,
        RESPONSE=place.response,
        META=place.meta,
        finish_wait=e.constant(finish_wait, "finish_wait"),
        TICKET=ticket,
        ACCEPTS=accepts,
        KEY=key,
    )
    return scope


def _told(e: Emitter, step: nodes.Step, scope: Scope, code: Code, place: Place, ticket: str) -> Scope:
    """The step that tells somebody the URL: after the registration, before the wait, once."""
    before, _, number = place.path.rpartition(".")
    inner = code.child()
    inner.add(
        "RESPONSE = TICKET.told()\nMETA = None", step, RESPONSE=place.response, META=place.meta, TICKET=load(ticket)
    )
    known, e.following = e.following, ()
    beside = f"{before}.{int(number) + 1}" if before else str(int(number) + 1)
    scope = e.step(step, scope, inner, replace(place, path=beside))
    e.following = known
    if isinstance(step, nodes.Let | nodes.Map | nodes.Apply):
        code.statements += inner.statements  # what it binds is read later, also by a resumed run
    else:
        code.add("if not TICKET.begun:\n    BODY", step, TICKET=load(ticket), BODY=inner.body())
    return scope


def _options(step: nodes.Wait) -> dict[str, nodes.Expression]:
    found: dict[str, nodes.Expression] = {}
    for option in step.options:
        assert not isinstance(option.value, nodes.Since | nodes.Paginate)
        found["retryOnTimeout" if option.key == "retry" else option.key] = option.value
    return found


def _evaluated(
    e: Emitter, step: nodes.Wait, options: Mapping[str, nodes.Expression], spec: WaitSpec, scope: Scope
) -> ast.expr:
    """What is evaluated when the step runs, by option name."""
    keys: list[ast.expr | None] = []
    values: list[ast.expr] = []
    for option in step.options:
        key = "retryOnTimeout" if option.key == "retry" else option.key
        if key in _EVALUATED:
            keys.append(constant(key))
            values.append(option_value(e, option, scope, WAIT))
    if spec.signed and spec.signature is None:
        keys.append(constant("signature"))
        values.append(_signature(e, options["signature"], scope))
    return expression("EXPR", step, EXPR=ast.Dict(keys, values, lineno=1, col_offset=0))


def _accepts(e: Emitter, options: Mapping[str, nodes.Expression], scope: Scope) -> ast.expr:
    """`eventFilter` as a function of an event's body, or None."""
    test = options.get("eventFilter")
    if test is None:
        return constant(None)
    body = e.unit.local("event")
    return expression(f"lambda {body}: TEST", test, TEST=e.truth(test, scope.with_current(load(body))))


def _key(e: Emitter, options: Mapping[str, nodes.Expression], scope: Scope) -> ast.expr:
    """`storage.key` as a function of a record, or None."""
    storage = options.get("storage")
    key = _entry(storage, "key")
    if key is None:
        return constant(None)
    record = e.unit.local("record")
    made = e.value(key, scope.with_current(load(record)))
    return expression(f"lambda {record}: key_text(KEY)", key, key_text=e.constant(key_text, "key_text"), KEY=made)


def _signature(e: Emitter, node: nodes.Expression, scope: Scope) -> ast.expr:
    """The options of a signature as a dict expression; its words as texts."""
    if not isinstance(node, nodes.ObjectLiteral):
        return e.value(node, scope)
    keys: list[ast.expr | None] = []
    values: list[ast.expr] = []
    for entry in node.entries:
        word = entry.value.name if isinstance(entry.value, nodes.Name) else None
        keys.append(None if isinstance(entry, nodes.Spread) else constant(entry.key))
        values.append(constant(word) if word in _SIGNATURE_WORDS else e.value(entry.value, scope))
    return expression("EXPR", node, EXPR=ast.Dict(keys, values, lineno=1, col_offset=0))


# --- what the text says ----------------------------------------------------------------------------------------------


def wait_specs(e: Emitter) -> dict[int, WaitSpec]:
    """The waits of an action, by `id` of their steps."""
    found: dict[int, WaitSpec] = {}
    for index, step in enumerate(e.action.steps):
        _specs_in([step], index, 0, e, found)
    return found


def _specs_in(steps: Sequence[nodes.Step], top: int, depth: int, e: Emitter, found: dict[int, WaitSpec]) -> None:
    for step in steps:
        match step:
            case nodes.Wait():
                found[id(step)] = _spec(e, step, len(found), top, depth)
            case nodes.For():
                _specs_in(step.body, top, depth + 1, e, found)
            case nodes.MatchStep():
                for arm in (*step.arms, *step.catch):
                    _specs_in(flow.steps_of(arm.body), top, depth, e, found)
            case nodes.Validate(otherwise=body) if body is not None:
                _specs_in(flow.steps_of(body), top, depth, e, found)


def _spec(e: Emitter, step: nodes.Wait, number: int, top: int, depth: int) -> WaitSpec:
    options = _options(step)
    path = options.get("path")
    literal = path.value if isinstance(path, nodes.Literal_) and "{" not in str(path.value) else None
    signature = options.get("signature")
    free = signature is None or free_names(signature) - _SIGNATURE_WORDS <= set(e.program.lets)
    timeout = options.get("timeout")
    expected = options.get("expectedEvents")
    count, types = _expected(expected)
    return WaitSpec(
        number=number,
        step=top,
        depth=depth,
        path=_literal_path(e, path) if literal is not None and path is not None else None,
        generated=path is None,
        timeout_seconds=_literal_seconds(timeout),
        expected=count,
        types=types,
        filtered="eventFilter" in options,
        guard=_guard(options.get("token")),
        signed=signature is not None,
        signature=None
        if signature is None or not free
        else function_of(e.unit, "f", _signature(e, signature, e.plain), signature),
        secret_from=_variable(signature),
        storage=_store_name(options.get("storage")),
        early=free and (path is None or literal is not None),
        span=step.span,
    )


def _variable(signature: nodes.Node | None) -> str | None:
    """The environment variable that a signature's secret is read from."""
    entries = signature.entries if isinstance(signature, nodes.ObjectLiteral) else ()
    secret = next((x.value for x in entries if isinstance(x, nodes.Entry) and x.key == "secret"), None)
    if not isinstance(secret, nodes.Call) or secret.name.text != "env" or not secret.arguments:
        return None
    name = secret.arguments[0]
    return str(name.value) if isinstance(name, nodes.Literal_) else None


def _literal_path(e: Emitter, path: nodes.Expression) -> str:
    parts = path_parts(e, path, e.plain, {})[0]
    try:
        return endpoint_path(assemble([part for part, _ in parts]))
    except ReqonError as error:
        raise error.locate(path.span) from error


def _literal_seconds(node: nodes.Expression | None) -> float | None:
    if isinstance(node, nodes.DurationLiteral):
        return node.milliseconds / 1000
    known = isinstance(node, nodes.Literal_) and isinstance(node.value, int | float)
    return seconds(node.value, 0.0) if known and isinstance(node, nodes.Literal_) else None


def _expected(node: nodes.Expression | None) -> tuple[int | None, tuple[str, ...] | None]:
    """How many events, and of which types, as far as the text says it."""
    if node is None:
        return 1, None
    if isinstance(node, nodes.Literal_) and isinstance(node.value, int):
        return node.value, None
    if isinstance(node, nodes.ArrayLiteral):
        words = [n.value for n in node.elements if isinstance(n, nodes.Literal_) and isinstance(n.value, str)]
        if len(words) == len(node.elements):
            return 1, tuple(words)
    return None, None


def _guard(node: nodes.Expression | None) -> TokenRule:
    word: Any = "auto"
    if isinstance(node, nodes.Name):
        word = node.name
    elif isinstance(node, nodes.Literal_):
        word = node.value
    elif node is not None:
        word = None
    if word not in get_args(TokenRule):
        assert node is not None
        raise ConfigurationError(
            "",
            Diagnostic(
                "bad-option-value", "token is auto, required or none", node.span, "it cannot be computed: write it out"
            ),
        )
    rule: TokenRule = word
    return rule


def _store_name(node: nodes.Expression | None) -> str | None:
    if node is None:
        return None
    target = _entry(node, "target") if isinstance(node, nodes.ObjectLiteral) else node
    if isinstance(target, nodes.Name):
        return target.name
    if isinstance(target, nodes.Literal_) and isinstance(target.value, str):
        return target.value
    raise ConfigurationError(
        "",
        Diagnostic(
            "bad-option-value", "storage names no store", node.span, "write storage: events, or { target: events }"
        ),
    )


def _entry(node: nodes.Expression | None, key: str) -> nodes.Expression | None:
    if not isinstance(node, nodes.ObjectLiteral):
        return None
    return next((x.value for x in node.entries if isinstance(x, nodes.Entry) and x.key == key), None)
