"""Which store a declaration opens, and where."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reqon.errors import ConfigurationError, StoreError
from reqon.stores.base import LocalStore
from reqon.stores.file import FileStore
from reqon.stores.memory import MemoryStore
from reqon.stores.registry import file_name, known_adapters, open_store, register_store_adapter
from reqon.values import Value


def open_file(directory: Path, identifier: str = "orders", **options: Value) -> FileStore:
    store = open_store("file", identifier, options, directory=directory / "stores", mission_directory=directory)
    assert isinstance(store, FileStore)
    return store


def open_kind(kind: str, **options: Value) -> LocalStore:
    return open_store(kind, "x", options, directory=Path("unused"), mission_directory=Path("unused"))


def test_memory_is_a_new_store_each_time() -> None:
    first, second = open_kind("memory"), open_kind("memory")
    assert isinstance(first, MemoryStore)
    first.put("a", {})
    assert second.count() == 0


def test_files_lie_in_the_state_directory_or_where_dir_says(tmp_path: Path) -> None:
    for options in ({}, {"dir": "data/shop"}, {"dir": str(tmp_path / "absolute")}):
        store = open_file(tmp_path, **options)
        store.put("a", {"n": 1})
        store.close()
    for directory in ("stores", "data/shop", "absolute"):
        assert json.loads((tmp_path / directory / "orders.json").read_text()) == {"a": {"n": 1}}


def test_one_file_is_one_adapter_until_the_last_user_closes_it(tmp_path: Path) -> None:
    first = open_file(tmp_path)
    second = open_file(tmp_path, dir=str(tmp_path / "other" / ".." / "stores"))
    first.put("a", {"n": 1})
    assert second.get("a") == {"n": 1}
    first.close()
    first.close()
    second.put("b", {"n": 2})
    second.close()
    third = open_file(tmp_path)
    assert third.keys() == ["a", "b"]
    third.close()


def test_a_file_that_could_not_be_opened_can_be_once_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "stores" / "orders.json"
    path.parent.mkdir()
    path.write_text("{")
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot read the store"):
            open_file(tmp_path)
    path.write_text("{}")
    open_file(tmp_path).close()


def test_immediate_writes_at_once(tmp_path: Path) -> None:
    store = open_file(tmp_path, persist="immediate")
    store.put("a", {})
    assert store.position() == 1
    store.put_many([("b", {}), ("c", {})])
    assert store.position() == 2
    store.delete("a")
    store.clear()
    assert store.position() == 4
    store.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dri": "x"}, "unknown option 'dri' for a file store"),
        ({"persist": "never"}, "persist must be immediate, batch or debounce, not 'never'"),
        ({"pretty": "yes"}, "option 'pretty' of a file store must be true or false"),
        ({"dir": 7}, "option 'dir' of a file store must be a text"),
        ({"debounceMs": True}, "option 'debounceMs' of a file store must be a whole number"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Value], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_file(tmp_path, **options)
    assert caught.value.message == message


def test_an_unknown_adapter_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="no store adapter named 'mongo'") as caught:
        open_kind("mongo")
    assert caught.value.hint == "known: file, memory, nosql, postgrest, sql"
    assert known_adapters() == ("file", "memory", "nosql", "postgrest", "sql")


def test_built_in_words_and_odd_names_cannot_be_registered() -> None:
    for name in ("file", "my store", ""):
        with pytest.raises(ConfigurationError):
            register_store_adapter(name, lambda identifier, config: None)


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("orders", "orders"),
        ("a/b", "a%2Fb"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("caf\u00e9 1", "caf%C3%A9%201"),
        ("50%", "50%25"),
    ],
)
def test_names_hold_nothing_that_means_something_to_a_file_system(identifier: str, name: str) -> None:
    assert file_name(identifier) == name


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_two_identifiers_never_share_a_file(first: str, second: str) -> None:
    assert (file_name(first) == file_name(second)) == (first == second)


def test_names_that_differ_by_case_only_are_two_files(tmp_path: Path) -> None:
    """R10"""
    for identifier in ("Orders", "orders", "caf\u00e9", "cafe\u0301"):
        store = open_file(tmp_path, identifier)
        store.put(identifier, {})
        store.close()
    for identifier in ("Orders", "orders", "caf\u00e9", "cafe\u0301"):
        store = open_file(tmp_path, identifier)
        assert store.keys() == [identifier]
        store.close()


def test_a_long_name_is_refused(tmp_path: Path) -> None:
    open_file(tmp_path, "x" * 200).close()
    with pytest.raises(ConfigurationError, match="the limit is 200"):
        open_file(tmp_path, "x" * 201)
    with pytest.raises(ConfigurationError, match="needs a name"):
        open_file(tmp_path, "")
