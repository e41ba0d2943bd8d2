import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from reqon.clock import rfc3339
from reqon.errors import AuthenticationError, ConfigurationError, FetchError
from reqon.events import AuthRefreshed
from reqon.http.auth import credentials_for
from reqon.http.client import Client
from reqon.http.connections import Connections
from reqon.http.messages import SourceSettings
from reqon.secrets import SECRETS
from tests.http.conftest import World, get
from tests.support.clocks import FakeClock
from tests.support.servers import ScriptedServer, Seen, redirect, reply


class Authority:
    """A token endpoint whose refresh tokens work once, and an API that takes the newest access token only."""

    def __init__(self, api: ScriptedServer, expires_in: object = 3600) -> None:
        self.api = api
        self.expires_in = expires_in
        self.forms: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.refresh = "refresh-0"
        self.given = 0
        api.on("/token", self.token).on("/entries", self.entries)

    def token(self, seen: Seen) -> bytes:
        form = dict(parse_qsl(seen.body.decode()))
        self.forms.append(form)
        self.headers.append(seen.headers)
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != self.refresh:
                return reply(
                    400, data={"error": "invalid_grant", "error_description": f"{form['refresh_token']} is used"}
                )
            self.refresh = f"refresh-{self.given + 1}"
        self.given += 1
        body = {"access_token": f"access-{self.given}", "token_type": "bearer", "expires_in": self.expires_in}
        return reply(data=body | ({"refresh_token": self.refresh} if form["grant_type"] == "refresh_token" else {}))

    def entries(self, seen: Seen) -> bytes:
        good = self.given and seen.headers.get("authorization") == f"Bearer access-{self.given}"
        return reply(data=[self.given]) if good else reply(401, data={"error": "expired"})


@pytest.fixture
def authority(api: ScriptedServer) -> Authority:
    return Authority(api)


@pytest.fixture
async def kept(api: ScriptedServer, clock: FakeClock, tmp_path: Path) -> AsyncIterator[World]:
    """A world that keeps its tokens."""
    connections = Connections(clock=clock, environment={}, state_directory=tmp_path, random=lambda: 0.5)
    yield World(api, clock, connections)
    await connections.close()


def client(world: World, **record: Any) -> Client:
    settings = SourceSettings(name="Depot", base=world.api.url)
    record = {"type": "oauth2", "tokenUrl": f"{world.api.url}/token", **record}
    credentials = credentials_for(settings, {"Depot": {k: v for k, v in record.items() if v is not None}}, {})
    return world.connections.client(settings, credentials, world.events.append, lambda *_: True)


CLIENT = {"clientId": "us", "clientSecret": "our-secret:/"}


async def test_client_credentials_bring_a_token_before_the_first_request(world: World, authority: Authority) -> None:
    depot = client(world, **CLIENT, scopes=["read", "write"], tokenParams={"audience": "https://x"})
    assert (await depot.send(get("/entries"))).value == [1]
    assert (await depot.send(get("/entries"))).value == [1]
    assert authority.forms == [
        {"grant_type": "client_credentials", "scope": "read write", "client_id": "us", "client_secret": "our-secret:/",
         "audience": "https://x"},
    ]  # fmt: skip
    (event,) = world.happened(AuthRefreshed)
    assert (event.source, event.reason, event.success) == ("Depot", "initial", True)
    assert event.expires_at == world.clock.now() + timedelta(hours=1)


async def test_client_and_secret_may_go_into_a_basic_header(world: World, authority: Authority) -> None:
    await client(world, **CLIENT, clientAuth="basic").send(get("/entries"))
    pair = base64.b64decode(authority.headers[0]["authorization"].removeprefix("Basic ")).decode()
    assert pair == "us:our-secret%3A%2F" and "client_id" not in authority.forms[0]


async def test_a_token_is_renewed_before_it_ends(world: World, authority: Authority) -> None:
    depot = client(world, **CLIENT)
    await depot.send(get("/entries"))
    world.clock.advance(3600 - 301)
    await depot.send(get("/entries"))
    assert len(authority.forms) == 1
    world.clock.advance(2)
    await depot.send(get("/entries"))
    assert len(authority.forms) == 2 and [e.reason for e in world.happened(AuthRefreshed)] == ["initial", "expiry"]


