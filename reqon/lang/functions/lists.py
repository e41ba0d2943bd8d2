"""Built-in functions on arrays. They take stores and paged results as well; null stays null unless noted."""

from collections.abc import Callable, Sequence
from functools import reduce as fold
from typing import TypeAlias

from reqon.errors import EvaluatorError
from reqon.lang.functions.registry import builtin, fail, whole
from reqon.lang.operators import (
    MAX_ITEMS,
    StoreHandle,
    ValidationErrors,
    elements,
    has_element,
    identity,
    is_object,
    is_twofold,
    ordered,
    text,
    text_form,
    too_large,
)
from reqon.values import Value

Element: TypeAlias = Callable[[Value], Value]
# Answers what Python takes as true or false: `Expressions.truth` makes such.
Condition: TypeAlias = Callable[[Value], object]


class Indexed:
    """An element function of two parameters: the element and its index. One per evaluation."""

    __slots__ = ("_at", "_function")

    def __init__(self, function: Callable[[Value, int], Value]) -> None:
        self._function = function
        self._at = -1

    def __call__(self, element: Value) -> Value:
        self._at += 1
        return self._function(element, self._at)


def listed(function: str, xs: Value) -> Sequence[Value]:
    """The elements of an array or store.

    Raises:
        EvaluatorError: neither; names the function.
    """
    if type(xs) is list:
        return xs
    found = elements(xs)
    if found is None:
        fail(function, "an array or a store", xs)
    return found


def size(xs: Value) -> int | None:
    """How many elements an array or store has, without reading them; None for what is neither."""
    if isinstance(xs, StoreHandle):
        return xs.count()
    found = elements(xs)
    return None if found is None else len(found)


@builtin("length", 1)
def length(x: Value) -> int:
    """Elements, characters or keys; of null 0."""
    if x is None:
        return 0
    found = size(x)
    if found is not None:
        return found
    if not isinstance(x, str) and not is_object(x):
        fail("length", "an array, a string, an object or a store", x)
    return len(x)


@builtin("count", 1)
def count(xs: Value) -> int:
    """Elements of an array or store; of null 0."""
    found = 0 if xs is None else size(xs)
    if found is None:
        fail("count", "an array or a store", xs)
    return found


@builtin("isEmpty", 1)
def is_empty(x: Value) -> bool:
    """True for null, "", [], {} and an empty store."""
    if x is None or x == "":
        return True
    found = size(x)
    return not x if found is None and is_object(x) else found == 0


@builtin("exists", 1)
def exists(x: Value) -> bool:
    return x is not None


@builtin("includes", 2)
def includes(x: Value, v: Value) -> bool:
    """An equal element; a substring; for validation errors, a text that contains it. Of null false."""
    if x is None:
        return False
    if isinstance(x, str):
        return v is not None and text_form(v, "includes") in x
    found = elements(x)
    if found is None:
        fail("includes", "an array, a string or a store", x)
    if isinstance(found, ValidationErrors):
        return v is not None and any(text(v) in error for error in found)
    return has_element(found, v)


@builtin("first", 1)
def first(xs: Value) -> Value:
    if xs is None:
        return None
    found = listed("first", xs)
    return found[0] if len(found) else None


@builtin("last", 1)
def last(xs: Value) -> Value:
    if xs is None:
        return None
    found = listed("last", xs)
    return found[-1] if len(found) else None


@builtin("map", 2, element=(1,))
def map_(xs: Value, f: Element) -> list[Value] | None:
    return None if xs is None else [f(x) for x in listed("map", xs)]


@builtin("filter", 2, element=(1,))
def filter_(xs: Value, f: Condition) -> list[Value] | None:
    return None if xs is None else [x for x in listed("filter", xs) if f(x)]


@builtin("reduce", 2, 3, element=(1,))
def reduce(xs: Value, f: Callable[[Value, Value], Value], *init: Value) -> Value:
    """A fold from the left; without `init` the first element starts, of nothing comes null."""
    if xs is None:
        return None
    found = listed("reduce", xs)
    return fold(f, found, *init) if init or len(found) else None


@builtin("find", 2, element=(1,))
def find(xs: Value, f: Condition) -> Value:
    return None if xs is None else next((x for x in listed("find", xs) if f(x)), None)


@builtin("findIndex", 2, element=(1,))
def find_index(xs: Value, f: Condition) -> int | None:
    """The index of the first match, -1 if there is none."""
    return None if xs is None else next((at for at, x in enumerate(listed("findIndex", xs)) if f(x)), -1)


@builtin("all", 2, element=(1,))
def all_(xs: Value, f: Condition) -> bool:
    return xs is None or all(f(x) for x in listed("all", xs))


@builtin("some", 2, element=(1,))
def some(xs: Value, f: Condition) -> bool:
    return xs is not None and any(f(x) for x in listed("some", xs))


@builtin("none", 2, element=(1,))
def none(xs: Value, f: Condition) -> bool:
    return xs is None or not any(f(x) for x in listed("none", xs))


@builtin("sort", 1)
def sort(xs: Value) -> list[Value] | None:
    return None if xs is None else ordered(listed("sort", xs))


@builtin("sortBy", 2, element=(1,))
def sort_by(xs: Value, f: Element) -> list[Value] | None:
    return None if xs is None else ordered(listed("sortBy", xs), f)


@builtin("unique", 1)
def unique(xs: Value) -> list[Value] | None:
    """The first of equal elements, in order."""
    if xs is None:
        return None
    found = listed("unique", xs)
    if any(map(is_twofold, found)):
        # A datetime equals more than one text, so no one key can stand for it.
        kept: list[Value] = []
        for x in found:
            if not has_element(kept, x):
                kept.append(x)
        return kept
    kept_by_identity: dict[Value, Value] = {}
    for x in found:
        kept_by_identity.setdefault(identity(x), x)
    return list(kept_by_identity.values())


@builtin("flatten", 1)
def flatten(xs: Value) -> list[Value] | None:
    """One level: elements that are arrays give their elements."""
    if xs is None:
        return None
    flat: list[Value] = []
    for x in listed("flatten", xs):
        inner = elements(x)
        if inner is None:
            flat.append(x)
        else:
            flat.extend(inner)
            if len(flat) > MAX_ITEMS:
                too_large("an array")
    return flat


@builtin("chunks", 2)
def chunks(xs: Value, n: Value) -> list[list[Value]] | None:
    if xs is None:
        return None
    found, step = listed("chunks", xs), whole("chunks", n, "the size")
    if step < 1:
        raise EvaluatorError(f"chunks() needs a size of at least 1, not {step}")
    return [list(found[at : at + step]) for at in range(0, len(found), step)]


@builtin("toArray", 1)
def to_array(x: Value) -> Sequence[Value]:
    """An array as it is, a store's records, null as [], anything else alone in an array."""
    if x is None:
        return []
    found = elements(x)
    return [x] if found is None else found
