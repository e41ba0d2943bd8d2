"""Records in memory."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reqon.stores.memory import MemoryStore
from reqon.values import decode, encode
from tests.support.store_contract import LocalStoreContract, StoreMachine


class TestMemoryStore(LocalStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore("x")

    def test_it_keeps_no_changes_unless_asked(self, store: MemoryStore) -> None:
        store.put("a", {"x": 1})
        assert store.take_changes() == []

    def test_changes_are_taken_once(self) -> None:
        store = MemoryStore("x", track=True)
        store.put("a", {"x": 1})
        assert store.take_changes() == [("a", {"x": 1})]
        assert store.take_changes() == []


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
    """Beside what all stores do: what `take_changes` tells builds the same store elsewhere."""

    def open(self) -> MemoryStore:
        self.copy = MemoryStore("copy")
        return MemoryStore("x", track=True)

    def same_as_a_dict(self) -> None:
        super().same_as_a_dict()
        assert isinstance(self.store, MemoryStore)
        self.copy.restore(decode(encode(self.store.take_changes())))
        assert self.copy.keys() == self.store.keys()
        assert list(map(encode, self.copy.records())) == list(map(encode, self.store.records()))


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