async def test_a_short_token_is_used_for_half_its_life(world: World, authority: Authority) -> None:
    authority.expires_in = "60"
    depot = client(world, **CLIENT)
    await depot.send(get("/entries"))
    world.clock.advance(29)
    await depot.send(get("/entries"))
    world.clock.advance(2)
    await depot.send(get("/entries"))
    assert len(authority.forms) == 2


@pytest.mark.parametrize("lifetime", [10**399, "nan", "soon", -5, None, True, [1], 10**12])
async def test_a_lifetime_that_is_none_is_not_known(world: World, authority: Authority, lifetime: object) -> None:
    authority.expires_in = lifetime
    depot = client(world, **CLIENT)
    await depot.send(get("/entries"))
    world.clock.advance(86_400)
    await depot.send(get("/entries"))
    assert len(authority.forms) == 1


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
async def test_an_endless_token_is_refused_by_name(world: World, name: str) -> None:
    """N1"""
    world.api.on("/token", reply(data={"access_token": "access-1", "expires_in": 60, name: "x" * 100_000}))
    with pytest.raises(AuthenticationError, match=f"the {name} .* has 100000 characters, the limit is 16384"):
        await client(world, **CLIENT).send(get("/entries"))


@pytest.mark.parametrize("expires", ["2026-03-01T08:15:10Z", 1772352910, 1772352910000, "1772352910"])
async def test_the_configured_end_of_a_token_may_have_any_form(
    world: World, authority: Authority, expires: object
) -> None:
    await client(world, **CLIENT, accessToken="old-access", expiresAt=expires).send(get("/entries"))
    assert len(authority.forms) == 1


async def test_a_401_renews_once_outside_the_retry_budget(world: World, authority: Authority) -> None:
    depot = client(world, accessToken="stale-token", refreshToken="refresh-0", clientId="us")
    answer = await depot.send(get("/entries"))
    assert answer.value == [1] and answer.attempts == 1 and world.clock.slept == []
    assert authority.forms[0] == {"grant_type": "refresh_token", "refresh_token": "refresh-0", "client_id": "us"}
    assert [e.reason for e in world.happened(AuthRefreshed)] == ["401"]


async def test_a_second_401_is_a_failure(world: World, authority: Authority) -> None:
    world.api.on("/entries", reply(401, data={}))
    with pytest.raises(FetchError) as caught:
        await client(world, **CLIENT).send(get("/entries"))
    assert caught.value.status_code == 401 and len(authority.forms) == 2


async def test_an_authorization_of_the_missions_own_is_left_alone(world: World, authority: Authority) -> None:
    with pytest.raises(FetchError) as caught:
        await client(world, accessToken="old-one", refreshToken="refresh-0").send(
            get("/entries", headers=(("Authorization", "mine"),))
        )
    assert caught.value.status_code == 401 and authority.forms == []


async def test_many_refused_requests_make_one_refresh(world: World, authority: Authority) -> None:
    depot = client(world, accessToken="stale-token", refreshToken="refresh-0")
    other = client(world, accessToken="stale-token", refreshToken="refresh-0")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.send(get("/entries"))) for one in (depot, other) for _ in range(10)]
    assert {t.result().value[0] for t in tasks} == {1} and len(authority.forms) == 1


