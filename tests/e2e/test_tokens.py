"""Refresh tokens that work once, used by many missions and processes at the same time (spec/runtime.md 3.3, 3.4)."""

import asyncio
import json
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from tests.daemon.test_workers import children, ended
from tests.support.daemon_process import DaemonProcess
from tests.support.processes import Ended, reqon
from tests.support.servers import ScriptedServer, Seen, reply

MISSIONS = 4


class Rotating:
    """Gives tokens for a refresh token that works once; holds the first answer until all missions were refused."""

    def __init__(self, api: ScriptedServer) -> None:
        self.given, self.refused, self.replayed = 0, 0, 0
        self.all_refused = asyncio.Event()
        api.on("/token", self.token).on("/x", self.answer)
        self.api = api

    async def token(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        form = dict(parse_qsl(self.api.seen[-1].body.decode()))
        fits = form["refresh_token"] == f"refresh-{self.given}"
        if fits:
            self.given += 1
            number = self.given
            await self.all_refused.wait()
            body = {"access_token": f"access-{number}", "refresh_token": f"refresh-{number}", "expires_in": 3600}
            writer.write(reply(data=body))
        else:
            self.replayed += 1
            writer.write(reply(400, data={"error": "invalid_grant"}))
        await writer.drain()

    def answer(self, seen: Seen) -> bytes:
        if self.given and seen.headers.get("authorization") == f"Bearer access-{self.given}":
            return reply(data={"id": 1})
        self.refused += 1
        if self.refused == MISSIONS:
            self.all_refused.set()
        return reply(401, data={})


def missions(api: ScriptedServer, home: Path) -> None:
    home.mkdir()
    for number in range(MISSIONS):
        (home / f"m{number}.vague").write_text(
            f'mission M{number} {{ schedule: every 12 hours\nsource Api {{ auth: oauth2, base: "{api.url}" }}\n'
            f'store out: file("out{number}")\naction A {{ get "/x"\nstore response -> out }} run A }}'
        )
    record = {"type": "oauth2", "tokenUrl": f"{api.url}/token", "refreshToken": "refresh-0", "accessToken": "stale-0"}
    (home.parent / "auth.json").write_text(json.dumps({"Api": record}))
    (home.parent / "auth.json").chmod(0o600)


def kept(home: Path) -> list[str]:
    entries = json.loads((home / ".vague-data" / "tokens.json").read_text())["tokens"].values()
    return [entry["refreshToken"] for entry in entries]


def run_all(home: Path, workers: int) -> list[str]:
    """How the missions ended in one daemon that was asked to run them all."""
    state = home / ".vague-data"
    options = {"auth": home / "auth.json", "workers": workers}
    with DaemonProcess(home / "missions", state, **options) as daemon:
        daemon.ready()
        for number in range(MISSIONS):
            daemon.ask("trigger", mission=f"M{number}")
        found = [ended(state, f"M{number}")["status"] for number in range(MISSIONS)]
        assert len(children(daemon.process.pid)) == workers
        return found


@pytest.mark.parametrize("workers", [0, 2])
async def test_missions_of_one_daemon_share_one_refresh(workers: int, tmp_path: Path) -> None:
    async with ScriptedServer() as api:
        authority = Rotating(api)
        missions(api, tmp_path / "missions")
        assert await asyncio.to_thread(run_all, tmp_path, workers) == ["completed"] * MISSIONS
        assert (authority.given, authority.replayed) == (1, 0)
        assert kept(tmp_path) == ["refresh-1"]


async def test_processes_that_run_side_by_side_share_one_refresh(tmp_path: Path) -> None:
    async with ScriptedServer() as api:
        authority = Rotating(api)
        missions(api, tmp_path / "missions")
        runs = [
            asyncio.to_thread(reqon, f"missions/m{number}.vague", "--auth", "auth.json", cwd=tmp_path)
            for number in range(MISSIONS)
        ]
        ends: list[Ended] = await asyncio.gather(*runs)
        assert [one.code for one in ends] == [0] * MISSIONS, [one.text for one in ends]
        assert (authority.given, authority.replayed) == (1, 0)
        assert kept(tmp_path) == ["refresh-1"]
