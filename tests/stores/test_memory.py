"""Records in memory."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from reqon.stores.base import WriteMode
from reqon.stores.memory import MemoryStore, Pages
from reqon.values import Record, decode, encode
from tests.support.store_contract import LocalStoreContract, StoreMachine


class TestMemoryStore(LocalStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore("x")

    def test_it_keeps_no_changes_unless_asked(self, store: MemoryStore) -> None:
        store.put("a", {"x": 1})
        assert store.take_entries() == []

    def test_changes_are_taken_once(self) -> None:
        store = MemoryStore("x", track=True)
        store.put("a", {"x": 1})
        assert store.take_entries() == [{"changes": [("a", {"x": 1})]}]
        assert store.take_entries() == []


PLAIN = {"id": "a", "inner": {"tags": ["x"]}}
RICH = {"id": "b", "at": datetime(2026, 3, 1, 8, 15, tzinfo=UTC)}
SHOWN = {"id": "b", "at": "2026-03-01T08:15:00.000Z"}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["plain", "rich", "delete", "clear"])), max_size=8))
def test_what_is_known_to_be_plain_is_read_as_it_stands_and_all_else_as_stored(steps: list[tuple[str, str]]) -> None:
    store = MemoryStore("x")
    expected: dict[str, object] = {}
    for key, step in steps:
        if step == "plain":
            store.put_plain([(key, PLAIN)])
            expected[key] = PLAIN
        elif step == "rich":
            store.put(key, RICH)
            expected[key] = SHOWN
        elif step == "delete":
            store.delete(key)
            expected.pop(key, None)
        else:
            store.clear()
            expected.clear()
    assert list(store.records()) == list(expected.values())
    assert list(store.records(1)) == list(expected.values())[1:]


class MemoryMachine(StoreMachine):
    """Beside what all stores do: what `take_entries` tells, and pages it names, build the same store elsewhere."""

    def open(self) -> MemoryStore:
        self.copy = MemoryStore("copy")
        self.items: list[Record] = []  # of the pages of a fetch
        return MemoryStore("x", track=True)

    @rule(keys=st.lists(st.sampled_from(["a", "b", "c", "pages 1", "pages 2", "pages 3"]), min_size=1, max_size=4))
    def put_from_pages(self, keys: list[str]) -> None:
        assert isinstance(self.store, MemoryStore)
        first = len(self.items)
        items: list[tuple[str, Record]] = [(key, {"n": first + number}) for number, key in enumerate(keys)]
        self.items += [record for _, record in items]
        for key, record in items:
            self._put(key, record, WriteMode.REPLACE)
        self.store.put_plain(items, pages=Pages("Pull:0", first))

    def same_as_a_dict(self) -> None:
        super().same_as_a_dict()
        assert isinstance(self.store, MemoryStore)
        for entry in decode(encode(self.store.take_entries())):
            if "changes" in entry:
                self.copy.restore(entry["changes"])
            else:
                assert entry["pages"] == "Pull:0"
                self.copy.restore(zip(entry["keys"], self.items[entry["first"] :], strict=False))
        assert self.copy.keys() == self.store.keys()
        assert list(map(encode, self.copy.records())) == list(map(encode, self.store.records()))


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
