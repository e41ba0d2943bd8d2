"""`get`, `post` and their kin: a request's parts as expressions, and the call that sends it (spec/language.md 7.2)."""

import ast
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from reqon.diagnostics import Diagnostic, Source
from reqon.errors import ConfigurationError, FetchError
from reqon.http.paths import PartKind, PathPart, assemble, template_of
from reqon.lang import flow, nodes
from reqon.lang.compiler import Scope
from reqon.lang.options import SINCE, fetch_table
from reqon.lang.parser import parse_expression
from reqon.lang.placeholders import split
from reqon.lang.walk import walk
from reqon.runtime.codegen import Code, constant, expression, function_of, load
from reqon.runtime.fetch_spec import FetchSpec, PaginateSpec, SinceSpec
from reqon.runtime.fetching import failed, run_fetch, settled
from reqon.runtime.steps.directives import option_value
from reqon.runtime.steps.emit import Emitter, Place
from reqon.runtime.sync import sync_key
from reqon.values import Value

# Options that are known before the run; all others are evaluated when the step runs.
_NOTHING_MADE: Mapping[str, ast.expr] = {}
_STATIC = frozenset(("source", "paginate", "until", "since"))
# Keys of the block of `since: lastSync { … }`, and the option of the request that each one is.
_SINCE_KEYS = {"key": "syncKey", "param": "sinceParam", "format": "sinceFormat"}


def emit_fetch(e: Emitter, step: nodes.Fetch, scope: Scope, code: Code, place: Place) -> Scope:
    options = {o.key: o for o in step.options}
    source, chosen = _source(e, step, options)
    parts, used = path_parts(e, step.path, scope, options)
    since = since_spec(e, step, options)
    uses_last_sync = "lastSync" in step.span.text and any(
        isinstance(n, nodes.Name) and n.name == "lastSync" for n in walk(step)
    )
    keeps_sync = (since is not None and since.uses_checkpoint) or uses_last_sync or "syncKey" in options
    spec = FetchSpec(
        source=source,
        method=step.method,
        path=place.path,
        template=template_of([p for p, _ in parts]),
        guarded=is_guarded(e, step),
        shows_request=e.reads_request,
        step_path=place.path,
        paginate=paginate_spec(e, options.get("paginate")),
        since=since,
        until_path=until_path(options.get("until")),
        keeps_sync=keeps_sync,
        held=is_held(e),
        before_loop=e.has_inner_loop and not place.frame and not place.in_loop,
        span=step.span,
    )
    spec_name = settled_spec(e, step, options, code, scope, e.constant(spec, "fetch"), chosen)
    target = e.unit.local("target")
    made = path_target(e, step.path, parts)
    call = code.child()
    within = scope
    if uses_last_sync:
        key = options.get("syncKey")
        written = e.value(key.value, scope) if key is not None and isinstance(key.value, nodes.Node) else constant(None)  # type: ignore[arg-type]
        within = with_last_sync(e, step, call, scope, spec_name=spec_name, target=target, written=written)
    request = request_options(e, step, within, used)
    until = until_function(e, options, scope, spec)
    fetch(e, step, call, place, spec_name=spec_name, target=target, request=request, until=until)
    send(e, step.path, spec, code, place, target=target, made=made, call=call)
    return scope


def with_last_sync(
    e: Emitter,
    step: nodes.Node,
    call: Code,
    scope: Scope,
    *,
    spec_name: ast.expr,
    target: str,
    written: ast.expr,
    key: ast.expr | None = None,
) -> Scope:
    """The scope in which `lastSync` is what this step's sync key says; `key` is what that is without a written one."""
    last = e.unit.local("last_sync")
    call.add(
        "LOCAL = f.x.sync.since(sync_key(SPEC, TARGET, WRITTEN, KEY))",
        step,
        LOCAL=last,
        sync_key=e.constant(sync_key, "sync_key"),
        SPEC=spec_name,
        TARGET=target,
        WRITTEN=written,
        KEY=constant(None) if key is None else key,
    )
    return scope.bind(lastSync=load(last))


