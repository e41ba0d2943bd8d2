import asyncio
import os
import random
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reqon.errors import ConfigurationError, ReqonError
from reqon.values import Value, decode
from reqon_daemon.catalog import Catalog
from reqon_daemon.commands import Commands, reload_missions
from reqon_daemon.control import LIMIT_BYTES, ControlServer, call
from reqon_daemon.happenings import MissionsReloaded
from tests.daemon.test_catalog import plan, text
from tests.support.clocks import FakeClock
from tests.support.timetable import Timetable


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def echo(**arguments: Value) -> Value:
    return arguments


async def refuse() -> Value:
    raise ReqonError("not today", code="refused", hint="ask tomorrow")


async def broken() -> Value:
    raise ZeroDivisionError("a fault")


@asynccontextmanager
async def serving(state: Path, commands: Any = None) -> AsyncIterator[ControlServer]:
    server = ControlServer(state, commands or {"echo": echo, "refuse": refuse, "broken": broken})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def ask(state: Path, command: str, **arguments: Value) -> Value:
    return await asyncio.to_thread(lambda: call(state, command, **arguments))


async def raw(path: Path, data: bytes, seconds: float = 10.0) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        async with asyncio.timeout(seconds):
            return await reader.read()
    except (ConnectionError, BrokenPipeError):
        return b""
    finally:
        writer.close()


async def test_a_command_gets_its_answer(tmp_path: Path) -> None:
    async with serving(tmp_path):
        assert await ask(tmp_path, "echo", mission="M", seconds=7.5) == {"mission": "M", "seconds": 7.5}


async def test_a_refusal_keeps_its_reason_and_hint(tmp_path: Path) -> None:
    async with serving(tmp_path):
        with pytest.raises(ReqonError, match="not today") as caught:
            await ask(tmp_path, "refuse")
        assert (caught.value.hint, caught.value.diagnostics[0].code) == ("ask tomorrow", "refused")


@pytest.mark.parametrize(("command", "code"), [("nope", "unknown-command"), ("broken", "internal")])
async def test_what_goes_wrong_is_answered_and_the_server_lives(tmp_path: Path, command: str, code: str) -> None:
    async with serving(tmp_path):
        with pytest.raises(ReqonError) as caught:
            await ask(tmp_path, command)
        assert caught.value.diagnostics[0].code == code
        assert await ask(tmp_path, "echo") == {}


async def test_without_a_daemon_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no daemon answers") as caught:
        call(tmp_path, "status")
    assert caught.value.exit_code == 3


async def test_the_socket_is_private_and_goes_with_its_daemon(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert not server.path.exists()


async def test_a_socket_that_a_killed_daemon_left_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / "daemon.sock"))
    async with serving(tmp_path):
        assert await ask(tmp_path, "echo") == {}


async def test_a_deep_state_directory_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    descriptors = open_files()
    async with serving(deep):
        assert await ask(deep, "echo", a=1) == {"a": 1}
    assert open_files() == descriptors


@pytest.mark.parametrize("data", [b"\n", b"[]\n", b"{}\n", b'{"command": 7}\n', b"\xff\xfe\n", b"{" * 5000 + b"\n"])
async def test_nonsense_is_refused_politely(tmp_path: Path, data: bytes) -> None:
    async with serving(tmp_path) as server:
        answer = decode(await raw(server.path, data))
        assert answer["ok"] is False
        assert await ask(tmp_path, "echo") == {}


async def test_random_bytes_leave_the_socket_alive(tmp_path: Path) -> None:
    """N7, of the control socket: a thousandth of the number by default."""
    numbers = random.Random(11)
    async with serving(tmp_path) as server:
        before = open_files()
        for _ in range(100_000 if "REQON_SLOW" in os.environ else 100):
            junk = numbers.randbytes(numbers.randrange(1, 300)) + b"\n"
            answer = await raw(server.path, junk)
            assert not answer or "error" in decode(answer)
        assert await ask(tmp_path, "echo", a=1) == {"a": 1}
        assert open_files() <= before + 2


async def test_a_line_above_the_limit_is_dropped(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert await raw(server.path, b"x" * (LIMIT_BYTES * 3) + b"\n") == b""
        assert await ask(tmp_path, "echo") == {}


async def test_who_says_nothing_is_dropped_after_five_seconds(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await raw(server.path, b'{"command"') == b""
        assert 4.5 < loop.time() - began < 7


async def test_the_commands_of_a_daemon(tmp_path: Path) -> None:
    missions, state = tmp_path / "missions", tmp_path / "state"
    missions.mkdir()
    state.mkdir()
    (missions / "m.vague").write_text(text("M"))
    clock = FakeClock()
    table = Timetable(state, clock)
    table.took = lambda _: 60.0
    catalog = Catalog([missions], plan=plan, clock=clock)
    table.dispatcher.missions = catalog
    commands = Commands(
        catalog,
        table.scheduler,
        table.dispatcher,
        table.ledger,
        lambda: reload_missions(catalog, table.scheduler, table.bus),
    )
    async with serving(state, commands.table()), table.serving():
        assert await ask(state, "reload") == {
            "added": ["M"],
            "changed": {},
            "removed": [],
            "refused": [],
            "broken": {},
        }
        assert [type(h) for h in table.happenings if isinstance(h, MissionsReloaded)] == [MissionsReloaded]
        await table.pass_seconds(901)
        why = await ask(state, "why", mission="M")
        assert why["state"] == "running"
        assert why["running"][0]["trigger"] == "schedule"
        assert why["nextDue"] == "2026-03-01T08:45:00.000Z"
        assert why["decisions"][0]["outcome"] == "fired"
        assert (await ask(state, "trigger", mission="M"))["state"].startswith("queued behind")
        assert (await ask(state, "status"))["queued"] == 1
        assert (await ask(state, "cancel", mission="M"))["cancelled"] == 2
        await table.pass_seconds(1)
        paused = await ask(state, "pause", mission="M", seconds=60, reason="a test")
        assert paused["pause"]["reason"] == "a test"
        assert (await ask(state, "why", mission="M"))["state"] == "paused"
        assert (await ask(state, "unpause", mission="M"))["wasPaused"] is True
        (missions / "m.vague").write_text("mission M {")
        done = await ask(state, "reload")
        assert done["refused"] == [str(missions / "m.vague")]
        assert "m.vague:1:" in done["broken"][str(missions / "m.vague")][0]
        assert [m["mission"] for m in (await ask(state, "status"))["missions"]] == ["M"]
        with pytest.raises(ConfigurationError, match="no mission 'N' is loaded") as caught:
            await ask(state, "trigger", mission="N")
        assert "'M'" in (caught.value.hint or "") or "M" in (caught.value.hint or "")
        with pytest.raises(ConfigurationError):
            await ask(state, "trigger")
