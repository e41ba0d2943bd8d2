"""A document's schemas as JSON Schema 2020-12, each whole in itself (spec/runtime.md 10.4).

What 3.0 says in its own way (`nullable`, boolean bounds, `discriminator`) is said as 2020-12 has it, what cannot be
checked is left out, and nothing of a document reaches the validator but what this module wrote.
"""

from collections.abc import Iterator
from typing import Final, TypeGuard

from reqon.errors import SpecError
from reqon.http.openapi.patterns import MAX_CHARACTERS, Engine, engine_of
from reqon.http.openapi.references import Found, References, reference_in
from reqon.values import Record, Value

FORMATS: Final = frozenset(("date", "date-time", "email", "uuid", "uri", "ipv4", "ipv6"))
MAX_SCHEMAS: Final = 20_000

_TYPES = frozenset(("string", "number", "integer", "boolean", "array", "object", "null"))
_NUMBERS = ("minimum", "maximum")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_ALTERNATIVES = ("oneOf", "anyOf")


class Bundle:
    """Collects one schema and all that it refers to, under `$defs`. `engine` is what its patterns need."""

    def __init__(self, references: References) -> None:
        self.engine = Engine.LINEAR
        self._references = references
        self._names: dict[tuple[str, str], str] = {}
        self._waiting: list[tuple[str, Found]] = []
        self._here: dict[str, list[tuple[Record, str]]] = {}  # definition -> its `$ref`s to the same value
        self._current: list[tuple[Record, str]] = []

    def of(self, found: Found) -> Record | bool:
        """The schema, whole in itself.

        Raises:
            SpecError: a `$ref` that it needs leads nowhere, or more than 20,000 schemas belong to it.
        """
        self._here["#"] = self._current = []
        schema = self._schema(found, here=True)
        definitions: Record = {}
        while self._waiting:
            name, target = self._waiting.pop()
            self._here[name] = self._current = []
            definitions[name] = self._schema(target, here=True)
        self._open_circles()
        if not isinstance(schema, dict):
            return schema
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}

    def _open_circles(self) -> None:
        """A schema that refers back to itself for the same value says nothing new: such a reference is always true."""
        done: set[str] = set()
        for start in list(self._here):
            if start in done:
                continue
            way = [start]
            inside = {start}
            stack: list[Iterator[tuple[Record, str]]] = [iter(self._here[start])]
            while stack:
                step = next(stack[-1], None)
                if step is None:
                    stack.pop()
                    name = way.pop()
                    inside.discard(name)
                    done.add(name)
                    continue
                reference, target = step
                if target in inside:
                    del reference["$ref"]
                elif target not in done:
                    way.append(target)
                    inside.add(target)
                    stack.append(iter(self._here[target]))

    # --- one schema ---------------------------------------------------------------------------------------------------

    def _schema(self, found: Found, *, here: bool) -> Record | bool:
        """One schema. `here`: it judges the same value as the definition it stands in."""
        written = found.value
        if isinstance(written, bool):
            return written
        if not isinstance(written, dict):
            return {}
        if (reference := reference_in(found)) is not None:
            keyword, ref = reference
            made = self._reference(ref, found, here=here)
            if found.document.version != "3.1" or len(written) == 1:
                return made
            rest = self._keywords(found, {k: v for k, v in written.items() if k != keyword}, here=here)
            return {**made, **rest}
        made = self._keywords(found, written, here=here)
        if (written.get("nullable") is True or written.get("x-nullable") is True) and found.document.version != "3.1":
            return _or_null(made)
        return made

    def _reference(self, ref: str, found: Found, *, here: bool) -> Record:
        target = self._references.target(ref, found)
        key = (target.document.location, target.pointer)
        name = self._names.get(key)
        if name is None:
            if len(self._names) >= MAX_SCHEMAS:
                raise SpecError(f"{found.place}: more than {MAX_SCHEMAS:,} schemas belong to this one")
            name = self._names[key] = f"s{len(self._names)}"
            self._waiting.append((name, target))
        made: Record = {"$ref": f"#/$defs/{name}"}
        if here:
            self._current.append((made, name))
        return made

    def _keywords(self, found: Found, written: Record, *, here: bool) -> Record:
        out: Record = {}
        self._plain(written, out)
        self._bounds(written, out)
        self._applied(found, written, out, here=here)
        alternatives = next((key for key in _ALTERNATIVES if isinstance(written.get(key), list)), None)
        discriminator = written.get("discriminator")
        if alternatives is not None and isinstance(discriminator, dict):
            chosen = self._discriminated(found.below(alternatives), discriminator, here=here)
            if chosen is not None:
                del out[alternatives]
                out.setdefault("allOf", []).append(chosen)
        return out

    def _plain(self, written: Record, out: Record) -> None:
        kinds = written.get("type")
        listed = [k for k in (kinds if isinstance(kinds, list) else [kinds]) if k in _TYPES]
        if listed:
            out["type"] = listed[0] if len(listed) == 1 else list(dict.fromkeys(listed))
        if isinstance(enum := written.get("enum"), list):
            out["enum"] = enum
        if "const" in written:
            out["const"] = written["const"]
        if written.get("format") in FORMATS:
            out["format"] = written["format"]
        if written.get("uniqueItems") is True:
            out["uniqueItems"] = True
        for key in _COUNTS:
            if _is_number(count := written.get(key)) and count >= 0 and count == int(count):
                out[key] = int(count)
        pattern = written.get("pattern")
        if isinstance(pattern, str) and self._is_usable(pattern):
            out.setdefault("allOf", []).append({"if": {"maxLength": MAX_CHARACTERS}, "then": {"pattern": pattern}})

    def _is_usable(self, pattern: str) -> bool:
        engine = engine_of(pattern)
        if engine is Engine.LIMITED:
            self.engine = engine
        return engine is not None

    def _bounds(self, written: Record, out: Record) -> None:
        for key in _NUMBERS:
            bound = written.get(key)
            exclusive_key = f"exclusive{key.capitalize()}"
            exclusive = written.get(exclusive_key)
            if exclusive is True and _is_number(bound):  # 3.0 and Swagger 2.0
                out[exclusive_key] = bound
                continue
            if _is_number(bound):
                out[key] = bound
            if _is_number(exclusive):
                out[exclusive_key] = exclusive
        if _is_number(step := written.get("multipleOf")) and step > 0:
            out["multipleOf"] = step

    def _applied(self, found: Found, written: Record, out: Record, *, here: bool) -> None:
        properties = found.below("properties")
        if isinstance(properties.value, dict):
            out["properties"] = {name: self._schema(properties.below(name), here=False) for name in properties.value}
        required = written.get("required")
        if isinstance(required, list):
            names = [name for name in required if isinstance(name, str) and not self._only_written(properties, name)]
            if names:
                out["required"] = list(dict.fromkeys(names))
        for key in ("additionalProperties", "items", "contains"):
            if isinstance(written.get(key), dict | bool):
                out[key] = self._schema(found.below(key), here=False)
        for key in ("prefixItems", "items"):
            if isinstance(listed := written.get(key), list) and listed:
                out["prefixItems"] = [self._schema(found.below(key, i), here=False) for i in range(len(listed))]
        patterns = written.get("patternProperties")
        if isinstance(patterns, dict):
            kept = [name for name in patterns if self._is_usable(name)]
            out["patternProperties"] = {n: self._schema(found.below("patternProperties", n), here=False) for n in kept}
        for key in ("allOf", *_ALTERNATIVES):
            if isinstance(listed := written.get(key), list) and listed:
                made = [self._schema(found.below(key, i), here=here) for i in range(len(listed))]
                out[key] = [*out.get(key, ()), *made]
        for key in ("not", "if", "then", "else"):
            if isinstance(written.get(key), dict | bool):
                out[key] = self._schema(found.below(key), here=here)

    def _only_written(self, properties: Found, name: str) -> bool:
        """Whether a property is never in an answer (`writeOnly`)."""
        found = properties.below(name)
        return isinstance(found.value, dict) and self._references.resolved(found).below("writeOnly").value is True

    # --- discriminator ------------------------------------------------------------------------------------------------

    def _discriminated(self, listed: Found, discriminator: Record, *, here: bool) -> Record | None:
        """Alternatives of which a property says the one; None where that can't be told of all of them."""
        name = discriminator.get("propertyName")
        if not isinstance(name, str):
            return None
        by_target: dict[tuple[str, str], str] = {}
        for index in range(len(listed.value)):
            ref = listed.below(index, "$ref").value
            if not isinstance(ref, str):
                return None
            target = self._references.target(ref, listed.below(index))
            by_target[target.document.location, target.pointer] = ref
        branches: dict[str, str] = {}
        mapping = discriminator.get("mapping")
        mapped: set[tuple[str, str]] = set()
        for value, ref in mapping.items() if isinstance(mapping, dict) else ():
            if not isinstance(ref, str):
                continue
            written = ref if "#" in ref or "/" in ref or "." in ref else f"#/components/schemas/{ref}"
            target = self._references.target(written, listed)
            branches[str(value)] = written
            mapped.add((target.document.location, target.pointer))
        for key, ref in by_target.items():
            if key not in mapped:
                branches.setdefault(key[1].rpartition("/")[2] or ref, ref)
        rules: list[Record] = [
            {
                "if": {"properties": {name: {"const": value}}, "required": [name]},
                "then": self._reference(ref, listed, here=here),
            }
            for value, ref in branches.items()
        ]
        return {"required": [name], "properties": {name: {"enum": list(branches)}}, "allOf": rules}


def _or_null(made: Record) -> Record:
    """The schema, or null. Where it can be said in one, it is, for the sake of what errors say."""
    kind = made.get("type")
    simple = isinstance(kind, str) and not any(key in made for key in ("allOf", *_ALTERNATIVES, "not", "if", "const"))
    if simple:
        out: Record = {**made, "type": [kind, "null"]}
        if "enum" in made and None not in made["enum"]:
            out["enum"] = [*made["enum"], None]
        return out
    return {"if": {"type": "null"}, "then": True, "else": made} if made else made


def _is_number(value: Value) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
