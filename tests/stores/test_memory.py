"""Records in memory."""

import pytest
from hypothesis import settings

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
