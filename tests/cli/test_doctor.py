"""`reqon doctor`: one line a finding, with what to do; it touches nothing (spec/daemon.md 1)."""

import os
import resource
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reqon.state.checkup import ERROR, OK, WARNING
from reqon.values import decode, encode
from tests.support import postgres
from tests.support.orders_api import OrdersApi
from tests.support.processes import Process, reqon

MISSION = """mission Customers {
  source Shop { auth: bearer, base: env("SHOP_URL") }
  store customers: file("customers")
  action Visit {
    for n in [1, 2, 3] {
      get "/customers"
      store { id: n } -> customers { key: .id }
    }
  }
  run Visit
}
"""
PLAIN = """mission Plain {
  store out: file("out")
  action Load { for n in [1, 2] { store { id: n } -> out { key: .id } } }
  run Load
}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state directory after one run."""
    (tmp_path / "plain.vague").write_text(PLAIN)
    assert reqon("plain.vague", cwd=tmp_path).code == 0
    return tmp_path


@pytest.fixture
def api() -> Iterator[OrdersApi]:
    with OrdersApi() as running:
        yield running


def everything(home: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in sorted((home / ".vague-data").rglob("*")):
        about = path.lstat()
        plain = path.is_file() and os.access(path, os.R_OK) and not path.name.endswith("-shm")
        found[str(path)] = (about.st_mtime_ns, about.st_mode, path.read_bytes() if plain else b"")
    return found


def doctor(home: Path, *arguments: object, **variables: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Its exit code and its findings by check; that it touches nothing is seen each time."""
    before = everything(home)
    ended = reqon("doctor", "--json", *arguments, cwd=home, variables=variables)
    assert everything(home) == before
    found: dict[str, list[dict[str, str]]] = {}
    for finding in ended.json["findings"]:
        found.setdefault(finding["check"], []).append(finding)
        assert finding["level"] == OK or finding["hint"], "what is wrong comes with what to do"
    return ended.code, found


def test_all_is_well_after_a_run(home: Path) -> None:
    code, found = doctor(home, "plain.vague")
    assert code == 0
    assert {finding["level"] for findings in found.values() for finding in findings} == {OK}
    assert {"state directory", "format", "permissions", "daemon", "locks", "records", "clock", "journals"} < set(found)
    assert {"files", "quarantine", "alerts", "disk", "executions", "descriptors", "missions"} < set(found)
    plain = reqon("doctor", "plain.vague", cwd=home)
    assert all(line.startswith("ok ") for line in plain.out.splitlines())
    assert len(plain.out.splitlines()) == sum(map(len, found.values()))


def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    ended = reqon("doctor", cwd=tmp_path)
    assert ended.code == 0
    assert "is not there yet; the first run makes it" in ended.out
    assert list(tmp_path.iterdir()) == []


def write(path: str, content: bytes) -> Callable[[Path], object]:
    def spoil(state: Path) -> None:
        (state / path).parent.mkdir(exist_ok=True, parents=True)
        (state / path).write_bytes(content)

    return spoil


def record_ahead(state: Path) -> None:
    (path,) = (state / "execution").glob("*.json")
    record = decode(path.read_bytes())
    path.write_bytes(encode({**record, "startedAt": "2999-01-01T00:00:00.000Z"}, pretty=True))


def newer_database(state: Path) -> None:
    with sqlite3.connect(state / "state.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()


@pytest.mark.parametrize(
    ("check", "level", "spoil"),
    [
        ("permissions", WARNING, lambda state: (state / "stores" / "out.json").chmod(0o644)),
        ("format", ERROR, write(".format", b"99\n")),
        ("records", WARNING, write("execution/Plain-2026-01-01T00-00-00.json", b"{")),
        ("clock", WARNING, record_ahead),
        ("journals", WARNING, write("execution/Gone-2026-01-01T00-00-00.journal", b"x")),
        ("leftovers", OK, write("stores/.out.json.12345678.tmp", b"x")),
        ("files", ERROR, write("sync-checkpoints.json", b"{")),
        ("files", ERROR, write("state-stores.json", b"[]")),
        ("files", ERROR, write("tokens.json", b"\0")),
        ("quarantine", WARNING, write("quarantine/20260101T000000Z-x.json", b"{")),
        ("alerts", WARNING, write("alerts/outbox/abc-def.json", b"{}")),
        ("sqlite", ERROR, write("state.db", b"no database at all" * 100)),
        ("sqlite", ERROR, newer_database),
    ],
)
def test_what_is_wrong_is_found(home: Path, check: str, level: str, spoil: Callable[[Path], object]) -> None:
    """D7, D8, D10, as far as looking goes."""
    spoil(home / ".vague-data")
    code, found = doctor(home)
    assert level in {finding["level"] for finding in found[check]}
    assert code == (3 if level == ERROR else 0)


def test_a_state_directory_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".vague-data").write_text("")
    ended = reqon("doctor", cwd=tmp_path)
    assert ended.code == 3
    assert "error    state directory: .vague-data is no directory -> " in ended.out


def test_a_lost_execution_and_a_running_one_are_told_apart(api: OrdersApi, tmp_path: Path) -> None:
    (tmp_path / "customers.vague").write_text(MISSION.replace("auth: bearer", "auth: none"))
    api.hold("/customers", at=2)
    with Process(["customers.vague"], cwd=tmp_path, variables={"SHOP_URL": api.url}) as process:
        assert api.reached.wait(60)
        running = reqon("doctor", cwd=tmp_path).out
        assert "ok       locks: 1 mission running" in running
        assert "ok       executions: none was cut off" in running
        process.signal(signal.SIGKILL)
        process.wait()
    _, lost = doctor(tmp_path)
    assert lost["executions"][0]["level"] == WARNING
    assert "1 execution lost with its process, such as exec_" in lost["executions"][0]["message"]


def test_credentials_are_named_and_never_shown(tmp_path: Path) -> None:
    """K1."""
    (tmp_path / "customers.vague").write_text(MISSION)
    missing = reqon("doctor", "customers.vague", cwd=tmp_path, SHOP_URL="https://shop.example.com")
    assert missing.code == 3
    assert "error    credentials: Customers, source Shop: " in missing.out
    secret = tmp_path / "auth.json"
    secret.write_text('{"Shop": {"token": "tok-12345678"}}')
    secret.chmod(0o644)
    there = reqon("doctor", "customers.vague", "--auth", secret, cwd=tmp_path, SHOP_URL="https://shop.example.com")
    assert there.code == 0
    assert "ok       credentials: Customers: there for Shop" in there.out
    assert "can be read by other users -> chmod 600" in there.out
    assert "tok-12345678" not in there.text


def test_alert_targets_are_knocked_at(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        alive = f"http://127.0.0.1:{server.getsockname()[1]}/hook-secret-path"
        code, found = doctor(home, REQON_ALERT_URLS=f"{alive} http://127.0.0.1:1/x exec:./no-such-program")
    assert code == 0
    assert [finding["level"] for finding in found["alert targets"]] == [OK, WARNING, WARNING]
    assert "hook-secret-path" not in str(found)


def test_postgres_is_asked_where_it_is_used(home: Path) -> None:
    def level(**variables: str) -> tuple[int, dict[str, str]]:
        code, found = doctor(home, **variables)
        return code, found["postgres"][0]

    with postgres.database() as url:
        assert level(REQON_STATE_URL=url)[1]["message"] == "answers; nothing is kept there yet"
        assert postgres.ask(url, "SELECT 1 FROM pg_namespace WHERE nspname = 'reqon'") == []
        (home / "shared.vague").write_text(PLAIN.replace("mission Plain {", "mission Plain {\n  stateStore: postgres"))
        assert reqon("shared.vague", cwd=home, REQON_STATE_URL=url).code == 0
        assert level(REQON_STATE_URL=url)[1]["message"] == "answers"
        postgres.ask(url, "INSERT INTO reqon.layout VALUES (99)")
        assert level(REQON_STATE_URL=url) == (3, {**level(REQON_STATE_URL=url)[1], "level": ERROR})
    code, dead = level(REQON_STATE_URL="postgresql://me:pass-word-9@127.0.0.1:1/gone")
    assert (code, dead["level"]) == (3, ERROR)
    assert "pass-word-9" not in str(dead)
    assert level()[1]["level"] == ERROR, "it is used, and nobody says where it is"


def test_few_descriptors_are_a_warning(home: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        _, found = doctor(home)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found["descriptors"][0]["level"] == WARNING
    assert "LimitNOFILE" in found["descriptors"][0]["hint"]


def test_a_broken_mission_file_is_told(home: Path) -> None:
    (home / "broken.vague").write_text("mission {")
    code, found = doctor(home, "broken.vague")
    assert code == 3
    assert found["missions"][0]["hint"] == "reqon check shows them"
