"""`let`, `map` and `apply`: values made from values (spec/language.md 7.4, 7.7)."""

import ast

from reqon.errors import EvaluatorError, NoVariantError
from reqon.lang import nodes
from reqon.lang.compiler import Scope
from reqon.lang.operators import Backed, described
from reqon.runtime.codegen import Code, expression, load
from reqon.runtime.steps.emit import Emitter, Place
from reqon.runtime.telling import tell_transform
from reqon.values import Value


def emit_let(e: Emitter, step: nodes.Let, scope: Scope, code: Code, place: Place) -> Scope:
    return e.bind(step.name.text, e.value(step.value, scope), step, scope, code, place)


def emit_map(e: Emitter, step: nodes.Map, scope: Scope, code: Code, place: Place) -> Scope:
    """Build one object; `response` becomes it, a mapped variable too, with its old fields behind the new ones."""
    source = e.temporary(step.value, e.value(step.value, scope), code, "source")
    result = e.unit.local("mapped")
    if step.mapping is None:
        built = expression(
            "as_object(VALUE)", step.value, as_object=e.constant(as_object, "as_object"), VALUE=load(source)
        )
    else:
        built = e.value(step.mapping, scope.with_current(load(source)))
    code.add("LOCAL = VALUE", step, LOCAL=result, VALUE=built)
    target = step.target.text
    e.tell(tell_transform, step, code, target if target in e.program.schemas else None, _fields(step.mapping))
    code.add("RESPONSE = LOCAL\nMETA = None", step, RESPONSE=place.response, META=place.meta, LOCAL=result)
    if isinstance(step.value, nodes.Name) and step.value.name in scope.names:
        name = step.value.name
        # Only a variable that is read again is worth the object that remembers its old fields.
        if place.frame or e.is_read_later(name):
            backed = expression(
                "Backed(NEW, OLD)", step, Backed=e.constant(backed_by, "backed"), NEW=load(result), OLD=load(source)
            )
            scope = e.bind(name, backed, step, scope, code, place)
    if target not in e.program.schemas and "." not in target and (place.frame or e.is_read_later(target)):
        scope = e.bind(target, load(result), step, scope, code, place)
    return scope


def emit_apply(e: Emitter, step: nodes.Apply, scope: Scope, code: Code, place: Place) -> Scope:
    """The first variant whose schema and guard take the value builds the object."""
    transform = e.program.transforms[step.transform.text]
    source = e.temporary(step.value, e.value(step.value, scope), code, "source")
    result = e.unit.local("applied")
    within = scope.with_current(load(source))
    otherwise = code.child()
    otherwise.add(
        "raise no_variant(NAME, VALUE)",
        step,
        no_variant=e.constant(no_variant, "no_variant"),
        NAME=ast.Constant(step.transform.text, lineno=1, col_offset=0),
        VALUE=load(source),
    )
    for variant in reversed(transform.variants):
        taken = code.child()
        taken.add("LOCAL = VALUE", variant.mapping, LOCAL=result, VALUE=e.value(variant.mapping, within))
        tests: list[ast.expr] = []
        if variant.schema is not None:
            matcher = e.expressions.schemas.matcher(variant.schema.text)
            tests.append(
                expression("MATCHES(VALUE)", variant, MATCHES=e.constant(matcher, "matches"), VALUE=load(source))
            )
        if variant.guard is not None:
            tests.append(e.truth(variant.guard, within))
        if not tests:
            otherwise = taken
            continue
        test = tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests, lineno=1, col_offset=0)
        chain = code.child()
        chain.add(
            "if TEST:\n    TAKEN\nelse:\n    OTHERWISE",
            variant,
            TEST=test,
            TAKEN=taken.body(),
            OTHERWISE=otherwise.body(),
        )
        otherwise = chain
    code.statements += otherwise.statements
    fields = max((_fields(v.mapping) for v in transform.variants), default=0)
    e.tell(tell_transform, step, code, step.transform.text, fields)
    if step.name is not None:
        return e.bind(step.name.text, load(result), step, scope, code, place)
    code.add("RESPONSE = LOCAL\nMETA = None", step, RESPONSE=place.response, META=place.meta, LOCAL=result)
    return scope


def _fields(mapping: nodes.ObjectLiteral | None) -> int:
    """How many fields a mapping writes by name."""
    return 0 if mapping is None else sum(isinstance(entry, nodes.Entry) for entry in mapping.entries)


def backed_by(new: dict[str, Value], old: Value) -> dict[str, Value]:
    """The new fields, with the old record behind them."""
    return Backed(new, old) if isinstance(old, dict) else new


def as_object(value: Value) -> Value:
    if not isinstance(value, dict):
        raise EvaluatorError(
            f"map needs an object, not {described(value)}", hint="give the fields in a block: map x -> T { … }"
        )
    return value


def no_variant(name: str, value: Value) -> NoVariantError:
    return NoVariantError(
        f"no variant of transform '{name}' takes this value ({described(value)})",
        hint="add a variant '(_) -> …' for all others",
    )
