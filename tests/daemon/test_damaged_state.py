"""A daemon whose state is damaged: it starts, says so, loses nothing, and runs what does not need the file."""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reqon.http.auth import credentials_for, load_auth_file
from reqon.http.messages import SourceSettings
from reqon.http.oauth import TokenFile, TokenSet
from reqon.state.directory import StateDirectory
from reqon.state.webhooks import Registration, StoredEvent, WebhookShelf
from reqon.values import decode
from reqon_daemon.happenings import RunEnded
from reqon_daemon.service import Service
from reqon_daemon.settings import DaemonSettings
from tests.support.damages import DAMAGES, seen
from tests.support.orders_api import OrdersApi
from tests.support.rights import bound_by_file_modes

SLOW = bool(os.environ.get("REQON_SLOW"))
START_SECONDS = 5.0
MINE = """
mission Mine {
  schedule: every 1 hour
  source Shop { auth: oauth2, base: env("SHOP"), retry: { maxAttempts: 1 } }
  store side: file("side")
  action Load {
    get "/orders" { params: { limit: 5 }, since: lastSync }
    store response.orders -> side { key: .id }
    queue { item: { id: "left", why: "nobody wants it" } }
  }
  run Load
}
"""
OTHER = """
mission Other {
  schedule: every 1 hour
  store own: file("own")
  action Load { store { id: "a" } -> own }
  run Load
}
"""
KEPT = """
mission Kept {
  schedule: every 1 hour
  stateStore: sqlite
  action Load { let x = 1 }
  run Load
}
"""
FAILING = """
mission Failing {
  schedule: every 1 hour
  action Load { abort "as it should" }
  run Load
}
"""
FILES = {
    "record": "execution/Mine-*.json",
    "sync checkpoints": "sync-checkpoints.json",
    "store": "stores/side.json",
    "dead letters": "dead-letter/Mine.json",
    "tokens": "tokens.json",
    "rate limits": "rate-limits.json",
    "slot ledger": "schedule/ledger.log",
    "incidents": "alerts/incidents.json",
    "outbox": "alerts/outbox/*.json",
    "webhook registration": "webhooks/registrations/*.json",
    "state stores": "state-stores.json",
    "database": "state.db",
    "format": ".format",
}


@dataclass(frozen=True, slots=True)
class Home:
    """Missions, credentials and a whole state directory, which each test takes a copy of."""

    folder: Path
    shop: OrdersApi

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def service(self, state: Path) -> Service:
        settings = DaemonSettings.read(
            {
                "paths": [self.folder / "missions"],
                "state_dir": state,
                "auth": self.folder / "auth.json",
                "alert_on_failure": True,
                "alert_url": ["http://127.0.0.1:1/nobody"],
                "webhook": True,
                "webhook_port": "0",
            },
            environ={},
        )
        return Service(settings, environment={"SHOP": f"{self.shop.url}/secure"})


async def served(service: Service, *missions: str) -> dict[str, RunEnded]:
    """Run a daemon until these missions ran once; what became of each, once it stopped."""
    ended: dict[str, RunEnded] = {}
    all_ended = asyncio.Event()

    def note(happening: RunEnded) -> None:
        ended.setdefault(happening.mission, happening)
        if set(missions) <= set(ended):
            all_ended.set()

    service.happenings.on(RunEnded, note)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(service.serve())
        await service.ready.wait()
        for mission in missions:
            service.dispatcher.trigger(mission)
        await all_ended.wait()
        service.stop()
    return ended


