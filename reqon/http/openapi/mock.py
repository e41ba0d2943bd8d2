"""Made-up answers, the same each time (spec/runtime.md 10.5)."""

import math
from typing import Any, Final

from reqon.http.openapi.references import Found, References
from reqon.values import Record, Value

MAX_DEPTH: Final = 3
_MAX_NODES = 100_000
_MAX_MERGED = 1_000
_TEXTS: Final = {
    "date": "2024-01-15",
    "date-time": "2024-01-15T10:30:00Z",
    "uri": "https://example.com",
    "url": "https://example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "byte": "c2FtcGxl",
}
_NEVER_MERGED = frozenset(("example", "examples", "default"))
_SHAPES: Final = {
    "object": ("properties", "additionalProperties", "required", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


def mock_response(media: Found, references: References) -> Value:
    """The value for a media type object: its example, else one made from its schema.

    Raises:
        SpecError: a `$ref` that it needs leads nowhere.
    """
    written = media.value
    if not isinstance(written, dict):
        return None
    if written.get("example") is not None:
        return written["example"]
    examples = media.below("examples")
    for name in examples.value if isinstance(examples.value, dict) else ():
        example = references.resolved(examples.below(name)).below("value")
        if example.value is not None:
            return example.value
    return _Mock(references).value(media.below("schema"), 0)


class _Mock:
    """Makes one answer. The counter begins at 0 and goes on with each text that carries it."""

    def __init__(self, references: References) -> None:
        self._references = references
        self._counter = 0
        self._nodes = 0

    def value(self, found: Found, depth: int) -> Value:
        self._nodes += 1
        schema, parts = self._whole(found)
        if "const" in schema and schema["const"] is not None:
            return schema["const"]
        for key in ("enum", "example", "examples", "default"):
            written = schema.get(key)
            options = written if key in ("enum", "examples") else [written]
            chosen = next((o for o in options if o is not None), None) if isinstance(options, list) else None
            if chosen is not None:
                return chosen
        return self._by_type(schema, parts, depth)

    def _by_type(self, schema: Record, parts: dict[str, Found], depth: int) -> Value:
        match _type_of(schema):
            case "object":
                if depth > MAX_DEPTH or self._nodes > _MAX_NODES:
                    return {}
                return {name: self.value(part, depth + 1) for name, part in parts.items() if name[:1] != "\0"}
            case "array":
                if depth > MAX_DEPTH or self._nodes > _MAX_NODES:
                    return []
                return self._array(schema, parts, depth)
            case "boolean":
                return True
            case "integer":
                return _number(schema, whole=True)
            case "number":
                return _number(schema, whole=False)
            case _:
                return self._text(schema)

    def _array(self, schema: Record, parts: dict[str, Found], depth: int) -> list[Value]:
        least, most = schema.get("minItems"), schema.get("maxItems")
        count = max(_count(least, 0), min(2, _count(most, 2)))
        prefix = [part for name, part in parts.items() if name.startswith("\0prefix")]
        items = parts.get("\0items")
        out: list[Value] = []
        for index in range(min(count, _MAX_NODES)):
            part = prefix[index] if index < len(prefix) else items
            if part is None and prefix:
                break
            out.append(self._text({}) if part is None else self.value(part, depth + 1))
        return out

    def _text(self, schema: Record) -> str:
        form = schema.get("format")
        if form == "email":
            return f"user{self._next()}@example.com"
        if form == "uuid":
            return f"00000000-0000-4000-8000-{self._next():012x}"
        if isinstance(form, str) and form in _TEXTS:
            return _TEXTS[form]
        least, most = _count(schema.get("minLength"), 0), _count(schema.get("maxLength"), 1 << 20)
        text = "sample"
        if len(text) < least:
            least = min(least, 1 << 20)
            text = (text * (least // len(text) + 1))[:least]
        return text[:most]

    def _next(self) -> int:
        number = self._counter
        self._counter += 1
        return number

    # --- a schema with what it refers to ------------------------------------------------------------------------------

    def _whole(self, found: Found) -> tuple[Record, dict[str, Found]]:
        """A schema with its `$ref`, `allOf` and first alternative worked in: its keywords, and its parts by name.

        Parts are the properties, and under names with a NUL in front the elements' schemas: items, prefix0, prefix1 …
        """
        schema: Record = {}
        parts: dict[str, Found] = {}
        self._merge(found, schema, parts, set(), alone=True)
        return schema, parts

    def _merge(
        self, found: Found, schema: Record, parts: dict[str, Found], seen: set[tuple[str, str]], *, alone: bool
    ) -> None:
        """Work one schema into another. `alone`: nothing else is, so that its example is one of the whole."""
        found = self._references.resolved(found)
        key = (found.document.location, found.pointer)
        if key in seen or len(seen) > _MAX_MERGED or not isinstance(found.value, dict):
            return
        seen.add(key)
        written = found.value
        members = written.get("allOf")
        several = isinstance(members, list) and (len(members) > 1 or "properties" in written)
        decided = any(written.get(key) is not None for key in ("const", "enum", *_NEVER_MERGED))
        for index in range(len(members)) if isinstance(members, list) and not (alone and decided) else ():
            self._merge(found.below("allOf", index), schema, parts, seen, alone=alone and not several)
        for alternatives in ("oneOf", "anyOf"):
            listed = written.get(alternatives)
            if isinstance(listed, list) and listed and not (alone and decided):
                place = found.below(alternatives)
                first = next((i for i in range(len(listed)) if not _is_null(place.below(i).value)), 0)
                self._merge(place.below(first), schema, parts, seen, alone=alone and "properties" not in written)
                break
        schema |= {k: v for k, v in written.items() if alone or k not in _NEVER_MERGED}
        properties = found.below("properties")
        for name in properties.value if isinstance(properties.value, dict) else ():
            parts[name] = properties.below(name)
        items = found.below("items")
        if isinstance(items.value, dict):
            parts["\0items"] = items
        prefix = found.below("prefixItems") if "prefixItems" in written else items
        for index in range(len(prefix.value) if isinstance(prefix.value, list) else 0):
            parts[f"\0prefix{index}"] = prefix.below(index)


def _is_null(value: Value) -> bool:
    return isinstance(value, dict) and value.get("type") == "null"


def _type_of(schema: Record) -> str:
    kinds = schema.get("type")
    kind = next((k for k in (kinds if isinstance(kinds, list) else [kinds]) if k != "null"), None)
    if isinstance(kind, str):
        return kind
    return next((kind for kind, keys in _SHAPES.items() if any(key in schema for key in keys)), "string")


def _count(value: Value, otherwise: int) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return int(value) if is_number else otherwise


def _bound(schema: Record, key: str) -> Any:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _number(schema: Record, *, whole: bool) -> int | float:
    """The middle of the bounds, moved to a multiple of `multipleOf`."""
    low, high = _bound(schema, "minimum"), _bound(schema, "maximum")
    below, above = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    if below is not None and (low is None or below > low):
        low = below
    if above is not None and (high is None or above < high):
        high = above
    # One bound beyond the usual range of 0 to 100 takes the other along.
    if low is None:
        low = 0 if high is None or high >= 0 else high - 100
    if high is None:
        high = 100 if low <= 100 else low + 100
    least, most = low, high
    if whole:
        open_below = schema.get("exclusiveMinimum") is True or low == below
        open_above = schema.get("exclusiveMaximum") is True or high == above
        least = math.floor(low) + 1 if open_below else math.ceil(low)
        most = math.ceil(high) - 1 if open_above else math.floor(high)
    middle = _half(least + most)
    step = _bound(schema, "multipleOf")
    if step is not None and step > 0:
        count = math.floor(middle / step)
        below_least = count * step < least or (not whole and count * step <= low and low == below)
        middle = (count + 1 if below_least else count) * step
    return math.floor(middle) if whole else middle


def _half(total: float) -> int | float:
    return total // 2 if isinstance(total, int) and total % 2 == 0 else total / 2