def fetch(
    e: Emitter,
    step: nodes.Node,
    call: Code,
    place: Place,
    *,
    spec_name: ast.expr,
    target: str,
    request: ast.expr,
    until: ast.expr,
) -> None:
    """Write the fetch itself: whatever its pages, the response and its meta are bound when it is over."""
    call.add(
        "RESPONSE, META = await run_fetch(f, SPEC, TARGET, OPTIONS, UNTIL, INDICES)",
        step,
        RESPONSE=place.response,
        META=place.meta,
        run_fetch=e.constant(run_fetch, "run_fetch"),
        SPEC=spec_name,
        TARGET=target,
        OPTIONS=request,
        UNTIL=until,
        INDICES=e.indices(place, step),
    )


def send(
    e: Emitter, node: nodes.Node, spec: FetchSpec, code: Code, place: Place, *, target: str, made: ast.expr, call: Code
) -> None:
    """Write the path and what is done with it.

    A path that cannot be built is a failure like any other: told, and delivered where a match looks at it.
    """
    if isinstance(made, ast.Constant):
        code.add("TARGET = VALUE", node, TARGET=target, VALUE=made)
        code.statements += call.statements
        return
    code.add(
        """
try:
    TARGET = VALUE
except FetchErrors as error:
    RESPONSE, META = failed(f, SPEC, error)
else:
    CALL
""",
        node,
        TARGET=target,
        VALUE=made,
        FetchErrors=e.constant(FetchError, "FetchError"),
        RESPONSE=place.response,
        META=place.meta,
        failed=e.constant(failed, "failed"),
        SPEC=e.constant(spec, "fetch"),
        CALL=call.body(),
    )


def is_guarded(e: Emitter, step: flow.Request) -> bool:
    return flow.is_guarded([step, *e.following], 0)


def is_held(e: Emitter) -> bool:
    return any(
        isinstance(step, nodes.StoreStep)
        and isinstance(step.value, nodes.Name)
        and step.value.name == "response"
        and (store := e.program.stores.get(step.store.text)) is not None
        and isinstance(store.adapter, nodes.Call)
        and store.adapter.name.text == "memory"
        for step in e.following
    )


def _source(e: Emitter, step: nodes.Fetch, options: dict[str, nodes.Option]) -> tuple[str, nodes.Expression | None]:
    """The source of a request, and the expression that names another one when the step runs."""
    default = next(iter(e.program.sources))
    if step.source is not None:
        return step.source.text, None
    written = options.get("source")
    if written is None:
        return default, None
    value = written.value
    name = value.name if isinstance(value, nodes.Name) else value.value if isinstance(value, nodes.Literal_) else None
    if isinstance(name, str) and name in e.program.sources:
        return name, None
    assert not isinstance(value, nodes.Since | nodes.Paginate)
    return default, value


def settled_spec(
    e: Emitter,
    step: flow.Request,
    options: Mapping[str, nodes.Option],
    code: Code,
    scope: Scope,
    spec: ast.expr,
    chosen: nodes.Expression | None,
) -> ast.expr:
    """The name of the request's spec: what only the run knows of it is filled in when the step runs."""
    paginate = options.get("paginate")
    size = _page_size(paginate.value) if paginate is not None else None
    if isinstance(size, nodes.Literal_):
        size = None
    if chosen is None and size is None:
        return spec
    local = e.unit.local("spec")
    code.add(
        "LOCAL = settled(SPEC, f.x.clients, SOURCE, SIZE)",
        step,
        LOCAL=local,
        settled=e.constant(settled, "settled"),
        SPEC=spec,
        SOURCE=constant(None) if chosen is None else e.value(chosen, scope),
        SIZE=constant(None) if size is None else e.value(size, scope),
    )
    return load(local)


def _page_size(value: object) -> nodes.Expression | None:
    if isinstance(value, nodes.Paginate):
        return value.arguments[1] if len(value.arguments) > 1 else None
    if isinstance(value, nodes.ObjectLiteral):
        return next((x.value for x in value.entries if isinstance(x, nodes.Entry) and x.key == "pageSize"), None)
    return None


# --- the path --------------------------------------------------------------------------------------------------------


