"""`for`: a loop's body as one function over all its items (spec/language.md 7.3)."""

import ast
from dataclasses import replace

from reqon.diagnostics import Span
from reqon.lang import nodes
from reqon.lang.compiler import Scope, free_names, is_deterministic, reads_current, reads_response
from reqon.runtime.codegen import Code, Hole, constant, expression, load
from reqon.runtime.loop_lists import iterate, narrowed
from reqon.runtime.loops import LoopSpec, breathe, inner_items, inner_start, run_inner_parallel, run_loop
from reqon.runtime.signals import SkipIteration
from reqon.runtime.steps.emit import Emitter, Place
from reqon.runtime.steps.order import has_rounds_as_places
from reqon.runtime.telling import WatchedLoop

DEFAULT_CONCURRENCY = 10


def emit_for(e: Emitter, step: nodes.For, scope: Scope, code: Code, place: Place) -> Scope:
    if place.in_loop:
        _inner(e, step, scope, code, place)
    else:
        _outermost(e, step, scope, code, place)
    return scope


def _outermost(e: Emitter, step: nodes.For, scope: Scope, code: Code, place: Place) -> None:
    """A function for the body, and the call that runs it: in order, or in parallel, from wherever a resume begins."""
    waits = e.is_async(step.body, in_loop=True)
    name = e.unit.local("loop")
    item, index = e.unit.local(step.variable.text), e.unit.local("i")
    response, meta = e.unit.local("response"), e.unit.local("meta")
    inside = replace(
        place,
        response=response,
        meta=meta,
        frame=False,
        in_loop=True,
        item=item,
        in_generator=not waits and not step.parallel,
        skip="return" if step.parallel else "continue",
    )
    body = code.child()
    e.rounds_are_places = has_rounds_as_places(step.body, e.store_names)
    e.steps(step.body, _inside(scope, step, item, response, meta), body, inside)
    wrapped = _catching_skips(e, step, body)
    if e.watched and not step.parallel:
        wrapped = _telling(step, wrapped, "tick.begin(INDEX)", INDEX=index)
    if step.parallel:
        template = "async def NAME(f, INDEX, ITEM):\n    RESPONSE = OUTER\n    META = OUTER_META\n    BODY"
    elif waits:
        template = """
async def NAME(items, start, tick):
    for INDEX, ITEM in enumerate(items, start):
        f.inner = ()
        if tick.late(INDEX):
            await tick.pause(INDEX)
        f.index = INDEX
        RESPONSE = OUTER
        META = OUTER_META
        BODY
"""
    else:
        template = """
def NAME(items, start, tick):
    stop = start
    for INDEX, ITEM in enumerate(items, start):
        if INDEX >= stop:
            stop = tick(INDEX)
            if not stop:
                yield INDEX
                stop = tick.again(INDEX)
        f.index = INDEX
        RESPONSE = OUTER
        META = OUTER_META
        BODY
"""
    holes: dict[str, Hole] = {
        "NAME": name,
        "INDEX": index,
        "ITEM": item,
        "RESPONSE": response,
        "META": meta,
        "BODY": wrapped.body(),
    }
    code.add(template, step, **holes, OUTER=place.response, OUTER_META=place.meta)
    code.add(
        "await run_loop(f, SPEC, COLLECTION, KEEP, BODY, EVERY, LIMIT)",
        step.collection,
        run_loop=e.constant(run_loop, "run_loop"),
        SPEC=e.constant(_spec(e, step, scope, place), "loop_spec"),
        COLLECTION=_collection(e, step, scope),
        KEEP=_keep(e, step, scope),
        BODY=load(name),
        EVERY=_none() if step.checkpoint is None else e.value(step.checkpoint, scope),
        LIMIT=_limit(e, scope),
    )


