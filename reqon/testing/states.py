"""The checks that every state store must pass (spec/state.md 10)."""

from collections.abc import Callable

from reqon.clock import wait_blocking
from reqon.state.custom import CustomStore
from reqon.testing.check import Check
from reqon.values import Record, Value

_IDS = [f"exec_0000000000000000000000000{n}" for n in range(1, 8)]


def state_store_suite(make: Callable[[], object]) -> list[Check]:
    """Checks for the store that `make` answers, each with a store of its own, which must be empty.

    Methods that the store does not have are not checked. With pytest:

        @pytest.mark.parametrize("check", state_store_suite(MyStore), ids=str)
        def test_my_store(check): check()

    Raises:
        ConfigurationError: a method is missing that it cannot be without.
    """
    probe = CustomStore("probe", make())
    try:
        chosen = [(name, needs, body) for name, needs, body in _CHECKS if probe.can(*needs)]
    finally:
        probe.close()
    return [Check(name, lambda body=body: _run(make, body)) for name, _, body in chosen]  # type: ignore[misc]


def _run(make: Callable[[], object], body: "Callable[[CustomStore], None]") -> None:
    store = CustomStore("checked", make())
    try:
        body(store)
    finally:
        store.close()


def _state(number: int = 0, **changes: Value) -> Record:
    """A state as a run saves it, the `number`-th hour of a day."""
    state: Record = {
        "executionId": _IDS[number],
        "mission": "CustomerSync",
        "startedAt": f"2024-01-20T{number:02d}:00:00.000Z",
        "status": "running",
        "actionsRun": ["FetchCustomers"],
        "activeStep": {"action": "Load", "index": 523, "item": {"id": "cust_524", "name": 'Zoë "Z" \u2028', "n": None}},
        "itemsProcessed": 2**53 + 1,
        "errors": [],
        "stores": {"customers": {"count": 1, "added": 1}},
    }
    return {**state, **changes}


def _kept(state: Value) -> Record:
    """A loaded state without what the database added to it."""
    assert isinstance(state, dict), f"a state must be a dict, not {type(state).__name__}"
    return {key: value for key, value in state.items() if not key.startswith("_")}


def _what_is_saved_is_loaded(store: CustomStore) -> None:
    store.call("save", _state())
    assert _kept(store.call("load", _IDS[0])) == _state()


def _an_unknown_id_is_none(store: CustomStore) -> None:
    assert store.call("load", _IDS[0]) is None
    store.call("save", _state())
    assert store.call("load", _IDS[1]) is None


def _a_save_replaces(store: CustomStore) -> None:
    for status in ("running", "failed", "running", "completed"):
        store.call("save", _state(status=status))
    assert _kept(store.call("load", _IDS[0])) == _state(status="completed")


def _states_are_kept_apart(store: CustomStore) -> None:
    state = _state()
    store.call("save", state)
    state["status"] = "changed afterwards"
    state["activeStep"]["index"] = 0
    store.call("save", _state(1))
    assert _kept(store.call("load", _IDS[0])) == _state(), "a store keeps what a state was when it was saved"
    assert _kept(store.call("load", _IDS[1])) == _state(1)


def _ids(states: Value) -> list[str]:
    return [_kept(state)["executionId"] for state in states]


def _fill(store: CustomStore) -> None:
    for number in (2, 0, 3, 1):
        store.call("save", _state(number, status="failed" if number == 1 else "completed"))
    store.call("save", _state(4, mission="Other"))


def _list(store: CustomStore, **chosen: Value) -> list[str]:
    asked: dict[str, Value] = {"mission": None, "limit": None, "since": None, "status": None}
    return _ids(store.call("list", **{**asked, **chosen}))


def _a_list_is_newest_first(store: CustomStore) -> None:
    assert _list(store) == []
    _fill(store)
    assert _list(store) == [_IDS[n] for n in (4, 3, 2, 1, 0)]


def _a_list_can_be_cut(store: CustomStore) -> None:
    _fill(store)
    assert _list(store, mission="CustomerSync") == [_IDS[n] for n in (3, 2, 1, 0)]
    assert _list(store, mission="Customer") == []
    assert _list(store, limit=2) == [_IDS[4], _IDS[3]]
    assert _list(store, since="2024-01-20T02:00:00.000Z") == [_IDS[4], _IDS[3], _IDS[2]]
    assert _list(store, status="failed") == [_IDS[1]]
    assert _list(store, mission="CustomerSync", status="completed", limit=1) == [_IDS[3]]


def _what_is_deleted_is_gone(store: CustomStore) -> None:
    store.call("save", _state())
    store.call("save", _state(1))
    store.call("delete", _IDS[0])
    store.call("delete", _IDS[0])
    assert store.call("load", _IDS[0]) is None
    assert store.call("load", _IDS[1]) is not None


def _entries(first: int, count: int) -> list[Record]:
    plain: Record = {"kind": "progress", "fields": {"a": "0/Load", "i": 7}}
    full: Record = {"kind": "page", "fields": {"page": 1}, "body": '{"items": [1.0, "é\\n"]}'}
    return [{"n": n, **(full if n % 2 else plain)} for n in range(first, first + count)]


def _a_journal_is_replayed_in_order(store: CustomStore) -> None:
    assert list(store.call("replay", _IDS[0]) or ()) == []
    store.call("append", _IDS[0], _entries(0, 3))
    store.call("append", _IDS[1], _entries(0, 1))
    store.call("append", _IDS[0], _entries(3, 200))
    assert [_kept(e) for e in store.call("replay", _IDS[0])] == _entries(0, 203)
    assert [_kept(e) for e in store.call("replay", _IDS[1])] == _entries(0, 1)