def path_parts(
    e: Emitter, path: nodes.Expression, scope: Scope, options: dict[str, nodes.Option]
) -> tuple[list[tuple[PathPart, ast.expr | None]], set[str]]:
    """The parts of a path, each with the expression of its value; and the parameters it used up."""
    used: set[str] = set()
    if isinstance(path, nodes.Literal_) and isinstance(path.value, str):
        out: list[tuple[PathPart, ast.expr | None]] = []
        for piece in split(path)[0]:
            if isinstance(piece, str):
                out.append((PathPart(PartKind.TEXT, piece), None))
            elif isinstance(piece.expression, nodes.Call) and piece.expression.name.text == "pathSegments":
                out.append(_single(e, piece.expression, scope, PartKind.VALUE))
            elif piece.expression is not None:
                out.append(
                    (
                        PathPart(PartKind.VALUE, None, piece.text),
                        _placeholder(e, piece.expression, scope, options, used),
                    )
                )
        return out, used
    operands = _operands(path)
    if operands is None:
        return [_single(e, path, scope, PartKind.RAW)], used
    return [
        (PathPart(PartKind.TEXT, o.value), None)
        if isinstance(o, nodes.Literal_) and isinstance(o.value, str)
        else _single(e, o, scope, PartKind.JOINED)
        for o in operands
    ], used


def _operands(path: nodes.Expression) -> list[nodes.Expression] | None:
    """The operands of `concat(…)` or a chain of `+`; None for any other expression."""
    if isinstance(path, nodes.Call) and path.name.text == "concat" and path.form == "plain":
        if all(not isinstance(a, nodes.Spread | nodes.Lambda) for a in path.arguments):
            return list(path.arguments)  # type: ignore[arg-type]
        return None
    if isinstance(path, nodes.Binary) and path.operator == "+":
        left = _operands(path.left)
        return [*(left if left is not None else [path.left]), path.right]
    return None


def _single(e: Emitter, node: nodes.Expression, scope: Scope, kind: PartKind) -> tuple[PathPart, ast.expr]:
    if isinstance(node, nodes.Call) and node.name.text == "pathSegments" and len(node.arguments) == 1:
        return PathPart(PartKind.SEGMENTS, None, node.span.text), e.value(node.arguments[0], scope)  # type: ignore[arg-type]
    return PathPart(kind, None, node.span.text), e.value(node, scope)


def _placeholder(
    e: Emitter, node: nodes.Expression, scope: Scope, options: dict[str, nodes.Option], used: set[str]
) -> ast.expr:
    """A placeholder's value: a name, else a parameter of this request, else an environment variable."""
    if isinstance(node, nodes.Name) and node.name not in scope.names and node.name not in scope.stores:
        params = options.get("params")
        if params is not None and isinstance(params.value, nodes.ObjectLiteral):
            for entry in params.value.entries:
                if isinstance(entry, nodes.Entry) and entry.key == node.name:
                    used.add(node.name)
                    return e.value(entry.value, scope)
        if node.name.isupper() and node.name not in e.program.sources and node.name != "response":
            call = nodes.Call(
                name=nodes.Word(text="env", span=node.span),
                arguments=(nodes.Literal_(value=node.name, span=node.span),),
                span=node.span,
            )
            return e.value(call, scope)
    return e.value(node, scope)


def path_target(e: Emitter, path: nodes.Node, parts: list[tuple[PathPart, ast.expr | None]]) -> ast.expr:
    """The assembled path: a constant where it is one, and may be asked for."""
    if all(value is None for _, value in parts):
        # One that is refused fails when its step runs, at its place, as any other failure of a request.
        with suppress(FetchError):
            return constant(assemble([part for part, _ in parts]))
    made: list[ast.expr] = []
    for part, value in parts:
        if value is None:
            made.append(e.constant(part, "part"))
        else:
            made.append(
                expression(
                    "PathPart(KIND, VALUE, TEXT)",
                    path,
                    PathPart=e.constant(PathPart, "PathPart"),
                    KIND=e.constant(part.kind, "kind"),
                    VALUE=value,
                    TEXT=constant(part.expression),
                )
            )
    return expression(
        "assemble(PARTS)",
        path,
        assemble=e.constant(assemble, "assemble"),
        PARTS=ast.Tuple(made, ast.Load(), lineno=1, col_offset=0),
    )


# --- options ---------------------------------------------------------------------------------------------------------


