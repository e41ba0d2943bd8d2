"""Which parts of an answer do not fit a schema, found definition by definition (spec/runtime.md 10.4).

The validator says quickly whether a value fits: it remembers what it has seen. Asked for what is wrong, it tells of
each alternative why it was none, and of the alternatives inside of those: exponential in the depth of the answer. So it
is asked of schemas in which all alternatives, and the references that close a circle, only say whether they hold. The
references that don't are followed here, each once for each place; alternatives are not, as nobody could say which was
meant.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from reqon.clock import perf_seconds
from reqon.http.openapi.patterns import Engine, options_of
from reqon.values import Record, Value

SECONDS: Final = 1.0

_ROOT = "answer"
_CUT = "cut"  # as `$comment`, which no bundle has

Path = tuple[str | int, ...]


class Finding(NamedTuple):
    """One thing that does not fit. `kind` is a keyword as the validator calls it, or `tookTooLong`."""

    path: Path
    kind: str
    details: Record
    value: Value


class Explanation:
    """One schema, compiled to be asked what is wrong. Safe to keep and to share."""

    def __init__(self, schema: Record | bool, engine: Engine) -> None:
        """`schema` is as a bundle makes it: its `$ref`s lead to its `$defs`, none in a circle for the same value."""
        from jsonschema_rs import Draft202012Validator  # noqa: PLC0415

        definitions: Record = {}
        root: Value = schema
        if isinstance(schema, dict):
            definitions = schema.get("$defs", {})
            root = {key: written for key, written in schema.items() if key not in ("$schema", "$defs")}
        self._alternatives: dict[str, str] = {}  # name of a part -> `oneOf` or `anyOf`
        self._parts: Record = {}
        circling = _circling(definitions)
        for name, definition in {**definitions, _ROOT: root}.items():
            self._parts[name] = self._part(definition, circling if name in circling else frozenset())
        # One validator for all: of an object with one property, the name of a part, it judges that part.
        whole = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "properties": self._parts,
            "$defs": definitions,
        }
        self._validator = Draft202012Validator(
            whole, validate_formats=True, pattern_options=options_of(engine), offline=True
        )

    def findings(self, value: Value) -> Iterator[Finding]:
        """What does not fit, at least one finding, in the order of the schema.

        After a second it ends with a finding `tookTooLong`.
        """
        until = perf_seconds() + SECONDS
        seen: set[tuple[str, Path]] = set()
        stack = [self._entered(_ROOT, (), value)]
        while stack:
            path, whole, errors = stack[-1]
            error = next(errors, None)
            if error is None:
                stack.pop()
                continue
            below = tuple(error.instance_path[1:])
            place, part = (*path, *below), _at(below, whole)
            details = error.kind.as_dict()
            name = _cut_in(error.kind.name, details)
            if name is None:
                yield Finding(place, error.kind.name, details, part)
            elif (name, place) not in seen:
                seen.add((name, place))
                if perf_seconds() > until:
                    yield Finding(place, "tookTooLong", {}, part)
                    return
                if name in self._alternatives:
                    yield Finding(place, self._why(name, part), {}, part)
                else:
                    stack.append(self._entered(name, place, part))

    def _entered(self, name: str, path: Path, value: Value) -> tuple[Path, Value, Iterator[Any]]:
        return path, value, self._validator.iter_errors({name: value})

    def _why(self, name: str, value: Value) -> str:
        """What to call alternatives that don't hold."""
        word = self._alternatives[name]
        if word == "oneOf" and self._validator.is_valid({_any_of(name): value}):
            return "oneOfMultipleValid"
        return word

    # --- parts --------------------------------------------------------------------------------------------------------

    def _part(self, schema: Value, cut: frozenset[str]) -> Value:
        """The schema; its alternatives and what leads to `cut` only say whether they hold. True of the same values."""
        if not isinstance(schema, dict):
            return schema
        out: Record = {}
        cuts: list[Record] = []
        for key, written in schema.items():
            match key:
                case "$ref" if _name(written) in cut:
                    cuts.append(_cut(written))
                case "$ref":
                    out[key] = f"#/properties/{_name(written)}"
                case "oneOf" | "anyOf":
                    cuts.append(self._set_apart(key, written))
                case "allOf" | "prefixItems":
                    out[key] = [self._part(each, cut) for each in written]
                case "properties" | "patternProperties":
                    out[key] = {name: self._part(each, cut) for name, each in written.items()}
                case "items" | "additionalProperties" | "then" | "else":
                    out[key] = self._part(written, cut)
                case _:  # `not`, `if` and `contains` only say whether they hold as they are
                    out[key] = written
        if cuts:
            out["allOf"] = [*cuts, *out.get("allOf", ())]
        return out

    def _set_apart(self, word: str, alternatives: list[Value]) -> Record:
        name = f"a{len(self._alternatives)}"
        self._alternatives[name] = word
        self._parts[name] = {word: alternatives}
        if word == "oneOf":
            self._parts[_any_of(name)] = {"anyOf": alternatives}
        return _cut(f"#/properties/{name}")


def _circling(definitions: Record) -> frozenset[str]:
    """The definitions that refer back to themselves, by others or not; and those on the way between two of them."""
    leads = {name: _named_in(definition) & definitions.keys() for name, definition in definitions.items()}
    return frozenset(_without_ends(_without_ends(leads)))


def _without_ends(leads: dict[str, set[str]]) -> dict[str, set[str]]:
    """A graph without what leads into no circle, turned round."""
    turned: dict[str, set[str]] = {name: set() for name in leads}
    for name, others in leads.items():
        for other in others:
            turned[other].add(name)
    left = {name: len(others) for name, others in leads.items()}
    ends = [name for name, count in left.items() if not count]
    while ends:
        for name in turned[ends.pop()]:
            left[name] -= 1
            if not left[name]:
                ends.append(name)
    kept = {name for name, count in left.items() if count}
    return {name: turned[name] & kept for name in kept}


def _named_in(schema: Value) -> set[str]:
    """What the `$ref`s anywhere in it name."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            if isinstance(ref := here.get("$ref"), str):
                found.add(_name(ref))
            waiting += here.values()
        elif isinstance(here, list):
            waiting += here
    return found


def _cut(ref: str) -> Record:
    # Of `not` the validator asks only whether it holds.
    return {"not": {"not": {"$ref": ref, "$comment": _CUT}}}


def _cut_in(kind: str, details: Record) -> str | None:
    """The name of what was cut off there; None for any other error."""
    if kind != "not":
        return None
    match details["schema"]:
        case {"not": {"$ref": str(ref), "$comment": comment}} if comment == _CUT:
            return _name(ref)
    return None


def _name(ref: str) -> str:
    return ref.rpartition("/")[2]


def _any_of(name: str) -> str:
    return f"{name}-any"


def _at(path: Path, value: Value) -> Value:
    # The validator's own copy of the instance would be made for each error anew.
    for token in path:
        value = value[token]
    return value
