"""`call Source.operation`: an operation of an OpenAPI document as a request (spec/runtime.md 10.3)."""

import ast
from collections.abc import Mapping

from reqon.errors import SemanticError
from reqon.http.body import media_type
from reqon.http.openapi.operation import Operation
from reqon.http.paths import PartKind, PathPart
from reqon.lang import nodes
from reqon.lang.compiler import Scope
from reqon.lang.walk import walk
from reqon.runtime.calling import call_key, chosen
from reqon.runtime.codegen import Code, constant, expression, load
from reqon.runtime.fetch_spec import FetchSpec
from reqon.runtime.sources import operation_of
from reqon.runtime.steps.emit import Emitter, Place
from reqon.runtime.steps.fetch import (
    fetch,
    is_guarded,
    is_held,
    paginate_spec,
    path_target,
    request_options,
    send,
    settled_spec,
    since_spec,
    until_function,
    until_path,
    with_last_sync,
)

_GIVEN = ("params", "query")


def emit_call(e: Emitter, step: nodes.CallStep, scope: Scope, code: Code, place: Place) -> Scope:
    options = {o.key: o for o in step.options}
    document, operation = operation_of(step, e.specs)
    _refuse_body(options, operation)
    since = since_spec(e, step, options)
    uses_last_sync = "lastSync" in step.span.text and any(
        isinstance(n, nodes.Name) and n.name == "lastSync" for n in walk(step)
    )
    spec = FetchSpec(
        source=step.source.text,
        method=operation.method.lower(),
        path=place.path,
        template=operation.path.partition("?")[0],
        guarded=is_guarded(e, step),
        shows_request=e.reads_request,
        step_path=place.path,
        paginate=paginate_spec(e, options.get("paginate")),
        since=since,
        until_path=until_path(options.get("until")),
        keeps_sync=(since is not None and since.uses_checkpoint) or uses_last_sync or "syncKey" in options,
        held=is_held(e),
        before_loop=e.has_inner_loop and not place.frame and not place.in_loop,
        span=step.span,
        document=document,
        operation=operation,
    )
    values = _Values(e, step, operation, scope).write(code, uses_last_sync=uses_last_sync)
    target = e.unit.local("target")
    call = code.child()
    within = scope
    made = dict(values.made)
    spec_name = settled_spec(e, step, options, code, scope, e.constant(spec, "fetch"), None)
    if spec.keeps_sync:
        key = e.unit.local("key")
        call.add(
            "KEY = call_key(SPEC, VALUES)",
            step,
            KEY=key,
            call_key=e.constant(call_key, "call_key"),
            SPEC=spec_name,
            VALUES=ast.Tuple([load(name) for name in values.path.values()], ast.Load(), lineno=1, col_offset=0),
        )
        made["callKey"] = load(key)
        if uses_last_sync:
            option = options.get("syncKey")
            written = constant(None) if option is None else e.value(option.value, scope)  # type: ignore[arg-type]
            within = with_last_sync(
                e, step, call, scope, spec_name=spec_name, target=target, written=written, key=load(key)
            )
    request = request_options(e, step, within, values.used, made)
    until = until_function(e, options, scope, spec)
    fetch(e, step, call, place, spec_name=spec_name, target=target, request=request, until=until)
    parts: list[tuple[PathPart, ast.expr | None]] = [
        (PathPart(PartKind.VALUE, None, piece), load(values.path[piece]))
        if is_parameter
        else (PathPart(PartKind.TEXT, piece), None)
        for is_parameter, piece in operation.parts
    ]
    send(e, step, spec, code, place, target=target, made=path_target(e, step, parts), call=call)
    return scope