async def test_a_failed_refresh_fails_all_who_wait_for_it(world: World, authority: Authority) -> None:
    authority.refresh = "another-one"
    depot = client(world, refreshToken="refresh-0")
    results = await asyncio.gather(*(depot.send(get("/entries")) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(r, AuthenticationError) and r.oauth_error == "invalid_grant" for r in results)
    assert len(authority.forms) == 1
    with pytest.raises(AuthenticationError) as caught:
        await depot.send(get("/entries"))
    assert len(authority.forms) == 1 and caught.value.kind == "auth"  # fails fast for the rest of the run
    assert caught.value.message.startswith(f"GET {world.api.url}/entries failed: no access token for source 'Depot'")
    with pytest.raises(AuthenticationError):
        await client(world, refreshToken="refresh-0").send(get("/entries"))
    assert len(authority.forms) == 2  # another run asks again


async def test_a_cancelled_request_does_not_lose_the_token_that_is_on_its_way(
    world: World, authority: Authority
) -> None:
    release = asyncio.Event()

    async def slowly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        authority.given, authority.refresh = 1, "refresh-1"
        writer.write(reply(data={"access_token": "access-1", "refresh_token": "refresh-1"}))
        await writer.drain()

    world.api.on("/token", slowly)
    depot = client(world, refreshToken="refresh-0")
    first = asyncio.ensure_future(depot.send(get("/entries")))
    while not world.api.seen:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    release.set()
    assert (await depot.send(get("/entries"))).value == [1]
    assert world.api.targets == ["/token", "/entries"]


@pytest.mark.parametrize("failure", [reply(500), reply(429), reply(503)])
async def test_a_failing_token_endpoint_is_asked_three_times(
    world: World, authority: Authority, failure: bytes
) -> None:
    world.api.on("/token", failure, failure, authority.token)
    await client(world, **CLIENT).send(get("/entries"))
    assert world.clock.slept == [1.0, 2.0]
    world.api.on("/token", failure)
    world.clock.advance(4000)
    with pytest.raises(AuthenticationError, match="3 times"):
        await client(world, **CLIENT).send(get("/entries"))


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, body=b"<html>"), reply(200, data={"access_token": 5}), reply(200, data=[]), reply(200, data={}),
        reply(200, data={"access_token": "x-token", "token_type": "mac"}), redirect("/x"),
        reply(401, data={"error": "invalid_client", "error_description": "secret our-secret:/"}), reply(404),
        reply(400, data={"error": {"a": 1}}),
    ],
)  # fmt: skip
async def test_a_senseless_token_answer_is_final_and_tells_nothing_secret(world: World, answer: bytes) -> None:
    """K1"""
    world.api.on("/token", answer)
    with pytest.raises(AuthenticationError) as caught:
        await client(world, **CLIENT).send(get("/entries"))
    assert world.api.targets == ["/token"]
    assert "our-secret" not in f"{caught.value.format()} {caught.value!r} {world.events}"


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"tokenUrl": "http://id.example/token", **CLIENT}, "https"),
        ({"tokenUrl": "id.example", **CLIENT}, "tokenUrl"),
        ({"tokenUrl": None, **CLIENT}, "tokenUrl or an accessToken"),
        ({"clientId": "us"}, "can get no token"),
    ],
)
async def test_credentials_that_can_get_no_token_are_a_configuration_error(
    world: World, record: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        client(world, **record)


async def test_new_tokens_are_on_disk_before_they_are_used(kept: World, authority: Authority, tmp_path: Path) -> None:
    await client(kept, refreshToken="refresh-0").send(get("/entries"))
    path = tmp_path / "tokens.json"
    assert path.stat().st_mode & 0o777 == 0o600
    (entry,) = json.loads(path.read_text())["tokens"].values()
    assert entry == {
        "source": "Depot", "accessToken": "access-1", "refreshToken": "refresh-1",
        "expiresAt": rfc3339(kept.clock.now() + timedelta(hours=1)), "obtainedAt": rfc3339(kept.clock.now()),
    }  # fmt: skip
    again = Connections(clock=kept.clock, environment={}, state_directory=tmp_path, random=lambda: 0.5)
    other = World(kept.api, kept.clock, again)
    await client(other, refreshToken="refresh-0").send(get("/entries"))
    assert len(authority.forms) == 1
    await again.close()


async def test_tokens_that_another_process_has_renewed_are_taken_over(
    kept: World, authority: Authority, tmp_path: Path
) -> None:
    first = client(kept, refreshToken="refresh-0")
    await first.send(get("/entries"))
    again = Connections(clock=kept.clock, environment={}, state_directory=tmp_path, random=lambda: 0.5)
    second = client(World(kept.api, kept.clock, again), refreshToken="refresh-0")
    kept.clock.advance(3500)
    await second.send(get("/entries"))
    assert (await first.send(get("/entries"))).value == [2]  # the first one's own refresh token is used up by now
    assert len(authority.forms) == 2
    await again.close()


async def test_tokens_that_cannot_be_kept_are_used_and_told(kept: World, authority: Authority, tmp_path: Path) -> None:
    """K3"""
    depot = client(kept, refreshToken="refresh-0")
    (tmp_path / "tokens.json").mkdir()
    with pytest.raises(AuthenticationError, match="cannot be used"):
        await depot.send(get("/entries"))  # what may lie there cannot be read: better not to use a token up
    (tmp_path / "tokens.json").rmdir()
    tmp_path.joinpath("tokens.json").write_text('{"version": 1, "tokens": {}}')
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        await depot.send(get("/entries"))
        tmp_path.chmod(0o700)
        event = kept.happened(AuthRefreshed)[-1]
        assert not event.success and "could not be kept" in (event.error or "") and event.expires_at


async def test_an_adopted_token_serves_all_who_use_the_source(kept: World, authority: Authority) -> None:
    authority.given = 7
    settings = SourceSettings(name="Depot", base=kept.api.url)
    bearer = credentials_for(settings, {"Depot": {"type": "bearer", "token": "old-token"}}, {})
    one = kept.connections.client(settings, bearer, kept.events.append, lambda *_: True)
    two = kept.connections.client(settings, bearer, kept.events.append, lambda *_: True)
    with pytest.raises(FetchError):
        await one.send(get("/entries"))
    assert not one.adopt({"token": ""}) and not one.adopt([1]) and one.adopt({"x": 1, "accessToken": "access-7"})
    assert (await two.send(get("/entries"))).value == [7]
    oauth = client(kept, accessToken="stale-token")
    assert oauth.adopt({"access_token": "access-7", "refresh_token": "refresh-0", "expires_in": 600})
    assert (await oauth.send(get("/entries"))).value == [7]
    kept.clock.advance(500)
    assert (await oauth.send(get("/entries"))).value == [8]


async def test_replaced_tokens_are_forgotten_in_the_end(world: World, authority: Authority) -> None:
    authority.expires_in = 10
    depot = client(world, refreshToken="refresh-0")
    for _ in range(50):
        await depot.send(get("/entries"))
        world.clock.advance(10)
    assert SECRETS.redact("access-50 refresh-50 access-49") == "*** *** ***"
    assert SECRETS.redact("access-30") == "access-30"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_callback_gets_new_tokens_before_they_are_used(
    fails: bool, authority: Authority, api: ScriptedServer, clock: FakeClock, tmp_path: Path
) -> None:
    """One that fails ends nothing: the tokens are kept and used, and the event says what went wrong."""
    heard: list[Any] = []

    async def on_refresh(source: str, tokens: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        used = [seen for seen in api.seen if "access-1" in seen.headers.get("authorization", "")]
        heard.append((source, tokens, len(used), (tmp_path / "tokens.json").exists()))
        if fails:
            raise KeyError("vault")

    connections = Connections(
        clock=clock, environment={}, state_directory=tmp_path, random=lambda: 0.5, on_token_refresh=on_refresh
    )
    world = World(api, clock, connections)
    depot = client(world, refreshToken="refresh-0", **CLIENT)
    assert (await depot.send(get("/entries"))).value == [1]
    ends = rfc3339(clock.now() + timedelta(hours=1))
    assert heard == [("Depot", {"accessToken": "access-1", "refreshToken": "refresh-1", "expiresAt": ends}, 0, True)]
    (told,) = [event for event in world.events if isinstance(event, AuthRefreshed)]
    wrong = "the new tokens could not be kept by on_token_refresh: KeyError: 'vault'"
    assert (told.success, told.error) == (not fails, wrong if fails else None)
    await connections.close()


class Provider:
    """A registered auth provider."""

    def __init__(self, config: Any) -> None:
        self.token = config["seed"]

    async def get_token(self) -> str:
        return str(self.token)

    async def refresh_token(self) -> str:
        self.token = "access-7"
        return str(self.token)


async def test_a_registered_provider_gives_and_refreshes_tokens(api: ScriptedServer, clock: FakeClock) -> None:
    Authority(api).given = 7
    connections = Connections(
        clock=clock, environment={}, state_directory=None, random=lambda: 0.5, auth_providers={"hmac": Provider}
    )
    settings = SourceSettings(name="Depot", base=api.url, auth="hmac")
    credentials = credentials_for(settings, {"Depot": {"type": "hmac", "seed": "first-token"}}, {})
    depot = connections.client(settings, credentials, lambda _: None, lambda *_: False)
    assert (await depot.send(get("/entries"))).value == [7]
    assert [s.headers["authorization"] for s in api.seen] == ["Bearer first-token", "Bearer access-7"]
    unknown = SourceSettings(name="Depot", base=api.url, auth="nobody")
    with pytest.raises(ConfigurationError) as caught:
        connections.client(unknown, credentials_for(unknown, None, {}), lambda _: None, lambda *_: False)
    assert "hmac" in (caught.value.hint or "")
    await connections.close()


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def run_refresher(api: ScriptedServer, state: Path, point: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.http.refresher", api.url, str(state), point,
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.mark.parametrize(
    ("point", "survives"),
    [
        ("token-received", False),
        ("before-tokens-sync", False),
        ("after-tokens-sync", False),
        ("before-tokens-replace", False),
        ("after-tokens-replace", True),
    ],
)
async def test_only_a_kill_between_the_answer_and_our_write_costs_a_rotating_token(
    api: ScriptedServer, authority: Authority, tmp_path: Path, point: str, survives: bool
) -> None:
    """K3"""
    assert (await run_refresher(api, tmp_path, point))[0] == -9
    assert authority.given == 1
    code, out = await run_refresher(api, tmp_path, "-")
    if survives:
        assert code == 0 and authority.given == 1
    else:
        assert code == 1 and "invalid_grant" in out and "success=False" in out
        assert "authorise again" not in out  # the event holds the finding, not the advice
    assert not [n for n in names(tmp_path) if n not in ("tokens.json", "tokens.lock") and not n.endswith(".tmp")]


async def test_a_wait_that_outlives_the_process_is_remembered(kept: World, tmp_path: Path) -> None:
    kept.api.on("/entries", reply(429, headers={"Retry-After": "40"}), reply(data=1))
    settings = SourceSettings(name="Depot", base=kept.api.url)
    first = kept.connections.client(settings, None, kept.events.append, lambda *_: False)
    await first.send(get("/entries"))
    (entry,) = json.loads((tmp_path / "rate-limits.json").read_text()).values()
    assert entry["origin"] == kept.api.url and entry["blockedUntil"] == "2026-03-01T08:15:40.000Z"
    clock = FakeClock()
    again = Connections(clock=clock, environment={}, state_directory=tmp_path, random=lambda: 0.5)
    await again.client(settings, None, kept.events.append, lambda *_: False).send(get("/entries"))
    assert clock.slept == [40.0]
    await again.close()


def test_importing_the_room_does_not_import_aiohttp() -> None:
    code = "import sys, reqon.http.connections; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Raising:
    def __init__(self, config: Any) -> None:
        pass

    async def get_token(self) -> str:
        raise LookupError("no vault here")


class Nothing(Raising):
    async def get_token(self) -> Any:
        return None


class Plain(Raising):
    def get_token(self) -> Any:
        return "plain-token"


class Unable(Raising):
    async def get_token(self) -> str:
        return "old-token"

    async def refresh_token(self) -> str:
        raise OSError("the vault is closed")


class Odd(Raising):
    async def get_headers(self) -> Any:
        return ["X-Signed"]


class Unmade:
    def __init__(self, config: Any) -> None:
        self.seed = config["nowhere"]


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        (Raising, "LookupError: no vault here"),
        (Nothing, "get_token gave NoneType, not a text"),
        (Unable, "OSError: the vault is closed"),
        (Odd, "get_headers gave list, not a dict"),
        (Unmade, "cannot be made: KeyError: 'nowhere'"),
        (Plain, None),
    ],
)
async def test_a_provider_that_cannot_is_named(
    provider: type, says: str | None, api: ScriptedServer, clock: FakeClock
) -> None:
    api.on("/entries", lambda seen: reply(401 if provider is Unable else 200, data=[1]))
    connections = Connections(
        clock=clock, environment={}, state_directory=None, random=lambda: 0.5, auth_providers={"vault": provider}
    )
    settings = SourceSettings(name="Depot", base=api.url, auth="vault")
    credentials = credentials_for(settings, {"Depot": {"type": "vault"}}, {})
    heard: list[Any] = []

    async def ask() -> Any:
        return (
            await connections.client(settings, credentials, heard.append, lambda *_: True).send(get("/entries"))
        ).value

    if says is None:
        assert await ask() == [1] and api.seen[0].headers["authorization"] == "Bearer plain-token"
    else:
        with pytest.raises(ConfigurationError if provider is Unmade else AuthenticationError, match=says) as caught:
            await ask()
        assert "the auth provider of source 'Depot'" in caught.value.message
    await connections.close()