def _entries_that_are_there_already_do_no_harm(store: CustomStore) -> None:
    # After an answer that was lost the same entries are sent again: twice is fine, gone is not.
    store.call("append", _IDS[0], _entries(0, 3))
    store.call("append", _IDS[0], _entries(0, 3))
    store.call("append", _IDS[0], _entries(3, 1))
    found = {entry["n"]: _kept(entry) for entry in store.call("replay", _IDS[0])}
    assert list(found.values()) == _entries(0, 4)


def _a_discarded_journal_begins_again(store: CustomStore) -> None:
    store.call("append", _IDS[0], _entries(0, 3))
    store.call("append", _IDS[1], _entries(0, 3))
    store.call("discard", _IDS[0])
    store.call("discard", _IDS[0])
    assert list(store.call("replay", _IDS[0]) or ()) == []
    assert len(store.call("replay", _IDS[1])) == 3
    store.call("append", _IDS[0], _entries(0, 1))
    assert len(store.call("replay", _IDS[0])) == 1


def _what_is_forgotten_is_gone(store: CustomStore) -> None:
    store.call("append", _IDS[0], _entries(0, 6))
    store.call("append", _IDS[1], _entries(0, 3))
    store.call("forget", _IDS[0], [0, 3, 5])
    store.call("forget", _IDS[0], [3, 99])
    store.call("append", _IDS[0], _entries(6, 1))
    assert [entry["n"] for entry in store.call("replay", _IDS[0])] == [1, 2, 4, 6]
    assert len(store.call("replay", _IDS[1])) == 3


def _entry(items: int) -> Record:
    return {"lastSync": "2024-01-20T09:00:00.000Z", "itemsSynced": items, "mission": "CustomerSync"}


def _sync_checkpoints_are_put_and_got(store: CustomStore) -> None:
    assert dict(store.call("get_sync", None) or {}) == {}
    store.call("put_sync", {"API-/customers": _entry(1), "API-/orders": _entry(2)})
    store.call("put_sync", {"API-/customers": _entry(3)})
    assert dict(store.call("get_sync", None)) == {"API-/customers": _entry(3), "API-/orders": _entry(2)}
    assert store.call("get_sync", "API-/orders") == _entry(2)
    assert store.call("get_sync", "API-/nothing") is None


def _sync_checkpoints_are_cleared(store: CustomStore) -> None:
    store.call("put_sync", {key: _entry(1) for key in ("a", "b", "c")})
    store.call("clear_sync", "a")
    store.call("clear_sync", "nothing")
    assert set(store.call("get_sync", None)) == {"b", "c"}
    store.call("clear_sync", None)
    assert dict(store.call("get_sync", None) or {}) == {}


def _a_lease_is_one_owners(store: CustomStore) -> None:
    assert store.call("lease", "CustomerSync", "one", 60.0)
    assert store.call("lease", "CustomerSync", "one", 60.0), "its owner renews it"
    assert not store.call("lease", "CustomerSync", "two", 60.0)
    assert store.call("lease", "Other", "two", 60.0), "each mission has its own"


def _a_lease_is_given_back(store: CustomStore) -> None:
    store.call("lease", "CustomerSync", "one", 60.0)
    assert not store.call("lease", "CustomerSync", "two", 0.0), "another's is not given back"
    assert not store.call("lease", "CustomerSync", "two", 60.0)
    assert store.call("lease", "CustomerSync", "one", 0.0)
    assert store.call("lease", "CustomerSync", "nobody", 0.0), "with 0 nothing is taken"
    assert store.call("lease", "CustomerSync", "two", 60.0)


def _a_lease_runs_out(store: CustomStore) -> None:
    assert store.call("lease", "CustomerSync", "one", 0.05)
    wait_blocking(0.2)
    assert store.call("lease", "CustomerSync", "two", 60.0)
    assert not store.call("lease", "CustomerSync", "one", 60.0), "who lost it does not have it"


_JOURNAL = ("append", "replay", "discard")
_SYNC = ("get_sync", "put_sync", "clear_sync")
_CHECKS: "list[tuple[str, tuple[str, ...], Callable[[CustomStore], None]]]" = [
    ("what is saved is loaded, to the last character", (), _what_is_saved_is_loaded),
    ("an unknown id is None", (), _an_unknown_id_is_none),
    ("a save replaces what was saved under its id", (), _a_save_replaces),
    ("states are kept apart, from each other and from what became of them", (), _states_are_kept_apart),
    ("a list is newest first", ("list",), _a_list_is_newest_first),
    ("a list can be cut by mission, limit, time and status", ("list",), _a_list_can_be_cut),
    ("what is deleted is gone, and may be deleted again", ("delete",), _what_is_deleted_is_gone),
    ("a journal is replayed in order", _JOURNAL, _a_journal_is_replayed_in_order),
    ("entries that are sent again do no harm", _JOURNAL, _entries_that_are_there_already_do_no_harm),
    ("a discarded journal begins again", _JOURNAL, _a_discarded_journal_begins_again),
    ("what is forgotten is gone, and nothing else", (*_JOURNAL, "forget"), _what_is_forgotten_is_gone),
    ("sync checkpoints are put and got", _SYNC, _sync_checkpoints_are_put_and_got),
    ("sync checkpoints are cleared, one or all", _SYNC, _sync_checkpoints_are_cleared),
    ("a lease is one owner's, who may renew it", ("lease",), _a_lease_is_one_owners),
    ("a lease is given back with a time of 0, which takes nothing", ("lease",), _a_lease_is_given_back),
    ("a lease runs out by itself", ("lease",), _a_lease_runs_out),
]
