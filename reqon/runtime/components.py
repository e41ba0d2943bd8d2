"""Component schemas of an OpenAPI document as schemas of the language (spec/language.md 6.3).

What carries over is what the language can say of a value: which fields there are and which must be, their types,
enumerations, ranges and numbers of elements. Patterns, lengths and most formats are for `validateResponses`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from reqon.diagnostics import Span
from reqon.http.openapi.references import Found
from reqon.http.openapi.spec import Spec
from reqon.lang import nodes
from reqon.values import Value

_MOST_DEPTH = 16  # of inline schemas; below it anything goes
_PREFIX = "/components/schemas/"
_WORDS = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean", "object": "object"}
_ENDLESS = 2**53


def component_schemas(spec: Spec, span: Span) -> dict[str, nodes.SchemaDef]:
    """The document's component schemas by name, at the place of the import that brings them.

    Raises:
        SpecError: one of them refers to what is not there.
    """
    made = _Components(spec, span)
    return {name: made.definition(name) for name in spec.schemas()}


class _Components:
    def __init__(self, spec: Spec, span: Span) -> None:
        self._spec = spec
        self._span = span
        self._names = frozenset(spec.schemas())

    def definition(self, name: str) -> nodes.SchemaDef:
        found = self._spec.component(name)
        fields: tuple[nodes.SchemaPart, ...] = ()
        kind: nodes.Type | None = None
        if _is_object(self._gathered(found)[0]):
            fields = self._fields(found, 0)
        else:
            kind = self._type(found, 0)
        word = nodes.Word(text=name, span=self._span)
        return nodes.SchemaDef(name=word, base=None, fields=fields, refinements=(), type=kind, span=self._span)

    # --- objects ------------------------------------------------------------------------------------------------------

    def _gathered(self, found: Found) -> tuple[dict[str, Any], dict[str, Found], frozenset[str]]:
        """A schema with its `allOf` worked in: its own words, its properties, and which of them are required."""
        words: dict[str, Any] = {}
        properties: dict[str, Found] = {}
        required: set[str] = set()
        for part in self._parts(found, set()):
            words |= {k: v for k, v in part.value.items() if k != "allOf"}
            listed = part.below("properties")
            for name in listed.value if isinstance(listed.value, dict) else ():
                properties[name] = listed.below(name)
            names = part.value.get("required")
            required |= {n for n in names if isinstance(n, str)} if isinstance(names, list) else set()
        if properties:
            words["properties"] = True
        return words, properties, frozenset(required)

    def _parts(self, found: Found, seen: set[tuple[str, str]]) -> Iterator[Found]:
        """A schema and what its `allOf` names, references followed, each once; the schema itself last."""
        found = self._spec.references.resolved(found)
        key = (found.document.location, found.pointer)
        if key in seen or not isinstance(found.value, dict):
            return
        seen.add(key)
        members = found.value.get("allOf")
        for index in range(len(members)) if isinstance(members, list) else ():
            yield from self._parts(found.below("allOf", index), seen)
        yield found

    def _fields(self, found: Found, depth: int) -> tuple[nodes.SchemaPart, ...]:
        _, properties, required = self._gathered(found)
        return tuple(self._field(name, part, name in required, depth) for name, part in properties.items())

    def _field(self, name: str, found: Found, required: bool, depth: int) -> nodes.SchemaField:
        words = self._spec.references.resolved(found).value
        words = words if isinstance(words, dict) else {}
        kind = self._type(found, depth + 1)
        if not required or words.get("writeOnly") is True:
            kind = nodes.OptionalType(inner=kind, span=self._span)
        where = self._bounds(name, words)
        return nodes.SchemaField(key=name, type=kind, when=None, where=where, key_span=self._span, span=self._span)

    def _bounds(self, name: str, words: Mapping[str, Any]) -> nodes.Expression | None:
        """The range of a number as a condition of its field."""
        tests: list[nodes.Expression] = []
        for key, inclusive, exclusive in (("minimum", ">=", ">"), ("maximum", "<=", "<")):
            limit, strict = words.get(key), words.get(f"exclusive{key.capitalize()}")
            if _is_number(limit):
                tests.append(self._compare(name, exclusive if strict is True else inclusive, limit))
            if _is_number(strict):
                tests.append(self._compare(name, exclusive, strict))
        return self._all(tests)

    def _compare(self, name: str, operator: str, limit: Value) -> nodes.Expression:
        field = nodes.Member(target=nodes.Current(span=self._span), key=name, span=self._span)
        literal = nodes.Literal_(value=limit, span=self._span)
        return nodes.Binary(operator=operator, left=field, right=literal, operator_span=self._span, span=self._span)

    def _all(self, tests: list[nodes.Expression]) -> nodes.Expression | None:
        if not tests:
            return None
        first, *rest = tests
        for test in rest:
            first = nodes.Binary(operator="and", left=first, right=test, operator_span=self._span, span=self._span)
        return first

    # --- types --------------------------------------------------------------------------------------------------------

    def _type(self, found: Found, depth: int) -> nodes.Type:
        written = found.value
        if isinstance(written, dict) and isinstance(ref := written.get("$ref"), str):
            target = self._spec.references.target(ref, found)
            name = target.pointer.removeprefix(_PREFIX)
            if target.document is self._spec.root and name in self._names and target.pointer != name:
                return self._named(name)
            return self._type(target, depth + 1) if depth < _MOST_DEPTH else self._named("any")
        if not isinstance(written, dict) or depth > _MOST_DEPTH:
            return self._named("any")
        kind = self._unless_null(found, written, depth)
        kinds = written.get("type")
        takes_null = (isinstance(kinds, list) and "null" in kinds) or (
            found.document.version != "3.1" and (written.get("nullable") is True or written.get("x-nullable") is True)
        )
        return self._or([kind, self._named("null")]) if takes_null else kind

    def _unless_null(self, found: Found, written: Mapping[str, Any], depth: int) -> nodes.Type:
        if "const" in written:
            return self._one_of([written["const"]])
        if isinstance(enum := written.get("enum"), list) and enum:
            return self._one_of(enum)
        words, properties, _ = self._gathered(found)
        if properties:
            return nodes.ObjectType(fields=self._fields(found, depth), span=self._span)
        for key in ("oneOf", "anyOf"):
            listed = written.get(key)
            if isinstance(listed, list) and listed:
                return self._or([self._type(found.below(key, i), depth + 1) for i in range(len(listed))])
        kinds = words.get("type")
        named = [k for k in (kinds if isinstance(kinds, list) else [kinds]) if k != "null"]
        return self._or([self._of(kind, found, words, depth) for kind in named])

    def _of(self, kind: object, found: Found, words: Mapping[str, Any], depth: int) -> nodes.Type:
        if kind == "array":
            return self._array(found, words, depth)
        if kind == "string" and words.get("format") in ("date", "date-time"):
            return self._named("date" if words["format"] == "date" else "datetime")
        return self._named(_WORDS.get(str(kind), "any"))

    def _array(self, found: Found, words: Mapping[str, Any], depth: int) -> nodes.Type:
        element = self._type(found.below("items"), depth + 1)
        least, most = words.get("minItems"), words.get("maxItems")
        if not _is_number(least) and not _is_number(most):
            return self._named("array", element)
        low = int(least) if _is_number(least) else 0
        high = int(most) if _is_number(most) else _ENDLESS
        return nodes.CountedType(least=low, most=high, element=element, span=self._span)

    def _one_of(self, values: list[Value]) -> nodes.Type:
        if any(isinstance(value, dict | list) for value in values):
            return self._named("any")
        return self._or([nodes.LiteralType(value=value, span=self._span) for value in values])

    def _or(self, kinds: list[nodes.Type]) -> nodes.Type:
        if len(kinds) == 1:
            return kinds[0]
        return nodes.UnionType(alternatives=tuple(kinds), span=self._span) if kinds else self._named("any")

    def _named(self, word: str, element: nodes.Type | None = None) -> nodes.NamedType:
        name = nodes.Qualified(text=word, span=self._span)
        return nodes.NamedType(name=name, element=element, precision=None, low=None, high=None, span=self._span)


def _is_object(words: Mapping[str, Any]) -> bool:
    kinds = words.get("type")
    return "properties" in words or (kinds == "object" and not any(k in words for k in ("oneOf", "anyOf", "enum")))


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