def request_options(
    e: Emitter,
    step: flow.Request,
    scope: Scope,
    used: Collection[str],
    made: Mapping[str, ast.expr] = _NOTHING_MADE,
) -> ast.expr:
    """What the step evaluates each time it runs, by option name; None where there is nothing.

    `used` are parameters that the path has taken, `made` what is evaluated already, whether it is an option or not.
    """
    table = fetch_table(step.method if isinstance(step, nodes.Fetch) else "call")
    keys: list[ast.expr | None] = [constant(key) for key in made]
    values: list[ast.expr] = list(made.values())
    for option in step.options:
        if option.key in made:
            continue
        if option.key == "since" and not isinstance(option.value, nodes.Since):
            if not (isinstance(option.value, nodes.Name) and option.value.name == "lastSync"):
                keys.append(constant("since"))
                values.append(option_value(e, option, scope, table))
            continue
        if option.key in _STATIC:
            continue
        keys.append(constant(option.key))
        if option.key in ("params", "query") and used and isinstance(option.value, nodes.ObjectLiteral):
            rest = tuple(x for x in option.value.entries if not (isinstance(x, nodes.Entry) and x.key in used))
            values.append(e.value(nodes.ObjectLiteral(entries=rest, span=option.value.span), scope))
        else:
            values.append(option_value(e, option, scope, table))
    since = next((o.value for o in step.options if o.key == "since"), None)
    if isinstance(since, nodes.Since) and since.key is not None:
        keys.append(constant("syncKey"))
        values.append(e.value(since.key, scope))
    if isinstance(since, nodes.Since):
        for option in since.options:
            if option.key in _SINCE_KEYS:
                keys.append(constant(_SINCE_KEYS[option.key]))
                values.append(option_value(e, option, scope, SINCE))
    if not keys:
        return constant(None)
    return expression("EXPR", step, EXPR=ast.Dict(keys, values, lineno=1, col_offset=0))


def paginate_spec(e: Emitter, option: nodes.Option | None) -> PaginateSpec | None:
    if option is None:
        return None
    value = option.value
    if isinstance(value, nodes.Paginate):
        name = value.strategy.text
        arguments = value.arguments
        if name in e.registries.paginations:
            given = tuple(_argument(e, argument) for argument in arguments)
            parameter = arguments[0].name if arguments and isinstance(arguments[0], nodes.Name) else ""
            return PaginateSpec(name, parameter, 0, custom=e.registries.paginations[name], arguments=given)
        if name == "link":
            relation = arguments[0].value if arguments and isinstance(arguments[0], nodes.Literal_) else "next"
            return PaginateSpec("link", "", 0, relation=str(relation))
        if name == "cursor" and len(arguments) == 1:
            return PaginateSpec("cursor", "cursor", 0, _finder(e, arguments[0]))
        parameter = _word(arguments[0])
        written_size = _page_size(value)
        size = written_size.value if isinstance(written_size, nodes.Literal_) else 0
        finder = _finder(e, arguments[2]) if name == "cursor" and len(arguments) > 2 else None
        if name in ("offset", "page") or finder is not None:
            return PaginateSpec(name, parameter, int(size), finder)
    elif isinstance(value, nodes.ObjectLiteral):
        written: dict[str, Any] = {x.key: x.value for x in value.entries if isinstance(x, nodes.Entry)}
        kind = _word(written["type"]) if "type" in written else "page"
        if kind in e.registries.paginations:
            options = {key: _argument(e, node) for key, node in written.items() if key != "type"}
            parameter = str(options.get("param", kind))
            return PaginateSpec(kind, parameter, 0, custom=e.registries.paginations[kind], arguments=(options,))
        parameter = _word(written["param"]) if "param" in written else kind
        size_node = written.get("pageSize")
        size = size_node.value if isinstance(size_node, nodes.Literal_) else 0
        if kind == "link":
            return PaginateSpec("link", "", 0, relation=_word(written["rel"]) if "rel" in written else "next")
        if kind in ("offset", "page"):
            return PaginateSpec(kind, parameter, int(size))
        if kind == "cursor" and "cursorPath" in written:
            return PaginateSpec("cursor", parameter, int(size), _finder(e, written["cursorPath"]))
    raise ConfigurationError(
        "",
        Diagnostic(
            "bad-option-value",
            "this pagination cannot be run",
            option.value.span,
            'use offset(p, n), page(p, n), cursor(p, n, "path") or link()',
        ),
    )


