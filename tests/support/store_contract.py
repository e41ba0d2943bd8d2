"""What every local store must do; subclass `LocalStoreContract` and give it a `store` fixture."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reqon.errors import StoreError
from reqon.stores.base import LocalStore, WriteCounts, WriteMode
from reqon.values import Record, encode, equal_json

MERGE, UPDATE = WriteMode.MERGE, WriteMode.UPDATE


class LocalStoreContract:
    def test_a_new_store_is_empty(self, store: LocalStore) -> None:
        assert isinstance(store, LocalStore)
        assert (store.count(), store.keys(), list(store.records())) == (0, [], [])
        assert store.get("a") is None
        assert store.counts == WriteCounts()

    def test_a_record_comes_back_as_it_was(self, store: LocalStore) -> None:
        record = {"id": 7, "names": ["a", None, 1.5], "nested": {"": {}}, "big": 2**90}
        store.put("7", record)
        assert store.get("7") == record

    def test_an_update_keeps_its_place(self, store: LocalStore) -> None:
        for key in "abc":
            store.put(key, {"n": 1})
        store.put("a", {"n": 2})
        assert store.keys() == ["a", "b", "c"]

    def test_a_deleted_key_comes_back_at_the_end(self, store: LocalStore) -> None:
        for key in "ab":
            store.put(key, {"n": 1})
        store.delete("a")
        store.put("a", {"n": 2})
        assert store.keys() == ["b", "a"]

    def test_replacing_drops_old_fields_and_merging_keeps_them(self, store: LocalStore) -> None:
        store.put("a", {"x": 1, "y": 1})
        store.put("a", {"y": None}, MERGE)
        assert store.get("a") == {"x": 1, "y": None}
        store.put("a", {"z": 3})
        assert store.get("a") == {"z": 3}

    def test_a_merge_is_shallow_and_inserts(self, store: LocalStore) -> None:
        store.put("a", {"in": {"x": 1}}, MERGE)
        store.put("a", {"in": {"y": 1}}, MERGE)
        assert store.get("a") == {"in": {"y": 1}}

    def test_only_updating_an_absent_key_is_refused(self, store: LocalStore) -> None:
        with pytest.raises(StoreError, match="'ghost'") as caught:
            store.put("ghost", {"x": 1}, UPDATE)
        assert (caught.value.kind, caught.value.operation, caught.value.key) == ("not_found", "update", "ghost")
        with pytest.raises(StoreError):
            store.put_many([("ghost", {"x": 1})], UPDATE)
        assert store.count() == 0

    def test_writes_are_counted_by_what_they_did(self, store: LocalStore) -> None:
        store.put("a", {"x": 1})
        store.put("a", {"x": 2})
        store.put("a", {"x": 2.0})
        store.put("a", {"x": 2}, MERGE)
        store.put("b", {"x": True})
        store.put("b", {"x": 1})
        store.delete("b")
        store.delete("b")
        assert store.counts == WriteCounts(added=2, updated=2, unchanged=2, deleted=1)

    def test_fields_in_another_order_are_no_change(self, store: LocalStore) -> None:
        store.put("a", {"x": 1, "y": 2})
        store.put("a", {"y": 2, "x": 1})
        assert store.counts.unchanged == 1

    def test_a_batch_applies_in_order(self, store: LocalStore) -> None:
        store.put_many([("a", {"n": 1}), ("b", {"n": 1}), ("a", {"n": 2})])
        assert (store.keys(), store.get("a")) == (["a", "b"], {"n": 2})
        assert store.counts == WriteCounts(added=2, updated=1)

    def test_clearing_counts_what_went(self, store: LocalStore) -> None:
        store.put_many([(str(n), {"n": n}) for n in range(5)])
        store.clear()
        assert (store.count(), store.counts.deleted, store.keys()) == (0, 5, [])

    def test_instants_come_back_as_text(self, store: LocalStore) -> None:
        at = datetime(2026, 3, 1, 8, 15, tzinfo=UTC)
        record = {"at": at, "in": [{"at": at, "took": timedelta(seconds=2)}]}
        store.put("a", record)
        text = "2026-03-01T08:15:00.000Z"
        assert store.get("a") == {"at": text, "in": [{"at": text, "took": 2000}]}
        assert list(store.records()) == [store.get("a")]
        store.put("a", record)
        assert store.counts.unchanged == 1

    def test_what_stands_behind_a_record_is_not_stored(self, store: LocalStore) -> None:
        class Backed(dict[str, Any]):
            backing: ClassVar = {"secret": 1}

        store.put("a", Backed(x=1, inner=Backed(y=2)))
        found = store.get("a")
        assert found == {"x": 1, "inner": {"y": 2}}
        assert type(found) is dict
        assert type(found["inner"]) is dict

    def test_later_changes_of_what_was_read_do_not_reach_the_store(self, store: LocalStore) -> None:
        store.put_many([(str(n), {"n": n}) for n in range(600)])
        seen = []
        for record in store.records(start=590):
            seen.append(record["n"])
            store.delete(str(record["n"]))
        assert seen == list(range(590, 600))
        assert store.count() == 590

    def test_odd_keys_stay_apart(self, store: LocalStore) -> None:
        """R10"""
        keys = [*ODD_KEYS, *(str(n) for n in (10**30, 2**53, 2**53 + 1, 1))]
        for number, key in enumerate(keys):
            store.put(key, {"number": number})
        store.sync()
        assert store.keys() == keys
        assert [store.get(key) for key in keys] == [{"number": n} for n in range(len(keys))]


ODD_KEYS = (
    '"1"',
    "1.0",
    "Ada",
    "ada",
    "\u00e9",  # é as one character
    "e\u0301",  # and as two
    "__proto__",
    " ",
    "a\nb",
    "a\tb",
    "a\u2028b",
    '\n  "x": {',
    "\x00",
    "\x7f",
    "\\",
    "..",
    "\U0001f4e6",
)

keys = st.sampled_from(("a", "b", "c", "Ada", *ODD_KEYS)) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=6
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.just('\n  "x": {\n')
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
# Of all kinds that a condition compares, and what is easily taken for another.
ODD_FIELDS: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from((
        None, True, False, 0, 4, 5, 5.5, -1, "5", "10", "05", "1e1", "", "B", "a", "ä", "Z", "2026-01-02", 2**53, 2**70,
        "2026-01-02T05:00:00+09:00", "2026-01-02T00:00:00Z", 0.1, [], [5], ["a"], {"n": 5}, {"a": 1}, {"n": [5]},
        "a\0b", "true", "null",
    )),
    st.integers(-9, 9),
    st.text(alphabet="0aB-é", max_size=3),
)  # fmt: skip
records: st.SearchStrategy[Record] = st.dictionaries(keys, values, max_size=4)


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of calls leaves a store as it leaves a dict. Subclasses open the store."""

    reopen: Callable[[], LocalStore] | None = None

    def open(self) -> LocalStore:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.expected: dict[str, Record] = {}
        self.counts = WriteCounts()
        self.store = self.open()

    def teardown(self) -> None:
        self.store.close()

    def _put(self, key: str, record: Record, mode: WriteMode) -> None:
        old = self.expected.get(key)
        new = record if mode is WriteMode.REPLACE or old is None else {**old, **record}
        if old is None:
            self.counts.added += 1
        elif equal_json(old, new):
            self.counts.unchanged += 1
            return
        else:
            self.counts.updated += 1
        self.expected[key] = new

    @rule(key=keys, record=records, mode=st.sampled_from((WriteMode.REPLACE, MERGE)))
    def put(self, key: str, record: Record, mode: WriteMode) -> None:
        self._put(key, record, mode)
        self.store.put(key, record, mode)

    @rule(items=st.lists(st.tuples(keys, records), max_size=6), mode=st.sampled_from((WriteMode.REPLACE, MERGE)))
    def put_many(self, items: list[tuple[str, Record]], mode: WriteMode) -> None:
        for key, record in items:
            self._put(key, record, mode)
        self.store.put_many(items, mode)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.counts.deleted += self.expected.pop(key, None) is not None
        self.store.delete(key)

    @precondition(lambda self: len(self.expected) > 3)
    @rule()
    def clear(self) -> None:
        self.counts.deleted += len(self.expected)
        self.expected.clear()
        self.store.clear()

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @rule()
    def sync(self) -> None:
        self.store.sync()

    @invariant()
    def same_as_a_dict(self) -> None:
        assert self.store.keys() == list(self.expected)
        assert self.store.count() == len(self.expected)
        assert self.store.counts == self.counts
        for key, record in self.expected.items():
            assert equal_json(self.store.get(key), record)
        assert list(map(encode, self.store.records())) == [encode(self.store.get(k)) for k in self.expected]
