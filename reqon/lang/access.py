"""What `.f`, `[i]`, `where` and `...` find in values (spec/language.md 3.2, 3.4)."""

from collections.abc import Callable, Mapping, Sequence

from reqon.errors import EvaluatorError
from reqon.lang.forms import described, elements, is_integer, is_number, text
from reqon.lang.handles import Backed, PagedResult, StoreHandle
from reqon.values import Value


def member(value: Value, key: str) -> Value:
    """`value.key`: an object's field, its backing record's, an array's length or projection; else null. Never fails."""
    if isinstance(value, dict):
        if key in value:
            return value[key]
        if isinstance(value, Backed):
            found = own(value.backing, key)
            return None if found is ABSENT else found
        if key == "length" and isinstance(value, PagedResult):
            return len(value.items_)
        return None
    if value is None:
        return None
    if isinstance(value, str):
        return len(value) if key == "length" else None
    if isinstance(value, Mapping):
        return value.get(key)
    if isinstance(value, StoreHandle) and key == "length":
        return value.count()
    listed = elements(value)
    if listed is None:
        return None
    return len(listed) if key == "length" else _projection(listed, key)


ABSENT = object()


def _projection(listed: Sequence[Value], key: str) -> list[Value] | None:
    found = [own(element, key) for element in listed]
    if all(value is ABSENT for value in found):
        return None
    return [None if value is ABSENT else value for value in found]


def own(value: Value, key: str) -> Value:
    """A field of an object or of what backs it, `ABSENT` where there is none."""
    while isinstance(value, Mapping):
        if key in value:
            return value[key]
        if not isinstance(value, Backed):
            break
        value = value.backing
    return ABSENT


def response_member(value: Value, key: str, meta: Mapping[str, Value] | None) -> Value:
    """`response.key`: the body's own field, or what an array has; else the virtual field of the fetch; else null."""
    if isinstance(value, Mapping):
        found = own(value, key)
        if found is not ABSENT:
            return found
        if isinstance(value, PagedResult) and key == "length":
            return len(value.items_)
    else:
        found = member(value, key)
        if found is not None:
            return found
    return None if meta is None else meta.get(key)


def pattern_field(value: Value, key: str, meta: Mapping[str, Value] | None) -> Value:
    """What an object pattern finds under a key: the value's field, else the virtual one; null if absent."""
    found = own(value, key)
    if found is not ABSENT:
        return found
    return None if meta is None else meta.get(key)


def index(value: Value, at: Value) -> Value:
    """`value[at]` (spec/language.md 3.4).

    Raises:
        EvaluatorError: a value without elements or fields, or an array's index that is no integer.
    """
    if value is None:
        return None
    if isinstance(value, StoreHandle):
        return None if at is None else value.get(text(at))
    if isinstance(value, Mapping):
        if isinstance(value, PagedResult) and is_number(at):
            return _element(value.items_, at)
        found = own(value, text(at))
        return None if found is ABSENT else found
    if isinstance(value, str):
        return _element(value, at)
    listed = elements(value)
    if listed is None:
        raise EvaluatorError(f"[…] needs an array, an object, a string or a store, not {described(value)}")
    return _element(listed, at)


def _element(listed: Sequence[Value], at: Value) -> Value:
    if not is_integer(at):
        raise EvaluatorError(f"an index must be an integer, not {described(at)}")
    where, size = int(at), len(listed)
    return listed[where] if -size <= where < size else None


def record_of(value: Value, key: Value) -> Value:
    """`store.get(key)`.

    Raises:
        EvaluatorError: the value is no store.
    """
    if not isinstance(value, StoreHandle):
        raise EvaluatorError(f"get() is for stores, not for {described(value)}", hint="write value[key]")
    return index(value, key)


def where(value: Value, holds: Callable[[Value], object]) -> list[Value]:
    """The elements for which `holds` answers what Python takes as true; of null, none.

    Raises:
        EvaluatorError: not an array, a store or null.
    """
    return [element for element in iterable(value, "where") if holds(element)]


def any_of(value: Value, holds: Callable[[Value], object] | None = None) -> bool:
    """Whether some element satisfies the condition; without one, whether there is any element.

    Raises:
        EvaluatorError: not an array, a store or null.
    """
    listed = iterable(value, "any of")
    return len(listed) > 0 if holds is None else any(holds(element) for element in listed)


def all_match(value: Value, matches: Callable[[Value], bool]) -> bool:
    """Whether a value is an array, perhaps empty, whose elements all match."""
    listed = elements(value)
    return listed is not None and all(map(matches, listed))


def iterable(value: Value, operator: str) -> Sequence[Value]:
    """The elements of an array or store; none of null.

    Raises:
        EvaluatorError: anything else; names the operator.
    """
    if value is None:
        return ()
    listed = elements(value)
    if listed is None:
        raise EvaluatorError(f"'{operator}' needs an array or a store, not {described(value)}")
    return listed


def spread_elements(value: Value) -> Sequence[Value]:
    """What `...value` adds to an array or to arguments; nothing for null.

    Raises:
        EvaluatorError: no array or store.
    """
    if value is None:
        return ()
    listed = elements(value)
    if listed is None:
        raise EvaluatorError(f"'...' needs an array or a store here, not {described(value)}")
    return listed


def spread_fields(value: Value) -> Mapping[str, Value]:
    """What `...value` adds to an object; nothing for null. Backing records are not spread.

    Raises:
        EvaluatorError: no object.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise EvaluatorError(f"'...' needs an object here, not {described(value)}")
    return value


def array_of(value: Value) -> Sequence[Value] | None:
    """The elements that an array pattern sees, None for what is no array."""
    return value if type(value) is list else elements(value)


def snapshot(value: Value) -> Value:
    """A store as the list of its records; any other value as it is."""
    return value.records() if isinstance(value, StoreHandle) else value