def _argument(e: Emitter, node: nodes.Expression) -> Value:
    """An argument of a registered strategy: a bare word is its own text, everything else is evaluated now."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Literal_):
        return node.value
    return _page_function(e, node, e.unit.local("page"))(None)


def _word(node: nodes.Node) -> str:
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Literal_) and isinstance(node.value, str):
        return node.value
    return node.span.text


def _finder(e: Emitter, node: nodes.Expression) -> Callable[..., Any]:
    """A function of a page's body and headers that finds its cursor; `link.next` may be the Link header's."""
    if isinstance(node, nodes.Literal_) and isinstance(node.value, str):
        span = node.span
        tree, problems = parse_expression(span.source, start=span.start + 1, end=span.end - 1)
        if tree is None or problems:
            raise ConfigurationError(
                "", Diagnostic("bad-option-value", "the cursor path is no path", span, 'such as "meta.next"')
            )
        node = tree
    page = e.unit.local("page")
    find = _page_function(e, node, page)
    if node.span.text.strip() == "link.next":
        from reqon.http.pagination import link_target  # noqa: PLC0415

        def from_header(body: Any, headers: Any) -> Any:
            if isinstance(body, dict) and "link" in body:
                return find(body)
            return link_target(headers.get("Link"), "next")

        return from_header
    return lambda body, _headers: find(body)


def _page_function(e: Emitter, node: nodes.Expression, page: str) -> Callable[[Any], Any]:
    """An expression in which names are fields of the page."""
    scope = Scope(current=load(page), schemas=e.program.schemas, fields=True)
    return function_of(e.unit, page, e.expressions.value(node, scope), node)


def since_spec(e: Emitter, step: flow.Request, options: dict[str, nodes.Option]) -> SinceSpec | None:
    option = options.get("since")
    if option is None:
        return None
    value = option.value
    if isinstance(value, nodes.Name) and value.name == "lastSync":
        return SinceSpec(uses_checkpoint=True)
    if isinstance(value, nodes.Since):
        written: dict[str, Any] = {o.key: o.value for o in value.options}
        update = written.get("updateFrom")
        finder = None
        if isinstance(update, nodes.Literal_):
            finder = _update_finder(e, update)
        return SinceSpec(uses_checkpoint=True, update_from=finder)
    return SinceSpec(uses_checkpoint=False)


def _update_finder(e: Emitter, node: nodes.Literal_) -> Callable[[Any], Any]:
    """A function of the final response that finds `updateFrom`. `data[].at` is `at` of all items in `data`."""
    path = str(node.value).replace("[]", "")
    tree, problems = parse_expression(Source(node.span.source.name, path))
    if tree is None or problems:
        raise ConfigurationError(
            "", Diagnostic("bad-option-value", "updateFrom is no path", node.span, 'such as "data[].changedAt"')
        )
    return _page_function(e, tree, e.unit.local("page"))


def until_path(option: nodes.Option | None) -> tuple[str, ...] | None:
    """The path inside `length(response.x.y)` or `response.x.y.length` of an `until`."""
    if option is None or not isinstance(option.value, nodes.Node):
        return None
    for node in walk(option.value):
        inner: nodes.Node | None = None
        if isinstance(node, nodes.Call) and node.name.text == "length" and len(node.arguments) == 1:
            inner = node.arguments[0]
        elif isinstance(node, nodes.Member) and node.key == "length":
            inner = node.target
        path: list[str] = []
        while isinstance(inner, nodes.Member):
            path.append(inner.key)
            inner = inner.target
        if path and isinstance(inner, nodes.Name) and inner.name == "response":
            return tuple(reversed(path))
    return None


def until_function(e: Emitter, options: dict[str, nodes.Option], scope: Scope, spec: FetchSpec) -> ast.expr:
    """`until` as a function of the page, its virtual fields, the parameter's next value and the strategy's opinion."""
    option = options.get("until")
    if option is None or spec.paginate is None or not isinstance(option.value, nodes.Node):
        return constant(None)
    page, meta, following, more = (e.unit.local(n) for n in ("page", "meta", "next", "more"))
    from dataclasses import replace  # noqa: PLC0415

    names: dict[str, ast.expr] = {"hasMore": load(more)}
    if spec.paginate.parameter:
        names[spec.paginate.parameter] = load(following)
    within = replace(scope.bind(names).with_current(load(page)), response=load(page), meta=load(meta))
    test = e.truth(option.value, within)  # type: ignore[arg-type]
    return expression(f"lambda {page}, {meta}, {following}, {more}: TEST", option.value, TEST=test)