def more_of_state(home: Home) -> None:
    """What those missions do not leave behind by themselves."""
    fields = load_auth_file(home.folder / "auth.json", {})
    credentials = credentials_for(SourceSettings(name="Shop", base=home.shop.url), fields, {})
    assert credentials is not None
    tokens = TokenSet(access=home.shop.token, refresh="newer", obtained_at=datetime(2026, 3, 1, tzinfo=UTC))
    TokenFile(home.state).write(credentials.fingerprint, "Shop", tokens)
    (home.state / "rate-limits.json").write_text(
        '{\n  "Elsewhere": { "origin": "http://x", "until": 1 },\n  "B": {}\n}\n'
    )
    (home.state / "state-stores.json").write_text(
        '{\n  "Gone": { "store": "file" },\n  "Lost": { "store": "file" }\n}\n'
    )
    for ours in ("rate-limits.json", "state-stores.json"):
        (home.state / ours).chmod(0o600)
    shelf = WebhookShelf(StateDirectory(home.state))
    at = datetime(2026, 3, 1, tzinfo=UTC)
    record = decode(next((home.state / "execution").glob("Failing-*.json")).read_bytes())
    execution = record["executionId"]
    registration = Registration(
        id=f"{execution}-aaaaaaaaaaaaaaaa",
        execution_id=execution,
        mission="Failing",
        action="Load",
        step=0,
        place="",
        path="/hook",
        token=None,
        created_at=at,
    )
    event = StoredEvent(
        id="e1", registration_id=registration.id, received_at=at, method="POST", headers={}, query={}, body={"a": 1}
    )
    shelf.add(registration, 1, event)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("damaged")
    with OrdersApi(orders=5) as shop:
        (folder / "missions").mkdir()
        for name, text in (("mine", MINE), ("other", OTHER), ("failing", FAILING), ("kept", KEPT)):
            (folder / "missions" / f"{name}.vague").write_text(text)
        (folder / "auth.json").write_text(
            f'{{"Shop": {{"type": "oauth2", "accessToken": "{shop.token}", "refreshToken": "old", "clientId": "c",'
            f' "tokenUrl": "http://127.0.0.1:1/token"}}}}'
        )
        (folder / "auth.json").chmod(0o600)
        made = Home(folder, shop)
        before = os.umask(0)
        try:
            ended = asyncio.run(served(made.service(made.state), "Mine", "Other", "Failing", "Kept"))
            more_of_state(made)
        finally:
            os.umask(before)
        assert ended["Mine"].error is None, ended["Mine"]
        yield made


@pytest.fixture(autouse=True)
def _modes_count() -> Iterator[None]:
    with bound_by_file_modes():
        yield


@pytest.mark.parametrize("kind", FILES)
async def test_a_daemon_starts_on_a_damaged_file_and_runs_the_others(
    kind: str, home: Home, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """D8: fifteen damages of each kind of file that a daemon keeps."""
    caplog.set_level(logging.WARNING)
    for number, (name, damage) in enumerate(DAMAGES.items()):
        if not SLOW and number % 5 != len(kind) % 5:
            continue
        state = home.folder / f"{kind}-{number}"
        shutil.copytree(home.state, state, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
        path = max(state.glob(FILES[kind]))
        damage(path)
        before = seen(path)
        caplog.clear()
        capsys.readouterr()
        service = home.service(state)
        began = time.process_time()
        if (kind, name) == ("format", "unreadable"):  # nobody knows what this directory is
            with pytest.raises(ExceptionGroup) as refused:
                await served(service, "Mine")
            assert ".format" in str(refused.value.exceptions[0])
            continue
        ended = await served(service, "Mine", "Other")
        assert time.process_time() - began < START_SECONDS, (kind, name)
        assert ended["Other"].error is None, (kind, name, ended["Other"])
        said = caplog.text + "".join(capsys.readouterr())
        assert ended["Mine"].error is None or path.name in ended["Mine"].error, (kind, name, ended["Mine"])
        if not loses_nothing(kind, name):
            assert path.name in said or path.name in (ended["Mine"].error or ""), (kind, name, said)
            assert any(seen(p) == before for p in state.rglob("*")), (kind, name, said)
        shutil.rmtree(state)


def test_all_that_is_made_is_for_its_user_alone(home: Home) -> None:
    """K2: modes under umask 000, of every file that a daemon keeps."""
    assert {kind for kind, pattern in FILES.items() if not list(home.state.glob(pattern))} == set()
    wide = {path: oct(path.lstat().st_mode) for path in (home.state, *home.state.rglob("*")) if rights_of_others(path)}
    assert wide == {}


def rights_of_others(path: Path) -> int:
    return 0 if path.is_symlink() else path.lstat().st_mode & 0o077


def loses_nothing(kind: str, name: str) -> bool:
    """What nobody can tell from a file that is as it should be.

    The same twice; a log whose last line was not written to its end; an object with more names than we know, which
    are kept; a number without its line break; two bytes too many behind the last page of a database.
    """
    return (
        (name == "doubled" and kind != "format")
        or (kind == "slot ledger" and name in ("cut", "bad UTF-8"))
        or (kind, name) in (("rate limits", "newer version"), ("format", "cut"), ("database", "bad UTF-8"))
    )
