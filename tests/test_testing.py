"""The checks for users' own state stores pass a good one and find what a bad one does."""

from typing import Any

import pytest

from reqon.errors import ConfigurationError
from reqon.testing import Check, state_store_suite
from tests.support.own_state_stores import FullStore, SmallStore, State

SMALL = state_store_suite(SmallStore)


@pytest.mark.parametrize("check", state_store_suite(FullStore), ids=str)
def test_a_store_that_can_do_everything_passes(check: Check) -> None:
    check()


@pytest.mark.parametrize("check", SMALL, ids=str)
def test_a_store_that_saves_and_loads_passes(check: Check) -> None:
    check()


def test_only_what_a_store_can_do_is_checked() -> None:
    assert len(SMALL) == 4
    with pytest.raises(ConfigurationError, match=r"has no save\(state\)"):
        state_store_suite(object)


class KeepsTheFirst(SmallStore):
    """Inserts, as the first try of many does."""

    async def save(self, state: State) -> None:
        self.states.setdefault(state["executionId"], state)


class OldestFirst(FullStore):
    async def list(self, *given: Any, **named: Any) -> list[State]:
        return (await super().list(*given, **named))[::-1]


class LosesBodies(FullStore):
    def append(self, execution_id: str, entries: "list[State]") -> None:
        super().append(execution_id, [{k: v for k, v in e.items() if k != "body"} for e in entries])


class LeasesToAll(FullStore):
    async def lease(self, mission: str, owner: str, ttl: float) -> bool:
        return True


class LeasesForEver(FullStore):
    async def lease(self, mission: str, owner: str, ttl: float) -> bool:
        return self.leases.setdefault(mission, (owner, 0.0))[0] == owner


class ForgetsNothing(FullStore):
    async def clear_sync(self, key: str | None) -> None: ...


@pytest.mark.parametrize(
    ("store", "failing"),
    [
        (KeepsTheFirst, {"a save replaces", "states are kept apart"}),
        (OldestFirst, {"a list is newest first", "a list can be cut"}),
        (LosesBodies, {"a journal is replayed", "entries that are sent again"}),
        (ForgetsNothing, {"sync checkpoints are cleared"}),
        (LeasesToAll, {"a lease is one owner's", "a lease is given back", "a lease runs out"}),
        (LeasesForEver, {"a lease is given back", "a lease runs out"}),
    ],
)
def test_a_bad_store_is_found_out(store: type, failing: set[str]) -> None:
    found = set()
    for check in state_store_suite(store):
        try:
            check()
        except AssertionError:
            found |= {word for word in failing if check.name.startswith(word)} or {check.name}
    assert found == failing
