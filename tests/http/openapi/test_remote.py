"""Documents from URLs: kept, asked for again, and never a way to anywhere else (runtime.md 10.1)."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reqon.errors import SpecError
from reqon.http.openapi.loading import NotHereError, Specifications, forget
from reqon.http.openapi.remote import NO_AUTH, SpecAuth, cache_name
from reqon.http.openapi.spec import Spec
from tests.support.servers import ScriptedServer, Seen, redirect, reply
from tests.support.specs import answering, document

CONTENT = document({**answering({"type": "integer"})}, servers=[{"url": "/v1"}])


@pytest.fixture(autouse=True)
def _forgetful() -> None:
    forget()


@pytest.fixture
async def api() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


async def load(specifications: Specifications, url: str, auth: SpecAuth = NO_AUTH) -> Spec:
    """As a run does: the server of the test lives in this loop, so that loading must not stop it."""
    return await asyncio.to_thread(specifications.load, url, folder=Path(), auth=auth)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.example.org/openapi.yaml", "api.example.org-openapi.yaml"),
        ("http://api.example.org/openapi.yaml", "api.example.org-openapi.yaml"),
        ("https://api.example.org/", r"api\.example\.org-openapi-[0-9a-f]{8}"),
        ("https://api.example.org/v3/openapi.json", r"api\.example\.org-openapi-[0-9a-f]{8}\.json"),
        ("https://api.example.org/openapi.json?v=3", r"api\.example\.org-openapi-[0-9a-f]{8}\.json"),
        ("https://api.example.org:8443/openapi.json", r"api\.example\.org-openapi-[0-9a-f]{8}\.json"),
        ("https://api.example.org/..%2f..%2fetc%2fpasswd", "api.example.org-passwd"),
        ("https://api.example.org/a%00b%0a.json", "api.example.org-a_b_.json"),
        ("https://[::1]/x", "1-x"),
    ],
)
def test_a_document_has_a_plain_name_in_the_cache(url: str, name: str) -> None:
    assert re.fullmatch(name, cache_name(url))
    assert "/" not in cache_name(url)


async def test_a_document_is_downloaded_once_and_used_without_asking(api: ScriptedServer, tmp_path: Path) -> None:
    api.on("/openapi.json", reply(data=CONTENT, headers={"ETag": '"one"'}))
    url = f"{api.url}/openapi.json"
    cache = tmp_path / "oas-cache"
    spec = await load(Specifications(cache, environment={}), url)
    assert spec.server() == f"{api.url}/v1"
    kept = (cache / cache_name(url)).read_bytes()
    about = {"url": url, "etag": '"one"', "sha256": hashlib.sha256(kept).hexdigest()}
    assert json.loads((cache / f"{cache_name(url)}.meta").read_text()) == about
    assert json.loads((cache / cache_name(url)).read_text()) == CONTENT
    forget()
    assert (await load(Specifications(cache, environment={}), url)).count == 1
    assert (await load(Specifications(cache, environment={}, offline=True), url)).count == 1
    assert len(api.seen) == 1
    assert "authorization" not in api.seen[0].headers


async def test_it_is_asked_for_again_when_that_is_wanted_and_kept_when_it_is_the_same(
    api: ScriptedServer, tmp_path: Path
) -> None:
    newer = document({**answering({}), **answering({}, identity="second", path="/second")})

    def answer(seen: Seen) -> bytes:
        if seen.headers.get("if-none-match") == '"one"' and len(api.seen) == 2:
            return reply(304)
        return reply(data=CONTENT if len(api.seen) == 1 else newer, headers={"ETag": '"one"'})

    api.on("/openapi.json", answer)
    url = f"{api.url}/openapi.json"

    async def count(*, refresh: bool) -> int:
        forget()
        specifications = Specifications(tmp_path / "oas-cache", environment={}, refresh=refresh)
        first = (await load(specifications, url)).count
        assert (await load(specifications, url)).count == first  # once for each process
        return first

    assert await count(refresh=False) == 1
    assert await count(refresh=True) == 1
    assert await count(refresh=True) == 2
    assert await count(refresh=False) == 2
    assert [seen.headers.get("if-none-match") for seen in api.seen] == [None, '"one"', '"one"']


async def test_without_the_network_a_document_that_is_not_kept_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotHereError, match="was not downloaded yet"):
        await load(Specifications(tmp_path, environment={}, offline=True), "https://api.example.org/openapi.json")
    assert list(tmp_path.iterdir()) == []


async def test_the_file_of_another_url_is_not_taken_for_it(api: ScriptedServer, tmp_path: Path) -> None:
    url = f"{api.url}/openapi.json"
    (tmp_path / cache_name(url)).write_text(json.dumps(document()))
    meta = tmp_path / f"{cache_name(url)}.meta"
    for text in ('{"url": "https://elsewhere/openapi.json"}', "{", "[]"):
        meta.write_text(text)
        with pytest.raises(NotHereError):
            await load(Specifications(tmp_path, environment={}, offline=True), url)


async def test_credentials_go_to_the_origin_of_the_document_only(api: ScriptedServer, tmp_path: Path) -> None:
    async with ScriptedServer() as other:
        other.on("/real.json", reply(data=CONTENT))
        api.on("/openapi.json", redirect("/moved.json"))
        api.on("/moved.json", reply(data=CONTENT))
        auth = SpecAuth("Depot", {"type": "bearer", "token": "spec-secret"}, {"X-Team": "north"})
        await load(
            Specifications(None, environment={"REQON_DEPOT_TOKEN": "api-secret"}), f"{api.url}/openapi.json", auth
        )
        assert [seen.headers["authorization"] for seen in api.seen] == ["Bearer spec-secret"] * 2
        assert [seen.headers["x-team"] for seen in api.seen] == ["north"] * 2
        assert other.seen == []


async def test_a_redirect_opens_no_private_address(api: ScriptedServer) -> None:
    """N3: by redirect."""
    async with ScriptedServer() as other:
        other.on("/real.json", reply(data=CONTENT))
        for target in (f"{other.url}/real.json", "http://169.254.169.254/latest", "http://[fd00:ec2::254]/"):
            api.on("/openapi.json", redirect(target))
            with pytest.raises(SpecError, match="address not allowed"):
                await load(Specifications(None, environment={}), f"{api.url}/openapi.json")
        assert other.seen == []


async def test_the_metadata_address_is_never_asked_for_a_document() -> None:
    for url in ("http://169.254.169.254/openapi.json", "http://[fd00:ec2::254]/x", "http://0.0.0.0/x"):
        with pytest.raises(SpecError, match="address not allowed"):
            await load(Specifications(None, environment={}), url)


async def test_references_lead_to_the_same_origin_only(api: ScriptedServer, tmp_path: Path) -> None:
    async with ScriptedServer() as other:
        paths: dict[str, Any] = {
            **answering({"$ref": "parts/schemas.yaml#/Bin"}),
            **answering({"$ref": f"{other.url}/schemas.yaml#/Bin"}, identity="away", path="/away"),
            **answering({"$ref": "/etc/passwd"}, identity="root", path="/root"),
            **answering({"$ref": "file:///etc/passwd"}, identity="file", path="/file"),
            **answering({"$ref": "http://169.254.169.254/x"}, identity="meta", path="/meta"),
        }
        api.on("/v3/openapi.json", reply(data=document(paths)))
        api.on("/v3/parts/schemas.yaml", reply(body=b"Bin: {type: integer}", content_type="text/plain"))
        spec = await load(Specifications(tmp_path, environment={}), f"{api.url}/v3/openapi.json")

        def check(identity: str) -> list[str]:
            operation = spec.operation(identity)
            assert operation is not None
            made = spec.check(operation, 200, None)
            assert made is not None
            return made.problems("x")

        assert await asyncio.to_thread(check, "get") == ["response: type mismatch: expected integer, got string"]
        for identity in ("away", "file", "meta"):
            with pytest.raises(SpecError, match="is not followed"):
                await asyncio.to_thread(check, identity)
        with pytest.raises(SpecError, match="404"):
            await asyncio.to_thread(check, "root")
        assert other.seen == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (reply(404), "404"),
        (reply(401), "401"),
        (reply(body=b"<html>", content_type="text/html"), "is no object"),
        (reply(body=b"", content_type=None), "is empty"),
        (reply(body=b"\xff\xfe\x00", content_type="application/octet-stream"), "YAML"),
    ],
)
async def test_what_is_no_document_is_not_taken_for_one(answer: bytes, problem: str, api: ScriptedServer) -> None:
    api.on("/openapi.json", answer)
    with pytest.raises(SpecError, match=problem) as raised:
        await load(Specifications(None, environment={}), f"{api.url}/openapi.json")
    assert raised.value.exit_code == 3


async def test_a_directory_that_cannot_be_written_costs_a_warning_only(
    api: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.on("/openapi.json", reply(data=CONTENT))
    (tmp_path / "file").write_text("")
    spec = await load(Specifications(tmp_path / "file" / "oas-cache", environment={}), f"{api.url}/openapi.json")
    assert spec.count == 1
    assert "cannot be kept" in caplog.text


async def test_the_query_of_a_url_is_never_shown(api: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """K1: a token in the address of a document."""
    caplog.set_level("DEBUG")
    api.on("/openapi.json", reply(data=document(answering({"$ref": "#/gone"}))))
    url = f"{api.url}/openapi.json?key=pineapple-juice"
    spec = await load(Specifications(None, environment={}), url)
    with pytest.raises(SpecError) as raised:
        spec.prepare("get")
    assert "pineapple" not in raised.value.format() + caplog.text
    api.on("/openapi.json", reply(data={"openapi": "3.0.0"}))
    forget()
    with pytest.raises(SpecError) as raised:
        await load(Specifications(None, environment={}), url)
    assert "pineapple" not in raised.value.format() + raised.value.spec + caplog.text
