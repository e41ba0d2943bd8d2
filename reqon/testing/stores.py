"""The checks that every store of records must pass (spec/runtime.md 9.1)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, TypeAlias

from reqon.errors import StoreError
from reqon.stores.adapter import Adapter
from reqon.stores.base import LocalStore, WriteCounts, WriteMode
from reqon.stores.filters import OPERATORS, Clause, StoreFilter, chosen
from reqon.testing.check import Check
from reqon.values import Record, equal_json

MANY = 1203
Body: TypeAlias = "Callable[[Adapter], Awaitable[None]]"


def store_suite(make: Callable[[], Any], *, ordered: bool = True) -> list[Check]:
    """Checks for the adapter that `make` answers, or a coroutine for it; each has one of its own, which must be empty.

    Optional methods that it lacks are not checked. `ordered=False`: lists need not be in the order of insertion.
    With pytest:

        @pytest.mark.parametrize("check", store_suite(MyAdapter), ids=str)
        def test_my_adapter(check): check()
    """
    chosen_checks = [(name, body) for name, body in _CHECKS if ordered or body is not _order]
    return [Check(name, lambda body=body: asyncio.run(_run(make, body))) for name, body in chosen_checks]  # type: ignore[misc]


store_adapter_suite = store_suite


async def _run(make: Callable[[], Any], body: Body) -> None:
    made = make()
    target = await made if isawaitable(made) else made
    store = Adapter("checked", _Local(target) if isinstance(target, LocalStore) else target)
    await store.open()
    try:
        await body(store)
    finally:
        await store.close()


class _Local:
    """A memory or file store as an adapter."""

    thread_safe = True
    filter_operators = tuple(OPERATORS)

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.get = store.get
        self.clear = store.clear
        self.delete = store.delete
        self.close = store.close

    def set(self, key: str, value: Record) -> None:
        self._store.put(key, value)

    def update(self, key: str, partial: Record) -> None:
        self._store.put(key, partial, WriteMode.MERGE)

    def list(self, filter: StoreFilter | None = None) -> "list[Record]":  # noqa: A002  # documented so
        return chosen(self._store.records(), filter)

    def bulk_upsert(self, records: Sequence[tuple[str, Record]], mode: str) -> WriteCounts:
        before = self._store.counts.copy()
        self._store.put_many(records, WriteMode(mode))
        return self._store.counts - before

    def iterate(self, filter: StoreFilter | None = None, batch_size: int = 500) -> "Sequence[tuple[str, Record]]":  # noqa: A002, ARG002  # documented so
        entries = zip(self._store.keys(), self._store.records(), strict=True)
        return [(key, record) for key, record in entries if chosen([record], filter)]


_RECORD: Record = {
    "id": 7,
    "text": 'Zoë "Z" \u2028 \U0001f4e6 \\ %_*',
    "null": None,
    "flags": [True, False],
    "big": 2**90,
    "close": 2**53 + 1,
    "part": 0.1,
    "inside": {"": {}, "list": [[], {}]},
}


async def _set(store: Adapter, key: str, record: Record) -> None:
    await store.call("set", key, record)


async def _what_is_set_is_got(store: Adapter) -> None:
    await _set(store, "7", _RECORD)
    found = await store.get("7")
    assert found is not None
    assert equal_json(found, _RECORD), found
    assert await store.get("8") is None


async def _a_set_replaces(store: Adapter) -> None:
    await _set(store, "a", {"x": 1, "y": 2})
    await _set(store, "a", {"z": 3})
    assert await store.get("a") == {"z": 3}


async def _an_update_merges(store: Adapter) -> None:
    await _set(store, "a", {"x": 1, "in": {"a": 1}})
    await store.call("update", "a", {"x": None, "in": {"b": 1}})
    assert await store.get("a") == {"x": None, "in": {"b": 1}}
    await store.call("update", "new", {"x": 1})
    assert await store.get("new") == {"x": 1}, "an update of a key that is not there inserts"


async def _what_is_deleted_is_gone(store: Adapter) -> None:
    for key in "ab":
        await _set(store, key, {"key": key})
    assert await store.delete(["a"]) == 1
    assert await store.delete(["a"]) == 0, "a key that is not there is no error"
    assert await store.get("a") is None
    assert await store.get("b") == {"key": "b"}


async def _a_cleared_store_is_empty(store: Adapter) -> None:
    for key in "abc":
        await _set(store, key, {"key": key})
    assert await store.clear() == 3
    assert (await store.list(), await store.count()) == ([], 0)


async def _order(store: Adapter) -> None:
    for key in ("b", "a", "c"):
        await _set(store, key, {"key": key, "n": 1})
    await _set(store, "b", {"key": "b", "n": 2})
    await store.call("update", "a", {"n": 2})
    found = [record["key"] for record in await store.list()]
    assert found == ["b", "a", "c"], "a list is in the order of insertion, and an update keeps the place"
    await store.delete(["b"])
    await _set(store, "b", {"key": "b"})
    assert [record["key"] for record in await store.list()] == ["a", "c", "b"]


_FRUIT: Mapping[str, Record] = {
    "a": {"key": "a", "n": 1, "name": "apple", "in": {"n": 1}, "tags": ["red", 1]},
    "b": {"key": "b", "n": 2.0, "name": "banana", "in": {"n": 2}, "tags": []},
    "c": {"key": "c", "n": True, "name": "cherry", "in": {"n": 1}},
    "d": {"key": "d", "n": None, "name": 4},
    "e": {"key": "e", "n": "1", "name": "a%_*"},
    "f": {"key": "f"},
}
_QUESTIONS: Sequence[tuple[str, str, Any, str]] = (
    ("n", "eq", 1, "a"), ("n", "eq", 2, "b"), ("n", "eq", True, "c"), ("n", "eq", None, "d"), ("n", "eq", "1", "e"),
    ("n", "neq", 1, "bcdef"), ("n", "neq", None, "abcef"), ("n", "gt", 1, "b"), ("n", "gte", 1, "ab"),
    ("n", "lt", 2, "a"), ("n", "lte", 2, "ab"), ("name", "gt", "apple", "bc"), ("name", "lt", "b", "ae"),
    ("name", "contains", "an", "b"), ("name", "contains", "%", "e"), ("name", "contains", "_*", "e"),
    ("tags", "contains", 1, "a"), ("tags", "contains", "red", "a"), ("in.n", "eq", 1, "ac"), ("none", "eq", 1, ""),
)  # fmt: skip


async def _a_filter_compares_json(store: Adapter) -> None:
    await store.write(list(_FRUIT.items()), WriteMode.REPLACE)
    for field, operator, value, expected in _QUESTIONS:
        wanted = StoreFilter([Clause(field=field, operator=operator, value=value)])
        found = "".join(sorted(record["key"] for record in await store.list(wanted)))
        assert found == expected, (
            f"{field} {operator} {value!r}: {found or 'nothing'} instead of {expected or 'nothing'}"
        )
        assert await store.count(wanted) == len(expected), f"count where {field} {operator} {value!r}"
    both = StoreFilter([Clause(field="n", operator="gte", value=1), Clause(field="in.n", operator="eq", value=2)])
    assert [record["key"] for record in await store.list(both)] == ["b"], "all clauses must hold"
    assert [record["key"] for record in await store.list(StoreFilter({"n": 1}))] == ["a"]


# What a filter that is rechecked must leave: all for which a comparison of the language holds, or fails.
_MUST_STAY: Sequence[tuple[str, str, Any, str]] = (
    ("n", "eq", 1, "a"), ("n", "eq", "1", "e"), ("n", "eq", True, "c"), ("n", "eq", None, "df"),
    ("n", "neq", 1, "bcdef"), ("n", "neq", None, "abce"), ("n", "gt", 0, "abce"), ("n", "gte", 2, "bce"),
    ("n", "lt", 2, "ace"), ("n", "lte", 0, "ce"), ("name", "gt", "apple", "bcd"), ("name", "lt", "b", "ade"),
    ("name", "gt", "B", "abcde"), ("name", "contains", "an", "bd"), ("name", "contains", "%_*", "de"),
    ("tags", "contains", 1, "a"), ("in.n", "gt", 1, "b"), ("in.n", "eq", 1, "ac"),
)  # fmt: skip


async def _a_filter_that_is_rechecked_loses_nothing(store: Adapter) -> None:
    await store.write(list(_FRUIT.items()), WriteMode.REPLACE)
    known = store.filter_operators or ()
    for field, operator, value, needed in _MUST_STAY:
        if operator not in known:
            continue
        wanted = StoreFilter([Clause(field=field, operator=operator, value=value)], rechecked=True)
        found = {record["key"] for record in await store.list(wanted)}
        assert found >= set(needed), (
            f"{field} {operator} {value!r}, rechecked: {', '.join(sorted(set(needed) - found))} must stay in"
        )


async def _a_list_can_be_cut(store: Adapter) -> None:
    await store.write([(f"k{n}", {"n": n, "even": n % 2 == 0}) for n in range(8)], WriteMode.REPLACE)
    even = {"even": True}
    assert [r["n"] for r in await store.list(StoreFilter(limit=2, offset=3))] == [3, 4]
    assert [r["n"] for r in await store.list(StoreFilter(even, limit=2, offset=1))] == [2, 4]
    assert await store.list(StoreFilter(limit=0)) == []
    assert [r["n"] for r in await store.list(StoreFilter(even, offset=3))] == [6]
    assert await store.count(StoreFilter(even, limit=1, offset=2)) == 4, "count ignores limit and offset"


_KEYS = (
    "1", '"1"', "1.0", str(10**30), str(2**53), str(2**53 + 1), "Ada", "ada", "\u00e9", "e\u0301", "ß", "ss", " ", "  ",
    "a", "a ", "a\nb", "a\tb", "__proto__", "..", "/", "a,b", "(a)", "a.b", "eq.1", "\\", "%", "*", "null", "\u2028",
    "\x7f", "\x1a", "\U0001f4e6", "'", "k" * 1024, "ä" * 512,
)  # fmt: skip


async def _odd_keys_stay_apart(store: Adapter) -> None:
    entries = [(key, {"number": number}) for number, key in enumerate(_KEYS)]
    for key, record in entries:
        await _set(store, key, record)
    for key, record in entries:
        assert await store.get(key) == record, f"the key {key[:40]!r}"
    assert await store.count() == len(_KEYS)
    found = await store.get_many(list(_KEYS))
    assert {key: dict(record) for key, record in found.items()} == dict(entries)
    if store.can_iterate:
        assert sorted(await store.keys()) == sorted(_KEYS)


async def _a_batch_says_what_it_changed(store: Adapter) -> None:
    first = await store.write([("a", {"n": 1}), ("b", {"n": 1}), ("a", {"n": 2})], WriteMode.REPLACE)
    assert first == WriteCounts(added=2, updated=1), first
    second = await store.write([("a", {"n": 2.0}), ("b", {"m": 1}), ("c", {"m": 1})], WriteMode.MERGE)
    assert second == WriteCounts(added=1, updated=1, unchanged=1), second
    assert [await store.get(key) for key in "abc"] == [{"n": 2}, {"n": 1, "m": 1}, {"m": 1}]


async def _a_batch_that_only_updates_inserts_nothing(store: Adapter) -> None:
    await _set(store, "a", {"n": 1})
    assert await store.write([("a", {"m": 1})], WriteMode.UPDATE) == WriteCounts(updated=1)
    refused: StoreError | None = None
    try:
        await store.write([("ghost", {"n": 1})], WriteMode.UPDATE)
    except StoreError as error:
        refused = error
    assert refused is not None, "an update of a key that is not there must be refused"
    assert (refused.kind, refused.key) == ("not_found", "ghost"), refused
    assert await store.count() == 1


async def _many_records_are_all_there(store: Adapter) -> None:
    entries = [(f"k{number:05d}", {"number": number}) for number in range(MANY)]
    for at in range(0, MANY, 500):
        await store.write(entries[at : at + 500], WriteMode.REPLACE)
    assert await store.count() == MANY
    assert [record["number"] for record in await store.list()] == list(range(MANY))
    assert len(await store.get_many([key for key, _ in entries])) == MANY
    if store.can_iterate:
        found = [entry async for batch in store.entries() for entry in batch]
        assert [(key, dict(record)) for key, record in found] == entries
        assert await store.keys(StoreFilter({"number": 7})) == ["k00007"]


async def _several_calls_at_once(store: Adapter) -> None:
    async def work(number: int) -> None:
        key = f"k{number}"
        await store.write([(key, {"n": number})], WriteMode.REPLACE)
        assert await store.get(key) == {"n": number}

    await asyncio.gather(*map(work, range(20)))
    assert await store.count() == 20


async def _what_was_read_is_no_part_of_the_store(store: Adapter) -> None:
    given: Record = {"list": [1]}
    await _set(store, "a", given)
    found = await store.get("a")
    assert found is not None
    await _set(store, "b", {**found, "more": 1})
    assert await store.get("a") == {"list": [1]}


_CHECKS: Sequence[tuple[str, Body]] = [
    ("what is set is got, to the last digit", _what_is_set_is_got),
    ("a set replaces the whole record", _a_set_replaces),
    ("an update merges one level deep, and inserts", _an_update_merges),
    ("what is deleted is gone, and may be deleted again", _what_is_deleted_is_gone),
    ("a cleared store is empty", _a_cleared_store_is_empty),
    ("a list is in the order of insertion", _order),
    ("a filter compares JSON values", _a_filter_compares_json),
    ("a filter that is rechecked loses nothing", _a_filter_that_is_rechecked_loses_nothing),
    ("a list can be cut", _a_list_can_be_cut),
    ("odd keys stay apart", _odd_keys_stay_apart),
    ("a batch says what it changed, equal keys in order", _a_batch_says_what_it_changed),
    ("a batch that only updates inserts nothing", _a_batch_that_only_updates_inserts_nothing),
    ("many records are all there", _many_records_are_all_there),
    ("several calls at once", _several_calls_at_once),
    ("what was read is no part of the store", _what_was_read_is_no_part_of_the_store),
]
