"""The store configuration: which store stands behind a mission's words, and what must never be shown."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from reqon import execute
from reqon.cli.main import answer
from reqon.errors import ConfigurationError
from reqon.secrets import SECRETS
from reqon.stores import registry
from reqon.stores.config import StoreConfiguration, choose, load_store_config, store_entries
from tests.support.databases import mariadb_database, postgres_database

SQL = {"type": "postgres", "url": "postgresql://x/y"}
MISSION = "mission M {{ store a: {a} action A {{ for n in [1, 2] {{ store {{ id: n }} -> a }} }} run A }}"


def kind_of(word: str, store: str, entries: Any, **options: Any) -> str:
    return choose(word, store, "t", options, StoreConfiguration(entries), {"mine": None}).kind


@pytest.mark.parametrize(
    ("word", "store", "entries", "kind"),
    [
        ("sql", "a", {}, "sqlite"),
        ("sql", "a", {"sql": SQL}, "postgres"),
        ("sql", "a", {"sql": SQL, "a": {"type": "mysql"}}, "mysql"),
        ("sql", "a", {"b": {"type": "mysql"}}, "sqlite"),
        ("sql", "a", {"sql": {"url": "mariadb://x/y"}}, "mysql"),
        ("sql", "a", {"sql": {"url": "https://x/rest"}}, "postgrest"),
        ("sql", "a", {"a": {"type": "file"}}, "file"),
        ("file", "a", {"a": {"type": "mine", "anything": 1}}, "mine"),
        ("memory", "a", {"a": {"type": "sqlite"}}, "sqlite"),
        ("postgrest", "a", {"sql": {"type": "postgrest"}}, "postgrest"),
        ("postgrest", "a", {"sql": SQL, "postgrest": {"url": "https://x"}}, "postgrest"),
        ("nosql", "a", {}, "file"),
        ("nosql", "a", {"nosql": {"type": "sqlite"}}, "sqlite"),
        ("mine", "a", {"mine": {"url": "redis://x"}}, "mine"),
    ],
)
def test_a_stores_own_name_wins_then_the_word(word: str, store: str, entries: Any, kind: str) -> None:
    assert kind_of(word, store, entries) == kind


@pytest.mark.parametrize(
    ("word", "entries", "message"),
    [
        ("sql", {"sql": {"type": "postgress"}}, "there is no type of store 'postgress'"),
        ("sql", {"sql": {"type": "sqlite", "urll": "x"}}, "unknown option 'urll' for a sqlite store"),
        ("nosql", {"nosql": {"type": "mongodb", "url": "x"}}, "this release has no mongodb stores"),
        ("nosql", {"nosql": {"url": "x"}}, "needs a type"),
        ("sql", {"sql": {"type": "memory", "url": "x"}}, "unknown option 'url' for a memory store"),
    ],
)
def test_a_wrong_entry_is_named(word: str, entries: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        kind_of(word, "a", entries)


def test_without_development_mode_nosql_wants_an_entry() -> None:
    with pytest.raises(ConfigurationError, match="has no entry"):
        choose("nosql", "a", "t", {}, StoreConfiguration(development_mode=False), {})


def test_a_file_is_read_in_both_shapes_and_its_variables_filled_in(tmp_path: Path) -> None:
    file = tmp_path / "stores.json"
    inside = {"sql": {"type": "mysql", "url": "mysql://me:${DB_PASSWORD}@h/${DB:-d}"}}
    environment = {"DB_PASSWORD": "correct-horse"}
    for shape in (inside, {"stores": inside}):
        file.write_text(json.dumps(shape))
        assert load_store_config(file, environment)["sql"]["url"] == "mysql://me:correct-horse@h/d"
    assert SECRETS.redact("it was correct-horse") == "it was ***"
    with pytest.raises(ConfigurationError, match=r"\$\.stores\.sql\.url: the environment variable DB_PASSWORD"):
        load_store_config(file, {})


@pytest.mark.parametrize("text", ["[]", "{", '{"sql": 1}', '{"stores": {"sql": []}}', "null"])
def test_what_is_no_configuration_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "stores.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"stores\.json"):
        load_store_config(file, {})
    with pytest.raises(ConfigurationError, match="cannot read the store configuration"):
        load_store_config(tmp_path / "none.json", {})


def test_secrets_of_every_kind_are_known(tmp_path: Path) -> None:
    store_entries(
        {
            "postgrest": {"url": "https://h", "apiKey": "key-of-postgrest", "headers": {"X-Own": "header-of-own"}},
            "mine": {
                "accessToken": "token-of-mine",
                "url": "redis://:inside-the-url@h",
                "deep": [{"password": "in-a-list"}],
            },
            "also": {"dsn": "${MY_SECRET}"},
        },
        {"MY_SECRET": "from-a-variable"},
        "here",
    )
    for secret in (
        "key-of-postgrest",
        "header-of-own",
        "token-of-mine",
        "inside-the-url",
        "in-a-list",
        "from-a-variable",
    ):
        assert secret not in SECRETS.redact(f"what about {secret}?"), secret


async def test_nosql_is_a_file_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry._warned.clear()
    with caplog.at_level(logging.WARNING, "reqon"):
        for _ in range(2):
            result = await execute(MISSION.format(a='nosql("things")'), state_dir=tmp_path)
            assert result.success
    assert (tmp_path / "stores" / "things.json").is_file()
    assert [r.message for r in caplog.records if "stands in" in r.message] == [
        "store 'a' is nosql(\"things\") without an entry in the store configuration: a file stands in for it"
    ]
    with pytest.raises(ConfigurationError):
        await execute(MISSION.format(a='nosql("things")'), state_dir=tmp_path, development_mode=False)


async def test_python_takes_the_content_the_path_and_adapters(tmp_path: Path) -> None:
    text = MISSION.format(a='sql("t")')
    one = await execute(text, state_dir=tmp_path, store_config={"sql": {"url": f"sqlite:///{tmp_path}/one.db"}})
    assert len(one.stores["a"].records()) == 2 and (tmp_path / "one.db").stat().st_mode & 0o77 == 0
    (tmp_path / "c.json").write_text(json.dumps({"a": {"type": "file", "dir": str(tmp_path / "files")}}))
    two = await execute(text, state_dir=tmp_path, store_config=str(tmp_path / "c.json"))
    assert two.success and (tmp_path / "files" / "t.json").is_file()


async def test_a_store_that_the_mission_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no store 'b'"):
        await execute(MISSION.format(a='sql("t")'), state_dir=tmp_path, stores={"b": object()})
    with pytest.raises(ConfigurationError, match="has no method get"):
        await execute(MISSION.format(a='sql("t")'), state_dir=tmp_path, stores={"a": object()})


def test_an_entry_that_nothing_uses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.vague").write_text(MISSION.format(a='memory("t")'))
    Path("stores.json").write_text(json.dumps({"slq": {}, "sql": {}, "a": {"type": "memory"}}))
    assert answer(["m.vague", "--store-config", "stores.json"]) == 0
    assert "stores.json: no mission here has a store or an adapter 'slq'" in capsys.readouterr().err


async def test_a_registered_adapter_gets_its_identifier_and_its_entry(tmp_path: Path) -> None:
    from tests.stores.test_suite import Async  # noqa: PLC0415  # an adapter

    made: list[tuple[str, Any]] = []
    shelf = Async()

    async def factory(identifier: str, config: Any) -> Async:
        made.append((identifier, config))
        return shelf

    registry.register_store_adapter("shelf", factory)
    try:
        result = await execute(
            MISSION.format(a='shelf("x", { color: "red" })'),
            state_dir=tmp_path,
            store_config={"shelf": {"url": "redis://h", "color": "blue"}},
        )
        assert result.success and result.stores["a"].records() == [{"id": 1}, {"id": 2}]
    finally:
        registry._registered.pop("shelf")
    assert made[0] == ("x", {"url": "redis://h", "color": "red"})


def test_the_command_line_runs_on_every_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.vague").write_text(MISSION.format(a='sql("Größe: 1")'))
    with postgres_database() as postgres, mariadb_database() as mysql:
        for url in (postgres, mysql, f"sqlite:///{tmp_path}/x.db"):
            Path("stores.json").write_text(json.dumps({"sql": {"url": "$URL"}}))
            monkeypatch.setenv("URL", url)
            for added, unchanged in ((2, 0), (0, 2)):
                assert answer(["m.vague", "--store-config", "stores.json", "--output", "out.json"]) == 0
                out = capsys.readouterr().out
                assert f"a: 2 records ({added} added, 0 updated, {unchanged} unchanged)" in out
            assert json.loads(Path("out.json").read_text()) == {"a": [{"id": 1}, {"id": 2}]}


def test_a_database_that_is_not_there_is_exit_3_and_shows_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.vague").write_text(MISSION.format(a='sql("t")'))
    for url in ("postgresql://me:hidden-word@127.0.0.1:1/x", "mysql://me:hidden-word@127.0.0.1:1/x"):
        Path("stores.json").write_text(json.dumps({"sql": {"url": url}}))
        assert answer(["m.vague", "--store-config", "stores.json"]) == 3
        told = capsys.readouterr()
        assert "cannot be opened" in told.err and "hidden-word" not in told.out + told.err


def test_a_dry_run_opens_nothing_and_finds_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.vague").write_text(MISSION.format(a='sql("t")'))
    Path("stores.json").write_text(json.dumps({"sql": {"url": "postgresql://127.0.0.1:1/x"}}))
    assert answer(["m.vague", "--dry-run", "--store-config", "stores.json"]) == 0
    assert 'store a: sql("t"), in postgres' in capsys.readouterr().out
    assert not Path(".vague-data").exists()
    Path("stores.json").write_text(json.dumps({"sql": {"type": "nothing"}}))
    assert answer(["m.vague", "--dry-run", "--store-config", "stores.json"]) == 3
    assert "m.vague:1:" in capsys.readouterr().err
