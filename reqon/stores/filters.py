"""Which records of a store are asked for (spec/runtime.md 9.1)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypedDict

from reqon.errors import StoreError
from reqon.values import Record, Value, equal_json


class Clause(TypedDict):
    """One condition on a field, which may be dotted: `eq neq gt gte lt lte contains`."""

    field: str
    operator: str
    value: Value


@dataclass(frozen=True, slots=True)
class StoreFilter:
    """All clauses must hold; then `offset` records are left out, and at most `limit` of the others are given.

    `where` may be a plain `{field: value}` too, which asks for equal values.

    A filter that is `rechecked` comes from a loop, which judges each record that it gets by the rules of the language
    (`"7" > 5` holds there): too many records do no harm, too few do. See `admits`.
    """

    where: Sequence[Clause] | Mapping[str, Value] = ()
    limit: int | None = None
    offset: int = 0
    rechecked: bool = False

    @property
    def clauses(self) -> tuple[Clause, ...]:
        """`where` as clauses, each `{field, operator, value}`."""
        if isinstance(self.where, Mapping):
            return tuple(Clause(field=name, operator="eq", value=value) for name, value in self.where.items())
        return tuple(self.where)

    def admits(self, record: Record) -> bool:
        """Whether the clauses let a record through; if they are rechecked, unless one surely fails.

        Then null counts as a missing field, and only values of the kinds that an operator compares are left out: for
        `gt gte lt lte` texts by code point where a text is asked for, numbers where a number is, and missing ones; for
        `contains` lists, texts where a text is asked for, and missing ones.
        """
        if self.rechecked:
            return all(_may_hold(_at(record, clause["field"]), clause) for clause in self.clauses)
        return matches(record, self.clauses)

    def select(self, records: Iterable[Record]) -> list[Record]:
        """The records that it asks for, in their order: for adapters that look through all they have."""
        return chosen(records, self)


EVERYTHING = StoreFilter()
_ABSENT = object()


def field_of(record: Value, path: str) -> Value:
    """A field's value, `_ABSENT` where there is none. A name with dots in it wins over a path."""
    if not isinstance(record, Mapping):
        return _ABSENT
    if path in record:
        return record[path]
    first, dot, rest = path.partition(".")
    return field_of(record[first], rest) if dot and first in record else _ABSENT


def _at(record: Value, path: str) -> Value:
    """The value at a path as the language reads it, None where there is none."""
    for name in path.split("."):
        record = record.get(name) if isinstance(record, Mapping) else None
    return record


def _may_hold(found: Value, clause: Clause) -> bool:
    operator, value = clause["operator"], clause["value"]
    if operator in ("eq", "neq"):
        return equal_json(found, value) is (operator == "eq")
    if found is None:
        return False
    if operator == "contains":
        comparable = isinstance(found, list) or (isinstance(found, str) and isinstance(value, str))
    else:
        comparable = _ordered(found, value)
    return not comparable or matches({"found": found}, [Clause(field="found", operator=operator, value=value)])


def _contains(found: Value, value: Value) -> bool:
    if isinstance(found, str):
        return isinstance(value, str) and value in found
    return isinstance(found, Sequence) and any(equal_json(one, value) for one in found)


def _ordered(found: Value, value: Value) -> bool:
    both = (found, value)
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in both)
    return numbers or all(isinstance(one, str) for one in both)


OPERATORS: Mapping[str, Callable[[Value, Value], bool]] = {
    "eq": lambda found, value: found is not _ABSENT and equal_json(found, value),
    "neq": lambda found, value: found is _ABSENT or not equal_json(found, value),
    "gt": lambda found, value: _ordered(found, value) and found > value,
    "gte": lambda found, value: _ordered(found, value) and found >= value,
    "lt": lambda found, value: _ordered(found, value) and found < value,
    "lte": lambda found, value: _ordered(found, value) and found <= value,
    "contains": _contains,
}


def matches(record: Record, clauses: Iterable[Clause]) -> bool:
    """Whether a record meets all clauses.

    Raises:
        StoreError: there is no such operator.
    """
    for clause in clauses:
        test = OPERATORS.get(clause["operator"])
        if test is None:
            known = ", ".join(OPERATORS)
            raise StoreError(
                f"no filter operator '{clause['operator']}'", operation="list", hint=f"the operators are {known}"
            )
        if not test(field_of(record, clause["field"]), clause["value"]):
            return False
    return True


def chosen(records: Iterable[Record], wanted: StoreFilter | None) -> list[Record]:
    """The records that a filter asks for, in their order."""
    if wanted is None:
        return list(records)
    kept = (record for record in records if wanted.admits(record))
    stop = None if wanted.limit is None else wanted.offset + wanted.limit
    return list(islice(kept, wanted.offset, stop))