def _inner(e: Emitter, step: nodes.For, scope: Scope, code: Code, place: Place) -> None:
    """A loop inside a loop: a plain Python loop, unless it is parallel."""
    item, counter = e.unit.local(step.variable.text), e.unit.local("j")
    response, meta = e.unit.local("response"), e.unit.local("meta")
    inside = replace(place, response=response, meta=meta, frame=False, item=item, indices=(*place.indices, counter))
    scope_inside = _inside(scope, step, item, response, meta)
    body = code.child()
    if step.parallel:
        e.steps(step.body, scope_inside, body, replace(inside, skip="return"))
        name = e.unit.local("inner")
        template = "async def NAME(f, INDEX, ITEM):\n    RESPONSE = OUTER\n    META = OUTER_META\n    BODY"
        code.add(
            template,
            step,
            NAME=name,
            INDEX=counter,
            ITEM=item,
            RESPONSE=response,
            META=meta,
            OUTER=place.response,
            OUTER_META=place.meta,
            BODY=body.body(),
        )
        code.add(
            "await run_inner_parallel(f, SPEC, COLLECTION, KEEP, BODY, LIMIT)",
            step.collection,
            SPEC=e.constant(_spec(e, step, scope, place), "loop_spec"),
            run_inner_parallel=e.constant(run_inner_parallel, "run_inner_parallel"),
            COLLECTION=_collection(e, step, scope),
            KEEP=_keep(e, step, scope),
            BODY=load(name),
            LIMIT=_limit(e, scope),
        )
        return
    e.steps(step.body, scope_inside, body, replace(inside, skip="continue"))
    body = _catching_skips(e, step, body)
    items, start, watch = e.unit.local("items"), e.unit.local("start"), e.unit.local("watch")
    holes: dict[str, Hole] = {}
    if e.watched:
        body = _telling(step, body, "WATCH.at(INDEX)", WATCH=watch, INDEX=counter)
    if place.in_generator:
        # From the first round on: in a nest of short loops none comes to its sixty-fourth.
        rest = "if COUNTER & 63 == 0 and tick.over():\n            yield -1"
    elif e.is_async(step.body, in_loop=True) or not place.in_generator:
        rest = "if COUNTER & 63 == 0:\n            await breathe(f)"
    if e.is_async(step.body, in_loop=True) and e.rounds_are_places and _is_repeatable(e, step, scope):
        # Requests take their time: which round of it was in work is in the journal too.
        around = e.unit.local("around")
        before = "AROUND = f.inner\nITEMS, START, CHECKSUM = inner_start(f, PATH, COLLECTION, KEEP)"
        template = """
for COUNTER, ITEM in enumerate(iterate(ITEMS, START), START):
    f.inner = (*AROUND, (PATH, COUNTER, len(ITEMS), CHECKSUM))
    if COUNTER & 63 == 63:
        await breathe(f)
    RESPONSE = OUTER
    META = OUTER_META
    BODY
f.inner = AROUND
"""
        holes = {
            "AROUND": around,
            "PATH": ast.Constant(place.path, lineno=1, col_offset=0),
            "CHECKSUM": e.unit.local("checksum"),
            "inner_start": e.constant(inner_start, "inner_start"),
            "iterate": e.constant(iterate, "iterate"),
        }
    else:
        before = "START = 0\nITEMS = inner_items(f, COLLECTION, KEEP)"
        template = f"""
for COUNTER, ITEM in enumerate(ITEMS):
    if True:
        {rest}
    RESPONSE = OUTER
    META = OUTER_META
    BODY
"""
        holes = {"inner_items": e.constant(inner_items, "inner_items")}
    if e.watched:
        indented = "".join(f"    {line}\n" for line in template.strip().splitlines())
        template = f"with WatchedLoop(f, VARIABLE, FILTERED, len(ITEMS), START) as WATCH:\n{indented}"
    code.add(
        f"{before}\n{template}",
        step,
        ITEMS=items,
        START=start,
        WATCH=watch,
        WatchedLoop=e.constant(WatchedLoop, "WatchedLoop"),
        VARIABLE=ast.Constant(step.variable.text, lineno=1, col_offset=0),
        FILTERED=ast.Constant(bool(step.conditions), lineno=1, col_offset=0),
        COUNTER=counter,
        ITEM=item,
        **holes,
        breathe=e.constant(breathe, "breathe"),
        COLLECTION=_collection(e, step, scope),
        KEEP=_keep(e, step, scope),
        RESPONSE=response,
        META=meta,
        OUTER=place.response,
        OUTER_META=place.meta,
        BODY=body.body(),
    )


def _telling(step: nodes.For, body: Code, call: str, **holes: Hole) -> Code:
    """A loop's body that first tells of its item."""
    out = body.child()
    out.add(f"{call}\nBODY", step, BODY=body.body(), **holes)
    return out


def _inside(scope: Scope, step: nodes.For, item: str, response: str, meta: str) -> Scope:
    inside = scope.bind({step.variable.text: load(item)}).with_current(load(item))
    return replace(inside, response=load(response), meta=load(meta))


def _catching_skips(e: Emitter, step: nodes.For, body: Code) -> Code:
    if step.parallel or not e.has_repeats(step.body):
        return body
    out = body.child()
    out.add(
        "try:\n    BODY\nexcept SkipIteration:\n    f.skipped += 1",
        step,
        BODY=body.body(),
        SkipIteration=e.constant(SkipIteration, "SkipIteration"),
    )
    return out


