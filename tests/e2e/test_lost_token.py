"""A rotating refresh token that a kill cost, told to a real receiver, who learns no secret (reliability.md K1, K3)."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest

from tests.support.alert_target import AlertTarget, alert_target
from tests.support.daemon_process import DaemonProcess
from tests.support.servers import ScriptedServer, Seen, reply

MISSION = """
mission Ledger {{
  schedule: every 10 hours {{ runImmediately: true }}
  source Books {{ auth: oauth2, base: "{url}", retry: {{ maxAttempts: 1 }} }}
  store entries: file("entries")
  action Fetch {{
    get "/entries"
    store response -> entries {{ key: .id }}
  }}
  run Fetch
}}
"""
CLIENT_SECRET = 'client/secret+with "quotes" and a \\ 4711'
FIRST = "refresh-zero-5f0c7a"


class Authority:
    """A token endpoint whose refresh tokens work once; it repeats in its errors what it was sent."""

    def __init__(self, api: ScriptedServer) -> None:
        self.refresh, self.given = FIRST, 0
        self.secrets = [FIRST, CLIENT_SECRET]
        api.on("/token", self.token).on("/entries", self.entries)

    def token(self, seen: Seen) -> bytes:
        form = dict(parse_qsl(seen.body.decode()))
        if form["refresh_token"] != self.refresh:
            said = f"{form['refresh_token']} is used; you sent {json.dumps(form)} and {seen.headers}"
            return reply(400, data={"error": "invalid_grant", "error_description": said, "error_uri": quote(said)})
        self.given += 1
        self.refresh = f"refresh-{self.given}-8d1e22"
        access = f"access-{self.given}-77ab90"
        self.secrets += [self.refresh, access]
        return reply(data={"access_token": access, "refresh_token": self.refresh, "expires_in": 3600})

    def entries(self, seen: Seen) -> bytes:
        if seen.headers.get("authorization") != f"Bearer access-{self.given}-77ab90":
            return reply(401, data={"error": "expired", "sent": seen.headers})
        return reply(data=[{"id": "a"}])


def forms(secret: str) -> set[str]:
    """How a secret may be written: plain, base64, in a URL, in JSON."""
    coded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return {secret, coded, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]}


@pytest.fixture
async def api() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def receiver() -> AsyncIterator[AlertTarget]:
    async with alert_target() as target:
        yield target


@pytest.mark.parametrize(
    ("point", "survives"), [("token-received", False), ("before-tokens-replace", False), ("after-tokens-replace", True)]
)
async def test_a_token_that_a_kill_cost_is_alerted_without_a_secret(
    point: str, survives: bool, api: ScriptedServer, receiver: AlertTarget, tmp_path: Path
) -> None:
    """K3: the daemon is killed as the new token comes; the next has the old one only, and says so. K1, for alerts."""
    authority = Authority(api)
    missions, state = tmp_path / "missions", tmp_path / "state"
    missions.mkdir()
    (missions / "ledger.vague").write_text(MISSION.format(url=api.url))
    record = {"type": "oauth2", "clientId": "us", "clientSecret": CLIENT_SECRET, "refreshToken": FIRST}
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"Books": {**record, "tokenUrl": f"{api.url}/token"}}))
    auth.chmod(0o600)
    options: dict[str, Any] = {"auth": auth, "alert_on_failure": True, "alert_urls": receiver.url}

    def lives() -> str:
        """One daemon that is killed, then one that runs to the end of that mission."""
        with DaemonProcess(missions, state, dies_at=point, **options) as first:
            assert first.wait() == -9
        with DaemonProcess(missions, state, **options) as second:
            second.said("run ended", mission="Ledger", outcome="success" if survives else "failure")
            second.said("alert delivered", number=2)
            second.signal()
            assert second.wait() == 0
            return first.text + second.text

    text = await asyncio.to_thread(lives)
    assert authority.given == 1
    told = [(one.body["status"], one.body["alerts"][0]["labels"]["kind"]) for one in receiver.taken]
    assert told == [("firing", "crashed"), ("resolved", "crashed") if survives else ("firing", "auth_expired")]
    if not survives:
        said = receiver.taken[1].body["alerts"][0]["annotations"]
        assert "no access token for source 'Books': invalid_grant" in said["error"]
        assert "authorise again and replace it in the credentials" in said["hint"]
    written = b"".join(p.read_bytes() for p in state.rglob("*") if p.is_file() and "tokens.json" not in p.name)
    for secret in authority.secrets:
        for form in forms(secret):
            for one in receiver.taken:
                assert form.encode() not in one.raw, (form, one.body)
                assert form not in str(one.headers), form
            assert form not in text, form
            assert form.encode() not in written, form
