"""For the tests of those who write a store of their own: the checks that every one must pass."""

from reqon.testing.check import Check
from reqon.testing.states import state_store_suite
from reqon.testing.stores import store_adapter_suite, store_suite

__all__ = ["Check", "state_store_suite", "store_adapter_suite", "store_suite"]
