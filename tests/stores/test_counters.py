"""What a run says of its stores: counters, `--output`, the record, for each kind of store (spec/runtime.md 9.3)."""

import asyncio
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reqon import execute
from tests.stores.test_suite import Async, Plain
from tests.support.databases import mariadb_database, postgres_database
from tests.support.postgrest_server import PostgrestServer
from tests.support.processes import reqon

# What is there before: two records that stay, one that changes, two that go.
FIRST = """for n in [1, 2, 3, 4, 5] { store { id: n, name: concat("n", n) } -> s }"""
SECOND = """
    store [{ id: 1, name: "n1" }, { id: 6, name: "new" }, { id: 6, name: "newer" }] -> s
    for n in [2, 3] { store { id: n, name: concat("n", 2) } -> s { upsert: true } }
    store { id: 7, name: "x" } -> s { partial: true }
    delete s[4]
    delete s["never"]
    for r in s where .id == "5" or .id == 5 { delete s[r.id] }"""
EXPECTED = {"count": 5, "added": 2, "updated": 2, "unchanged": 2, "deleted": 2}
NAMES = {"1": "n1", "2": "n2", "3": "n2", "6": "newer", "7": "x"}


def mission(word: str, steps: str) -> str:
    return f'mission M {{ store s: {word}("t") action A {{ {steps} }} run A }}'


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_database())
        server = stack.enter_context(PostgrestServer(postgres))
        server.execute('CREATE TABLE "columns" (id text PRIMARY KEY, name text)')
        server.execute('CREATE TABLE "whole" (id text PRIMARY KEY, data json)')
        yield {"postgres": postgres, "mysql": stack.enter_context(mariadb_database()), "postgrest": server.url}


def entry(kind: str, urls: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The word in the mission and its entry in the configuration."""
    if kind == "sqlite":
        return "sql", {}
    if kind in ("postgres", "mysql"):
        return "sql", {"sql": {"type": kind, "url": urls[kind]}}
    if kind == "columns":
        return "postgrest", {"postgrest": {"url": urls["postgrest"]}}
    if kind == "whole":
        return "postgrest", {"postgrest": {"url": urls["postgrest"], "dataColumn": "data"}}
    return kind, {}


@pytest.mark.parametrize("kind", ["memory", "file", "nosql", "sqlite", "postgres", "mysql", "columns", "whole"])
def test_counters_and_output_are_the_same_for_each_kind_of_store(
    kind: str, urls: dict[str, str], tmp_path: Path
) -> None:
    word, config = entry(kind, urls)
    text = mission(word, SECOND if kind != "memory" else FIRST + SECOND)
    text = text.replace('"t"', f'"{kind}"') if kind in ("columns", "whole") else text
    (tmp_path / "stores.json").write_text(json.dumps({"stores": config}))
    if kind != "memory":
        (tmp_path / "m.vague").write_text(text.replace(SECOND, FIRST))
        assert reqon("m.vague", "--store-config", "stores.json", cwd=tmp_path).code == 0
    (tmp_path / "m.vague").write_text(text)
    ended = reqon("m.vague", "--store-config", "stores.json", "--output", "out.json", cwd=tmp_path)
    assert ended.code == 0, ended.text
    expected = dict(EXPECTED)
    if kind == "memory":  # it began empty
        expected["added"] += 5
    status = json.loads(reqon("status", "M", "--json", cwd=tmp_path).out)
    assert status["stores"]["s"] == expected
    written = json.loads((tmp_path / "out.json").read_text())
    assert {str(r["id"]): r["name"] for r in written["s"]} == NAMES
    if kind != "file":
        return
    assert reqon("m.vague", "--output", ".", cwd=tmp_path).code == 0
    assert isinstance(json.loads((tmp_path / "s.json").read_text()), list)


@pytest.mark.parametrize("make", [Plain, Async])
def test_counters_of_an_adapter_of_ones_own(make: Any, tmp_path: Path) -> None:
    adapter = make()
    for steps in (FIRST, SECOND):
        result = asyncio.run(execute(mission("memory", steps), state_dir=tmp_path, stores={"s": adapter}))
        assert result.success, result.errors
    totals = result.stores["s"]
    assert (totals.added, totals.updated, totals.unchanged, totals.deleted) == (2, 2, 2, 2)
    assert totals.count == 5


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mysql", "columns", "whole"])
def test_a_store_that_is_not_asked_says_what_it_wrote(kind: str, urls: dict[str, str], tmp_path: Path) -> None:
    """`countChanges: false`: `added` are the writes, what they changed is not known."""
    word, config = entry(kind, urls)
    key = "postgrest" if word == "postgrest" else "sql"
    config = {key: {**config.get(key, {}), "countChanges": False}}
    name = kind if kind in ("columns", "whole") else f"t_{secrets.token_hex(4)}"
    text = mission(word, 'store [{ id: "a", name: "x" }, { id: "b", name: "y" }] -> s').replace('"t"', f'"{name}"')
    for _ in range(2):
        result = asyncio.run(execute(text, state_dir=tmp_path, store_config=config))
        assert result.success, result.errors
    totals = result.stores["s"]
    assert (totals.added, totals.updated, totals.unchanged) == (2, None, None)
