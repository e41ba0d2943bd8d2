"""Built-in functions on objects. They see a record's own fields, never what backs it."""

from collections.abc import Mapping

from reqon.lang.functions.lists import listed
from reqon.lang.functions.registry import builtin, fail
from reqon.lang.operators import text
from reqon.values import Record, Value


def _object(function: str, value: Value) -> Mapping[str, Value]:
    if not isinstance(value, Mapping):
        fail(function, "an object", value)
    return value


@builtin("keys", 1)
def keys(o: Value) -> list[str]:
    return [] if o is None else list(_object("keys", o))


@builtin("values", 1)
def values(o: Value) -> list[Value]:
    return [] if o is None else list(_object("values", o).values())


@builtin("entries", 1)
def entries(o: Value) -> list[list[Value]]:
    """`[key, value]` pairs; of null none."""
    return [] if o is None else [[key, value] for key, value in _object("entries", o).items()]


@builtin("hasKey", 2)
def has_key(o: Value, k: Value) -> bool:
    """Whether the key is there, even with null; of null false."""
    return o is not None and k is not None and text(k) in _object("hasKey", o)


def _keys(function: str, ks: Value) -> set[str]:
    return {text(key) for key in ((ks,) if isinstance(ks, str) else listed(function, ks))}


@builtin("pick", 2)
def pick(o: Value, ks: Value) -> Record | None:
    """The fields with these keys, in the object's order."""
    if o is None:
        return None
    wanted = _keys("pick", ks)
    return {key: value for key, value in _object("pick", o).items() if key in wanted}


@builtin("omit", 2)
def omit(o: Value, ks: Value) -> Record | None:
    """The fields without these keys."""
    if o is None:
        return None
    unwanted = _keys("omit", ks)
    return {key: value for key, value in _object("omit", o).items() if key not in unwanted}


@builtin("merge", 1, None)
def merge(*parts: Value) -> Record | None:
    """One object of all fields, later ones win; nulls are ignored, of nothing but nulls comes null."""
    present = [_object("merge", part) for part in parts if part is not None]
    return {key: value for part in present for key, value in part.items()} if present else None