def _refuse_body(options: Mapping[str, nodes.Option], operation: Operation) -> None:
    """What is no text has no form in most content types: that is better known before the run.

    Raises:
        SemanticError: the operation takes such a body only, and the mission writes an object, a list or a number.
    """
    body = options.get("body")
    if body is None or operation.body_type is None or "headers" in options:
        return
    kind = media_type(operation.body_type)
    literal = isinstance(body.value, nodes.Literal_) and not isinstance(body.value.value, str)
    if kind.reading in ("json", "form") or not (
        literal or isinstance(body.value, nodes.ObjectLiteral | nodes.ArrayLiteral)
    ):
        return
    raise SemanticError(
        f"operation '{operation.id}' takes a body of {kind.name}, in which only a text can be sent",
        code="bad-option-value",
        span=body.value.span,
        hint="give a text, or headers with another Content-Type",
    )


class _Values:
    """Where the values of a path come from: `params`, else a variable of the parameter's name.

    Attributes:
        path: parameter name -> the local that holds its value.
        used: parameters that are in the path and so are no others.
        made: options that had to be evaluated for it.
    """

    def __init__(self, e: Emitter, step: nodes.CallStep, operation: Operation, scope: Scope) -> None:
        self._e, self._step, self._operation, self._scope = e, step, operation, scope
        self.path: dict[str, str] = {}
        self.used: set[str] = set()
        self.made: dict[str, ast.expr] = {}

    def write(self, code: Code, *, uses_last_sync: bool) -> "_Values":
        given = [o for o in self._step.options if o.key in _GIVEN]
        literal = _entries(given)
        names = self._operation.path_parameters
        if not names:
            return self
        if literal is not None:
            for name in names:
                self._written(name, literal, code)
        else:
            self._computed(names, given, code, uses_last_sync=uses_last_sync)
        return self

    def _written(self, name: str, literal: Mapping[str, nodes.Expression], code: Code) -> None:
        if name in literal:
            self.used.add(name)
            value = self._e.value(literal[name], self._scope)
        else:
            found = self._variable(name)
            if found is None:
                message = f"path parameter '{name}' has no value"
                hint = f"add it to params: {{ {name}: … }}"
                span = self._step.operation.span
                raise SemanticError(message, code="missing-path-param", span=span, hint=hint)
            value = found
        self._keep(name, value, code)

    def _computed(self, names: tuple[str, ...], given: list[nodes.Option], code: Code, *, uses_last_sync: bool) -> None:
        # A checkpoint hangs on the path, so that the path cannot hang on the checkpoint.
        scope = self._scope.bind(lastSync=constant(None)) if uses_last_sync else self._scope
        objects: list[ast.expr] = []
        for option in given:
            local = self._e.unit.local(option.key)
            value = self._e.value(option.value, scope)  # type: ignore[arg-type]  # params are an expression
            code.add("LOCAL = VALUE", option.value, LOCAL=local, VALUE=value)
            objects.append(load(local))
            if not uses_last_sync:
                self.made[option.key] = load(local)
        for name in names:
            value = expression(
                "chosen(NAME, OBJECTS, OTHERWISE)",
                self._step,
                chosen=self._e.constant(chosen, "chosen"),
                NAME=constant(name),
                OBJECTS=ast.Tuple(list(objects), ast.Load(), lineno=1, col_offset=0),
                OTHERWISE=self._variable(name) or constant(None),
            )
            self._keep(name, value, code)

    def _variable(self, name: str) -> ast.expr | None:
        known = name in self._scope.names
        return self._e.value(nodes.Name(name=name, span=self._step.operation.span), self._scope) if known else None

    def _keep(self, name: str, value: ast.expr, code: Code) -> None:
        local = self.path[name] = self._e.unit.local(name)
        code.add("LOCAL = VALUE", self._step, LOCAL=local, VALUE=value)


def _entries(given: list[nodes.Option]) -> Mapping[str, nodes.Expression] | None:
    """The parameters as the text lists them; None where it doesn't."""
    found: dict[str, nodes.Expression] = {}
    for option in given:
        if not isinstance(option.value, nodes.ObjectLiteral):
            return None
        for entry in option.value.entries:
            if not isinstance(entry, nodes.Entry):
                return None
            found[entry.key] = entry.value
    return found