def _keep(e: Emitter, step: nodes.For, scope: Scope) -> ast.expr:
    """The loop's `where` as a function of one element, or None."""
    if not step.conditions:
        return _none()
    element = e.unit.local(step.variable.text)
    within = scope.bind({step.variable.text: load(element)}).with_current(load(element))
    tests = [e.truth(condition, within) for condition in step.conditions]
    test = tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests, lineno=1, col_offset=0)
    return expression(f"lambda {element}: TEST", step.conditions[0], TEST=test)


def _collection(e: Emitter, step: nodes.For, scope: Scope) -> ast.expr:
    """What the loop goes through; of a store only what may fit its `where`, if the store can tell that better."""
    value = e.value(step.collection, scope)
    found = [one for condition in step.conditions for one in _comparisons(condition, step.variable.text)]
    if not isinstance(step.collection, nodes.Name) or not found:
        return value
    outside = replace(scope, current=None)
    tuples = [
        expression(
            "(NAME, OPERATOR, VALUE)",
            wanted,
            NAME=constant(name),
            OPERATOR=constant(operator),
            VALUE=e.value(wanted, outside),
        )
        for name, operator, wanted in found
    ]
    listed = ast.List(list(tuples), ast.Load(), lineno=1, col_offset=0)
    return expression(
        "narrowed(COLLECTION, lambda: CONDITIONS)",
        step.collection,
        narrowed=e.constant(narrowed, "narrowed"),
        COLLECTION=value,
        CONDITIONS=listed,
    )


_TURNED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<=", "in": "contains"}


def _comparisons(condition: nodes.Expression, variable: str) -> list[tuple[str, str, nodes.Expression]]:
    """The fields of an element that a condition compares with something that does not hang on the element."""
    if not isinstance(condition, nodes.Binary):
        return []
    left, operator, right = condition.left, condition.operator, condition.right
    if operator == "and":
        return _comparisons(left, variable) + _comparisons(right, variable)
    sides = [(right, _TURNED[operator], left)] if operator in _TURNED else []
    if operator != "in":
        sides.insert(0, (left, operator, right))
    for of, compared, wanted in sides if operator in (*_TURNED, "contains") else ():
        field = _field(of, variable)
        if field is not None and variable not in free_names(wanted) and not reads_current(wanted):
            return [(field, compared, wanted)]
    return []


def _field(expression: nodes.Expression, variable: str) -> str | None:
    """The path of a field of an element: `.a.b`. A `length` below the first level may be that of a list."""
    keys: list[str] = []
    while isinstance(expression, nodes.Member):
        keys.insert(0, expression.key)
        expression = expression.target
    of_element = isinstance(expression, nodes.Current) or (
        isinstance(expression, nodes.Name) and expression.name == variable
    )
    if not keys or not of_element or any("." in key for key in keys) or "length" in keys[1:]:
        return None
    return ".".join(keys)


def _limit(e: Emitter, scope: Scope) -> ast.expr:
    for option in e.action.options:
        if option.key == "concurrency" and isinstance(option.value, nodes.Node):
            return e.value(option.value, replace(scope, current=None))  # type: ignore[arg-type]
    return ast.Constant(DEFAULT_CONCURRENCY, lineno=1, col_offset=0)


def _spec(e: Emitter, step: nodes.For, scope: Scope, place: Place) -> LoopSpec:
    return LoopSpec(
        path=place.path,
        label=" ".join(Span(step.span.source, step.span.start, step.collection.span.end).text.split())[:80],
        location=str(step.collection.span),
        variable=step.variable.text,
        has_filter=bool(step.conditions),
        parallel=step.parallel,
        repeatable=_is_repeatable(e, step, scope) and (place.frame or _hangs_on_what_is_kept(e, step, scope)),
        remembers=e.asks_often(step.body),
    )


def _is_repeatable(e: Emitter, step: nodes.For, scope: Scope) -> bool:
    """Whether a loop's list can be had again by evaluating it again: it hangs on nothing but values that are kept."""
    conditions = [step.collection, *step.conditions]
    depends = set().union(*(free_names(c) for c in conditions)) - {step.variable.text}
    on_stores = any(name in e.store_names and name not in scope.names for name in depends)
    if on_stores or not all(is_deterministic(c) for c in conditions):
        return False
    return reads_response(step.collection) or bool(depends)


def _hangs_on_what_is_kept(e: Emitter, step: nodes.For, scope: Scope) -> bool:
    """Inside an arm: whether a list hangs on nothing that the arm itself may have found in a store, or made."""
    kept = e.begins_with
    names = set().union(*(free_names(c) for c in (step.collection, *step.conditions))) - {step.variable.text}
    return kept is not None and all(scope.names.get(name) is kept.names.get(name) for name in names)


def _none() -> ast.expr:
    return ast.Constant(None, lineno=1, col_offset=0)
