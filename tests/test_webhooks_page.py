"""docs/webhooks.md: every mission on it runs against an API that calls back, and the Python snippet too."""

import ast
import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reqon import execute
from reqon.clock import SYSTEM
from reqon.values import decode
from reqon.webhooks.server import WebhookServer
from tests.support.servers import ScriptedServer, reply
from tests.support.webhooks import call, signed

PAGE = (Path(__file__).parents[1] / "docs" / "webhooks.md").read_text("utf-8")
MISSIONS = {text.split()[1]: text for text in re.findall(r"^```reqon\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)}
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SECRETS = {"GITHUB_WEBHOOK_SECRET": "hub-secret", "STRIPE_WEBHOOK_SECRET": "stripe-secret"}


@pytest.fixture
async def shop() -> AsyncIterator[ScriptedServer]:
    """Whatever is posted with a `callback` is called back three times, each time with an id of its own."""
    async with ScriptedServer() as server:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = json.loads(server.seen[-1].body)
            for number in range(3):
                event = {"id": f"e{number}", "type": "paid", "status": "done", "size": asked.get("size")}
                await call(asked["callback"], event)
            writer.write(reply(202, data={"accepted": True}, headers={"Connection": "close"}))
            await writer.drain()
            writer.close()

        server.on("*", answer)
        yield server


async def _send_signed(server: WebhookServer) -> None:
    """What GitHub and Stripe send, as soon as somebody waits for it."""
    body = b'{"id":"s1","type":"charge.succeeded"}'
    stamp = int(SYSTEM.now().timestamp())
    stripe = signed(SECRETS["STRIPE_WEBHOOK_SECRET"], b"%d." % stamp + body)
    headers = {
        "Content-Type": "application/json",
        "X-Hub-Signature-256": f"sha256={signed(SECRETS['GITHUB_WEBHOOK_SECRET'], body)}",
        "Stripe-Signature": f"t={stamp},v1={stripe}",
    }
    async with asyncio.timeout(60):
        while not (open_ := server.desk.endpoints()):
            await asyncio.sleep(0.01)
        assert (await call(server.address + open_[0].registration.path, body=body, headers=headers)).status == 200


@pytest.mark.parametrize("name", MISSIONS)
async def test_every_mission_on_the_page_runs(name: str, shop: ScriptedServer, tmp_path: Path) -> None:
    async with WebhookServer(port=0) as server, asyncio.TaskGroup() as group:
        if name in ("Pushes", "Charges"):
            group.create_task(_send_signed(server))
        options: dict[str, Any] = {"environment": {"SHOP_URL": shop.url, **SECRETS}, "state_dir": tmp_path}
        result = await execute(MISSIONS[name], webhook_server=server, **options)
    assert result.success, result.errors
    records = [record for store in result.stores.values() for record in store.records()]
    expected = {"Jobs": 2, "Poll": 3}.get(name, 1)
    assert len(records) == expected
    if name == "Jobs":
        assert {record["id"] for record in records} == {"small", "large"}
    for path in (tmp_path / "webhooks" / "registrations").iterdir():
        assert decode(path.read_bytes())["status"] == "complete" or name == "Poll"


async def test_the_python_snippet_runs(
    shop: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOP_URL", shop.url)
    monkeypatch.setenv("REQON_STATE_DIR", str(tmp_path))
    (snippet,) = SNIPPETS
    code = compile(snippet, "webhooks.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(code, {"MISSION": MISSIONS["Exports"]})
    assert inspect.isawaitable(waiting)
    await waiting
    assert re.fullmatch(r"True http://localhost:\d+\n", capsys.readouterr().out)


def test_every_option_is_on_the_page() -> None:
    for option in ("timeout", "expectedEvents", "eventFilter", "storage", "retryOnTimeout"):
        assert f"| `{option}` |" in PAGE
    for option in ("path", "token", "signature", "algorithm", "encoding", "prefix", "timestampHeader", "tolerance"):
        assert option in PAGE
