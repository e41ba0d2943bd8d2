"""Documents, log lines and webhook events that are damaged: said by name, never taken for less (spec/state.md 11)."""

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from reqon.clock import SYSTEM
from reqon.errors import SpecError
from reqon.http.openapi.loading import COMPILED_FROM, Specifications, forget
from reqon.webhooks.server import WebhookServer
from tests.support.damages import DAMAGES, seen
from tests.support.missions import Bench, mission
from tests.support.processes import reqon
from tests.support.rights import bound_by_file_modes
from tests.support.servers import ScriptedServer, reply
from tests.support.spec_server import SpecServer
from tests.support.specs import answering, document
from tests.support.webhooks import call


@pytest.fixture(autouse=True)
def _modes_count() -> Iterator[None]:
    with bound_by_file_modes():
        yield


# --- documents -------------------------------------------------------------------------------------------------------

SMALL = document({**answering({"type": "integer"})}, servers=[{"url": "/v1"}])
LARGE = {**SMALL, "info": {**SMALL["info"], "description": "x" * COMPILED_FROM}}


def count(specifications: Specifications, url: str) -> int:
    forget()
    return specifications.load(url, folder=Path()).count


@pytest.mark.parametrize("kind", ["document", "its .meta", "compiled"])
def test_a_damaged_document_is_downloaded_again_or_named(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D8, for the OpenAPI cache: what is used is the document, whatever lies in the cache."""
    with SpecServer(LARGE if kind == "compiled" else SMALL) as server:
        url = f"{server.url}/openapi.json"
        whole = tmp_path / "state" / "oas-cache"
        whole.parent.mkdir()
        expected = count(Specifications(whole, environment={}), url)
        suffix = {"document": ".json", "its .meta": ".meta", "compiled": None}[kind]
        for name, damage in DAMAGES.items():
            cache = tmp_path / f"damaged {name}" / "oas-cache"
            shutil.copytree(whole, cache)
            path = next(p for p in cache.iterdir() if (suffix or p.suffix) == p.suffix and _is(p, kind))
            damage(path)
            caplog.clear()
            forget()
            try:
                assert count(Specifications(cache, environment={}, offline=True), url) == expected, name
            except SpecError as error:
                said = error.message
            else:
                said = url
            assert url in said, (name, said)
            assert count(Specifications(cache, environment={}), url) == expected, name
            assert kind == "compiled" or path.name.removesuffix(".meta") in caplog.text or name == "doubled", name


def _is(path: Path, kind: str) -> bool:
    return (path.suffix not in (".json", ".meta")) == (kind == "compiled")


# --- log lines -------------------------------------------------------------------------------------------------------

FAILING = """
mission Alpha {
  store out: file("out")
  let items = [{ id: "a" }, { id: "b" }]
  action Load { for item in items { store item -> out { key: .id } } }
  action Check { match length(items) { 2 -> abort "not yet", _ -> continue } }
  run Load then Check
}
"""


@pytest.mark.parametrize("part", ["newer lines", "older lines"])
def test_damaged_log_lines_are_named_and_the_rest_is_shown(part: str, tmp_path: Path) -> None:
    """D8, for the lines of an execution; the record and the resume do without them."""
    (tmp_path / "alpha.vague").write_text(FAILING)
    assert reqon("alpha.vague", cwd=tmp_path).code == 1
    (kept,) = (tmp_path / ".vague-data" / "logs").glob("*.log")
    if part == "older lines":
        older = kept.with_name(f"{kept.stem}.1.log")
        shutil.copy(kept, older)
        path = older
    else:
        path = kept
    content = path.read_bytes()
    for name, damage in DAMAGES.items():
        damage(path)
        before = seen(path)
        for command in ("logs {}", "logs {} --json"):
            ended = reqon(*command.format(kept.stem).split(), cwd=tmp_path)
            assert "Traceback" not in ended.text, (name, ended)
            assert ended.code in (0, 3), (name, ended)
            # Root reads what it may not; a file that was only just made is empty; an object is a line, of whomever.
            harmless = name in ("doubled", "unreadable", "empty", "newer version")
            assert path.name in ended.err or harmless, (name, ended)
        assert seen(path) == before, name
        if part == "newer lines" and name in ("a link", "a FIFO", "a directory", "bad UTF-8"):
            again = reqon("alpha.vague", "--resume", cwd=tmp_path)
            assert again.code == 1, (name, again)
            assert "not yet" in again.text, (name, again)
            assert path.exists() or path.is_symlink()
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        path.write_bytes(content)


# --- webhook events --------------------------------------------------------------------------------------------------

WAITING = mission(
    'post "/jobs" { body: { callback: response.webhookUrl } }\n'
    'wait { expectedEvents: 3 }\nstore { id: "got", value: response } -> out'
)


@pytest.fixture
async def api() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as running:
        yield running


@pytest.fixture
async def server() -> AsyncIterator[WebhookServer]:
    async with WebhookServer(port=0) as running:
        yield running


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_event_is_named_and_kept_and_the_others_are_what_came(
    name: str, api: ScriptedServer, tmp_path: Path, server: WebhookServer, caplog: pytest.LogCaptureFixture
) -> None:
    """D8, for the calls that were taken. It did come: nobody calls again, so that nobody waits for another."""
    caplog.set_level(logging.WARNING)
    bench = Bench(api, tmp_path / "state", clock=SYSTEM, webhooks=server)
    damaged: list[tuple[str, object]] = []
    calling: list[asyncio.Task[Any]] = []

    async def later(url: str) -> None:
        answered = 0
        while answered < 400 and len(calling) < 99:
            answer = await call(url, {"n": 4})
            answered = answer.status
            await asyncio.sleep(0.05)

    async def jobs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        url = json.loads(api.seen[-1].body or b"null")["callback"]
        for number in (1, 2):
            assert (await call(url, {"n": number})).status == 200
        path = min((bench.state / "webhooks" / "events").glob("*/*.json"))
        DAMAGES[name](path)
        damaged.append((path.name, seen(path)))
        writer.write(reply(202, data={}, headers={"Connection": "close"}))
        await writer.drain()
        writer.close()
        calling.append(asyncio.create_task(later(url)))

    api.on("/jobs", jobs)
    async with asyncio.timeout(60):
        ran = (await bench.run(WAITING)).ok()
    for task in calling:
        task.cancel()
    (file_name, before) = damaged[0]
    got = [event["n"] for event in ran.out["got"]["value"]]
    if name == "doubled":  # read as the same once more, or not at all
        assert got in ([1, 2, 4], [2, 4])
        return
    assert got == [2, 4]
    assert file_name in caplog.text
    assert any(seen(path) == before for path in bench.state.rglob("*"))
