"""What a database can leave out of a table: all that match a clause stay in, Python looks at what is left.

Columns hold JSON text. Each database reads it by functions of its own, compares by its own rules, and refuses some of
what may be there; what it cannot be sure of stays in.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from reqon.stores.filters import Clause
from reqon.values import Value

Condition: TypeAlias = sa.ColumnElement[bool]
_EXACT = 2**53
_ORDERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "neq": operator.ne, "lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge,
}  # fmt: skip


def condition_of(kind: str, data: sa.ColumnElement[str], clause: Clause) -> Condition | None:
    """What the rows that match a clause have in common; None where the database cannot tell."""
    field, value = clause["field"], clause["value"]
    if not (field.isidentifier() and field.isascii()):
        return None
    if isinstance(value, str):
        if not value.isprintable():
            return None
    elif isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= _EXACT:
        return None
    if clause["operator"] == "eq":
        return _EQUALITIES[kind](data, field, value) if isinstance(value, str | int) else None
    compare = _ORDERS.get(clause["operator"])
    return None if compare is None else _COMPARISONS[kind](data, field, value, compare)


# --- a field that equals a value -------------------------------------------------------------------------------------


def _equal_in_sqlite(data: sa.ColumnElement[str], field: str, value: Value) -> Condition:
    condition: Condition = sa.func.json_extract(data, f"$.{field}") == value
    return condition


def _equal_in_mysql(data: sa.ColumnElement[str], field: str, value: Value) -> Condition:
    # It takes what is nested too deeply for invalid.
    return sa.or_(sa.func.json_value(data, f"$.{field}") == value, sa.func.json_valid(data) == 0)


def _equal_in_postgres(data: sa.ColumnElement[str], field: str, value: Value) -> Condition:
    return _readable(data, (_member(data, field) == sa.literal(value, JSONB()), sa.true()), otherwise=sa.false())


# --- a field that is of the value's type and compares to it, or is of another type -----------------------------------


def _compare_in_sqlite(data: sa.ColumnElement[str], field: str, value: Value, compare: Any) -> Condition | None:
    path = f"$.{field}"
    types = ("text",) if isinstance(value, str) else ("integer", "real")
    fits = compare(sa.func.json_extract(data, path), value)
    return sa.case((sa.func.json_type(data, path).in_(types), fits), else_=sa.true())


def _compare_in_mysql(data: sa.ColumnElement[str], field: str, value: Value, compare: Any) -> Condition | None:
    if isinstance(value, str):
        return None  # its texts are equal in more ways than ours
    path = f"$.{field}"
    kind = sa.func.json_type(sa.func.json_extract(data, path))
    number = sa.cast(sa.func.json_value(data, path), sa.Double)
    fits = sa.case((kind.in_(("INTEGER", "DOUBLE")), compare(number, value)), else_=sa.true())
    return sa.or_(sa.func.json_valid(data) == 0, fits)


def _compare_in_postgres(data: sa.ColumnElement[str], field: str, value: Value, compare: Any) -> Condition | None:
    found = _member(data, field)
    kind = sa.func.jsonb_typeof(found)
    if isinstance(value, str):
        # By code point, as ours; the order of jsonb is that of the database's language.
        text = sa.cast(data, JSONB).op("->>", return_type=sa.Text())(sa.cast(field, sa.Text)).collate("C")
        return _readable(data, (kind == "string", compare(text, value)), otherwise=sa.true())
    number = sa.cast(sa.cast(found, sa.Text), sa.Double)
    return _readable(data, (kind == "number", compare(number, value)), otherwise=sa.true())


def _member(data: sa.ColumnElement[str], field: str) -> Any:
    return sa.cast(data, JSONB).op("->", return_type=JSONB())(sa.cast(field, sa.Text))


def _readable(data: sa.ColumnElement[str], case: Any, *, otherwise: Any) -> Condition:
    """A case, for rows that PostgreSQL can read: an escaped U+0000 or half a character fails for the whole table."""
    return sa.case((data.contains("\\u", autoescape=True), sa.true()), case, else_=otherwise)


_EQUALITIES: Mapping[str, Callable[..., Condition]] = {
    "sqlite": _equal_in_sqlite, "postgres": _equal_in_postgres, "mysql": _equal_in_mysql,
}  # fmt: skip
_COMPARISONS: Mapping[str, Callable[..., Condition | None]] = {
    "sqlite": _compare_in_sqlite, "postgres": _compare_in_postgres, "mysql": _compare_in_mysql,
}  # fmt: skip
