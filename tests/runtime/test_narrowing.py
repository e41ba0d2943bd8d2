"""What a loop's `where` may leave to a store: never a record for which the condition holds (spec/runtime.md 9.1)."""

from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reqon.errors import EvaluatorError
from reqon.lang.access import member
from reqon.lang.comparing import contains, equal, greater, greater_equal, less, less_equal
from reqon.runtime.loop_lists import asked_of
from reqon.stores.filters import StoreFilter
from reqon.values import Record
from tests.support.store_contract import ODD_FIELDS

COMPARE = {
    "==": equal, "!=": lambda a, b: not equal(a, b), "<": less, "<=": less_equal, ">": greater, ">=": greater_equal,
    "contains": contains,
}  # fmt: skip


@given(
    records=st.lists(st.dictionaries(st.sampled_from(("n", "in", "in.n")), ODD_FIELDS, max_size=3), max_size=6),
    value=ODD_FIELDS,
    operator=st.sampled_from(tuple(COMPARE)),
    field=st.sampled_from(("n", "in.n", "in")),
)
def test_select_leaves_out_nothing_for_which_a_condition_holds(
    records: list[Record], value: Any, operator: str, field: str
) -> None:
    clauses = asked_of([(field, operator, value)], ("eq", "neq", "gt", "gte", "lt", "lte", "contains"))
    left = StoreFilter(clauses, rechecked=True).select(records)
    for record in records:
        found: Any = record
        for name in field.split("."):
            found = member(found, name)
        with suppress(EvaluatorError):
            assert not COMPARE[operator](found, value) or any(one is record for one in left), (clauses, record)


def test_of_what_can_be_compared_only_what_fits_is_left() -> None:
    records: list[Record] = [{"n": value} for value in (1, 7, "7", "a", "b", None, [7], True)]
    for operator, value, left in (
        ("==", 7, [7]), (">", 5, [7, "7", "a", "b", [7], True]), ("<", "b", [1, 7, "7", "a", [7], True]),
        ("!=", None, [1, 7, "7", "a", "b", [7], True]), ("contains", 7, [1, 7, "7", "a", "b", [7], True]),
        ("contains", "a", [1, 7, "a", True]),
    ):  # fmt: skip
        clauses = asked_of([("n", operator, value)], ("eq", "neq", "gt", "gte", "lt", "lte", "contains"))
        assert [r["n"] for r in StoreFilter(clauses, rechecked=True).select(records)] == left, (operator, value)
